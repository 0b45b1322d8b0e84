// Elements of the page by their names, and those that are made again and again.

export function element<T extends HTMLElement>(id: string): T {
    return document.getElementById(id) as T;
}

export function notice(text: string, link?: { address: string; text: string }): void {
    const box = element("notice");
    box.textContent = text;
    if (link) {
        const anchor = document.createElement("a");
        Object.assign(anchor, { href: link.address, target: "_blank", textContent: link.text, id: "notice-link" });
        box.append(" ", anchor);
    }
    box.hidden = !box.textContent;
}

// A button whose text is a word of the page.
export function button(id: string, word: string, act: () => void): HTMLButtonElement {
    const made = document.createElement("button");
    made.type = "button";
    made.id = id;
    made.dataset.word = word;
    made.onclick = act;
    return made;
}

// Boxes to be checked, in the element `id`; `changed` gets the names of those that are.
export function checks(id: string, names: string[], changed: (names: string[]) => void): void {
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

const SVG = "http://www.w3.org/2000/svg";

export function svgPart(name: string, attributes: Record<string, string | number>, text = ""): SVGElement {
    const part = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) {
        part.setAttribute(key, String(value));
    }
    part.textContent = text;
    return part;
}
