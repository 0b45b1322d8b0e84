// One view of a map: OpenSeadragon, the marks over it, its scale bar.

import OpenSeadragon from "openseadragon";

import { CanvasDrawer, WebglDrawer } from "./drawers";
import { type Point, svgPart } from "./profile";
import type { Shading } from "./shading";
import { type Shown, sourceOf } from "./source";

let opened = 0; // sources are told apart in the cache by it

export type Mark = { kind: "line"; from: Point; to: Point } | { kind: "circle"; from: Point; to: Point };

export class Pane {
    readonly element = document.createElement("div");
    readonly viewer: OpenSeadragon.Viewer;
    mark: Mark | null = null;
    private readonly overlay = svgPart("svg", { "aria-hidden": "true" }) as SVGSVGElement;
    private readonly caption = document.createElement("span");

    constructor(
        stage: HTMLElement,
        shading: Shading,
        readonly webgl: boolean,
        private readonly lengthText: (px: number) => string,
    ) {
        this.element.className = "view";
        const inner = document.createElement("div");
        inner.className = "osd";
        this.caption.className = "name";
        this.element.append(inner, this.overlay, this.caption);
        stage.append(this.element);
        this.viewer = new OpenSeadragon.Viewer({
            element: inner,
            drawer: webgl ? WebglDrawer : CanvasDrawer,
            showNavigationControl: false,
            animationTime: 0,
            blendTime: 0,
            immediateRender: true, // the level that is looked at, not those on the way to it
            maxTilesPerFrame: 64,
            minPixelRatio: 0.75, // screen pixels to a pixel of the level at least: fewer tiles than the default of 0.5
            maxZoomPixelRatio: 40,
            minZoomImageRatio: 0.5,
            visibilityRatio: 0.2,
            imageLoaderLimit: 6,
            maxImageCacheCount: 120,
            gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
            gestureSettingsTouch: { clickToZoom: false },
        } as unknown as OpenSeadragon.Options);
        (this.viewer as unknown as { shading: Shading }).shading = shading;
        this.viewer.addHandler("update-viewport", () => this.drawOverlay());
        this.viewer.addHandler("resize", () => this.drawOverlay());
    }

    // Show a source in place of what is shown, in the same part of the map.
    show(shown: Shown): void {
        const { viewport, world } = this.viewer;
        const bounds = world.getItemCount() ? viewport.getBounds(true) : null;
        this.caption.textContent = shown.less
            ? `${shown.tiles.map.name} − ${shown.less.map.name}`
            : shown.tiles.map.name;
        this.viewer.addOnceHandler("open", () => bounds && this.viewer.viewport.fitBounds(bounds, true));
        this.viewer.open([sourceOf(shown, `${opened++}`)] as unknown as OpenSeadragon.TileSourceSpecifier[]);
    }

    redraw(): void {
        this.viewer.forceRedraw();
    }

    // The canvas as it is now: a browser keeps what was drawn on it until the end of the task alone.
    picture(): HTMLCanvasElement {
        const { drawer, world } = this.viewer as unknown as {
            drawer: { draw(images: OpenSeadragon.TiledImage[]): void; canvas: HTMLCanvasElement };
            world: OpenSeadragon.World;
        };
        drawer.draw(world.getItemCount() ? [world.getItemAt(0)] : []);
        return drawer.canvas;
    }

    // The place in pixels of the map that a point of the page lies over.
    pixelAt(x: number, y: number): Point | null {
        if (!this.viewer.world.getItemCount()) {
            return null;
        }
        const box = this.element.getBoundingClientRect();
        const at = new OpenSeadragon.Point(x - box.left, y - box.top);
        return this.viewer.world.getItemAt(0).viewerElementToImageCoordinates(at);
    }

    // The part of the map that is seen: left, top, right, bottom, whole pixels.
    seen(shape: [number, number]): [number, number, number, number] {
        const bounds = this.viewer.world.getItemAt(0).viewportToImageRectangle(this.viewer.viewport.getBounds(true));
        const clip = (value: number, most: number) => Math.min(most, Math.max(0, Math.round(value)));
        return [
            clip(bounds.x, shape[1]),
            clip(bounds.y, shape[0]),
            clip(bounds.x + bounds.width, shape[1]),
            clip(bounds.y + bounds.height, shape[0]),
        ];
    }

    get loaded(): boolean {
        const { world } = this.viewer;
        return world.getItemCount() > 0 && (world.getItemAt(0) as unknown as { getFullyLoaded(): boolean }).getFullyLoaded();
    }

    drawOverlay(): void {
        this.overlay.replaceChildren();
        if (!this.viewer.world.getItemCount()) {
            return;
        }
        const image = this.viewer.world.getItemAt(0);
        const place = (p: Point) => image.imageToViewerElementCoordinates(new OpenSeadragon.Point(p.x, p.y));
        if (this.mark) {
            const [from, to] = [place(this.mark.from), place(this.mark.to)];
            const radius = Math.hypot(to.x - from.x, to.y - from.y);
            this.overlay.append(
                this.mark.kind === "line"
                    ? svgPart("line", { class: "mark", x1: from.x, y1: from.y, x2: to.x, y2: to.y })
                    : svgPart("circle", { class: "mark", cx: from.x, cy: from.y, r: radius }),
            );
        }
        const perPixel = place({ x: 1, y: 0 }).x - place({ x: 0, y: 0 }).x;
        const wanted = 140 / perPixel;
        const power = 10 ** Math.floor(Math.log10(wanted));
        const length = [5, 2, 1].map((k) => k * power).find((k) => k <= wanted) ?? power;
        const bottom = this.element.clientHeight - 14;
        this.overlay.append(
            svgPart("rect", { class: "scale-bar", x: 12, y: bottom, width: length * perPixel, height: 5 }),
            svgPart("text", { class: "scale-bar", x: 12, y: bottom - 6 }, this.lengthText(length)),
        );
    }
}

export function link(one: Pane, other: Pane): void {
    let busy = false;
    for (const [from, to] of [[one, other], [other, one]]) {
        from.viewer.addHandler("viewport-change", () => {
            if (busy || !to.viewer.world.getItemCount()) {
                return;
            }
            busy = true;
            to.viewer.viewport.fitBounds(from.viewer.viewport.getBounds(), true);
            busy = false;
        });
    }
}
