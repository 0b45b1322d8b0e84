// The value under the cursor, in the line at the foot of the page.

import { element } from "./elements";
import type { Pane } from "./panes";
import type { Scene } from "./scene";
import { OutOfReach } from "./stores";
import type { Tiles } from "./tiles";
import type { Word, Words } from "./words";

export const FLAGS = [1, 2, 4, 8, 16, 32];

export interface Pointer {
    pane: Pane;
    x: number; // on the page
    y: number;
}

export class Readout {
    private pointer: Pointer | null = null;

    constructor(
        private readonly scene: Scene,
        private readonly words: Words,
    ) {}

    async show(pointer: Pointer): Promise<void> {
        this.pointer = pointer;
        const at = pointer.pane.pixelAt(pointer.x, pointer.y);
        const readout = element<HTMLOutputElement>("readout");
        if (!at) {
            return;
        }
        const [y, x] = [Math.floor(at.y), Math.floor(at.x)];
        const [height, width] = this.scene.maps[0].map.shape;
        if (y < 0 || x < 0 || y >= height || x >= width) {
            readout.value = "";
            return;
        }
        let told: string;
        try {
            told = (await Promise.all(this.scene.shown.map((tiles) => this.tell(tiles, y, x)))).join("   |   ");
        } catch (failure) {
            told =
                failure instanceof OutOfReach
                    ? this.words.say("folder")
                    : `${this.words.say("missing")}: ${(failure as Error).message}`;
        }
        if (pointer === this.pointer) {
            readout.value = `y ${y}  x ${x}   ${told}`;
        }
    }

    private async tell(tiles: Tiles, y: number, x: number): Promise<string> {
        const { value, sigma } = await this.scene.valueAt(tiles, y, x);
        const flags = tiles.map.quantities.flags ? await tiles.value("flags", y, x) : 0;
        const marks = FLAGS.filter((bit) => flags & bit).map((bit) => this.words.say(`flag${bit}` as Word));
        const number = Number.isFinite(value)
            ? `${+value.toPrecision(9)}${Number.isFinite(sigma) ? ` ± ${+sigma.toPrecision(3)}` : ""} ${this.scene.unit}`
            : this.words.say("nothing");
        return [number, ...marks].join(", ");
    }
}
