// The range of the colours: limits, histogram, colour map.

import { COLOUR_MAPS, coloursOf } from "./colours";
import { element } from "./elements";
import { Histogram, rangeOf, type Spread, spreadOf } from "./histogram";
import type { Shading } from "./shading";

export class RangePanel {
    automatic = true; // until someone sets it
    private readonly histogram: Histogram;
    private spread: Spread = { values: new Float64Array() };

    constructor(
        private readonly shading: Shading,
        private readonly changed: () => void,
    ) {
        this.histogram = new Histogram(element("histogram"), (low, high) => this.choose(low, high));
        const colours = element<HTMLSelectElement>("colours");
        COLOUR_MAPS.forEach((name) => colours.add(new Option(name, name)));
        colours.onchange = () => {
            shading.colours = coloursOf(colours.value);
            shading.colourCount++;
            this.set(shading.low, shading.high);
        };
        for (const id of ["low", "high"]) {
            element<HTMLInputElement>(id).onchange = () => {
                const [low, high] = ["low", "high"].map((one) => element<HTMLInputElement>(one).valueAsNumber);
                if (low < high) {
                    this.choose(low, high);
                }
            };
        }
        element("auto").onclick = () => this.reset();
    }

    reset(): void {
        this.automatic = true;
        this.set(...rangeOf(this.spread));
    }

    // Learn what is shown; the range follows it until one was chosen.
    show(values: Float32Array): void {
        this.spread = spreadOf(values);
        this.histogram.show(this.spread);
        if (this.automatic) {
            this.set(...rangeOf(this.spread));
        } else {
            this.set(this.shading.low, this.shading.high);
        }
    }

    private choose(low: number, high: number): void {
        this.automatic = false;
        this.set(low, high);
    }

    private set(low: number, high: number): void {
        Object.assign(this.shading, { low, high });
        element<HTMLInputElement>("low").value = String(+low.toPrecision(6));
        element<HTMLInputElement>("high").value = String(+high.toPrecision(6));
        this.histogram.set(low, high, this.shading.colours);
        this.changed();
    }
}
