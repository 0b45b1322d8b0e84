"""Time the pixel pass of two builds side by side: pairs A B A B ... of whole runs, and the median of their ratios.

    python benchmarks/pixel_pass_ab.py --old OLD/src [--new NEW/src] [--pairs 21] [--shape 7000x9344] [--csv FILE]

Each build is a process of its own that stays warm; it reconstructs the same stack (4 wavelengths x 4 frames, 8 bit, `pixel`,
`.npy`) and tells the processor seconds that it used and the seconds of its own summary. results/pixel_pass_ab.csv keeps every
pair. Seconds mean something on an idle machine only.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
CSV = ROOT / "benchmarks" / "results" / "pixel_pass_ab.csv"
WAVES_NM, STEPS_DEG = (5000.0, 5500.0, 6050.0, 6655.0), (0.0, 90.0, 180.0, 270.0)
BLOCK = (1009, 1163)  # pixels
# what a run tells, and the name of its ratio
FIGURES = {
    "processor_s": "processor_ratio",
    "s": "ratio",
    "calibrate_s": "calibrate_ratio",
    "demodulate_s": "demodulate_ratio",
}
_CHILD = """
import sys, time
import cpikan
stack, out = sys.argv[1:]
for line in sys.stdin:
    begun = time.process_time()
    with cpikan.open_stack(stack) as opened:
        found = cpikan.reconstruct(opened, out, method="pixel", overwrite=True, progress=False)
    used = time.process_time() - begun
    print(used, *(found.summary[name] for name in ("seconds", "seconds_calibrate", "seconds_demodulate")), flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True, help="folder that holds the older package")
    parser.add_argument("--new", type=Path, default=ROOT / "src")
    parser.add_argument("--pairs", type=int, default=21)
    parser.add_argument("--shape", default="7000x9344")
    parser.add_argument("--csv", type=Path, default=CSV)
    given = parser.parse_args()
    height, width = (int(side) for side in given.shape.split("x"))
    with tempfile.TemporaryDirectory(prefix="pixel_pass_") as place:
        folder = Path(place)
        _stack(folder / "stack", (height, width))
        builds = {name: _started(source, folder, name) for name, source in (("old", given.old), ("new", given.new))}
        rows = []
        for pair in range(-1, given.pairs):  # the first pair warms
            order = ("old", "new") if pair % 2 else ("new", "old")
            times = {name: _run(builds[name]) for name in order}
            if pair >= 0:
                rows.append(
                    {"pair": pair}
                    | {f"{name}_{what}": times[name][what] for what in FIGURES for name in ("old", "new")}
                    | {ratio: times["new"][what] / times["old"][what] for what, ratio in FIGURES.items()}
                )
                print({name: round(value, 3) for name, value in rows[-1].items()}, flush=True)
        for process in builds.values():
            assert process.stdin is not None
            process.stdin.close()
            process.wait()
    with given.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for kind in FIGURES.values():
        print(f"median of {kind}, new over old, {len(rows)} pairs: {statistics.median(row[kind] for row in rows):.4f}")
    for what in FIGURES:
        least = {name: min(row[f"{name}_{what}"] for row in rows) for name in builds}
        print(f"least {what}: " + ", ".join(f"{name} {value:.3f}" for name, value in least.items()))


def _stack(folder: Path, shape: tuple[int, int]) -> None:
    """Frames of a smooth surface with noise, a block repeated over the image.

    Its sides are prime: noise that comes back at the columns of a subsample would be no noise.
    """
    folder.mkdir()
    rng = np.random.default_rng(1)
    y, x = np.indices(BLOCK)
    height_nm = 6000 * np.cos(2 * np.pi * x / BLOCK[1]) * np.cos(2 * np.pi * y / BLOCK[0])
    frames = np.lib.format.open_memmap(folder / "frames.npy", "w+", np.uint8, (4, 4, *shape))
    repeats = tuple(-(-side // of) for side, of in zip(shape, BLOCK, strict=True))
    for i, wave in enumerate(WAVES_NM):
        for k, step in enumerate(STEPS_DEG):
            light = 128 + 80 * np.cos(4 * np.pi * height_nm / wave + np.radians(step)) + rng.normal(0, 2, y.shape)
            block = np.rint(light).clip(0, 255).astype(np.uint8)
            frames[i, k] = np.tile(block, repeats)[: shape[0], : shape[1]]
    frames.flush()
    waves = ", ".join(f'"{wave} nm"' for wave in WAVES_NM)
    (folder / "acquisition.toml").write_text(f"wavelengths = [{waves}]\nphase_steps = {list(STEPS_DEG)}\n")


def _started(source: Path, folder: Path, name: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(source.resolve())}
    command = [sys.executable, "-c", _CHILD, str(folder / "stack"), str(folder / f"{name}.npy")]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _run(process: subprocess.Popen[str]) -> dict[str, float]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    return dict(zip(FIGURES, map(float, process.stdout.readline().split()), strict=True))


if __name__ == "__main__":
    main()
