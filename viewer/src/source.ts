// Maps as tile sources of OpenSeadragon.

import OpenSeadragon from "openseadragon";

import { cutOut } from "./masks";
import type { Point } from "./profile";
import type { TileNumbers } from "./shading";
import { MissingTile } from "./stores";
import type { Numbers, Tiles } from "./tiles";

export const NUMBERS = "numbers"; // the kind of data that the drawers take

export interface Shown {
    quantity: string;
    tiles: Tiles;
    less: Tiles | null; // shown is the difference to this map
    flags: boolean;
    masks: Point[][]; // what they cover is left out
    grown: () => void; // called when a tile that is drawn has more rows
}

type Content = Pick<TileNumbers, "values" | "flags" | "missing">;

function floats(values: Numbers): Float32Array {
    return values instanceof Float32Array ? values : Float32Array.from(values);
}

async function contentOf(shown: Shown, level: number, row: number, column: number): Promise<Content> {
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
        const step = 2 ** level;
        const place = { top: row * size * step, left: column * size * step, step, width: size };
        values = cutOut(values, shown.masks, place);
        return { values, flags: flags as Uint8Array | null, missing: null };
    } catch (failure) {
        if (failure instanceof MissingTile) {
            return { values: new Float32Array(size * size).fill(NaN), flags: null, missing: failure.message };
        }
        throw failure;
    }
}

async function numbersOf(shown: Shown, level: number, row: number, column: number): Promise<TileNumbers> {
    const { quantity, tiles, less } = shown;
    const rowsNow = () => Math.min(tiles.rows(quantity), less ? less.rows(quantity) : Infinity);
    let rows = rowsNow();
    let reading = false;
    const made: TileNumbers = {
        ...(await contentOf(shown, level, row, column)),
        version: 0,
        refresh: () => {
            const now = rowsNow();
            if (reading || now <= rows || !(tiles.isOld(quantity, level, row, rows) || less?.isOld(quantity, level, row, rows))) {
                return;
            }
            reading = true;
            contentOf(shown, level, row, column).then(
                (content) => {
                    Object.assign(made, content, { version: made.version + 1 });
                    [rows, reading] = [now, false];
                    shown.grown();
                },
                () => (reading = false), // drawn anew, it is asked for anew
            );
        },
    };
    return made;
}

export function sourceOf(shown: Shown, key: string): OpenSeadragon.TileSource {
    const { map, aspect } = shown.tiles;
    const finest = map.levels.length - 1;
    // rows that are not as high as columns are wide are drawn so
    const source = new OpenSeadragon.TileSource({
        width: map.shape[1],
        height: map.shape[0] * aspect,
        tileWidth: map.chunk,
        tileHeight: map.chunk * aspect,
        tileOverlap: 0,
        minLevel: 0,
        maxLevel: finest,
    } as OpenSeadragon.TileSourceOptions);
    const open = source as unknown as Record<string, unknown>;
    const tilesOf = (level: number) => map.levels[finest - level].map((side) => Math.ceil(side / map.chunk));
    const atPoint = source.getTileAtPoint.bind(source);
    open.full = map.shape;
    open.aspect = aspect;
    open.getNumTiles = (level: number) => {
        const [rows, columns] = tilesOf(level);
        return new OpenSeadragon.Point(columns, rows);
    };
    open.getTileAtPoint = (level: number, point: OpenSeadragon.Point) => {
        const [rows, columns] = tilesOf(level);
        const at = atPoint(level, point);
        return new OpenSeadragon.Point(Math.min(at.x, columns - 1), Math.min(at.y, rows - 1));
    };
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
