// What the drawers of tiles have in common; they differ in what a tile is kept as, and in how one is put on the canvas.

import OpenSeadragon from "openseadragon";

import type { Shading, TileNumbers } from "./shading";
import { NUMBERS } from "./source";

export interface DrawnTile {
    level: number;
    x: number;
    y: number;
    bounds: OpenSeadragon.Rect;
    tiledImage: OpenSeadragon.TiledImage;
}

type Parameters = ConstructorParameters<typeof OpenSeadragon.DrawerBase>[0];

export abstract class NumberDrawer<Kept extends { numbers: TileNumbers }> extends OpenSeadragon.DrawerBase {
    constructor(options: Parameters) {
        super(options);
    }

    get defaultOptions(): OpenSeadragon.BaseDrawerOptions {
        return { usePrivateCache: true, preloadCache: true, broadCastTileInvalidation: false } as OpenSeadragon.BaseDrawerOptions;
    }

    getSupportedDataFormats(): string[] {
        return [NUMBERS];
    }

    canRotate(): boolean {
        return false;
    }

    setImageSmoothingEnabled(): void {
        // numbers are never blended
    }

    minimumOverlapRequired(): boolean {
        return false;
    }

    get shading(): Shading | undefined {
        return (this.viewer as unknown as { shading?: Shading }).shading;
    }

    _createDrawingElement(): HTMLCanvasElement {
        const canvas = document.createElement("canvas");
        canvas.setAttribute("aria-hidden", "true");
        return canvas;
    }

    abstract begin(shading: Shading): void;
    abstract put(kept: Kept, tile: DrawnTile, box: OpenSeadragon.Rect, shading: Shading): void;

    draw(images: OpenSeadragon.TiledImage[]): void {
        const { shading } = this;
        const size = this.viewport.getContainerSize();
        const [width, height] = [size.x, size.y].map((side) => Math.round(side * OpenSeadragon.pixelDensityRatio));
        if (this.canvas.width !== width || this.canvas.height !== height) {
            this.canvas.width = width;
            this.canvas.height = height;
        }
        if (!shading) {
            return;
        }
        this.begin(shading);
        for (const image of images) {
            const drawn = (image as unknown as { getTilesToDraw(): { tile: DrawnTile }[] }).getTilesToDraw();
            for (const { tile } of drawn) {
                const kept = this.getDataToDraw(tile as unknown as OpenSeadragon.Tile) as Kept | undefined;
                if (kept) {
                    kept.numbers.refresh();
                    this.put(kept, tile, this.viewportToDrawerRectangle(tile.bounds), shading);
                }
            }
        }
    }

    destroy(): void {
        this.destroyInternalCache();
        super.destroy();
        this.canvas.remove();
    }
}

export interface Placed {
    part: [number, number]; // of the chunk that lies in the map
    left: number; // of its corner, pixels of the finest level
    top: number;
    size: number; // of a chunk in such pixels
    full: [number, number];
    aspect: number; // rows are as high as so many columns are wide
}

export function placed(numbers: TileNumbers, tile: OpenSeadragon.Tile): Placed {
    const image = (tile as unknown as DrawnTile).tiledImage;
    const { source } = image as unknown as { source: OpenSeadragon.TileSource & { full: [number, number]; aspect: number } };
    const { full, aspect } = source;
    const chunk = Math.sqrt(numbers.values.length);
    const { level, x, y } = tile as unknown as DrawnTile;
    const step = 2 ** (source.maxLevel - level);
    const part = [full[1], full[0]].map((side, axis) => {
        const inside = side / step - [x, y][axis] * chunk;
        return Math.min(1, inside / chunk);
    }) as [number, number];
    const size = chunk * step;
    return { part, left: x * size, top: y * size, size, full, aspect };
}

// What lies under the map.
export function paper(): [number, number, number] {
    return matchMedia("(prefers-color-scheme: dark)").matches ? [0.18, 0.19, 0.21] : [0.93, 0.93, 0.92];
}
