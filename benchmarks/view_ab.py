"""What a view costs beside another build: both pages take the same views in turn, in one run; writes results/view_ab.csv.

    git archive COMMIT src | tar x -C OLD
    python benchmarks/view_ab.py OLD/src [--views 60]

Times depend on what else the machine does, their ratios less so: `wall` is from the change of the view to the frame that is
right, `cpu` the processor time of both servers and browsers meanwhile. No view was seen before.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from playwright.sync_api import sync_playwright

from view import FLAGS, VIEW, write_map

RESULTS = Path(__file__).parent / "results" / "view_ab.csv"
SHAPE = (7000, 9344)
READY = "() => !!(window.cpikan && window.cpikan.state.loaded && window.cpikan.state.range[1] !== 1)"


def serve(path: Path, source: Path) -> tuple[subprocess.Popen[str], str]:
    """Serve a map by the build in a folder of sources."""
    command = [sys.executable, "-m", "cpikan", "view", str(path), "--no-browser"]
    surroundings = {**os.environ, "PYTHONPATH": str(source)}
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=surroundings)
    assert server.stderr is not None
    return server, next(word for line in server.stderr for word in line.split() if word.startswith("http"))


def processor_s() -> float:
    """Sum the processor time of all processes that this one has started."""
    return float(sum(sum(one.cpu_times()[:2]) for one in psutil.Process().children(recursive=True)))


def views(number: int) -> list[list[float]]:
    """Draw random parts of the map, as `benchmarks/view.py` does."""
    rng = np.random.default_rng(1)
    sizes = [float(np.exp(rng.uniform(np.log(0.02), 0))) for _ in range(number)]
    return [[*(rng.uniform(0, 1 - size, 2) * [1, SHAPE[0] / SHAPE[1]]).tolist(), size] for size in sizes]


def measure(path: Path, builds: dict[str, Path], number: int) -> list[dict[str, object]]:
    """Take the same views with every build in turn."""
    wall: dict[str, list[float]] = {name: [] for name in builds}
    spent: dict[str, list[float]] = {name: [] for name in builds}
    servers, pages = [], {}
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        for name, source in builds.items():
            server, address = serve(path, source)
            servers.append(server)
            page: Any = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(address)
            while not page.evaluate(READY):
                page.wait_for_timeout(20)
            pages[name] = page
        time.sleep(10)  # what is made after the first view
        for turn, part in enumerate(views(number)):
            for name in list(builds)[:: 1 if turn % 2 else -1]:
                pages[name].bring_to_front()
                before = processor_s()
                wall[name].append(pages[name].evaluate(VIEW, part))
                spent[name].append(1000 * (processor_s() - before))
        browser.close()
    for server in servers:
        server.terminate()
        server.wait()
    return [
        {
            "build": name,
            "views": number,
            "p50_ms": f"{np.median(wall[name]):.0f}",
            "p95_ms": f"{np.quantile(wall[name], 0.95):.0f}",
            "cpu_ms": f"{np.mean(spent[name]):.0f}",
            "p95_share": f"{np.quantile(wall[name], 0.95) / np.quantile(wall['before'], 0.95):.2f}",
            "cpu_share": f"{np.sum(spent[name]) / np.sum(spent['before']):.2f}",
        }
        for name in builds
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="the folder src of another build")
    parser.add_argument("--views", type=int, default=60)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "map.npy")
        write_map(path, SHAPE)
        builds = {"before": given.before.resolve(), "now": Path(__file__).parents[1] / "src"}
        rows = measure(path, builds, given.views)
    print(*rows, sep="\n")
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
