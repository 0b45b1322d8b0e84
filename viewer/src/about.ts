// What is known about the maps, in words and numbers.

import { element } from "./elements";
import type { MapEntry } from "./tiles";
import type { Words } from "./words";

function number(value: unknown, digits = 4): string {
    return typeof value === "number" ? String(+value.toPrecision(digits)) : "–";
}

function rowsOf(map: MapEntry, words: Words): [string, string][] {
    const { summary } = map;
    const share = summary.valid_fraction;
    return [
        [words.say("size"), `${map.shape[0]} × ${map.shape[1]}`],
        [words.say("pixel"), map.pixel_um ? `${map.pixel_um[0]} × ${map.pixel_um[1]} µm` : words.say("unknown")],
        [words.say("wavelengths"), map.wavelengths_nm.map((value) => `${number(value, 7)} nm`).join(", ") || "–"],
        [words.say("method"), String(summary.method ?? "–")],
        [words.say("valid"), typeof share === "number" ? `${(100 * share).toFixed(2)} %` : "–"],
        [words.say("sigma"), `${number(summary.sigma_nm_median, 3)} nm`],
        ["PV", `${number(summary.pv_nm)} nm`],
        ["RMS", `${number(summary.rms_nm)} nm`],
    ];
}

export function tellAbout(maps: MapEntry[], words: Words): void {
    element("about").replaceChildren();
    for (const map of maps) {
        const list = document.createElement("dl");
        for (const [name, value] of rowsOf(map, words)) {
            const term = document.createElement("dt");
            const text = document.createElement("dd");
            [term.textContent, text.textContent] = [name, value];
            list.append(term, text);
        }
        const warnings = document.createElement("ul");
        for (const warning of map.warnings) {
            const item = document.createElement("li");
            item.textContent = warning;
            warnings.append(item);
        }
        element("about").append(list, warnings);
    }
}
