// Tiles of numbers drawn pixel by pixel on a canvas, where there is no WebGL 2.

import OpenSeadragon from "openseadragon";

import { type DrawnTile, NumberDrawer, type Placed, placed } from "./drawer";
import { unitOf, valueOf } from "./form";
import type { Shading, TileNumbers } from "./shading";

interface Pixels extends Placed {
    numbers: TileNumbers;
    canvas: HTMLCanvasElement;
    shaded: string; // by what the canvas was coloured
}

export class CanvasDrawer extends NumberDrawer<Pixels> {
    static isSupported(): boolean {
        return true;
    }

    getType(): string {
        return "numbers-canvas";
    }

    internalCacheCreate(cache: OpenSeadragon.CacheRecord, tile: OpenSeadragon.Tile): Pixels {
        const numbers = (cache as unknown as { data: TileNumbers }).data;
        const canvas = document.createElement("canvas");
        canvas.width = canvas.height = Math.sqrt(numbers.values.length);
        return { numbers, canvas, shaded: "", ...placed(numbers, tile) };
    }

    internalCacheFree(kept: Pixels): void {
        kept.canvas.width = kept.canvas.height = 1;
    }

    begin(): void {
        this.canvas.getContext("2d")?.clearRect(0, 0, this.canvas.width, this.canvas.height);
    }

    put(kept: Pixels, _tile: DrawnTile, box: OpenSeadragon.Rect, shading: Shading): void {
        const context = this.canvas.getContext("2d");
        if (!context) {
            return;
        }
        const key = [shading.low, shading.high, shading.colourCount, shading.marked, kept.numbers.version, ...shading.form].join();
        if (kept.shaded !== key) {
            colour(kept, shading);
            kept.shaded = key;
        }
        const [left, right] = [Math.round(box.x), Math.round(box.x + box.width)];
        const [top, bottom] = [Math.round(box.y), Math.round(box.y + box.height)];
        const side = kept.canvas.width;
        context.imageSmoothingEnabled = false;
        context.drawImage(
            kept.canvas, 0, 0, kept.part[0] * side, kept.part[1] * side, left, top, right - left, bottom - top,
        );
    }
}

function colour(kept: Pixels, shading: Shading): void {
    const side = kept.canvas.width;
    const context = kept.canvas.getContext("2d") as CanvasRenderingContext2D;
    const image = context.createImageData(side, side);
    const pixels = new Uint32Array(image.data.buffer);
    const table = new Uint32Array(shading.colours.buffer);
    const { values, flags } = kept.numbers;
    const { x: centreX, y: centreY, scaleX, scaleY } = unitOf(kept.full, kept.aspect);
    const step = kept.size / side;
    const flat = shading.form.every((value) => value === 0);
    const factor = 255 / (shading.high - shading.low);
    for (let i = 0; i < values.length; i++) {
        let value = values[i];
        if (!flat) {
            const u = (kept.left + ((i % side) + 0.5) * step - centreX) / scaleX;
            const v = (kept.top + (Math.floor(i / side) + 0.5) * step - centreY) / scaleY;
            value -= valueOf(shading.form, u, v);
        }
        if (kept.numbers.missing !== null) {
            pixels[i] = ((i % side) + Math.floor(i / side)) % 12 < 6 ? 0xff3333bf : 0xff1a1a59;
        } else if (Number.isFinite(value)) {
            const share = Math.round((value - shading.low) * factor);
            pixels[i] = flags && flags[i] & shading.marked ? 0xffe61aff : table[Math.min(255, Math.max(0, share))];
        }
    }
    context.putImageData(image, 0, 0);
}
