// The outline of a wafer and its dies over the map: by their sizes, or as `cpikan wafer --json` gives them.

import { element, notice, svgPart } from "./elements";
import type { Place } from "./marks";
import type { Point } from "./profile";
import type { MapEntry } from "./tiles";

interface Site {
    x_mm: number;
    y_mm: number;
    full: boolean;
    sfqr_um?: number | null;
    psfqr_um?: number | null;
}

interface WaferNumbers {
    center_px: [number, number];
    diameter_mm: number;
    site_mm: [number, number];
    site_axes_deg: number;
    sites: Site[];
}

const MOST = 5000; // dies that are drawn
const INPUTS = ["wafer-diameter", "die-width", "die-height", "die-x", "die-y"] as const;

export class DieGrid {
    private measured: WaferNumbers | null = null;

    constructor(
        private readonly map: MapEntry,
        private readonly changed: () => void,
    ) {
        element("dies-section").hidden = map.pixel_um === null;
        for (const id of [...INPUTS, "dies-shown"]) {
            element<HTMLInputElement>(id).onchange = changed;
        }
        element<HTMLInputElement>("wafer-file").onchange = () => void this.load();
    }

    private async load(): Promise<void> {
        const [file] = element<HTMLInputElement>("wafer-file").files ?? [];
        try {
            const found = JSON.parse(await file.text()) as WaferNumbers;
            const numbers = [...found.center_px, found.diameter_mm, ...found.site_mm, found.site_axes_deg];
            if (!numbers.every(Number.isFinite) || !Array.isArray(found.sites)) {
                throw new TypeError("no sites");
            }
            this.measured = found;
            const shown = [found.diameter_mm, ...found.site_mm, 0, 0];
            INPUTS.forEach((id, i) => (element<HTMLInputElement>(id).value = String(shown[i])));
            element<HTMLInputElement>("dies-shown").checked = true;
            this.changed();
        } catch (failure) {
            notice(`${file.name}: cpikan wafer --json (${(failure as Error).message})`);
        }
    }

    draw = (place: Place): SVGElement[] => {
        const pixel = this.map.pixel_um;
        if (!element<HTMLInputElement>("dies-shown").checked || pixel === null) {
            return [];
        }
        const [diameter, width, height, left, up] = INPUTS.map((id) => element<HTMLInputElement>(id).valueAsNumber || 0);
        const turn = ((this.measured?.site_axes_deg ?? 0) * Math.PI) / 180;
        const [x, y] = this.measured ? this.measured.center_px.map((at) => at + 0.5) : [this.map.shape[1] / 2, this.map.shape[0] / 2];
        // from the centre of the wafer, y up
        const onView = (xMm: number, yMm: number): Point =>
            place({ x: x + (1000 * xMm) / pixel[1], y: y - (1000 * yMm) / pixel[0] });
        const turned = (xMm: number, yMm: number) =>
            onView(xMm * Math.cos(turn) - yMm * Math.sin(turn), xMm * Math.sin(turn) + yMm * Math.cos(turn));
        const middle = onView(0, 0);
        const parts = [svgPart("circle", { class: "wafer", cx: middle.x, cy: middle.y, r: onView(diameter / 2, 0).x - middle.x })];
        const sites = this.measured?.sites ?? sitesOf(diameter, [width, height], [left, up]);
        const points = turned(width, 0).x - middle.x;
        for (const site of sites.slice(0, MOST)) {
            const corners = [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([i, j]) =>
                turned(site.x_mm + (i * width) / 2, site.y_mm + (j * height) / 2),
            );
            const kind = site.full ? "die" : "die partial";
            parts.push(svgPart("polygon", { class: kind, points: corners.map((p) => `${p.x},${p.y}`).join(" ") }));
            const range = site.sfqr_um ?? site.psfqr_um;
            if (range != null && points > 44) {
                const at = turned(site.x_mm, site.y_mm);
                parts.push(svgPart("text", { class: "die", x: at.x, y: at.y, "text-anchor": "middle" }, `${(1000 * range).toPrecision(3)} nm`));
            }
        }
        return parts;
    };
}

// All dies that share a point with the wafer; one has its centre at `offset` from the wafer's.
export function sitesOf(diameter: number, [width, height]: [number, number], offset: [number, number]): Site[] {
    if (!(diameter > 0 && width > 0 && height > 0) || (diameter / width) * (diameter / height) > MOST) {
        return [];
    }
    const radius = diameter / 2;
    const sites: Site[] = [];
    const span = (size: number, from: number) =>
        [Math.floor((-radius - from) / size), Math.ceil((radius - from) / size)] as const;
    const [[left, right], [low, high]] = [span(width, offset[0]), span(height, offset[1])];
    for (let row = low; row <= high; row++) {
        for (let column = left; column <= right; column++) {
            const [x, y] = [offset[0] + column * width, offset[1] + row * height];
            const near = Math.hypot(Math.max(0, Math.abs(x) - width / 2), Math.max(0, Math.abs(y) - height / 2));
            const far = Math.hypot(Math.abs(x) + width / 2, Math.abs(y) + height / 2);
            if (near < radius) {
                sites.push({ x_mm: x, y_mm: y, full: far <= radius });
            }
        }
    }
    return sites;
}
