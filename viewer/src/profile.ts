// Values along a line or a circle, at the pixels of the finest level, and their curve.

import { svgPart } from "./elements";

export interface Point {
    x: number;
    y: number;
}

export interface Sample extends Point {
    at: number; // distance along the path, widths of a column
    value: number;
    sigma: number;
}

const MOST = 20_000;

// Rows are as high as `aspect` columns are wide.
export function linePath(from: Point, to: Point, aspect: number): (Point & { at: number })[] {
    const length = Math.hypot(to.x - from.x, (to.y - from.y) * aspect);
    const steps = Math.min(MOST, Math.max(1, Math.ceil(Math.hypot(to.x - from.x, to.y - from.y))));
    return Array.from({ length: steps + 1 }, (_, i) => ({
        x: from.x + ((to.x - from.x) * i) / steps,
        y: from.y + ((to.y - from.y) * i) / steps,
        at: (length * i) / steps,
    }));
}

export function circlePath(centre: Point, radius: number, aspect: number): (Point & { at: number })[] {
    const length = 2 * Math.PI * radius;
    const steps = Math.min(MOST, Math.max(8, Math.ceil(length)));
    return Array.from({ length: steps + 1 }, (_, i) => {
        const angle = (2 * Math.PI * i) / steps;
        return { x: centre.x + radius * Math.cos(angle), y: centre.y - (radius * Math.sin(angle)) / aspect, at: (length * i) / steps };
    });
}

// The pixel that each point lies in: numbers that were measured, none between them.
export async function samplesOf(
    path: (Point & { at: number })[],
    read: (y: number, x: number) => Promise<{ value: number; sigma: number }>,
    shape: [number, number],
): Promise<Sample[]> {
    const inside = path.filter(({ x, y }) => x >= 0 && y >= 0 && x < shape[1] && y < shape[0]);
    return Promise.all(
        inside.map(async (point) => ({ ...point, ...(await read(Math.floor(point.y), Math.floor(point.x))) })),
    );
}

export interface Figures {
    mean: number;
    pv: number;
    rq: number;
    step: number;
}

export function figuresOf(samples: Sample[]): Figures | null {
    const values = samples.map(({ value }) => value).filter(Number.isFinite);
    if (!values.length) {
        return null;
    }
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const square = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
    const [low, high] = values.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
    const tenth = Math.max(1, Math.floor(values.length / 10));
    const average = (part: number[]) => part.reduce((sum, value) => sum + value, 0) / part.length;
    return { mean, pv: high - low, rq: Math.sqrt(square), step: average(values.slice(-tenth)) - average(values.slice(0, tenth)) };
}

export function csvOf(samples: Sample[], unit: string, pixel: [number, number] | null): string {
    const rows = samples.map(({ at, x, y, value, sigma }) =>
        [(at * (pixel ? pixel[1] : 1)).toFixed(3), Math.floor(y), Math.floor(x), value, sigma].map((n) => (Number.isNaN(n) ? "" : n)).join(","),
    );
    const size = pixel ? `# pixel ${pixel[0]} x ${pixel[1]} um (y, x)\n` : "";
    return `${size}distance_${pixel ? "um" : "px"},row,column,value_${unit || "1"},sigma_${unit || "1"}\n${rows.join("\n")}\n`;
}

export function drawCurve(svg: SVGElement, samples: Sample[], unit: string, lengthText: (px: number) => string): void {
    const width = svg.clientWidth || 800;
    const height = svg.clientHeight || 170;
    const [left, right, top, bottom] = [64, 12, 8, 22];
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.replaceChildren();
    const finite = samples.filter(({ value }) => Number.isFinite(value));
    if (!finite.length) {
        return;
    }
    let [low, high] = finite.reduce(([a, b], { value }) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
    const margin = (high - low || 1) * 0.06;
    [low, high] = [low - margin, high + margin];
    const end = samples[samples.length - 1].at || 1;
    const px = (at: number) => left + (at / end) * (width - left - right);
    const py = (value: number) => top + ((high - value) / (high - low)) * (height - top - bottom);
    for (let k = 0; k <= 4; k++) {
        const value = low + ((high - low) * k) / 4;
        svg.append(svgPart("line", { class: "axis", x1: left, x2: width - right, y1: py(value), y2: py(value) }));
        svg.append(svgPart("text", { x: left - 6, y: py(value) + 4, "text-anchor": "end" }, value.toPrecision(4)));
        const at = (end * k) / 4;
        const anchor = k === 0 ? "start" : k === 4 ? "end" : "middle";
        svg.append(svgPart("text", { x: px(at), y: height - 6, "text-anchor": anchor }, lengthText(at)));
    }
    svg.append(svgPart("text", { x: 2, y: 12 }, unit));
    let upper = "";
    let lower: string[] = [];
    let curve = "";
    let pen = false;
    const bands: string[] = [];
    const close = () => {
        if (upper) {
            bands.push(`${upper}${lower.reverse().join("")}Z`);
        }
        [upper, lower] = ["", []];
    };
    for (const { at, value, sigma } of samples) {
        if (!Number.isFinite(value)) {
            pen = false;
            close();
            continue;
        }
        curve += `${pen ? "L" : "M"}${px(at).toFixed(1)},${py(value).toFixed(1)}`;
        pen = true;
        if (Number.isFinite(sigma)) {
            upper += `${upper ? "L" : "M"}${px(at).toFixed(1)},${py(value + sigma).toFixed(1)}`;
            lower.push(`L${px(at).toFixed(1)},${py(value - sigma).toFixed(1)}`);
        }
    }
    close();
    svg.append(svgPart("path", { class: "band", d: bands.join("") }));
    svg.append(svgPart("path", { class: "curve", d: curve }));
}
