// What the mouse and the arrow keys draw: lines, circles, masks, the places of notes; or only read.

import { element, notice } from "./elements";
import type { Mark } from "./marks";
import type { Pane } from "./panes";
import type { Point } from "./profile";
import type { Pointer } from "./readout";
import type { Words } from "./words";

export const TOOLS = ["line", "circle", "mask", "note", "read"] as const;
export type Tool = (typeof TOOLS)[number];

const STEP = 8; // points of the screen that an arrow key moves the cursor by; with Shift one pixel of the map

interface Hooks {
    panes: () => Pane[];
    done: (mark: Mark) => void;
    pointed: (pointer: Pointer) => void;
}

export class Tools {
    tool: Tool | null = null;
    private drawn: Mark | null = null;
    private cursor: Point | null = null;

    constructor(
        private readonly words: Words,
        private readonly hooks: Hooks,
    ) {}

    get marks(): Mark[] {
        const cursor: Mark[] = this.cursor ? [{ kind: "cursor", points: [this.cursor] }] : [];
        return [...(this.drawn ? [this.drawn] : []), ...cursor];
    }

    set(tool: Tool | null): void {
        this.tool = tool;
        this.cursor = null;
        if (this.drawn?.open) {
            this.drawn = null;
        }
        for (const name of TOOLS) {
            element(`tool-${name}`).setAttribute("aria-pressed", String(tool === name));
        }
        for (const { viewer } of this.hooks.panes()) {
            Object.assign(viewer, { panHorizontal: tool === null, panVertical: tool === null });
        }
        if (tool === "read") {
            this.moveCursor(0, 0, false);
        }
        notice(tool === null ? "" : this.words.say(`how-${tool}`));
        this.redraw();
    }

    toggle(tool: Tool): void {
        this.set(this.tool === tool ? null : tool);
    }

    // Forget what was drawn.
    clear(): void {
        this.drawn = null;
        this.redraw();
    }

    listen(pane: Pane): void {
        let pressed: Point | null = null;
        pane.element.addEventListener("pointermove", (event) => this.hooks.pointed({ pane, x: event.clientX, y: event.clientY }));
        pane.element.addEventListener("pointerdown", (event) => {
            pressed = this.tool ? pane.pixelAt(event.clientX, event.clientY) : null;
        }, true);
        pane.element.addEventListener("pointermove", (event) => {
            const to = pane.pixelAt(event.clientX, event.clientY);
            if (pressed && to && (this.tool === "line" || this.tool === "circle")) {
                this.drawn = { kind: this.tool, points: [pressed, to] };
                this.redraw();
            }
        }, true);
        pane.element.addEventListener("pointerup", (event) => {
            const to = pane.pixelAt(event.clientX, event.clientY);
            if (pressed && to) {
                this.release(pressed, to);
            }
            pressed = null;
        }, true);
        pane.element.addEventListener("dblclick", () => this.close(), true);
    }

    // Take a key where a tool is in use; tells whether it was one for it.
    key(event: KeyboardEvent): boolean {
        const moves: Record<string, [number, number]> = {
            ArrowLeft: [-1, 0],
            ArrowRight: [1, 0],
            ArrowUp: [0, -1],
            ArrowDown: [0, 1],
        };
        if (this.tool === null) {
            return false;
        }
        if (event.key in moves) {
            this.moveCursor(...moves[event.key], event.shiftKey);
            return true;
        }
        if (event.key === " " && this.cursor) {
            this.put(this.cursor);
            return true;
        }
        if (event.key === "Enter" && this.drawn?.open) {
            this.close();
            return true;
        }
        return false;
    }

    private release(from: Point, to: Point): void {
        if ((this.tool === "line" || this.tool === "circle") && this.drawn) {
            this.finish(this.drawn);
        } else if (this.tool === "mask" || this.tool === "note") {
            if (Math.hypot(to.x - from.x, to.y - from.y) * this.pointsPerPixel < 5) {
                this.put(to);
            }
        }
    }

    // Place a point: of lines and circles the first or the second.
    private put(point: Point): void {
        const { tool, drawn } = this;
        if (tool === null || tool === "read") {
            return;
        }
        if (tool === "note") {
            this.finish({ kind: "note", points: [point] });
        } else if (drawn?.open && drawn.kind === tool) {
            drawn.points.push(point);
            if (tool !== "mask") {
                this.finish({ kind: tool, points: drawn.points });
            }
        } else {
            this.drawn = { kind: tool, points: [point], open: true };
        }
        this.redraw();
    }

    private close(): void {
        const { drawn } = this;
        if (drawn?.open && drawn.kind === "mask" && drawn.points.length >= 3) {
            this.finish({ kind: "mask", points: drawn.points });
        }
    }

    private finish(mark: Mark): void {
        this.drawn = mark;
        this.redraw();
        this.hooks.done(mark);
    }

    private get pointsPerPixel(): number {
        const [pane] = this.hooks.panes();
        return pane.place({ x: 1, y: 0 }).x - pane.place({ x: 0, y: 0 }).x;
    }

    private moveCursor(x: number, y: number, finely: boolean): void {
        const [pane] = this.hooks.panes();
        const box = pane.element.getBoundingClientRect();
        const centre = pane.pixelAt(box.left + box.width / 2, box.top + box.height / 2);
        if (!centre) {
            return;
        }
        const step = finely ? 1 : Math.max(1, Math.round(STEP / this.pointsPerPixel));
        const middle = (value: number) => Math.floor(+value.toFixed(3)) + 0.5; // of the pixel, whatever was rounded
        const from = this.cursor ?? { x: middle(centre.x), y: middle(centre.y) };
        this.cursor = { x: from.x + x * step, y: from.y + y * step };
        const at = pane.place(this.cursor);
        this.hooks.pointed({ pane, x: box.left + at.x, y: box.top + at.y });
        this.redraw();
    }

    private redraw(): void {
        this.hooks.panes().forEach((pane) => pane.drawOverlay());
    }
}
