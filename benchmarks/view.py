"""How long a view of a map takes: `cpikan view` in headless Chromium with software WebGL; writes results/view.csv.

    python benchmarks/view.py [--shape 7000x9344 ...] [--views 200]

For each shape a map with noise, a hole and sigma is written; `cpikan view` serves it in a process of its own. `first_s` is
from the start of the navigation to the first frame in which every tile is drawn; a view is a random part of the map (every
second one was seen before), timed from the change to that frame, whose pixels are read back. `server_mib` is the anonymous
memory of the server at the end, `floor_s` the time one pass over the heights takes in this run (np.nansum, one thread).
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from playwright.sync_api import sync_playwright

RESULTS = Path(__file__).parent / "results" / "view.csv"
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
# resolves to milliseconds when every tile of the right level is drawn and a pixel was read back
VIEW = """([x, y, size]) => new Promise((done) => {
    const { viewer, element } = window.cpikan.state.panes[0];
    const canvas = element.querySelector("canvas");
    const begun = performance.now();
    const bounds = viewer.viewport.getBounds(true);
    bounds.height *= size / bounds.width;
    bounds.width = size;
    bounds.x = x;
    bounds.y = y;
    viewer.viewport.fitBounds(bounds, true);
    const look = () => {
        if (!window.cpikan.state.loaded) return requestAnimationFrame(look);
        const gl = canvas.getContext("webgl2");
        gl.readPixels(canvas.width >> 1, canvas.height >> 1, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
        done(performance.now() - begun);
    };
    requestAnimationFrame(look);
})"""


def write_map(path: Path, shape: tuple[int, int]) -> None:
    """Write heights and sigma of a wavy surface with noise in a circle, in bands."""
    rng = np.random.default_rng(0)
    heights = np.lib.format.open_memmap(path, "w+", "<f4", shape)
    sigma = np.lib.format.open_memmap(path.with_suffix(".sigma.npy"), "w+", "<f4", shape)
    x = np.arange(shape[1])
    for start in range(0, shape[0], 256):
        y = np.arange(start, min(shape[0], start + 256))[:, None]
        z = 300 * np.cos(y / 900) * np.cos(x / 1100) + rng.normal(0, 0.5, (len(y), shape[1]))
        outside = np.hypot(y - shape[0] / 2, x - shape[1] / 2) > 0.48 * min(shape)
        heights[y[:, 0]] = np.where(outside, np.nan, z)
        sigma[y[:, 0]] = np.where(outside, np.nan, 0.5)
    heights.flush(), sigma.flush()


def measure(shape: tuple[int, int], views: int, folder: Path) -> dict[str, object]:
    """Serve one map and look at it."""
    path = folder / f"{shape[0]}x{shape[1]}.npy"
    write_map(path, shape)
    begun = time.perf_counter()
    np.nansum(np.load(path, mmap_mode="r"), dtype=np.float64)
    floor = time.perf_counter() - begun
    command = [sys.executable, "-m", "cpikan", "view", str(path), "--no-browser"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        address = next(word for word in server.stderr.readline().split() if word.startswith("http"))
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            begun = time.perf_counter()
            page.goto(address)
            ready = "() => !!(window.cpikan && window.cpikan.state.loaded && window.cpikan.state.range[1] !== 1)"
            while not page.evaluate(ready):
                page.wait_for_timeout(5)
            first = time.perf_counter() - begun
            rng = np.random.default_rng(1)
            seen: list[list[float]] = []
            times: dict[bool, list[float]] = {True: [], False: []}
            for number in range(views):
                size = float(np.exp(rng.uniform(np.log(0.02), 0)))
                place = [*(rng.uniform(0, 1 - size, 2) * [1, shape[0] / shape[1]]).tolist(), size]
                again = number % 2 == 1
                part = seen[int(rng.integers(max(0, len(seen) - 6), len(seen)))] if again else place
                times[again].append(page.evaluate(VIEW, part))
                seen += [] if again else [place]
            browser.close()
        memory = psutil.Process(server.pid).memory_info()
        anonymous = (memory.rss - memory.shared) / 2**20
    finally:
        server.terminate()
        server.wait()
    every = times[True] + times[False]
    return {
        "shape": f"{shape[0]}x{shape[1]}", "views": views, "first_s": f"{first:.2f}", "floor_s": f"{floor:.2f}",
        "p50_ms": f"{np.median(every):.0f}", "p95_ms": f"{np.quantile(every, 0.95):.0f}",
        "p95_new_ms": f"{np.quantile(times[False], 0.95):.0f}", "p95_seen_ms": f"{np.quantile(times[True], 0.95):.0f}",
        "server_mib": f"{anonymous:.0f}",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", default=["7000x9344", "16384x16384"])
    parser.add_argument("--views", type=int, default=200)
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for text in given.shape:
            height, width = (int(side) for side in text.split("x"))
            rows.append(measure((height, width), given.views, Path(folder)))
            print(rows[-1], flush=True)
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
