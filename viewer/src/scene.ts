// What is shown: which maps, which quantity, less which form, in which colours; and its values.

import { fitForm, NO_FORM, unitOf, valueOf } from "./form";
import { cutOut } from "./masks";
import type { Point } from "./profile";
import { newShading } from "./shading";
import type { Part, Tiles } from "./tiles";

export type Mode = "both" | "first" | "second" | "difference";

export interface Value {
    value: number;
    sigma: number;
}

export class Scene {
    readonly shading = newShading();
    quantity = "height_nm";
    mode: Mode;
    forms: string[] = [];
    masks: Point[][] = []; // what they cover is left out

    constructor(public maps: Tiles[]) {
        this.mode = maps.length > 1 ? "both" : "first";
    }

    get shown(): Tiles[] {
        return this.mode === "both" ? this.maps : [this.maps[this.mode === "second" ? 1 : 0]];
    }

    get less(): Tiles | null {
        return this.mode === "difference" ? this.maps[1] : null;
    }

    get unit(): string {
        return this.maps[0].map.quantities[this.quantity].unit ?? "";
    }

    // A length given in widths of a column.
    lengthText = (px: number): string => {
        const pixel = this.maps[0].map.pixel_um;
        if (pixel === null) {
            return `${+px.toPrecision(3)} px`;
        }
        const um = px * pixel[1];
        return um >= 1000 ? `${+(um / 1000).toPrecision(3)} mm` : `${+um.toPrecision(3)} µm`;
    };

    // The value of a pixel of a map, as it is shown: less the form, or less the other map.
    async valueAt(tiles: Tiles, y: number, x: number): Promise<Value> {
        let value = await tiles.value(this.quantity, y, x);
        let sigma = this.quantity === "height_nm" ? await sigmaAt(tiles, y, x) : NaN;
        if (this.less) {
            value -= await this.less.value(this.quantity, y, x);
            sigma = Math.hypot(sigma, await sigmaAt(this.less, y, x));
        }
        const [left] = cutOut(Float32Array.of(value), this.masks, { top: y, left: x, step: 1, width: 1 });
        return { value: Number.isNaN(left) ? NaN : value - this.formAt(tiles, y, x), sigma };
    }

    formAt(tiles: Tiles, y: number, x: number): number {
        if (!this.forms.length) {
            return 0;
        }
        const unit = unitOf(tiles.map.shape, tiles.aspect);
        return valueOf(this.shading.form, (x + 0.5 - unit.x) / unit.scaleX, (y + 0.5 - unit.y) / unit.scaleY);
    }

    // The coarsest level of what is shown, before a form is taken off.
    async overview(): Promise<Part> {
        const [tiles] = this.shown;
        const coarsest = tiles.map.levels.length - 1;
        const level = await tiles.level(this.quantity, coarsest);
        if (this.less) {
            const other = await this.less.level(this.quantity, coarsest);
            level.values = level.values.map((value, i) => value - other.values[i]);
        }
        level.values = cutOut(level.values, this.masks, { top: 0, left: 0, step: 2 ** coarsest, width: level.shape[1] });
        return level;
    }

    // Fit the form to an overview, and take it off there.
    flatten(level: Part): Float32Array {
        const [tiles] = this.shown;
        const form = this.forms.length ? fitForm(this.forms, level, tiles.map.shape, tiles.aspect) : Float64Array.from(NO_FORM);
        this.shading.form = Float32Array.from(form);
        if (!this.forms.length) {
            return level.values;
        }
        const width = level.shape[1];
        const step = 2 ** (tiles.map.levels.length - 1);
        return level.values.map(
            (value, i) => value - this.formAt(tiles, (Math.floor(i / width) + 0.5) * step - 0.5, ((i % width) + 0.5) * step - 0.5),
        );
    }
}

async function sigmaAt(tiles: Tiles, y: number, x: number): Promise<number> {
    return tiles.map.quantities.sigma_nm ? tiles.value("sigma_nm", y, x) : NaN;
}
