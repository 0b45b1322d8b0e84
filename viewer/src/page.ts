// The page: its parts, and who tells whom what changed.

import { tellAbout } from "./about";
import { DieGrid } from "./dies";
import { button, checks, element, notice } from "./elements";
import { FilterPanel } from "./filters";
import { FORMS } from "./form";
import { listenToKeys } from "./keys";
import { Live } from "./live";
import { link, Pane } from "./panes";
import { ProfilePanel } from "./profile_panel";
import { RangePanel } from "./range";
import { FLAGS, type Pointer, Readout } from "./readout";
import { RemarksPanel } from "./remarks";
import { saveCrop, savePicture } from "./saving";
import { type Mode, Scene } from "./scene";
import { type Server, serverOf } from "./server";
import { FolderStore, MissingTile, OverviewStore, type Store } from "./stores";
import { SurfacePanel } from "./surface_panel";
import { type Catalogue, Tiles } from "./tiles";
import { Tools } from "./tools";
import { WebglDrawer } from "./webgl_drawer";
import { type Language, LANGUAGES, type Word, Words } from "./words";

export class Page {
    private readonly words: Words;
    private readonly scene: Scene;
    private readonly server: Server | null;
    private readonly webgl = WebglDrawer.isSupported();
    private readonly range: RangePanel;
    private readonly readout: Readout;
    private readonly profile: ProfilePanel;
    private readonly tools: Tools;
    private readonly remarks: RemarksPanel;
    private readonly dies: DieGrid;
    private readonly surface: SurfacePanel;
    private readonly live: Live;
    private panes: Pane[] = [];
    private asked = 0;

    constructor(
        private readonly catalogue: Catalogue,
        store: Store,
    ) {
        const wanted = new URLSearchParams(location.search).get("lang") ?? navigator.language.slice(0, 2);
        this.words = new Words(LANGUAGES.includes(wanted as Language) ? (wanted as Language) : "en");
        this.scene = new Scene(catalogue.maps.map((map, number) => new Tiles(map, number, store)));
        this.server = serverOf(catalogue.token);
        const { scene, words, server } = this;
        const overlays = () => this.panes.forEach((pane) => pane.drawOverlay());
        this.buildTools();
        this.range = new RangePanel(scene.shading, () => this.redraw());
        this.readout = new Readout(scene, words);
        this.profile = new ProfilePanel(scene, words, () => this.tools.clear());
        this.surface = new SurfacePanel(scene, words);
        this.tools = new Tools(words, {
            panes: () => this.panes,
            pointed: (pointer: Pointer) => void this.readout.show(pointer),
            done: (mark) => {
                const profile = mark.kind === "line" || mark.kind === "circle";
                if (!profile) {
                    this.tools.set(null);
                    this.tools.clear();
                }
                profile ? void this.profile.show(mark) : this.remarks.ask(mark);
            },
        });
        this.remarks = new RemarksPanel(server, words, overlays, (masks) => {
            scene.masks = masks;
            this.open();
        });
        this.dies = new DieGrid(catalogue.maps[0], overlays);
        this.live = new Live(() => scene.maps, server, words, () => this.grow());
        new FilterPanel(scene, server, (name) => {
            scene.quantity = name;
            this.range.automatic = true;
            this.open();
            this.live.watch();
        });
        this.build(store);
        this.translate(); // before the views are there: words take room
        listenToKeys({
            panes: () => this.panes,
            before: (event) => this.surface.key(event) || this.tools.key(event),
            escape: () => (this.surface.open ? this.surface.close() : this.tools.set(null)),
        });
        this.open();
    }

    private buildTools(): void {
        const parts: [Word, () => void][] = [
            ["home", () => this.panes.forEach(({ viewer }) => viewer.viewport.goHome(true))],
            ["in", () => this.panes[0].zoom(1.5)],
            ["out", () => this.panes[0].zoom(1 / 1.5)],
            ["line", () => this.tools.toggle("line")],
            ["circle", () => this.tools.toggle("circle")],
            ["mask", () => this.tools.toggle("mask")],
            ["note", () => this.tools.toggle("note")],
            ["read", () => this.tools.toggle("read")],
            ["surface", () => this.surface.toggle(this.panes[0])],
            ["picture", () => savePicture(this.panes, this.scene)],
            ["crop", () => void this.saveCrop("npy")],
            ["table", () => void this.saveCrop("csv")],
            ["report", () => void this.makeReport()],
            ["help", () => notice(this.words.say("keys"))],
        ];
        const unusable = this.server ? [] : ["mask", "note", "report"];
        for (const [name, act] of parts) {
            const made = button(`tool-${name}`, name, act);
            made.hidden = unusable.includes(name);
            element("tools").append(made, " ");
        }
    }

    private build(store: Store): void {
        const { scene } = this;
        const { maps } = this.catalogue;
        element("title").textContent = maps.map(({ name }) => name).join(" · ");
        document.title = `${maps[0].name} – cpikan view`;
        const layer = element<HTMLSelectElement>("layer");
        Object.keys(maps[0].quantities).filter((name) => name !== "flags").forEach((name) => layer.add(new Option(name, name)));
        layer.onchange = () => {
            scene.quantity = layer.value;
            this.range.automatic = true;
            this.open();
        };
        element("folder-box").hidden = !(store instanceof OverviewStore);
        element<HTMLInputElement>("folder").onchange = () => this.pick();
        element("mode-box").hidden = maps.length < 2;
        const mode = element<HTMLSelectElement>("mode");
        for (const name of ["both", "first", "second", "difference"]) {
            mode.add(new Option(name, name));
        }
        mode.value = scene.mode;
        mode.onchange = () => {
            scene.mode = mode.value as Mode;
            this.range.automatic = true;
            this.open();
        };
        const language = element<HTMLSelectElement>("language");
        language.value = this.words.language;
        language.onchange = () => {
            this.words.language = language.value as Language;
            this.translate();
        };
        checks("form", Object.keys(FORMS), (names) => {
            scene.forms = names;
            this.range.automatic = true;
            void this.measure();
        });
        if (maps.some(({ quantities }) => quantities.flags)) {
            checks("flags", FLAGS.map((bit) => `flag${bit}`), (names) => {
                const before = scene.shading.marked;
                scene.shading.marked = names.reduce((bits, name) => bits | Number(name.slice(4)), 0);
                before ? this.redraw() : this.open();
            });
        }
    }

    // Read from the files of the folder that was picked: their paths begin with its name.
    private pick(): void {
        const picked = [...(element<HTMLInputElement>("folder").files ?? [])];
        const files = new Map(picked.map((file) => [file.webkitRelativePath.split("/").slice(1).join("/"), file]));
        this.scene.maps = this.catalogue.maps.map((map, number) => new Tiles(map, number, new FolderStore(files)));
        this.open();
    }

    private translate(): void {
        const { words } = this;
        document.documentElement.lang = words.language;
        document.querySelectorAll<HTMLElement>("[data-word]").forEach((one) => (one.textContent = words.say(one.dataset.word as Word)));
        document.querySelectorAll<HTMLElement>("[data-label]").forEach((one) => (one.ariaLabel = words.say(one.dataset.label as Word)));
        for (const option of document.querySelectorAll<HTMLOptionElement>("#layer option, #mode option")) {
            if (words.has(option.value)) {
                option.textContent = words.say(option.value);
            }
        }
        this.panes.forEach((pane) => pane.viewer.canvas.setAttribute("aria-label", words.say("map")));
        this.remarks.list();
        tellAbout(this.catalogue.maps, words);
    }

    // Show what is chosen, in as many views as it takes.
    private open(): void {
        const { scene } = this;
        const count = scene.shown.length;
        if (this.panes.length !== count) {
            this.panes.forEach((pane) => pane.viewer.destroy());
            element("stage").replaceChildren();
            this.panes = Array.from(
                { length: count },
                () => new Pane(element("stage"), scene.shading, this.webgl, scene.lengthText),
            );
            for (const pane of this.panes) {
                this.tools.listen(pane);
                pane.marks = () => [...this.remarks.shown, ...this.tools.marks];
                pane.grid = this.dies.draw;
            }
            if (count > 1) {
                link(this.panes[0], this.panes[1]);
            }
        }
        scene.shown.forEach((tiles, i) =>
            this.panes[i].show({
                quantity: scene.quantity,
                tiles,
                less: scene.less,
                flags: scene.shading.marked !== 0,
                masks: scene.masks,
                grown: () => this.redraw(),
            }),
        );
        this.translate();
        void this.measure();
    }

    // Fit the form to the coarsest level and find the range of the colours there.
    private async measure(): Promise<void> {
        const turn = ++this.asked;
        try {
            const level = await this.scene.overview();
            if (turn !== this.asked) {
                return;
            }
            this.range.show(this.scene.flatten(level));
            notice(this.webgl ? "" : this.words.say("nowebgl"));
            await this.profile.read();
            if (this.surface.open) {
                await this.surface.show(this.panes[0]);
            }
        } catch (failure) {
            notice(`${this.words.say(failure instanceof MissingTile ? "missing" : "failed")}: ${(failure as Error).message}`);
        }
    }

    // Rows have come.
    private grow(): void {
        this.redraw();
        tellAbout(this.catalogue.maps, this.words);
        void this.measure();
    }

    private redraw(): void {
        this.panes.forEach((pane) => pane.redraw());
        this.surface.draw();
    }

    private saveCrop(kind: "npy" | "csv"): Promise<void> {
        return saveCrop(kind, this.panes[0], this.scene, this.words);
    }

    private async makeReport(): Promise<void> {
        notice(this.words.say("reporting"));
        try {
            const number = this.scene.mode === "second" ? 1 : 0;
            const { address } = (await this.server?.post<{ address: string }>(`report/${number}`, {})) ?? { address: "" };
            notice(this.words.say("reported"), { address, text: this.words.say("report") });
        } catch (failure) {
            notice((failure as Error).message);
        }
    }

    // What tests and measurements ask of the page.
    get state(): Record<string, unknown> {
        const { low, high } = this.scene.shading;
        return {
            loaded: this.panes.every((pane) => pane.loaded),
            range: [low, high],
            panes: this.panes,
            surface: this.surface,
            rows: this.scene.maps.map((tiles) => tiles.rows(this.scene.quantity)),
            version: this.catalogue.version,
        };
    }
}
