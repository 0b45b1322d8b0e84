// Tiles of numbers drawn: by WebGL 2 where there is it, else pixel by pixel on a canvas.

import OpenSeadragon from "openseadragon";

import { unitOf, valueOf } from "./form";
import type { Shading, TileNumbers } from "./shading";
import { NUMBERS } from "./source";

const VERTEX = `#version 300 es
uniform vec4 box; // left, top, width, height in clip space
uniform vec2 part; // of the texture that the map fills
out vec2 place;
void main() {
    vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1);
    place = corner * part;
    gl_Position = vec4(box.xy + corner * box.zw, 0.0, 1.0);
}`;

// A software renderer evaluates branches that no pixel takes: what is not needed is left out of the program.
const fragment = (shaped: boolean, marked: boolean): string => `#version 300 es
precision highp float;
precision highp sampler2D;
precision highp usampler2D;
uniform sampler2D values;
uniform usampler2D flags;
uniform sampler2D colours;
uniform vec2 range; // low, 1 / (high - low)
uniform vec4 position; // x and y of the texture's corner, its size; coordinates of the form
uniform float form[15];
uniform uint marked;
uniform bool missing;
uniform vec3 paper;
in vec2 place;
out vec4 colour;
void main() {
    if (missing) {
        bool stripe = mod(gl_FragCoord.x + gl_FragCoord.y, 12.0) < 6.0;
        colour = stripe ? vec4(0.75, 0.2, 0.2, 1.0) : vec4(0.35, 0.1, 0.1, 1.0);
        return;
    }
    float value = texture(values, place).r;
    if (isnan(value) || isinf(value)) {
        vec2 square = floor(gl_FragCoord.xy / 8.0);
        colour = vec4(mod(square.x + square.y, 2.0) < 0.5 ? paper : paper * 0.96 + 0.01, 1.0);
        return;
    }
    ${shaped ? "" : "/*"}
        float x = position.x + place.x * position.z;
        float y = position.y + place.y * position.w;
        value -= form[0] + x * form[1] + y * form[2] + x * x * form[3] + x * y * form[4] + y * y * form[5]
            + x * x * x * form[6] + x * x * y * form[7] + x * y * y * form[8] + y * y * y * form[9]
            + x * x * x * x * form[10] + x * x * x * y * form[11] + x * x * y * y * form[12] + x * y * y * y * form[13]
            + y * y * y * y * form[14];
    ${shaped ? "" : "*/"}
    float share = clamp((value - range.x) * range.y, 0.0, 1.0);
    colour = texture(colours, vec2(share * 255.0 / 256.0 + 0.5 / 256.0, 0.5));
    ${marked ? "if ((texture(flags, place).r & marked) != 0u) colour = mix(colour, vec4(1.0, 0.1, 0.9, 1.0), 0.65);" : ""}
}`;

interface DrawnTile {
    level: number;
    x: number;
    y: number;
    bounds: OpenSeadragon.Rect;
    tiledImage: OpenSeadragon.TiledImage;
}

type Parameters = ConstructorParameters<typeof OpenSeadragon.DrawerBase>[0];

// What both drawers have in common; they differ in what a tile is kept as, and in how one is put on the canvas.
abstract class NumberDrawer<Kept> extends OpenSeadragon.DrawerBase {
    constructor(options: Parameters) {
        super(options);
    }

    get defaultOptions(): OpenSeadragon.BaseDrawerOptions {
        return { usePrivateCache: true, preloadCache: true, broadCastTileInvalidation: false } as OpenSeadragon.BaseDrawerOptions;
    }

    getSupportedDataFormats(): string[] {
        return [NUMBERS];
    }

    canRotate(): boolean {
        return false;
    }

    setImageSmoothingEnabled(): void {
        // numbers are never blended
    }

    minimumOverlapRequired(): boolean {
        return false;
    }

    get shading(): Shading | undefined {
        return (this.viewer as unknown as { shading?: Shading }).shading;
    }

    _createDrawingElement(): HTMLCanvasElement {
        const canvas = document.createElement("canvas");
        canvas.setAttribute("aria-hidden", "true");
        return canvas;
    }

    abstract begin(shading: Shading): void;
    abstract put(kept: Kept, tile: DrawnTile, box: OpenSeadragon.Rect, shading: Shading): void;

    draw(images: OpenSeadragon.TiledImage[]): void {
        const { shading } = this;
        const size = this.viewport.getContainerSize();
        const [width, height] = [size.x, size.y].map((side) => Math.round(side * OpenSeadragon.pixelDensityRatio));
        if (this.canvas.width !== width || this.canvas.height !== height) {
            this.canvas.width = width;
            this.canvas.height = height;
        }
        if (!shading) {
            return;
        }
        this.begin(shading);
        for (const image of images) {
            const drawn = (image as unknown as { getTilesToDraw(): { tile: DrawnTile }[] }).getTilesToDraw();
            for (const { tile } of drawn) {
                const kept = this.getDataToDraw(tile as unknown as OpenSeadragon.Tile) as Kept | undefined;
                if (kept) {
                    this.put(kept, tile, this.viewportToDrawerRectangle(tile.bounds), shading);
                }
            }
        }
    }

    destroy(): void {
        this.destroyInternalCache();
        super.destroy();
        this.canvas.remove();
    }
}

interface Placed {
    part: [number, number]; // of the chunk that lies in the map
    left: number; // of its corner, pixels of the finest level
    top: number;
    size: number; // of a chunk in such pixels
    full: [number, number];
    missing: boolean;
}

function placed(numbers: TileNumbers, tile: OpenSeadragon.Tile): Placed {
    const image = (tile as unknown as DrawnTile).tiledImage;
    const { source } = image as unknown as { source: OpenSeadragon.TileSource };
    const full: [number, number] = [source.dimensions.y, source.dimensions.x];
    const chunk = Math.sqrt(numbers.values.length);
    const { level, x, y } = tile as unknown as DrawnTile;
    const step = 2 ** (source.maxLevel - level);
    const part = [full[1], full[0]].map((side, axis) => {
        const inside = Math.ceil(side / step) - [x, y][axis] * chunk;
        return Math.min(1, inside / chunk);
    }) as [number, number];
    const size = chunk * step;
    return { part, left: x * size, top: y * size, size, full, missing: numbers.missing !== null };
}

// What lies under the map.
function paper(): [number, number, number] {
    return matchMedia("(prefers-color-scheme: dark)").matches ? [0.18, 0.19, 0.21] : [0.93, 0.93, 0.92];
}

type Place = WebGLUniformLocation | null;

interface Program {
    program: WebGLProgram;
    box: Place;
    part: Place;
    range: Place;
    position: Place;
    form: Place;
    marked: Place;
    missing: Place;
    paper: Place;
}

interface Textures extends Placed {
    values: WebGLTexture;
    flags: WebGLTexture | null;
}

export class WebglDrawer extends NumberDrawer<Textures> {
    private gl!: WebGL2RenderingContext;
    private readonly programs = new Map<string, Program>();
    private colours!: WebGLTexture;
    private colourCount = 0;

    static isSupported(): boolean {
        return document.createElement("canvas").getContext("webgl2") !== null;
    }

    getType(): string {
        return "numbers-webgl";
    }

    private start(): void {
        const gl = this.canvas.getContext("webgl2", { alpha: false, antialias: false, depth: false });
        if (!gl) {
            throw new Error("no WebGL 2");
        }
        this.gl = gl;
        this.colours = this.texture();
    }

    // The program for what is shown, made when it is first needed.
    private program(shaped: boolean, marked: boolean): Program {
        const key = `${shaped} ${marked}`;
        const there = this.programs.get(key);
        if (there) {
            return there;
        }
        const { gl } = this;
        const program = gl.createProgram();
        for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, fragment(shaped, marked)]] as const) {
            const shader = gl.createShader(kind) as WebGLShader;
            gl.shaderSource(shader, text);
            gl.compileShader(shader);
            if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) {
                throw new Error(gl.getShaderInfoLog(shader) ?? "a shader does not compile");
            }
            gl.attachShader(program, shader);
        }
        gl.linkProgram(program);
        gl.useProgram(program);
        const at = (name: string) => gl.getUniformLocation(program, name);
        gl.uniform1i(at("values"), 0);
        gl.uniform1i(at("flags"), 1);
        gl.uniform1i(at("colours"), 2);
        const made = {
            program, box: at("box"), part: at("part"), range: at("range"), position: at("position"), form: at("form"),
            marked: at("marked"), missing: at("missing"), paper: at("paper"),
        };
        this.programs.set(key, made);
        return made;
    }

    private texture(): WebGLTexture {
        const { gl } = this;
        const texture = gl.createTexture();
        gl.bindTexture(gl.TEXTURE_2D, texture);
        gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
        gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
        gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
        gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
        return texture;
    }

    internalCacheCreate(cache: OpenSeadragon.CacheRecord, tile: OpenSeadragon.Tile): Textures {
        if (!this.gl) {
            this.start();
        }
        const { gl } = this;
        const numbers = (cache as unknown as { data: TileNumbers }).data;
        const side = Math.sqrt(numbers.values.length);
        gl.activeTexture(gl.TEXTURE0);
        const values = this.texture();
        gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
        gl.texImage2D(gl.TEXTURE_2D, 0, gl.R32F, side, side, 0, gl.RED, gl.FLOAT, numbers.values);
        let flags: WebGLTexture | null = null;
        if (numbers.flags) {
            flags = this.texture();
            gl.texImage2D(gl.TEXTURE_2D, 0, gl.R8UI, side, side, 0, gl.RED_INTEGER, gl.UNSIGNED_BYTE, numbers.flags);
        }
        return { values, flags, ...placed(numbers, tile) };
    }

    internalCacheFree(kept: Textures): void {
        this.gl.deleteTexture(kept.values);
        this.gl.deleteTexture(kept.flags);
    }

    begin(shading: Shading): void {
        if (!this.gl) {
            this.start();
        }
        const { gl } = this;
        gl.viewport(0, 0, this.canvas.width, this.canvas.height);
        gl.clearColor(...paper(), 1);
        gl.clear(gl.COLOR_BUFFER_BIT);
        gl.activeTexture(gl.TEXTURE2);
        gl.bindTexture(gl.TEXTURE_2D, this.colours);
        if (this.colourCount !== shading.colourCount) {
            gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, shading.colours);
            this.colourCount = shading.colourCount;
        }
    }

    put(kept: Textures, _tile: DrawnTile, box: OpenSeadragon.Rect, shading: Shading): void {
        const { gl } = this;
        const { width, height } = this.canvas;
        const places = this.program(shading.form.some((value) => value !== 0), kept.flags !== null && shading.marked !== 0);
        gl.useProgram(places.program);
        gl.uniform2f(places.range, shading.low, 1 / (shading.high - shading.low));
        gl.uniform1fv(places.form, shading.form);
        gl.uniform3f(places.paper, ...paper());
        // whole pixels: neighbours meet without a seam
        const [left, right] = [Math.round(box.x), Math.round(box.x + box.width)];
        const [top, bottom] = [Math.round(box.y), Math.round(box.y + box.height)];
        gl.uniform4f(
            places.box,
            (2 * left) / width - 1,
            1 - (2 * top) / height,
            (2 * (right - left)) / width,
            (-2 * (bottom - top)) / height,
        );
        gl.uniform2f(places.part, ...kept.part);
        const { x, y, scale } = unitOf(kept.full);
        gl.uniform4f(places.position, (kept.left - x) / scale, (kept.top - y) / scale, kept.size / scale, kept.size / scale);
        gl.uniform1ui(places.marked, shading.marked);
        gl.uniform1i(places.missing, kept.missing ? 1 : 0);
        gl.activeTexture(gl.TEXTURE0);
        gl.bindTexture(gl.TEXTURE_2D, kept.values);
        gl.activeTexture(gl.TEXTURE1);
        gl.bindTexture(gl.TEXTURE_2D, kept.flags);
        gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
    }

    destroy(): void {
        super.destroy();
        this.gl?.getExtension("WEBGL_lose_context")?.loseContext();
    }
}

interface Pixels extends Placed {
    numbers: TileNumbers;
    canvas: HTMLCanvasElement;
    shaded: string; // by what the canvas was coloured
}

export class CanvasDrawer extends NumberDrawer<Pixels> {
    static isSupported(): boolean {
        return true;
    }

    getType(): string {
        return "numbers-canvas";
    }

    internalCacheCreate(cache: OpenSeadragon.CacheRecord, tile: OpenSeadragon.Tile): Pixels {
        const numbers = (cache as unknown as { data: TileNumbers }).data;
        const canvas = document.createElement("canvas");
        canvas.width = canvas.height = Math.sqrt(numbers.values.length);
        return { numbers, canvas, shaded: "", ...placed(numbers, tile) };
    }

    internalCacheFree(kept: Pixels): void {
        kept.canvas.width = kept.canvas.height = 1;
    }

    begin(): void {
        this.canvas.getContext("2d")?.clearRect(0, 0, this.canvas.width, this.canvas.height);
    }

    put(kept: Pixels, _tile: DrawnTile, box: OpenSeadragon.Rect, shading: Shading): void {
        const context = this.canvas.getContext("2d");
        if (!context) {
            return;
        }
        const key = [shading.low, shading.high, shading.colourCount, shading.marked, ...shading.form].join();
        if (kept.shaded !== key) {
            colour(kept, shading);
            kept.shaded = key;
        }
        const [left, right] = [Math.round(box.x), Math.round(box.x + box.width)];
        const [top, bottom] = [Math.round(box.y), Math.round(box.y + box.height)];
        const side = kept.canvas.width;
        context.imageSmoothingEnabled = false;
        context.drawImage(
            kept.canvas, 0, 0, kept.part[0] * side, kept.part[1] * side, left, top, right - left, bottom - top,
        );
    }
}

function colour(kept: Pixels, shading: Shading): void {
    const side = kept.canvas.width;
    const context = kept.canvas.getContext("2d") as CanvasRenderingContext2D;
    const image = context.createImageData(side, side);
    const pixels = new Uint32Array(image.data.buffer);
    const table = new Uint32Array(shading.colours.buffer);
    const { values, flags } = kept.numbers;
    const { x: centreX, y: centreY, scale } = unitOf(kept.full);
    const step = kept.size / side;
    const flat = shading.form.every((value) => value === 0);
    const factor = 255 / (shading.high - shading.low);
    for (let i = 0; i < values.length; i++) {
        let value = values[i];
        if (!flat) {
            const u = (kept.left + ((i % side) + 0.5) * step - centreX) / scale;
            const v = (kept.top + (Math.floor(i / side) + 0.5) * step - centreY) / scale;
            value -= valueOf(shading.form, u, v);
        }
        if (kept.missing) {
            pixels[i] = ((i % side) + Math.floor(i / side)) % 12 < 6 ? 0xff3333bf : 0xff1a1a59;
        } else if (Number.isFinite(value)) {
            const share = Math.round((value - shading.low) * factor);
            pixels[i] = flags && flags[i] & shading.marked ? 0xffe61aff : table[Math.min(255, Math.max(0, share))];
        }
    }
    context.putImageData(image, 0, 0);
}
