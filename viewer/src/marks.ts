// What is drawn over a map: lines, circles, polygons, notes, the cursor of the keyboard, a grid of dies.

import { svgPart } from "./elements";
import type { Point } from "./profile";

export interface Mark {
    kind: "line" | "circle" | "mask" | "note" | "cursor";
    points: Point[]; // pixels of the map; of a circle its centre and a point of its rim
    text?: string;
    open?: boolean; // of a mask: it is still being drawn
}

export type Place = (point: Point) => Point; // on the view

export function drawMark(mark: Mark, place: Place): SVGElement[] {
    const points = mark.points.map(place);
    const [from, to] = points;
    switch (mark.kind) {
        case "line":
            return to ? [svgPart("line", { class: "mark", x1: from.x, y1: from.y, x2: to.x, y2: to.y })] : [];
        case "circle":
            return to
                ? [svgPart("circle", { class: "mark", cx: from.x, cy: from.y, r: Math.hypot(to.x - from.x, to.y - from.y) })]
                : [];
        case "mask": {
            const corners = points.map(({ x, y }) => `${x},${y}`).join(" ");
            return [
                svgPart(mark.open ? "polyline" : "polygon", { class: "mask", points: corners }),
                svgPart("text", { class: "remark", x: from.x + 6, y: from.y - 6 }, mark.text ?? ""),
            ];
        }
        case "note":
            return [
                svgPart("circle", { class: "pin", cx: from.x, cy: from.y, r: 5 }),
                svgPart("text", { class: "remark", x: from.x + 9, y: from.y + 4 }, mark.text ?? ""),
            ];
        case "cursor":
            return [
                svgPart("line", { class: "cursor", x1: from.x - 12, x2: from.x + 12, y1: from.y, y2: from.y }),
                svgPart("line", { class: "cursor", x1: from.x, x2: from.x, y1: from.y - 12, y2: from.y + 12 }),
            ];
    }
}

// A bar of a round length, no longer than 140 points; `perColumn` points are a column.
export function drawScaleBar(perColumn: number, bottom: number, lengthText: (px: number) => string): SVGElement[] {
    const wanted = 140 / perColumn;
    const power = 10 ** Math.floor(Math.log10(wanted));
    const length = [5, 2, 1].map((k) => k * power).find((k) => k <= wanted) ?? power;
    return [
        svgPart("rect", { class: "scale-bar", x: 12, y: bottom, width: length * perColumn, height: 5 }),
        svgPart("text", { class: "scale-bar", x: 12, y: bottom - 6 }, lengthText(length)),
    ];
}
