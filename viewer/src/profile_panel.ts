// The panel below the map: the curve along a line or a circle, its figures, its table.

import { element, notice } from "./elements";
import { save } from "./files";
import type { Mark } from "./marks";
import { circlePath, csvOf, drawCurve, figuresOf, linePath, type Sample, samplesOf } from "./profile";
import type { Scene } from "./scene";
import type { Words } from "./words";

export class ProfilePanel {
    private samples: Sample[] = [];
    private mark: Mark | null = null;

    constructor(
        private readonly scene: Scene,
        private readonly words: Words,
        closed: () => void,
    ) {
        element("profile-close").onclick = () => {
            this.mark = null;
            this.samples = [];
            element("profile").hidden = true;
            closed();
        };
        element("profile-csv").onclick = () => {
            const text = csvOf(this.samples, scene.unit, scene.maps[0].map.pixel_um);
            save("profile.csv", new Blob([text], { type: "text/csv" }));
        };
        window.addEventListener("resize", () => this.draw());
    }

    async show(mark: Mark): Promise<void> {
        this.mark = mark;
        await this.read();
    }

    // Read anew what is shown, where a profile is open.
    async read(): Promise<void> {
        const { mark, scene } = this;
        if (!mark || mark.points.length < 2) {
            return;
        }
        const [tiles] = scene.shown;
        const { aspect } = tiles;
        const [from, to] = mark.points;
        const radius = Math.hypot(to.x - from.x, (to.y - from.y) * aspect);
        const path = mark.kind === "line" ? linePath(from, to, aspect) : circlePath(from, radius, aspect);
        try {
            this.samples = await samplesOf(path, (y, x) => scene.valueAt(tiles, y, x), tiles.map.shape);
        } catch (failure) {
            notice(`${this.words.say("missing")}: ${(failure as Error).message}`);
            return;
        }
        element("profile").hidden = false;
        this.draw();
    }

    draw(): void {
        if (element("profile").hidden) {
            return;
        }
        const { words, scene } = this;
        const figures = figuresOf(this.samples);
        const long = scene.lengthText(this.samples.at(-1)?.at ?? 0);
        element("profile-figures").textContent = figures
            ? [
                  `${words.say("length")} ${long}`,
                  ...(["pv", "rq", "mean", "step"] as const).map(
                      (name) => `${words.say(name)} ${+figures[name].toPrecision(5)} ${scene.unit}`,
                  ),
              ].join("   ")
            : words.say("nothing");
        drawCurve(element("curve") as unknown as SVGElement, this.samples, scene.unit, scene.lengthText);
    }
}
