// Tiles of numbers: what a map is, and its tiles, of which those that were read last are kept.

import { MissingTile, type Store } from "./stores";

export interface Quantity {
    unit: string | null;
    type: string;
}

export interface MapEntry {
    name: string;
    shape: [number, number];
    levels: [number, number][];
    chunk: number;
    pixel_um: [number, number] | null;
    wavelengths_nm: number[];
    quantities: Record<string, Quantity>;
    warnings: string[];
    summary: Record<string, unknown>;
    done: boolean; // false while its rows are being written
}

export interface Catalogue {
    version: string;
    token: string | null;
    maps: MapEntry[];
}

export type Numbers = Float32Array | Uint8Array | Int32Array;

function numbers(type: string, buffer: ArrayBuffer): Numbers {
    switch (type) {
        case "<f4":
            return new Float32Array(buffer);
        case "<i4":
            return new Int32Array(buffer);
        default:
            return new Uint8Array(buffer);
    }
}

const KEPT = 96; // tiles of a megabyte

interface Kept {
    rows: number; // how many rows of the map there were when it was read
    numbers: Promise<Numbers>;
}

export class Tiles {
    private readonly kept = new Map<string, Kept>();
    private readonly growing = new Map<string, number>(); // rows that are there, of quantities that lack some

    constructor(
        readonly map: MapEntry,
        private readonly number: number,
        private readonly store: Store,
    ) {}

    // Rows are as high as `aspect` columns are wide.
    get aspect(): number {
        const pixel = this.map.pixel_um;
        return pixel ? pixel[0] / pixel[1] : 1;
    }

    // How many rows of a quantity there are.
    rows(quantity: string): number {
        return Math.min(this.growing.get(quantity) ?? Infinity, this.growing.get("") ?? Infinity, this.map.shape[0]);
    }

    // Learn how many rows there are; of all quantities where none is named.
    grow(rows: number, quantity = ""): void {
        this.growing.set(quantity, rows);
    }

    // Tell whether rows have come to a tile since it was read with `rows` of them there.
    isOld(quantity: string, level: number, row: number, rows: number): boolean {
        const bottom = Math.min(this.map.shape[0], (row + 1) * this.map.chunk * 2 ** level);
        return rows < bottom && this.rows(quantity) > rows;
    }

    read(quantity: string, level: number, row: number, column: number): Promise<Numbers> {
        const path = `maps/${this.number}/${quantity}/${level}/c/${row}/${column}`;
        const there = this.kept.get(path);
        this.kept.delete(path);
        if (there !== undefined && !this.isOld(quantity, level, row, there.rows)) {
            this.kept.set(path, there);
            return there.numbers;
        }
        const type = this.map.quantities[quantity].type;
        const made = { rows: this.rows(quantity), numbers: this.store.read(path).then((buffer) => numbers(type, buffer)) };
        made.numbers.catch(() => this.kept.delete(path));
        this.kept.set(path, made);
        if (this.kept.size > KEPT) {
            this.kept.delete(this.kept.keys().next().value as string);
        }
        return made.numbers;
    }

    // The pixel itself, of the finest level.
    async value(quantity: string, y: number, x: number): Promise<number> {
        const size = this.map.chunk;
        const tile = await this.read(quantity, 0, Math.floor(y / size), Math.floor(x / size));
        return tile[(y % size) * size + (x % size)];
    }

    // A part of a level as one array: rows [top, bottom), columns [left, right). What the file has lost is NaN.
    async part(quantity: string, level: number, box: Box): Promise<Part> {
        const { top, left, bottom, right } = box;
        const width = right - left;
        const values = new Float32Array((bottom - top) * width).fill(NaN);
        const size = this.map.chunk;
        const reads: Promise<void>[] = [];
        for (let row = Math.floor(top / size); row * size < bottom; row++) {
            for (let column = Math.floor(left / size); column * size < right; column++) {
                const copy = (tile: Numbers) => {
                    const [x0, x1] = [Math.max(left, column * size), Math.min(right, (column + 1) * size)];
                    for (let y = Math.max(top, row * size); y < Math.min(bottom, (row + 1) * size); y++) {
                        const start = (y - row * size) * size - column * size;
                        values.set(tile.subarray(start + x0, start + x1), (y - top) * width + x0 - left);
                    }
                };
                const lost = (failure: unknown) => {
                    if (!(failure instanceof MissingTile)) {
                        throw failure;
                    }
                };
                reads.push(this.read(quantity, level, row, column).then(copy, lost));
            }
        }
        await Promise.all(reads);
        return { shape: [bottom - top, width], values };
    }

    // A whole level, small enough to be looked at as one array.
    level(quantity: string, level: number): Promise<Part> {
        const [bottom, right] = this.map.levels[level];
        return this.part(quantity, level, { top: 0, left: 0, bottom, right });
    }
}

export interface Box {
    top: number;
    left: number;
    bottom: number;
    right: number;
}

export interface Part {
    shape: [number, number];
    values: Float32Array;
}
