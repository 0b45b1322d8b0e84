// How numbers become colours; changing it draws anew and reads nothing.

import { coloursOf } from "./colours";
import { NO_FORM } from "./form";

export interface Shading {
    low: number;
    high: number;
    colours: Uint8Array;
    colourCount: number; // grows with every change of the colours, so that a drawer knows
    form: Float32Array;
    marked: number; // bits of the flags that are painted over
}

export function newShading(): Shading {
    return { low: 0, high: 1, colours: coloursOf("viridis"), colourCount: 1, form: NO_FORM, marked: 0 };
}

// One tile as a drawer gets it; `missing` says why there is none.
export interface TileNumbers {
    values: Float32Array;
    flags: Uint8Array | null;
    missing: string | null;
    version: number; // grows when rows came that were not there when it was read
    refresh: () => void; // read again where rows have come
}
