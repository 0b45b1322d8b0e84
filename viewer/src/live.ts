// What is still being written or filtered: how many rows there are, asked for twice a second.

import { element, notice } from "./elements";
import type { Server } from "./server";
import type { Catalogue, Tiles } from "./tiles";
import type { Words } from "./words";

interface State {
    rows: number;
    done: boolean;
    lost: string | null; // why some rows cannot be read
    filtered?: { name: string; rows: number; failed: string | null };
}

const EVERY_MS = 400;

export class Live {
    private timer = 0;

    constructor(
        private readonly maps: () => Tiles[],
        private readonly server: Server | null,
        private readonly words: Words,
        private readonly grown: () => void,
    ) {
        for (const tiles of maps()) {
            if (!tiles.map.done) {
                tiles.grow(0);
            }
        }
        this.watch();
    }

    // Ask until everything is there.
    watch(): void {
        window.clearTimeout(this.timer);
        void this.look();
    }

    private async look(): Promise<void> {
        if (!this.server) {
            return;
        }
        let more = true;
        try {
            const { maps: states } = await this.server.get<{ maps: State[] }>("live.json");
            const told = this.maps().map((tiles, number) => this.take(tiles, states[number]));
            more = told.some((one) => one.waiting);
            element("live").textContent = told.map((one) => one.text).filter(Boolean).join(" | ");
            if (told.some((one) => one.finished)) {
                await this.describe();
            }
            if (told.some((one) => one.grown)) {
                this.grown();
            }
        } catch (failure) {
            notice((failure as Error).message);
        }
        if (more) {
            this.timer = window.setTimeout(() => void this.look(), EVERY_MS);
        }
    }

    private take(tiles: Tiles, state: State): { text: string; waiting: boolean; finished: boolean; grown: boolean } {
        const { map } = tiles;
        const { filtered } = state;
        const height = map.shape[0];
        let text = state.lost === null ? "" : `${this.words.say("missing")}: ${state.lost}`;
        let [waiting, grown, finished] = [false, false, false];
        if (!map.done) {
            grown = tiles.rows("height_nm") !== state.rows;
            tiles.grow(state.rows);
            finished = state.done;
            waiting = !state.done;
            text = state.done ? "" : `${state.rows} / ${height} ${this.words.say("rows")}`;
        }
        if (filtered && filtered.name in map.quantities) {
            grown ||= tiles.rows(filtered.name) !== filtered.rows;
            tiles.grow(filtered.rows, filtered.name);
            if (filtered.failed !== null) {
                notice(filtered.failed);
            } else if (filtered.rows < height) {
                waiting = true;
                text = `${this.words.say("filtering")} ${Math.round((100 * filtered.rows) / height)} %`;
            }
        }
        return { text, waiting, finished, grown: grown || finished };
    }

    // Learn what a run that has ended says of its map.
    private async describe(): Promise<void> {
        const found = await this.server?.get<Catalogue>("maps.json");
        this.maps().forEach(({ map }, number) => {
            const { done, summary, warnings, wavelengths_nm } = found?.maps[number] ?? map;
            Object.assign(map, { done, summary, warnings, wavelengths_nm });
        });
    }
}
