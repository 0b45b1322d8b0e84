// Bundle the page into the Python package: one script, one style sheet, one page.
import { copyFileSync, mkdirSync } from "node:fs";
import { build } from "esbuild";

const target = process.argv[2] ?? "../src/cpikan/viewer/page";
mkdirSync(target, { recursive: true });
await build({
    entryPoints: ["src/main.ts"],
    bundle: true,
    minify: true,
    format: "iife",
    target: "es2022",
    charset: "utf8",
    legalComments: "inline",
    outfile: `${target}/viewer.js`,
});
copyFileSync("src/index.html", `${target}/index.html`);
copyFileSync("src/viewer.css", `${target}/viewer.css`);
