// Tiles of numbers drawn by WebGL 2.

import OpenSeadragon from "openseadragon";

import { type DrawnTile, NumberDrawer, paper, type Placed, placed } from "./drawer";
import { unitOf } from "./form";
import { programOf, textureOf } from "./programs";
import type { Shading, TileNumbers } from "./shading";

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
precision highp int;
precision highp sampler2D;
precision highp usampler2D;
uniform sampler2D values;
uniform usampler2D flags;
uniform sampler2D colours;
uniform vec2 range; // low, 255 / (high - low)
uniform vec4 position; // x and y of the texture's corner, its size; coordinates of the form
uniform float form[15];
uniform uint marked;
uniform float side; // pixels of the texture
uniform vec3 paper;
in vec2 place;
out vec4 colour;
void main() {
    ivec2 pixel = ivec2(place * side);
    float value = texelFetch(values, pixel, 0).r;
    ${shaped ? "" : "/*"}
        float x = position.x + place.x * position.z;
        float y = position.y + place.y * position.w;
        value -= form[0] + x * form[1] + y * form[2] + x * x * form[3] + x * y * form[4] + y * y * form[5]
            + x * x * x * form[6] + x * x * y * form[7] + x * y * y * form[8] + y * y * y * form[9]
            + x * x * x * x * form[10] + x * x * x * y * form[11] + x * x * y * y * form[12] + x * y * y * y * form[13]
            + y * y * y * y * form[14];
    ${shaped ? "" : "*/"}
    if (abs(value) < 3.4e38) {
        colour = texelFetch(colours, ivec2(int(clamp((value - range.x) * range.y, 0.0, 255.0) + 0.5), 0), 0);
        ${marked ? "if ((texelFetch(flags, pixel, 0).r & marked) != 0u) colour = mix(colour, vec4(1.0, 0.1, 0.9, 1.0), 0.65);" : ""}
    } else {
        int square = (int(gl_FragCoord.x) ^ int(gl_FragCoord.y)) & 8;
        colour = vec4(square == 0 ? paper : paper * 0.96 + 0.01, 1.0);
    }
}`;

const MISSING = `#version 300 es
precision highp float;
out vec4 colour;
void main() {
    bool stripe = mod(gl_FragCoord.x + gl_FragCoord.y, 12.0) < 6.0;
    colour = stripe ? vec4(0.75, 0.2, 0.2, 1.0) : vec4(0.35, 0.1, 0.1, 1.0);
}`;

type Place = WebGLUniformLocation | null;

interface Program {
    program: WebGLProgram;
    box: Place;
    part: Place;
    range: Place;
    position: Place;
    form: Place;
    marked: Place;
    side: Place;
    paper: Place;
}

interface Textures extends Placed {
    numbers: TileNumbers;
    version: number; // of the numbers that the textures hold
    values: WebGLTexture;
    flags: WebGLTexture | null;
}

export class WebglDrawer extends NumberDrawer<Textures> {
    private gl!: WebGL2RenderingContext;
    private readonly programs = new Map<string, Program>();
    private colours!: WebGLTexture;
    private colourCount = 0;
    private paper = paper();

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
        this.colours = textureOf(this.gl);
    }

    // The program for what is shown, made when it is first needed.
    private program(text: string): Program {
        const there = this.programs.get(text);
        if (there) {
            return there;
        }
        const { gl } = this;
        const program = programOf(gl, VERTEX, text);
        gl.useProgram(program);
        const at = (name: string) => gl.getUniformLocation(program, name);
        gl.uniform1i(at("values"), 0);
        gl.uniform1i(at("flags"), 1);
        gl.uniform1i(at("colours"), 2);
        const made = {
            program, box: at("box"), part: at("part"), range: at("range"), position: at("position"), form: at("form"),
            marked: at("marked"), side: at("side"), paper: at("paper"),
        };
        this.programs.set(text, made);
        return made;
    }

    internalCacheCreate(cache: OpenSeadragon.CacheRecord, tile: OpenSeadragon.Tile): Textures {
        if (!this.gl) {
            this.start();
        }
        const numbers = (cache as unknown as { data: TileNumbers }).data;
        const flags = numbers.flags ? textureOf(this.gl) : null;
        const kept = { values: textureOf(this.gl), flags, numbers, version: 0, ...placed(numbers, tile) };
        this.fill(kept);
        return kept;
    }

    private fill(kept: Textures): void {
        const { gl } = this;
        const { values, flags } = kept.numbers;
        const side = Math.sqrt(values.length);
        gl.activeTexture(gl.TEXTURE0);
        gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
        gl.bindTexture(gl.TEXTURE_2D, kept.values);
        gl.texImage2D(gl.TEXTURE_2D, 0, gl.R32F, side, side, 0, gl.RED, gl.FLOAT, values);
        if (flags && kept.flags) {
            gl.bindTexture(gl.TEXTURE_2D, kept.flags);
            gl.texImage2D(gl.TEXTURE_2D, 0, gl.R8UI, side, side, 0, gl.RED_INTEGER, gl.UNSIGNED_BYTE, flags);
        }
        kept.version = kept.numbers.version;
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
        this.paper = paper();
        gl.clearColor(...this.paper, 1);
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
        if (kept.version !== kept.numbers.version) {
            this.fill(kept);
        }
        const { values, missing } = kept.numbers;
        const shaped = shading.form.some((value) => value !== 0);
        const marked = kept.flags !== null && shading.marked !== 0;
        const places = this.program(missing === null ? fragment(shaped, marked) : MISSING);
        gl.useProgram(places.program);
        gl.uniform2f(places.range, shading.low, 255 / (shading.high - shading.low));
        gl.uniform1fv(places.form, shading.form);
        gl.uniform3f(places.paper, ...this.paper);
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
        const { x, y, scaleX, scaleY } = unitOf(kept.full, kept.aspect);
        gl.uniform4f(places.position, (kept.left - x) / scaleX, (kept.top - y) / scaleY, kept.size / scaleX, kept.size / scaleY);
        gl.uniform1ui(places.marked, shading.marked);
        gl.uniform1f(places.side, Math.sqrt(values.length));
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
