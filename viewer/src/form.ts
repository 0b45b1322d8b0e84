// The form of a surface: polynomials in coordinates that are the same in x and y, fitted to a coarse level.

export const FORMS: Record<string, [number, number, number][][]> = {
    // sums of [coefficient, power of x, power of y]
    piston: [[[1, 0, 0]]],
    tilt: [[[1, 1, 0]], [[1, 0, 1]]],
    power: [[[1, 2, 0], [1, 0, 2]]],
    astigmatism: [[[1, 2, 0], [-1, 0, 2]], [[1, 1, 1]]],
    coma: [[[1, 3, 0], [1, 1, 2]], [[1, 2, 1], [1, 0, 3]]],
    spherical: [[[1, 4, 0], [2, 2, 2], [1, 0, 4]]],
};

export const MONOMIALS: [number, number][] = [];
for (let degree = 0; degree <= 4; degree++) {
    for (let j = 0; j <= degree; j++) {
        MONOMIALS.push([degree - j, j]);
    }
}

export const NO_FORM = new Float32Array(MONOMIALS.length);

// Coordinates of pixels of the finest level: from the centre, in units of half the longer side of the map as it is drawn.
export function unitOf(shape: [number, number], aspect: number): { x: number; y: number; scaleX: number; scaleY: number } {
    const scale = Math.max(shape[0] * aspect, shape[1]) / 2;
    return { x: shape[1] / 2, y: shape[0] / 2, scaleX: scale, scaleY: scale / aspect };
}

export function valueOf(form: Float32Array | Float64Array, u: number, v: number): number {
    let sum = 0;
    MONOMIALS.forEach(([i, j], k) => (sum += form[k] * u ** i * v ** j));
    return sum;
}

function solve(matrix: number[][], right: number[]): number[] {
    const n = right.length;
    for (let k = 0; k < n; k++) {
        let best = k;
        for (let i = k + 1; i < n; i++) {
            best = Math.abs(matrix[i][k]) > Math.abs(matrix[best][k]) ? i : best;
        }
        [matrix[k], matrix[best], right[k], right[best]] = [matrix[best], matrix[k], right[best], right[k]];
        if (!matrix[k][k]) {
            continue;
        }
        for (let i = k + 1; i < n; i++) {
            const factor = matrix[i][k] / matrix[k][k];
            for (let j = k; j < n; j++) {
                matrix[i][j] -= factor * matrix[k][j];
            }
            right[i] -= factor * right[k];
        }
    }
    const found = new Array<number>(n).fill(0);
    for (let k = n - 1; k >= 0; k--) {
        let rest = right[k];
        for (let j = k + 1; j < n; j++) {
            rest -= matrix[k][j] * found[j];
        }
        found[k] = matrix[k][k] ? rest / matrix[k][k] : 0;
    }
    return found;
}

// Least squares over the finite values of a level; `full` is the shape of the finest one.
export function fitForm(
    names: string[],
    level: { shape: [number, number]; values: Float32Array },
    full: [number, number],
    aspect: number,
): Float64Array {
    const terms = names.flatMap((name) => FORMS[name]);
    const [height, width] = level.shape;
    const { x: centreX, y: centreY, scaleX, scaleY } = unitOf(full, aspect);
    const stepY = 2 ** Math.round(Math.log2(full[0] / height));
    const stepX = 2 ** Math.round(Math.log2(full[1] / width));
    const n = terms.length;
    const matrix = Array.from({ length: n }, () => new Array<number>(n).fill(0));
    const right = new Array<number>(n).fill(0);
    const row = new Array<number>(n);
    for (let y = 0; y < height; y++) {
        const v = (Math.min((y + 0.5) * stepY, full[0]) - centreY) / scaleY;
        for (let x = 0; x < width; x++) {
            const value = level.values[y * width + x];
            if (!Number.isFinite(value)) {
                continue;
            }
            const u = (Math.min((x + 0.5) * stepX, full[1]) - centreX) / scaleX;
            for (let k = 0; k < n; k++) {
                row[k] = terms[k].reduce((sum, [c, i, j]) => sum + c * u ** i * v ** j, 0);
            }
            for (let k = 0; k < n; k++) {
                right[k] += row[k] * value;
                for (let j = 0; j < n; j++) {
                    matrix[k][j] += row[k] * row[j];
                }
            }
        }
    }
    const found = n ? solve(matrix, right) : [];
    const form = new Float64Array(MONOMIALS.length);
    terms.forEach((term, k) =>
        term.forEach(([c, i, j]) => (form[MONOMIALS.findIndex(([a, b]) => a === i && b === j)] += c * found[k])),
    );
    return form;
}
