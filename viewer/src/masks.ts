// What masks leave out: pixels whose centres lie inside one are NaN.

import type { Point } from "./profile";

// Where a horizontal line crosses the outline of a mask, from left to right: inside lies between the first two, and so on.
function crossings(corners: Point[], y: number): number[] {
    const found: number[] = [];
    corners.forEach((one, i) => {
        const other = corners[(i + 1) % corners.length];
        if (one.y <= y !== other.y <= y) {
            found.push(one.x + ((y - one.y) / (other.y - one.y)) * (other.x - one.x));
        }
    });
    return found.sort((a, b) => a - b);
}

export interface Grid {
    top: number; // of the first pixel, in pixels of the finest level
    left: number;
    step: number; // side of a pixel in those
    width: number; // pixels of a row
}

// Leave out of rows of pixels what masks cover; the values themselves stay as they are where there is no mask.
export function cutOut(values: Float32Array, masks: Point[][], { top, left, step, width }: Grid): Float32Array {
    if (!masks.length) {
        return values;
    }
    const cut = values.slice();
    const rows = values.length / width;
    for (const corners of masks) {
        const heights = corners.map(({ y }) => (y - top) / step);
        for (let row = Math.max(0, Math.floor(Math.min(...heights))); row < Math.min(rows, Math.max(...heights)); row++) {
            const ends = crossings(corners, top + (row + 0.5) * step).map((x) => (x - left) / step - 0.5);
            for (let i = 0; i + 1 < ends.length; i += 2) {
                const [from, to] = [Math.max(0, Math.ceil(ends[i])), Math.min(width, Math.ceil(ends[i + 1]))];
                if (from < to) {
                    cut.fill(NaN, row * width + from, row * width + to);
                }
            }
        }
    }
    return cut;
}
