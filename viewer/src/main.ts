// The page: what is shown, how it is coloured, what is read off.

import { COLOUR_MAPS, coloursOf } from "./colours";
import { WebglDrawer } from "./drawers";
import { npyOf, save } from "./files";
import { fitForm, FORMS, NO_FORM, unitOf, valueOf } from "./form";
import { Histogram, rangeOf, type Spread, spreadOf } from "./histogram";
import { link, Pane } from "./panes";
import { circlePath, csvOf, drawCurve, figuresOf, linePath, type Point, type Sample, samplesOf, sigmaAt } from "./profile";
import { newShading } from "./shading";
import { type Catalogue, FolderStore, HttpStore, MissingTile, OutOfReach, OverviewStore, type Store, Tiles } from "./tiles";
import { type Language, LANGUAGES, type Word, Words } from "./words";

type Mode = "both" | "first" | "second" | "difference";
type Tool = "line" | "circle" | null;
const FLAGS = [1, 2, 4, 8, 16, 32];
const MOST_SAVED = 16_000_000; // pixels of a part that is saved

function element<T extends HTMLElement>(id: string): T {
    return document.getElementById(id) as T;
}

class Page {
    private readonly words: Words;
    private readonly shading = newShading();
    private maps: Tiles[];
    private readonly histogram: Histogram;
    private readonly webgl = WebglDrawer.isSupported();
    private panes: Pane[] = [];
    private quantity = "height_nm";
    private mode: Mode;
    private forms: string[] = [];
    private tool: Tool = null;
    private samples: Sample[] = [];
    private spread: Spread = { values: new Float64Array() };
    private pointer: { pane: Pane; x: number; y: number } | null = null;
    private asked = 0;

    constructor(
        private readonly catalogue: Catalogue,
        store: Store,
    ) {
        const wanted = new URLSearchParams(location.search).get("lang") ?? navigator.language.slice(0, 2);
        this.words = new Words(LANGUAGES.includes(wanted as Language) ? (wanted as Language) : "en");
        this.maps = catalogue.maps.map((map, number) => new Tiles(map, number, store));
        this.mode = this.maps.length > 1 ? "both" : "first";
        this.histogram = new Histogram(element("histogram"), (low, high) => this.setRange(low, high));
        this.build(store);
        this.translate();
        this.open();
        if (!this.webgl) {
            this.notice(this.words.say("nowebgl"));
        }
    }

    private get shown(): Tiles[] {
        return this.mode === "both" ? this.maps : [this.maps[this.mode === "second" ? 1 : 0]];
    }

    private get unit(): string {
        return this.maps[0].map.quantities[this.quantity].unit ?? "";
    }

    private lengthText = (px: number): string => {
        const pixel = this.maps[0].map.pixel_um;
        if (pixel === null) {
            return `${+px.toPrecision(3)} px`;
        }
        const um = px * pixel[1];
        return um >= 1000 ? `${+(um / 1000).toPrecision(3)} mm` : `${+um.toPrecision(3)} µm`;
    };

    private build(store: Store): void {
        element("title").textContent = this.maps.map(({ map }) => map.name).join(" · ");
        document.title = `${this.maps[0].map.name} – cpikan view`;
        const layer = element<HTMLSelectElement>("layer");
        Object.keys(this.maps[0].map.quantities).filter((name) => name !== "flags").forEach((name) => layer.add(new Option(name, name)));
        layer.onchange = () => {
            this.quantity = layer.value;
            this.open();
        };
        element("folder-box").hidden = !(store instanceof OverviewStore);
        element<HTMLInputElement>("folder").onchange = () => this.pick();
        element("mode-box").hidden = this.maps.length < 2;
        const mode = element<HTMLSelectElement>("mode");
        for (const name of ["both", "first", "second", "difference"]) {
            mode.add(new Option(name, name));
        }
        mode.value = this.mode;
        mode.onchange = () => {
            this.mode = mode.value as Mode;
            this.open();
        };
        const language = element<HTMLSelectElement>("language");
        language.value = this.words.language;
        language.onchange = () => {
            this.words.language = language.value as Language;
            this.translate();
        };
        const colours = element<HTMLSelectElement>("colours");
        COLOUR_MAPS.forEach((name) => colours.add(new Option(name, name)));
        colours.onchange = () => {
            this.shading.colours = coloursOf(colours.value);
            this.shading.colourCount++;
            this.setRange(this.shading.low, this.shading.high);
        };
        for (const id of ["low", "high"]) {
            element<HTMLInputElement>(id).onchange = () => {
                const [low, high] = ["low", "high"].map((one) => element<HTMLInputElement>(one).valueAsNumber);
                if (low < high) {
                    this.setRange(low, high);
                }
            };
        }
        element("auto").onclick = () => this.setRange(...rangeOf(this.spread));
        this.checks("form", Object.keys(FORMS), (names) => {
            this.forms = names;
            this.measure();
        });
        if (this.maps.some(({ map }) => map.quantities.flags)) {
            this.checks("flags", FLAGS.map((bit) => `flag${bit}`), (names) => {
                const before = this.shading.marked;
                this.shading.marked = names.reduce((bits, name) => bits | Number(name.slice(4)), 0);
                before ? this.redraw() : this.open();
            });
        }
        const tools: [Word, () => void][] = [
            ["home", () => this.panes.forEach(({ viewer }) => viewer.viewport.goHome(true))],
            ["in", () => this.zoom(1.5)],
            ["out", () => this.zoom(1 / 1.5)],
            ["line", () => this.setTool(this.tool === "line" ? null : "line")],
            ["circle", () => this.setTool(this.tool === "circle" ? null : "circle")],
            ["picture", () => this.savePicture()],
            ["crop", () => this.saveCrop()],
            ["help", () => this.notice(this.words.say("keys"))],
        ];
        for (const [name, act] of tools) {
            const button = document.createElement("button");
            button.type = "button";
            button.id = `tool-${name}`;
            button.dataset.word = name;
            button.onclick = act;
            element("tools").append(button, " ");
        }
        element("profile-close").onclick = () => this.closeProfile();
        element("profile-csv").onclick = () =>
            save("profile.csv", new Blob([csvOf(this.samples, this.unit, this.maps[0].map.pixel_um)], { type: "text/csv" }));
        document.addEventListener("keydown", (event) => this.key(event));
        window.addEventListener("resize", () => this.drawProfile());
    }

    // Read from the files of the folder that was picked: their paths begin with its name.
    private pick(): void {
        const picked = [...(element<HTMLInputElement>("folder").files ?? [])];
        const files = new Map(picked.map((file) => [file.webkitRelativePath.split("/").slice(1).join("/"), file]));
        this.maps = this.catalogue.maps.map((map, number) => new Tiles(map, number, new FolderStore(files)));
        this.open();
    }

    private checks(id: string, names: string[], changed: (names: string[]) => void): void {
        for (const name of names) {
            const label = document.createElement("label");
            const box = document.createElement("input");
            const text = document.createElement("span");
            box.type = "checkbox";
            box.id = `${id}-${name}`;
            box.onchange = () => changed(names.filter((one) => element<HTMLInputElement>(`${id}-${one}`).checked));
            text.dataset.word = name;
            label.append(box, " ", text);
            element(id).append(label);
        }
    }

    private translate(): void {
        const { words } = this;
        document.documentElement.lang = words.language;
        document.querySelectorAll<HTMLElement>("[data-word]").forEach((one) => (one.textContent = words.say(one.dataset.word as Word)));
        for (const option of document.querySelectorAll<HTMLOptionElement>("#layer option, #mode option")) {
            option.textContent = words.has(option.value) ? words.say(option.value) : option.value;
        }
        element("histogram").setAttribute("aria-label", words.say("range"));
        element("curve").setAttribute("aria-label", words.say("profile"));
        this.panes.forEach((pane) => pane.viewer.canvas.setAttribute("aria-label", words.say("keys")));
        this.about();
    }

    private about(): void {
        const { words } = this;
        element("about").replaceChildren();
        for (const { map } of this.maps) {
            const list = document.createElement("dl");
            const number = (value: unknown, digits = 4) => (typeof value === "number" ? String(+value.toPrecision(digits)) : "–");
            const share = map.summary.valid_fraction;
            const rows: [string, string][] = [
                [words.say("size"), `${map.shape[0]} × ${map.shape[1]}`],
                [words.say("pixel"), map.pixel_um ? `${map.pixel_um[0]} × ${map.pixel_um[1]} µm` : words.say("unknown")],
                [words.say("wavelengths"), map.wavelengths_nm.map((value) => `${number(value, 7)} nm`).join(", ") || "–"],
                [words.say("method"), String(map.summary.method ?? "–")],
                [words.say("valid"), typeof share === "number" ? `${(100 * share).toFixed(2)} %` : "–"],
                [words.say("sigma"), `${number(map.summary.sigma_nm_median, 3)} nm`],
                ["PV", `${number(map.summary.pv_nm)} nm`],
                ["RMS", `${number(map.summary.rms_nm)} nm`],
            ];
            for (const [name, value] of rows) {
                const term = document.createElement("dt");
                const text = document.createElement("dd");
                [term.textContent, text.textContent] = [name, value];
                list.append(term, text);
            }
            const warnings = document.createElement("ul");
            for (const warning of map.warnings) {
                const item = document.createElement("li");
                item.textContent = warning;
                warnings.append(item);
            }
            element("about").append(list, warnings);
        }
    }

    private notice(text: string): void {
        element("notice").textContent = text;
        element("notice").hidden = !text;
    }

    private open(): void {
        const count = this.shown.length;
        if (this.panes.length !== count) {
            this.panes.forEach((pane) => pane.viewer.destroy());
            element("stage").replaceChildren();
            this.panes = Array.from({ length: count }, () => new Pane(element("stage"), this.shading, this.webgl, this.lengthText));
            this.panes.forEach((pane) => this.listen(pane));
            if (count > 1) {
                link(this.panes[0], this.panes[1]);
            }
        }
        const less = this.mode === "difference" ? this.maps[1] : null;
        this.shown.forEach((tiles, i) =>
            this.panes[i].show({ quantity: this.quantity, tiles, less, flags: this.shading.marked !== 0 }),
        );
        this.translate();
        void this.measure();
    }

    // Fit the form to the coarsest level and find the range of the colours there.
    private async measure(): Promise<void> {
        const turn = ++this.asked;
        const [tiles] = this.shown;
        const coarsest = tiles.map.levels.length - 1;
        try {
            const level = await tiles.level(this.quantity, coarsest);
            if (this.mode === "difference") {
                const other = await this.maps[1].level(this.quantity, coarsest);
                level.values = level.values.map((value, i) => value - other.values[i]);
            }
            if (turn !== this.asked) {
                return;
            }
            const form = this.forms.length ? fitForm(this.forms, level, tiles.map.shape) : Float64Array.from(NO_FORM);
            this.shading.form = Float32Array.from(form);
            const [height, width] = level.shape;
            const { x, y, scale } = unitOf(tiles.map.shape);
            const step = 2 ** coarsest;
            const flat = this.forms.length
                ? level.values.map((value, i) => {
                      const u = (((i % width) + 0.5) * step - x) / scale;
                      const v = ((Math.floor(i / width) + 0.5) * step - y) / scale;
                      return value - valueOf(form, u, v);
                  })
                : level.values;
            this.spread = spreadOf(flat.subarray(0, height * width));
            this.histogram.show(this.spread);
            this.setRange(...rangeOf(this.spread));
            this.notice(this.webgl ? "" : this.words.say("nowebgl"));
            if (this.samples.length) {
                void this.readProfile();
            }
        } catch (failure) {
            this.notice(`${this.words.say(failure instanceof MissingTile ? "missing" : "failed")}: ${(failure as Error).message}`);
        }
    }

    private setRange(low: number, high: number): void {
        Object.assign(this.shading, { low, high });
        element<HTMLInputElement>("low").value = String(+low.toPrecision(6));
        element<HTMLInputElement>("high").value = String(+high.toPrecision(6));
        this.histogram.set(low, high, this.shading.colours);
        this.redraw();
    }

    private redraw(): void {
        this.panes.forEach((pane) => pane.redraw());
    }

    private zoom(factor: number): void {
        this.panes[0].viewer.viewport.zoomBy(factor);
        this.panes[0].viewer.viewport.applyConstraints(true);
    }

    private setTool(tool: Tool): void {
        this.tool = tool;
        for (const name of ["line", "circle"] as const) {
            element(`tool-${name}`).setAttribute("aria-pressed", String(tool === name));
        }
        this.panes.forEach(({ viewer }) => ((viewer as unknown as { panHorizontal: boolean; panVertical: boolean }).panHorizontal = tool === null));
        this.panes.forEach(({ viewer }) => ((viewer as unknown as { panVertical: boolean }).panVertical = tool === null));
        this.notice(tool === null ? "" : this.words.say(tool === "line" ? "drawing" : "circling"));
    }

    private listen(pane: Pane): void {
        pane.element.addEventListener("pointermove", (event) => {
            this.pointer = { pane, x: event.clientX, y: event.clientY };
            void this.readPointer();
        });
        let from: Point | null = null;
        pane.element.addEventListener("pointerdown", (event) => {
            from = this.tool ? pane.pixelAt(event.clientX, event.clientY) : null;
        }, true);
        pane.element.addEventListener("pointermove", (event) => {
            const to = pane.pixelAt(event.clientX, event.clientY);
            if (from && to && this.tool) {
                for (const one of this.panes) {
                    one.mark = { kind: this.tool, from, to };
                    one.drawOverlay();
                }
            }
        }, true);
        pane.element.addEventListener("pointerup", () => {
            if (from && this.tool && pane.mark) {
                void this.readProfile();
            }
            from = null;
        }, true);
    }

    // The value of a pixel of a map, as it is shown: less the form, or less the other map.
    private async valueAt(tiles: Tiles, y: number, x: number): Promise<{ value: number; sigma: number }> {
        let value = await tiles.value(this.quantity, y, x);
        let sigma = this.quantity === "height_nm" ? await sigmaAt(tiles, y, x) : NaN;
        if (this.mode === "difference") {
            value -= await this.maps[1].value(this.quantity, y, x);
            sigma = Math.hypot(sigma, await sigmaAt(this.maps[1], y, x));
        }
        if (this.forms.length) {
            const unit = unitOf(tiles.map.shape);
            value -= valueOf(this.shading.form, (x + 0.5 - unit.x) / unit.scale, (y + 0.5 - unit.y) / unit.scale);
        }
        return { value, sigma };
    }

    private async readPointer(): Promise<void> {
        const { pointer } = this;
        const at = pointer?.pane.pixelAt(pointer.x, pointer.y);
        const readout = element<HTMLOutputElement>("readout");
        if (!pointer || !at) {
            return;
        }
        const [y, x] = [Math.floor(at.y), Math.floor(at.x)];
        const [height, width] = this.maps[0].map.shape;
        if (y < 0 || x < 0 || y >= height || x >= width) {
            readout.value = "";
            return;
        }
        try {
            const told = await Promise.all(this.shown.map((tiles) => this.tell(tiles, y, x)));
            if (pointer === this.pointer) {
                readout.value = `y ${y}  x ${x}   ${told.join("   |   ")}`;
            }
        } catch (failure) {
            if (failure instanceof OutOfReach) {
                readout.value = `y ${y}  x ${x}   ${this.words.say("folder")}`;
                return;
            }
            readout.value = `y ${y}  x ${x}   ${this.words.say("missing")}: ${(failure as Error).message}`;
        }
    }

    private async tell(tiles: Tiles, y: number, x: number): Promise<string> {
        const { value, sigma } = await this.valueAt(tiles, y, x);
        const flags = tiles.map.quantities.flags ? await tiles.value("flags", y, x) : 0;
        const marks = FLAGS.filter((bit) => flags & bit).map((bit) => this.words.say(`flag${bit}` as Word));
        const number = Number.isFinite(value)
            ? `${+value.toPrecision(9)}${Number.isFinite(sigma) ? ` ± ${+sigma.toPrecision(3)}` : ""} ${this.unit}`
            : this.words.say("nothing");
        return [number, ...marks].join(", ");
    }

    private async readProfile(): Promise<void> {
        const mark = this.panes[0].mark;
        if (!mark) {
            return;
        }
        const [tiles] = this.shown;
        const radius = Math.hypot(mark.to.x - mark.from.x, mark.to.y - mark.from.y);
        const path = mark.kind === "line" ? linePath(mark.from, mark.to) : circlePath(mark.from, radius);
        try {
            this.samples = await samplesOf(path, (y, x) => this.valueAt(tiles, y, x), tiles.map.shape);
        } catch (failure) {
            this.notice(`${this.words.say("missing")}: ${(failure as Error).message}`);
            return;
        }
        element("profile").hidden = false;
        this.drawProfile();
    }

    private drawProfile(): void {
        if (element("profile").hidden) {
            return;
        }
        const { words, unit } = this;
        const figures = figuresOf(this.samples);
        const long = this.lengthText(this.samples.at(-1)?.at ?? 0);
        element("profile-figures").textContent = figures
            ? [
                  `${words.say("length")} ${long}`,
                  ...(["pv", "rq", "mean", "step"] as const).map((name) => `${words.say(name)} ${+figures[name].toPrecision(5)} ${unit}`),
              ].join("   ")
            : words.say("nothing");
        drawCurve(element("curve") as unknown as SVGElement, this.samples, unit, this.lengthText);
    }

    private closeProfile(): void {
        this.samples = [];
        element("profile").hidden = true;
        for (const pane of this.panes) {
            pane.mark = null;
            pane.drawOverlay();
        }
    }

    private savePicture(): void {
        const views = this.panes.map((pane) => pane.picture());
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
        const { low, high, colours } = this.shading;
        const tall = canvas.height - 80;
        context.font = "14px sans-serif";
        for (let i = 0; i < 256; i++) {
            context.fillStyle = `rgb(${colours[4 * i]} ${colours[4 * i + 1]} ${colours[4 * i + 2]})`;
            context.fillRect(left + 15, 40 + ((255 - i) * tall) / 256, 22, Math.ceil(tall / 256));
        }
        context.fillStyle = "black";
        context.fillText(`${+high.toPrecision(4)} ${this.unit}`, left + 12, 30);
        context.fillText(`${+low.toPrecision(4)} ${this.unit}`, left + 12, canvas.height - 20);
        canvas.toBlob((blob) => blob && save(`${this.maps[0].map.name}.png`, blob));
    }

    private async saveCrop(): Promise<void> {
        const [tiles] = this.shown;
        const [left, top, right, bottom] = this.panes[0].seen(tiles.map.shape);
        const [height, width] = [bottom - top, right - left];
        if (height * width > MOST_SAVED || height * width === 0) {
            this.notice(`${height} × ${width} > ${MOST_SAVED / 1e6} MPix`);
            return;
        }
        const values = new Float32Array(height * width);
        const size = tiles.map.chunk;
        for (let row = Math.floor(top / size); row * size < bottom; row++) {
            for (let column = Math.floor(left / size); column * size < right; column++) {
                const tile = await tiles.read(this.quantity, 0, row, column);
                for (let y = Math.max(top, row * size); y < Math.min(bottom, (row + 1) * size); y++) {
                    const [x0, x1] = [Math.max(left, column * size), Math.min(right, (column + 1) * size)];
                    const start = (y - row * size) * size - column * size;
                    values.set(tile.subarray(start + x0, start + x1), (y - top) * width + x0 - left);
                }
            }
        }
        save(`${tiles.map.name}_y${top}_x${left}.npy`, npyOf(values, [height, width]));
    }

    private key(event: KeyboardEvent): void {
        const target = event.target as HTMLElement;
        if (event.ctrlKey || event.metaKey || event.altKey || ["INPUT", "SELECT"].includes(target.tagName)) {
            return;
        }
        const pan = (x: number, y: number) => {
            const { viewport } = this.panes[0].viewer;
            const bounds = viewport.getBounds(true);
            const centre = viewport.getCenter(true);
            centre.x += 0.1 * x * bounds.width;
            centre.y += 0.1 * y * bounds.height;
            viewport.panTo(centre, true);
            viewport.applyConstraints(true);
        };
        const acts: Record<string, () => void> = {
            "+": () => this.zoom(1.5),
            "=": () => this.zoom(1.5),
            "-": () => this.zoom(1 / 1.5),
            "0": () => element("tool-home").click(),
            p: () => element("tool-line").click(),
            c: () => element("tool-circle").click(),
            a: () => element("auto").click(),
            s: () => this.savePicture(),
            "?": () => element("tool-help").click(),
            Escape: () => this.setTool(null),
            ArrowLeft: () => pan(-1, 0),
            ArrowRight: () => pan(1, 0),
            ArrowUp: () => pan(0, -1),
            ArrowDown: () => pan(0, 1),
        };
        if (event.key in acts) {
            event.preventDefault();
            event.stopPropagation();
            acts[event.key]();
        }
    }

    // What tests and measurements ask of the page.
    get state(): Record<string, unknown> {
        return {
            loaded: this.panes.every((pane) => pane.loaded),
            range: [this.shading.low, this.shading.high],
            panes: this.panes,
            version: this.catalogue.version,
        };
    }
}

interface Overview {
    catalogue: Catalogue;
    tiles: Record<string, string>;
}

async function start(): Promise<void> {
    try {
        const overview = (window as unknown as { cpikanOverview?: Overview }).cpikanOverview;
        const fromDisk = location.protocol === "file:" && overview !== undefined;
        const store = fromDisk ? new OverviewStore(overview.tiles) : new HttpStore();
        const catalogue = fromDisk
            ? overview.catalogue
            : (JSON.parse(new TextDecoder().decode(await store.read("maps.json"))) as Catalogue);
        (window as unknown as { cpikan: Page }).cpikan = new Page(catalogue, store);
    } catch (failure) {
        element("notice").textContent = (failure as Error).message;
        element("notice").hidden = false;
    }
}

void start();
