// The keyboard: what each key does.

import { element } from "./elements";
import type { Pane } from "./panes";

export interface KeyTargets {
    panes: () => Pane[];
    before: (event: KeyboardEvent) => boolean; // takes the key, where it is one for it
    escape: () => void;
}

const BUTTONS: Record<string, string> = {
    "0": "tool-home",
    p: "tool-line",
    c: "tool-circle",
    m: "tool-mask",
    n: "tool-note",
    v: "tool-read",
    "3": "tool-surface",
    a: "auto",
    s: "tool-picture",
    "?": "tool-help",
};

export function listenToKeys({ panes, before, escape }: KeyTargets): void {
    const acts: Record<string, () => void> = {
        "+": () => panes()[0].zoom(1.5),
        "=": () => panes()[0].zoom(1.5),
        "-": () => panes()[0].zoom(1 / 1.5),
        Escape: escape,
        ArrowLeft: () => panes()[0].pan(-0.1, 0),
        ArrowRight: () => panes()[0].pan(0.1, 0),
        ArrowUp: () => panes()[0].pan(0, -0.1),
        ArrowDown: () => panes()[0].pan(0, 0.1),
        ...Object.fromEntries(Object.entries(BUTTONS).map(([key, id]) => [key, () => element(id).click()])),
    };
    // before the map has seen it
    window.addEventListener("keydown", (event) => {
        const target = event.target as HTMLElement;
        const typed = target.tagName === "SELECT" || (target.tagName === "INPUT" && (target as HTMLInputElement).type !== "checkbox");
        if (event.ctrlKey || event.metaKey || event.altKey || (typed && event.key !== "Escape")) {
            return;
        }
        const pressing = target.tagName === "BUTTON" || target.tagName === "A" || target.tagName === "INPUT";
        if (pressing && (event.key === " " || event.key === "Enter")) {
            return;
        }
        if (target.id === "histogram" && event.key.startsWith("Arrow")) {
            return;
        }
        if (before(event)) {
            event.preventDefault();
            event.stopPropagation();
        } else if (event.key in acts) {
            event.preventDefault();
            event.stopPropagation();
            acts[event.key]();
        }
    }, true);
}
