// What the drawers of tiles have in common; they differ in what a tile is kept as, and in how one is put on the canvas.

import OpenSeadragon from "openseadragon";

import type { Shading, TileNumbers } from "./shading";
import { NUMBERS } from "./source";

export interface DrawnTile {
    level: number;
    x: number;
    y: number;
    cacheKey: string;
    bounds: OpenSeadragon.Rect;
    tiledImage: OpenSeadragon.TiledImage;
}

type Parameters = ConstructorParameters<typeof OpenSeadragon.DrawerBase>[0];

export abstract class NumberDrawer<Kept extends { numbers: TileNumbers }> extends OpenSeadragon.DrawerBase {
    private standing = ""; // what was drawn last

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

    // Draw what is seen; not again what stands there already, for OpenSeadragon asks twice for every move.
    draw(images: OpenSeadragon.TiledImage[], again = false): void {
        const { shading } = this;
        const size = this.viewport.getContainerSize();
        const [width, height] = [size.x, size.y].map((side) => Math.round(side * OpenSeadragon.pixelDensityRatio));
        const resized = this.canvas.width !== width || this.canvas.height !== height;
        if (resized) {
            this.canvas.width = width;
            this.canvas.height = height;
        }
        if (!shading) {
            return;
        }
        const parts = images.flatMap((image) => this.partsOf(image));
        const looks = [shading.low, shading.high, shading.colourCount, shading.marked, ...shading.form, ...paper()];
        const places = parts.map(({ kept, tile, box }) => [
            tile.level, tile.x, tile.y, tile.cacheKey, kept.numbers.version, box.x, box.y, box.width, box.height,
        ]);
        const key = [looks, ...places].join();
        if (key === this.standing && !resized && !again) {
            return;
        }
        this.standing = key;
        this.begin(shading);
        parts.forEach(({ kept, tile, box }) => this.put(kept, tile, box, shading));
    }

    private partsOf(image: OpenSeadragon.TiledImage): { kept: Kept; tile: DrawnTile; box: OpenSeadragon.Rect }[] {
        const drawn = (image as unknown as { getTilesToDraw(): { tile: DrawnTile }[] }).getTilesToDraw();
        return drawn.flatMap(({ tile }) => {
            const kept = this.getDataToDraw(tile as unknown as OpenSeadragon.Tile) as Kept | undefined;
            kept?.numbers.refresh();
            return kept ? [{ kept, tile, box: this.viewportToDrawerRectangle(tile.bounds) }] : [];
        });
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
