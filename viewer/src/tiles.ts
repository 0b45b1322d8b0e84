// Tiles of numbers: what a map is, where its tiles come from, and those that were read last.

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
}

export interface Catalogue {
    version: string;
    maps: MapEntry[];
}

export interface Store {
    read(path: string): Promise<ArrayBuffer>;
}

// The file does not hold it.
export class MissingTile extends Error {}

// It is somewhere, but this page cannot read it.
export class OutOfReach extends Error {}

export class HttpStore implements Store {
    async read(path: string): Promise<ArrayBuffer> {
        const answer = await fetch(path);
        if (!answer.ok) {
            throw new MissingTile(await answer.text());
        }
        return answer.arrayBuffer();
    }
}

// The files of a folder that the reader of the page picked: pages opened from disk may not fetch.
export class FolderStore implements Store {
    constructor(private readonly files: Map<string, File>) {}

    async read(path: string): Promise<ArrayBuffer> {
        const file = this.files.get(path);
        if (file === undefined) {
            throw new MissingTile(`${path} is not in the folder`);
        }
        return file.arrayBuffer();
    }
}

// The coarsest level, which came with the page.
export class OverviewStore implements Store {
    constructor(private readonly tiles: Record<string, string>) {}

    async read(path: string): Promise<ArrayBuffer> {
        if (!(path in this.tiles)) {
            throw new OutOfReach(path);
        }
        return Uint8Array.from(atob(this.tiles[path]), (letter) => letter.charCodeAt(0)).buffer;
    }
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

export class Tiles {
    private readonly kept = new Map<string, Promise<Numbers>>();

    constructor(
        readonly map: MapEntry,
        private readonly number: number,
        private readonly store: Store,
    ) {}

    read(quantity: string, level: number, row: number, column: number): Promise<Numbers> {
        const path = `maps/${this.number}/${quantity}/${level}/c/${row}/${column}`;
        const there = this.kept.get(path);
        if (there !== undefined) {
            this.kept.delete(path);
            this.kept.set(path, there);
            return there;
        }
        const type = this.map.quantities[quantity].type;
        const found = this.store.read(path).then((buffer) => numbers(type, buffer));
        found.catch(() => this.kept.delete(path));
        this.kept.set(path, found);
        if (this.kept.size > KEPT) {
            this.kept.delete(this.kept.keys().next().value as string);
        }
        return found;
    }

    // The pixel itself, of the finest level.
    async value(quantity: string, y: number, x: number): Promise<number> {
        const size = this.map.chunk;
        const tile = await this.read(quantity, 0, Math.floor(y / size), Math.floor(x / size));
        return tile[(y % size) * size + (x % size)];
    }

    // A whole level, small enough to be looked at as one array.
    async level(quantity: string, level: number): Promise<{ shape: [number, number]; values: Float32Array }> {
        const [height, width] = this.map.levels[level];
        const size = this.map.chunk;
        const values = new Float32Array(height * width);
        for (let row = 0; row * size < height; row++) {
            for (let column = 0; column * size < width; column++) {
                const tile = await this.read(quantity, level, row, column);
                const right = Math.min(size, width - column * size);
                for (let y = 0; y < Math.min(size, height - row * size); y++) {
                    values.set(tile.subarray(y * size, y * size + right), (row * size + y) * width + column * size);
                }
            }
        }
        return { shape: [height, width], values };
    }
}
