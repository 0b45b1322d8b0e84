// The part of the map that is seen as a surface in three dimensions, lit from the upper left.

import { programOf, textureOf } from "./programs";
import type { Shading } from "./shading";
import type { Part } from "./tiles";

const VERTEX = `#version 300 es
precision highp float;
precision highp sampler2D;
uniform sampler2D heights;
uniform ivec2 size;
uniform vec3 scale; // of columns, rows and heights
uniform float middle; // height that lies at 0
uniform mat4 view;
out float height;
out float hole;
out vec3 normal;
float at(ivec2 place, float otherwise) {
    float found = texelFetch(heights, clamp(place, ivec2(0), size - 1), 0).r;
    return isnan(found) || isinf(found) ? otherwise : found;
}
void main() {
    ivec2 place = ivec2(gl_VertexID % size.x, gl_VertexID / size.x);
    height = texelFetch(heights, place, 0).r;
    hole = isnan(height) || isinf(height) ? 1.0 : 0.0;
    height = hole > 0.0 ? middle : height;
    vec2 rise = vec2(
        at(place + ivec2(1, 0), height) - at(place - ivec2(1, 0), height),
        at(place - ivec2(0, 1), height) - at(place + ivec2(0, 1), height)
    );
    normal = normalize(vec3(-rise * scale.z / (2.0 * scale.xy), 1.0));
    vec2 plane = vec2(place) - 0.5 * vec2(size - 1);
    gl_Position = view * vec4(plane.x * scale.x, -plane.y * scale.y, (height - middle) * scale.z, 1.0);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
uniform sampler2D colours;
uniform vec2 range; // low, 1 / (high - low)
uniform vec3 light;
in float height;
in float hole;
in vec3 normal;
out vec4 colour;
void main() {
    if (hole > 0.0) discard;
    float share = clamp((height - range.x) * range.y, 0.0, 1.0);
    vec3 own = texture(colours, vec2(share * 255.0 / 256.0 + 0.5 / 256.0, 0.5)).rgb;
    float lit = 0.35 + 0.65 * abs(dot(normalize(normal), light));
    colour = vec4(own * lit, 1.0);
}`;

export interface Pose {
    turn: number; // about the normal of the map, rad
    tilt: number; // from the view from above, rad
    near: number; // 1 shows all of it
    exaggeration: number; // of heights over lengths
}

// Columns of the matrix one after another, as WebGL takes them.
export function viewOf(pose: Pose, sides: number): Float32Array {
    const [ct, st] = [Math.cos(pose.turn), Math.sin(pose.turn)];
    const [cu, su] = [Math.cos(pose.tilt), Math.sin(pose.tilt)];
    const far = 3.2 / pose.near;
    const lens = 2.4;
    // turned about z, tilted about x, moved away, seen through a lens: clip z from 0.1 to 20
    const rows = [
        [(lens * ct) / sides, (-lens * st) / sides, 0, 0],
        [lens * cu * st, lens * cu * ct, -lens * -su, 0],
        [-su * st, -su * ct, cu, -far],
    ];
    const [near, most] = [0.1, 20];
    const [k, m] = [-(most + near) / (most - near), (-2 * most * near) / (most - near)];
    const depth = rows[2].map((value, i) => k * value + (i === 3 ? m : 0));
    const away = rows[2].map((value) => -value);
    return Float32Array.from([0, 1, 2, 3].flatMap((i) => [rows[0][i], rows[1][i], depth[i], away[i]]));
}

export class SurfaceDrawing {
    private readonly program: WebGLProgram;
    private readonly heights: WebGLTexture;
    private readonly colours: WebGLTexture;
    private part: Part | null = null;
    private count = 0;
    private middle = 0;

    constructor(private readonly gl: WebGL2RenderingContext) {
        this.program = programOf(gl, VERTEX, FRAGMENT);
        this.heights = textureOf(gl);
        this.colours = textureOf(gl);
        gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    }

    show(part: Part, middle: number): void {
        const { gl } = this;
        const [height, width] = part.shape;
        this.part = part;
        this.middle = middle;
        gl.bindTexture(gl.TEXTURE_2D, this.heights);
        gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
        gl.texImage2D(gl.TEXTURE_2D, 0, gl.R32F, width, height, 0, gl.RED, gl.FLOAT, part.values);
        const triangles = new Uint32Array(6 * Math.max(0, height - 1) * Math.max(0, width - 1));
        let i = 0;
        for (let y = 0; y + 1 < height; y++) {
            for (let x = 0; x + 1 < width; x++) {
                const at = y * width + x;
                triangles.set([at, at + width, at + 1, at + 1, at + width, at + width + 1], i);
                i += 6;
            }
        }
        gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, triangles, gl.STATIC_DRAW);
        this.count = triangles.length;
    }

    // `step`: the sizes of a column, of a row and of a unit of height, in one unit of length.
    draw(pose: Pose, shading: Shading, step: [number, number, number], paper: [number, number, number]): void {
        const { gl, program, part } = this;
        const { width, height } = gl.canvas;
        gl.viewport(0, 0, width, height);
        gl.clearColor(...paper, 1);
        gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
        if (!part) {
            return;
        }
        gl.enable(gl.DEPTH_TEST);
        gl.useProgram(program);
        const at = (name: string) => gl.getUniformLocation(program, name);
        const long = Math.max(part.shape[1] * step[0], part.shape[0] * step[1]) / 2;
        gl.uniform1i(at("heights"), 0);
        gl.uniform1i(at("colours"), 1);
        gl.uniform2i(at("size"), part.shape[1], part.shape[0]);
        gl.uniform3f(at("scale"), step[0] / long, step[1] / long, (step[2] * pose.exaggeration) / long);
        gl.uniform1f(at("middle"), this.middle);
        gl.uniformMatrix4fv(at("view"), false, viewOf(pose, width / height));
        gl.uniform2f(at("range"), shading.low, 1 / (shading.high - shading.low));
        gl.uniform3f(at("light"), -0.41, 0.41, 0.815);
        gl.activeTexture(gl.TEXTURE1);
        gl.bindTexture(gl.TEXTURE_2D, this.colours);
        gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, shading.colours);
        gl.activeTexture(gl.TEXTURE0);
        gl.bindTexture(gl.TEXTURE_2D, this.heights);
        gl.drawElements(gl.TRIANGLES, this.count, gl.UNSIGNED_INT, 0);
    }
}
