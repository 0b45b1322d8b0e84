// Maps as tile sources of OpenSeadragon.

import OpenSeadragon from "openseadragon";

import type { TileNumbers } from "./shading";
import { MissingTile, type Numbers, type Tiles } from "./tiles";

export const NUMBERS = "numbers"; // the kind of data that the drawers take

export interface Shown {
    quantity: string;
    tiles: Tiles;
    less: Tiles | null; // shown is the difference to this map
    flags: boolean;
}

function floats(values: Numbers): Float32Array {
    return values instanceof Float32Array ? values : Float32Array.from(values);
}

async function numbersOf(shown: Shown, level: number, row: number, column: number): Promise<TileNumbers> {
    const { quantity, tiles, less } = shown;
    const size = tiles.map.chunk;
    try {
        const [first, second, flags] = await Promise.all([
            tiles.read(quantity, level, row, column),
            less ? less.read(quantity, level, row, column) : null,
            shown.flags && tiles.map.quantities.flags ? tiles.read("flags", level, row, column) : null,
        ]);
        let values = floats(first);
        if (second) {
            const other = floats(second);
            values = values.map((value, i) => value - other[i]);
        }
        return { values, flags: flags as Uint8Array | null, missing: null };
    } catch (failure) {
        if (failure instanceof MissingTile) {
            return { values: new Float32Array(size * size).fill(NaN), flags: null, missing: failure.message };
        }
        throw failure;
    }
}

export function sourceOf(shown: Shown, key: string): OpenSeadragon.TileSource {
    const { map } = shown.tiles;
    const finest = map.levels.length - 1;
    const source = new OpenSeadragon.TileSource({
        width: map.shape[1],
        height: map.shape[0],
        tileSize: map.chunk,
        tileOverlap: 0,
        minLevel: 0,
        maxLevel: finest,
    } as OpenSeadragon.TileSourceOptions);
    const open = source as unknown as Record<string, unknown>;
    open.getTileUrl = (level: number, x: number, y: number) => `${key}/${finest - level}/${y}/${x}`;
    open.hasTransparency = () => true;
    open.downloadTileStart = (job: { tile: { level: number; x: number; y: number } } & Record<string, CallableFunction>) => {
        const { level, x, y } = job.tile;
        numbersOf(shown, finest - level, y, x).then(
            (numbers) => job.finish(numbers, null, NUMBERS),
            (failure) => job.fail(String(failure), null),
        );
    };
    open.downloadTileAbort = () => undefined; // tiles that were read are kept
    return source;
}
