// The distribution of what is shown, with the range of the colours that can be dragged.

export interface Spread {
    values: Float64Array; // finite ones, sorted
}

export function spreadOf(values: Iterable<number>): Spread {
    return { values: Float64Array.from(values).filter(Number.isFinite).sort() };
}

export function rangeOf(spread: Spread, share = 0.005): [number, number] {
    const n = spread.values.length;
    if (!n) {
        return [0, 1];
    }
    const [low, high] = [spread.values[Math.floor(share * (n - 1))], spread.values[Math.ceil((1 - share) * (n - 1))]];
    return high > low ? [low, high] : [low - 0.5, high + 0.5];
}

export class Histogram {
    private view: [number, number] = [0, 1];
    private range: [number, number] = [0, 1];
    private counts = new Array<number>(140).fill(0);
    private colours: Uint8Array = new Uint8Array(1024);

    constructor(
        private readonly canvas: HTMLCanvasElement,
        private readonly changed: (low: number, high: number) => void,
    ) {
        canvas.addEventListener("pointerdown", (event) => this.drag(event));
        canvas.addEventListener("keydown", (event) => this.key(event));
    }

    show(spread: Spread): void {
        const [low, high] = rangeOf(spread, 0.001);
        const margin = 0.25 * (high - low);
        this.view = [low - margin, high + margin];
        this.counts.fill(0);
        for (const value of spread.values) {
            const bin = Math.floor(((value - this.view[0]) / (this.view[1] - this.view[0])) * this.counts.length);
            if (bin >= 0 && bin < this.counts.length) {
                this.counts[bin]++;
            }
        }
        this.draw();
    }

    set(low: number, high: number, colours: Uint8Array): void {
        this.range = [low, high];
        this.colours = colours;
        this.canvas.setAttribute("aria-valuetext", `${low.toPrecision(4)} … ${high.toPrecision(4)}`);
        this.draw();
    }

    private place(value: number): number {
        return ((value - this.view[0]) / (this.view[1] - this.view[0])) * this.canvas.width;
    }

    private drag(event: PointerEvent): void {
        const box = this.canvas.getBoundingClientRect();
        const valueAt = (e: PointerEvent) =>
            this.view[0] + ((e.clientX - box.left) / box.width) * (this.view[1] - this.view[0]);
        const start = valueAt(event);
        const [low, high] = this.range;
        const near = (high - low) * 0.15;
        const end = Math.abs(start - low) < near ? 0 : Math.abs(start - high) < near ? 1 : start < low ? 0 : start > high ? 1 : 2;
        const move = (e: PointerEvent) => {
            const by = valueAt(e) - start;
            const next: [number, number] = [end === 1 ? low : low + by, end === 0 ? high : high + by];
            if (end === 0 && start < low) next[0] = valueAt(e);
            if (end === 1 && start > high) next[1] = valueAt(e);
            if (next[1] > next[0]) this.changed(...next);
        };
        this.canvas.setPointerCapture(event.pointerId);
        this.canvas.addEventListener("pointermove", move);
        this.canvas.addEventListener("pointerup", () => this.canvas.removeEventListener("pointermove", move), { once: true });
        move(event);
    }

    private key(event: KeyboardEvent): void {
        const by = (this.range[1] - this.range[0]) * 0.05;
        const [low, high] = this.range;
        const next: Record<string, [number, number]> = {
            ArrowLeft: [low - by, high - by],
            ArrowRight: [low + by, high + by],
            ArrowUp: [low + by, high - by],
            ArrowDown: [low - by, high + by],
        };
        if (event.key in next) {
            event.preventDefault();
            event.stopPropagation();
            this.changed(...next[event.key]);
        }
    }

    private draw(): void {
        const context = this.canvas.getContext("2d");
        if (!context) {
            return;
        }
        const { width, height } = this.canvas;
        const most = Math.max(1, ...this.counts);
        const bar = width / this.counts.length;
        context.clearRect(0, 0, width, height);
        this.counts.forEach((count, i) => {
            const value = this.view[0] + ((i + 0.5) / this.counts.length) * (this.view[1] - this.view[0]);
            const share = Math.round((255 * (value - this.range[0])) / (this.range[1] - this.range[0]));
            const at = 4 * Math.min(255, Math.max(0, share));
            context.fillStyle = `rgb(${this.colours[at]} ${this.colours[at + 1]} ${this.colours[at + 2]})`;
            const size = Math.sqrt(count / most) * (height - 4);
            context.fillRect(i * bar, height - size, Math.ceil(bar), size);
        });
        context.fillStyle = "rgb(128 128 128 / 35%)";
        const [left, right] = this.range.map((value) => this.place(value));
        context.fillRect(0, 0, left, height);
        context.fillRect(right, 0, width - right, height);
        context.fillStyle = "rgb(230 60 60)";
        context.fillRect(left - 1, 0, 2, height);
        context.fillRect(right - 1, 0, 2, height);
    }
}
