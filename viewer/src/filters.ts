// Filters of the heights: the server works them out with the package's own, all rows of the map.

import { element, notice } from "./elements";
import type { Scene } from "./scene";
import type { Server } from "./server";

interface Filtered {
    name: string;
    unit: string;
    type: string;
    said: string;
}

export class FilterPanel {
    private last: string | null = null;

    constructor(
        private readonly scene: Scene,
        private readonly server: Server | null,
        private readonly begun: (name: string) => void,
    ) {
        element("filter-section").hidden = server === null;
        element<HTMLFormElement>("filter-form").onsubmit = (event) => {
            event.preventDefault();
            void this.apply();
        };
        element("filter-clear").onclick = () => this.forget();
    }

    private async apply(): Promise<void> {
        const [s, l] = ["filter-s", "filter-l"].map((id) => element<HTMLInputElement>(id).value.trim() || null);
        try {
            const made = await this.server?.post<Filtered>("filter", { s, l });
            if (made) {
                this.drop();
                this.last = made.name;
                for (const tiles of this.scene.maps) {
                    tiles.map.quantities[made.name] = made;
                    tiles.grow(0, made.name);
                }
                element<HTMLSelectElement>("layer").add(new Option(made.said, made.name));
                this.choose(made.name);
            }
        } catch (failure) {
            notice((failure as Error).message);
        }
    }

    private forget(): void {
        this.drop();
        this.choose("height_nm");
    }

    private drop(): void {
        if (this.last !== null) {
            const { last } = this;
            this.scene.maps.forEach(({ map }) => delete map.quantities[last]);
            document.querySelector(`#layer option[value="${last}"]`)?.remove();
            this.last = null;
        }
    }

    private choose(name: string): void {
        element<HTMLSelectElement>("layer").value = name;
        this.begun(name);
    }
}
