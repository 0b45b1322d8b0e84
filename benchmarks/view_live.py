"""What watching a run costs: `cpikan view` of an output that `cpikan reconstruct` writes; writes results/view_live.csv.

    python benchmarks/view_live.py [--shape 4096x4096] [--suffix .npy .zarr]

A run by ``hybrid`` is watched in headless Chromium with software WebGL, which draws the map again and again and notes how
far down it reaches. ``lag`` is from the line in the journal that says that rows are written to the first picture in which
they are; the processor times are those of the run and of the server, read from the system; the browser is not counted.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
from playwright.sync_api import sync_playwright

from view import FLAGS

RESULTS = Path(__file__).parent / "results" / "view_live.csv"
# notes, four times a second, to which row of the map the middle column is drawn
WATCH = """() => { window.seen = []; setInterval(() => {
    const pane = window.cpikan.state.panes[0], canvas = pane.picture(), gl = canvas.getContext("webgl2");
    const read = new Uint8Array(4 * canvas.height), height = canvas.height;
    gl.readPixels(canvas.width >> 1, 0, 1, height, gl.RGBA, gl.UNSIGNED_BYTE, read);
    let bottom = 0;
    while (bottom < height && Math.abs(read[4 * bottom] - read[4 * bottom + 1]) <= 5) bottom++;
    const box = pane.element.getBoundingClientRect();
    window.seen.push([Date.now() / 1000, pane.pixelAt(box.left + box.width / 2, box.top + height - bottom).y]);
}, 250); }"""


def follow(journal: Path, written: list[tuple[float, int]], over: threading.Event) -> None:
    """Note when the journal says that rows are written."""
    told = 0
    while not over.wait(0.01):
        try:
            lines = journal.read_text(errors="ignore").splitlines()
        except FileNotFoundError:
            continue
        for line in lines[told:]:
            try:
                entry = json.loads(line[9:])
            except ValueError:
                break
            told += 1
            if entry.get("stage") == "output":
                written.append((time.time(), int(entry["rows"])))


def processor_s(process: psutil.Process) -> float:
    """Read the processor time of a process and of the children that have ended."""
    return float(sum(process.cpu_times()[:4]))


def measure(frames: Path, output: Path, shape: tuple[int, int]) -> dict[str, object]:
    """Watch one run."""
    cpikan = [sys.executable, "-m", "cpikan"]
    written: list[tuple[float, int]] = []
    over = threading.Event()
    journal = output.with_name(output.name + ".journal")
    follower = threading.Thread(target=follow, args=(journal, written, over))
    follower.start()
    command = [*cpikan, "reconstruct", str(frames), "-o", str(output), "--method", "hybrid", "--all"]
    begun = time.perf_counter()
    run = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    spent = [0.0]
    while not journal.exists() and run.poll() is None:
        time.sleep(0.05)
    server = subprocess.Popen([*cpikan, "view", str(output), "--no-browser"], stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        address = next(word for line in server.stderr for word in line.split() if word.startswith("http"))
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(address)
            page.wait_for_function("() => !!window.cpikan && window.cpikan.state.panes.length > 0")
            start = processor_s(psutil.Process(server.pid))
            page.evaluate(WATCH)
            while run.poll() is None:
                spent.append(processor_s(psutil.Process(run.pid)))
                page.wait_for_timeout(200)
            seconds = time.perf_counter() - begun
            page.wait_for_timeout(3000)
            served = processor_s(psutil.Process(server.pid)) - start
            seen = page.evaluate("() => window.seen")
            browser.close()
    finally:
        server.terminate()
        server.wait()
        over.set()
        follower.join()
    slack = 4 * shape[0] / 700 + max(shape) / 512  # a few points of the screen, a cell of the coarsest level
    lags = [
        min((at for at, row in seen if row >= rows - slack and at >= told), default=np.inf) - told
        for told, rows in written
        if told >= seen[0][0]
    ]
    return {
        "shape": f"{shape[0]}x{shape[1]}",
        "format": output.suffix[1:],
        "run_s": f"{seconds:.1f}",
        "run_cpu_s": f"{max(spent):.1f}",
        "server_cpu_s": f"{served:.2f}",
        "server_percent": f"{100 * served / max(spent):.2f}",
        "steps": len(lags),
        "lag_p50_s": f"{np.median(lags):.2f}",
        "lag_max_s": f"{max(lags):.2f}",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="4096x4096")
    parser.add_argument("--suffix", nargs="+", default=[".npy", ".zarr"])
    given = parser.parse_args(arguments)
    height, width = (int(side) for side in given.shape.split("x"))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder, "frames")
        simulate = [sys.executable, "-m", "cpikan", "simulate", str(frames), "--shape", given.shape, "--frames", "4"]
        subprocess.run([*simulate, "--wavelength", "632.8nm", "640nm", "--surface", "smooth"], check=True)
        for suffix in given.suffix:
            rows.append(measure(frames, Path(folder, f"{suffix[1:]}_out{suffix}"), (height, width)))
            print(rows[-1], flush=True)
            with RESULTS.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)


if __name__ == "__main__":
    main()
