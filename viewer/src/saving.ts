// What the page saves of what it shows: the picture with its colours, the part that is seen.

import { notice } from "./elements";
import { csvTableOf, npyOf, save } from "./files";
import type { Pane } from "./panes";
import type { Scene } from "./scene";
import type { Words } from "./words";

const MOST_SAVED = { npy: 16_000_000, csv: 1_000_000 }; // pixels of a part

export function savePicture(panes: Pane[], scene: Scene): void {
    const views = panes.map((pane) => pane.picture());
    const canvas = document.createElement("canvas");
    canvas.width = views.reduce((sum, view) => sum + view.width, 0) + 120;
    canvas.height = Math.max(...views.map((view) => view.height));
    const context = canvas.getContext("2d") as CanvasRenderingContext2D;
    context.fillStyle = "white";
    context.fillRect(0, 0, canvas.width, canvas.height);
    let left = 0;
    for (const view of views) {
        context.drawImage(view, left, 0);
        left += view.width;
    }
    drawColourBar(context, left, scene);
    canvas.toBlob((blob) => blob && save(`${scene.maps[0].map.name}.png`, blob));
}

function drawColourBar(context: CanvasRenderingContext2D, left: number, scene: Scene): void {
    const { low, high, colours } = scene.shading;
    const { height } = context.canvas;
    const tall = height - 80;
    context.font = "14px sans-serif";
    for (let i = 0; i < 256; i++) {
        context.fillStyle = `rgb(${colours[4 * i]} ${colours[4 * i + 1]} ${colours[4 * i + 2]})`;
        context.fillRect(left + 15, 40 + ((255 - i) * tall) / 256, 22, Math.ceil(tall / 256));
    }
    context.fillStyle = "black";
    context.fillText(`${+high.toPrecision(4)} ${scene.unit}`, left + 12, 30);
    context.fillText(`${+low.toPrecision(4)} ${scene.unit}`, left + 12, height - 20);
}

// Save the pixels of the file that are seen, as they are: neither form nor another map is taken off.
export async function saveCrop(kind: "npy" | "csv", pane: Pane, scene: Scene, words: Words): Promise<void> {
    const [tiles] = scene.shown;
    const box = pane.seen(tiles.map.shape);
    const [height, width] = [box.bottom - box.top, box.right - box.left];
    if (height * width > MOST_SAVED[kind] || height * width === 0) {
        notice(`${words.say("toolarge")}: ${height} × ${width} > ${MOST_SAVED[kind] / 1e6} MPix`);
        return;
    }
    const { values, shape } = await tiles.part(scene.quantity, 0, box);
    const content = kind === "npy" ? npyOf(values, shape) : csvTableOf(values, shape, box, scene.unit);
    save(`${tiles.map.name}_y${box.top}_x${box.left}.${kind}`, content);
}
