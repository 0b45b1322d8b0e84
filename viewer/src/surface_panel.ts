// The view in three dimensions: what part it shows, and how mouse and keyboard turn it.

import { paper } from "./drawer";
import { element, notice } from "./elements";
import { save } from "./files";
import { cutOut } from "./masks";
import type { Pane } from "./panes";
import type { Scene } from "./scene";
import { type Pose, SurfaceDrawing } from "./surface";
import type { Words } from "./words";

const MOST = 400; // columns and rows of the mesh
const TURN = 0.1; // rad by a key
const UPRIGHT = 0.35; // share of half the longer side that the range of the colours rises to at first

export class SurfacePanel {
    readonly pose: Pose = { turn: -0.5, tilt: 0.9, near: 1, exaggeration: 1 };
    private drawing: SurfaceDrawing | null = null;
    private step: [number, number, number] = [1, 1, 1];
    private usual = 1; // the exaggeration at the middle of the slider

    constructor(
        private readonly scene: Scene,
        private readonly words: Words,
    ) {
        const { canvas } = this;
        element("surface-close").onclick = () => this.close();
        element("surface-picture").onclick = () => {
            this.draw();
            canvas.toBlob((blob) => blob && save(`${scene.maps[0].map.name}_3d.png`, blob));
        };
        element<HTMLInputElement>("surface-scale").oninput = () => this.draw();
        canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
        canvas.addEventListener("pointermove", (event) => {
            if (event.buttons) {
                this.turn(event.movementX * 0.008, event.movementY * 0.008);
            }
        });
        canvas.addEventListener("wheel", (event) => {
            event.preventDefault();
            this.approach(event.deltaY < 0 ? 1.15 : 1 / 1.15);
        });
        window.addEventListener("resize", () => this.draw());
    }

    get open(): boolean {
        return !element("surface").hidden;
    }

    toggle(pane: Pane): void {
        this.open ? this.close() : void this.show(pane);
    }

    close(): void {
        element("surface").hidden = true;
        element("tool-surface").setAttribute("aria-pressed", "false");
    }

    // Take a key where the surface is seen; tells whether it was one for it.
    key(event: KeyboardEvent): boolean {
        const slider = element<HTMLInputElement>("surface-scale");
        const raise = (by: number) => {
            slider.value = String(Number(slider.value) + by);
            this.draw();
        };
        const acts: Record<string, () => void> = {
            ArrowLeft: () => this.turn(-TURN, 0),
            ArrowRight: () => this.turn(TURN, 0),
            ArrowUp: () => this.turn(0, -TURN),
            ArrowDown: () => this.turn(0, TURN),
            "+": () => this.approach(1.15),
            "=": () => this.approach(1.15),
            "-": () => this.approach(1 / 1.15),
            PageUp: () => raise(0.1),
            PageDown: () => raise(-0.1),
        };
        if (!this.open || !(event.key in acts) || (event.target === slider && event.key.startsWith("Arrow"))) {
            return false;
        }
        acts[event.key]();
        return true;
    }

    // Draw anew, where it is open, with the colours that are chosen now.
    draw(): void {
        const { canvas, drawing, pose } = this;
        if (!this.open || !drawing) {
            return;
        }
        canvas.width = canvas.clientWidth;
        canvas.height = canvas.clientHeight;
        pose.exaggeration = this.usual * 10 ** Number(element<HTMLInputElement>("surface-scale").value);
        const known = this.scene.maps[0].map.pixel_um !== null && this.scene.unit === "nm";
        element("surface-figures").textContent = known ? `${this.words.say("heights")} × ${+pose.exaggeration.toPrecision(2)}` : "";
        drawing.draw(pose, this.scene.shading, this.step, paper());
    }

    async show(pane: Pane): Promise<void> {
        element("surface").hidden = false;
        this.drawing ??= this.start();
        if (!this.drawing) {
            this.close();
            notice(this.words.say("no3d"));
            return;
        }
        element("tool-surface").setAttribute("aria-pressed", "true");
        const { scene } = this;
        const [tiles] = scene.shown;
        const seen = pane.seen(tiles.map.shape);
        const longest = Math.max(seen.bottom - seen.top, seen.right - seen.left);
        const level = Math.min(tiles.map.levels.length - 1, Math.max(0, Math.ceil(Math.log2(longest / MOST))));
        const cell = 2 ** level;
        const [height, width] = tiles.map.levels[level];
        const box = {
            top: Math.floor(seen.top / cell),
            left: Math.floor(seen.left / cell),
            bottom: Math.min(height, Math.ceil(seen.bottom / cell)),
            right: Math.min(width, Math.ceil(seen.right / cell)),
        };
        const part = await tiles.part(scene.quantity, level, box);
        const place = { top: box.top * cell, left: box.left * cell, step: cell, width: part.shape[1] };
        part.values = cutOut(part.values, scene.masks, place);
        const less = scene.less ? await scene.less.part(scene.quantity, level, box) : null;
        const columns = part.shape[1];
        part.values = part.values.map((value, i) => {
            const y = (box.top + Math.floor(i / columns) + 0.5) * cell - 0.5;
            const x = (box.left + (i % columns) + 0.5) * cell - 0.5;
            return value - (less ? less.values[i] : 0) - scene.formAt(tiles, y, x);
        });
        const pixel = tiles.map.pixel_um ?? [1, 1];
        this.step = [pixel[1] * cell, pixel[0] * cell, 1e-3];
        const { low, high } = scene.shading;
        const long = Math.max(part.shape[1] * this.step[0], part.shape[0] * this.step[1]) / 2;
        this.usual = (UPRIGHT * long) / ((high - low) * this.step[2]);
        this.drawing.show(part, (low + high) / 2);
        this.draw();
        this.canvas.focus();
    }

    private get canvas(): HTMLCanvasElement {
        return element<HTMLCanvasElement>("surface-canvas");
    }

    private start(): SurfaceDrawing | null {
        const gl = this.canvas.getContext("webgl2", { alpha: false });
        return gl ? new SurfaceDrawing(gl) : null;
    }

    private turn(by: number, tilt: number): void {
        this.pose.turn += by;
        this.pose.tilt = Math.min(Math.PI / 2, Math.max(0, this.pose.tilt - tilt));
        this.draw();
    }

    private approach(factor: number): void {
        this.pose.near = Math.min(8, Math.max(0.3, this.pose.near * factor));
        this.draw();
    }
}
