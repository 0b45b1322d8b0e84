// One view of a map: OpenSeadragon, the marks over it, its scale bar.

import OpenSeadragon from "openseadragon";

import { CanvasDrawer } from "./canvas_drawer";
import { svgPart } from "./elements";
import { drawMark, drawScaleBar, type Mark, type Place } from "./marks";
import type { Point } from "./profile";
import type { Shading } from "./shading";
import { type Shown, sourceOf } from "./source";
import type { Box } from "./tiles";
import { WebglDrawer } from "./webgl_drawer";

let opened = 0; // sources are told apart in the cache by it

export class Pane {
    readonly element = document.createElement("div");
    readonly viewer: OpenSeadragon.Viewer;
    marks: () => Mark[] = () => [];
    grid: (place: Place) => SVGElement[] = () => [];
    private aspect = 1;
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
            imageLoaderLimit: 0, // all at once: they are asked for together
            maxImageCacheCount: 120,
            gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
            gestureSettingsTouch: { clickToZoom: false },
        } as unknown as OpenSeadragon.Options);
        (this.viewer as unknown as { shading: Shading }).shading = shading;
        this.viewer.canvas.setAttribute("role", "application");
        this.viewer.addHandler("update-viewport", () => this.drawOverlay());
        this.viewer.addHandler("resize", () => this.drawOverlay());
    }

    // Show a source in place of what is shown, in the same part of the map.
    show(shown: Shown): void {
        const { viewport, world } = this.viewer;
        const bounds = world.getItemCount() ? viewport.getBounds(true) : null;
        this.aspect = shown.tiles.aspect;
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
            drawer: { draw(images: OpenSeadragon.TiledImage[], again: boolean): void; canvas: HTMLCanvasElement };
            world: OpenSeadragon.World;
        };
        drawer.draw(world.getItemCount() ? [world.getItemAt(0)] : [], true);
        return drawer.canvas;
    }

    // The place in pixels of the map that a point of the page lies over.
    pixelAt(x: number, y: number): Point | null {
        if (!this.viewer.world.getItemCount()) {
            return null;
        }
        const box = this.element.getBoundingClientRect();
        const at = this.viewer.world
            .getItemAt(0)
            .viewerElementToImageCoordinates(new OpenSeadragon.Point(x - box.left, y - box.top));
        return { x: at.x, y: at.y / this.aspect };
    }

    // Where on the view a place in pixels of the map lies.
    place: Place = (point) =>
        this.viewer.world
            .getItemAt(0)
            .imageToViewerElementCoordinates(new OpenSeadragon.Point(point.x, point.y * this.aspect));

    // The part of the map that is seen, whole pixels.
    seen(shape: [number, number]): Box {
        const bounds = this.viewer.world.getItemAt(0).viewportToImageRectangle(this.viewer.viewport.getBounds(true));
        const clip = (value: number, most: number) => Math.min(most, Math.max(0, Math.round(value)));
        return {
            top: clip(bounds.y / this.aspect, shape[0]),
            left: clip(bounds.x, shape[1]),
            bottom: clip((bounds.y + bounds.height) / this.aspect, shape[0]),
            right: clip(bounds.x + bounds.width, shape[1]),
        };
    }

    get loaded(): boolean {
        const { world } = this.viewer;
        return world.getItemCount() > 0 && (world.getItemAt(0) as unknown as { getFullyLoaded(): boolean }).getFullyLoaded();
    }

    // Move by shares of what is seen.
    pan(x: number, y: number): void {
        const { viewport } = this.viewer;
        const bounds = viewport.getBounds(); // where it goes, which the last frame may not have reached
        const centre = viewport.getCenter();
        centre.x += x * bounds.width;
        centre.y += y * bounds.height;
        viewport.panTo(centre, true);
        viewport.applyConstraints(true);
    }

    zoom(factor: number): void {
        this.viewer.viewport.zoomBy(factor);
        this.viewer.viewport.applyConstraints(true);
    }

    drawOverlay(): void {
        this.overlay.replaceChildren();
        if (!this.viewer.world.getItemCount()) {
            return;
        }
        const perColumn = this.place({ x: 1, y: 0 }).x - this.place({ x: 0, y: 0 }).x;
        this.overlay.append(
            ...this.grid(this.place),
            ...this.marks().flatMap((mark) => drawMark(mark, this.place)),
            ...drawScaleBar(perColumn, this.element.clientHeight - 14, this.lengthText),
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
