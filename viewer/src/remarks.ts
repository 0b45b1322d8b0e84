// Notes and masks on a map: a list, where each lies, and the file beside the map that keeps them.

import { element, notice } from "./elements";
import type { Mark } from "./marks";
import type { Point } from "./profile";
import type { Server } from "./server";
import type { Words } from "./words";

interface File {
    notes: { x: number; y: number; text: string }[];
    masks: { name: string; corners: [number, number][] }[];
}

// In the file the centre of the first pixel lies at 0, on the page its corner does.
const HALF = 0.5;
const rounded = (value: number) => Math.round(value * 1000) / 1000;

export class RemarksPanel {
    marks: Mark[] = [];
    private pending: Mark | null = null;

    constructor(
        private readonly server: Server | null,
        private readonly words: Words,
        private readonly changed: () => void,
        private readonly cut: (masks: Point[][]) => void,
    ) {
        element("masks-cut").onchange = () => this.leaveOut();
        element("remarks-section").hidden = server === null;
        element<HTMLFormElement>("remark-form").onsubmit = (event) => {
            event.preventDefault();
            void this.add();
        };
        element("remark-drop").onclick = () => this.ask(null);
        this.ask(null);
        void this.load();
    }

    // Ask for the words of what was drawn.
    ask(mark: Mark | null): void {
        this.pending = mark;
        element("remark-form").hidden = mark === null;
        if (mark) {
            const input = element<HTMLInputElement>("remark-text");
            input.value = "";
            input.focus();
        }
        this.changed();
    }

    get shown(): Mark[] {
        return this.pending ? [...this.marks, this.pending] : this.marks;
    }

    list(): void {
        element("remarks").replaceChildren(
            ...this.marks.map((mark, number) => {
                const item = document.createElement("li");
                const drop = document.createElement("button");
                const [{ x, y }] = mark.points;
                const kind = this.words.say(mark.kind === "note" ? "note" : "mask");
                item.textContent = `${kind} y ${Math.floor(y)} x ${Math.floor(x)}: ${mark.text} `;
                drop.type = "button";
                drop.textContent = this.words.say("remove");
                drop.setAttribute("aria-label", `${this.words.say("remove")}: ${mark.text}`);
                drop.onclick = () => void this.save(this.marks.filter((_, i) => i !== number));
                item.append(drop);
                return item;
            }),
        );
    }

    private async add(): Promise<void> {
        const { pending } = this;
        if (pending) {
            const saved = await this.save([...this.marks, { ...pending, text: element<HTMLInputElement>("remark-text").value }]);
            if (saved) {
                this.ask(null);
            }
        }
    }

    private async load(): Promise<void> {
        try {
            this.take((await this.server?.get<File>("remarks/0")) ?? { notes: [], masks: [] });
        } catch (failure) {
            notice((failure as Error).message);
        }
    }

    private async save(marks: Mark[]): Promise<boolean> {
        const place = ({ x, y }: Point) => ({ x: rounded(x - HALF), y: rounded(y - HALF) });
        const file: File = {
            notes: marks.filter(({ kind }) => kind === "note").map(({ points, text }) => ({ ...place(points[0]), text: text ?? "" })),
            masks: marks
                .filter(({ kind }) => kind === "mask")
                .map(({ points, text }) => ({
                    name: text ?? "",
                    corners: points.map(place).map(({ x, y }): [number, number] => [x, y]),
                })),
        };
        try {
            this.take((await this.server?.post<File>("remarks/0", file)) ?? file);
            return true;
        } catch (failure) {
            notice((failure as Error).message);
            return false;
        }
    }

    private take(file: File): void {
        this.marks = [
            ...file.notes.map(({ x, y, text }): Mark => ({ kind: "note", points: [{ x: x + HALF, y: y + HALF }], text })),
            ...file.masks.map(
                ({ name, corners }): Mark => ({ kind: "mask", points: corners.map(([x, y]) => ({ x: x + HALF, y: y + HALF })), text: name }),
            ),
        ];
        this.list();
        this.changed();
        if (element<HTMLInputElement>("masks-cut").checked) {
            this.leaveOut();
        }
    }

    // Tell which masks leave out what they cover: all, or none.
    private leaveOut(): void {
        const wanted = element<HTMLInputElement>("masks-cut").checked;
        this.cut(wanted ? this.marks.filter(({ kind }) => kind === "mask").map(({ points }) => points) : []);
    }
}
