// What the page saves: pictures, tables, arrays.

export function save(name: string, content: Blob): void {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(content);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// A NumPy file of a float32 array (height, width).
export function npyOf(values: Float32Array, shape: [number, number]): Blob {
    const text = `{'descr': '<f4', 'fortran_order': False, 'shape': (${shape[0]}, ${shape[1]}), }`;
    const length = Math.ceil((10 + text.length + 1) / 64) * 64 - 10;
    const head = new Uint8Array(10 + length).fill(0x20);
    head.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, length & 255, length >> 8]);
    head.set(new TextEncoder().encode(text), 10);
    head[head.length - 1] = 0x0a;
    return new Blob([head, values.buffer as ArrayBuffer]);
}

// A table of the same: a row of pixels a line, empty where nothing was measured; columns are named by their number.
export function csvTableOf(values: Float32Array, shape: [number, number], from: { top: number; left: number }, unit: string): Blob {
    const [height, width] = shape;
    const names = Array.from({ length: width }, (_, x) => from.left + x);
    const lines = [`row\\column (${unit || "1"}),${names.join(",")}`];
    for (let y = 0; y < height; y++) {
        const row = values.subarray(y * width, (y + 1) * width);
        lines.push(`${from.top + y},${Array.from(row, (value) => (Number.isFinite(value) ? +value.toPrecision(9) : "")).join(",")}`);
    }
    return new Blob([`${lines.join("\n")}\n`], { type: "text/csv" });
}
