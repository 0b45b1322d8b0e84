"""A map of 9344 x 7000 into every binary format of heights and back: processor time, memory, bytes.

    python benchmarks/map_formats_large.py [--shape 7000x9344] [--only SUFFIX ...] [--work DIR]

Each direction runs in a process of its own; results/map_formats_large.csv has processor seconds, the peak of anonymous memory
(MiB) that a direction took besides what the process had, and the size of the file. Back is into a .npy.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cpikan.pipeline.maps.convert import convert_map
from cpikan.streaming.memory import PeakMemory, anonymous_mib

RESULTS = Path(__file__).parent / "results" / "map_formats_large.csv"
SUFFIXES = ("dat", "datx", "opd", "sur", "sdf", "x3p", "gwy", "gsf", "png", "tif")


def make(path: Path, shape: tuple[int, int]) -> None:
    """Write heights with a form, noise and holes, a band at a time, and their document beside them."""
    rng = np.random.default_rng(1)
    out = np.lib.format.open_memmap(path, "w+", "<f4", shape)
    x = np.linspace(-1, 1, shape[1])
    for start in range(0, shape[0], 512):
        rows = out[start : start + 512]
        y = np.linspace(-1, 1, shape[0])[start : start + 512, None]
        rows[:] = 2000 * (x**2 + y**2) + rng.standard_normal(rows.shape, np.float32)
        rows[rng.random(rows.shape, np.float32) < 0.01] = np.nan
    out.flush()
    path.with_suffix(".json").write_text('{"acquisition": {"wavelengths_nm": [632.8], "pixel_um": 3.2}}')


def one(pair: tuple[Path, Path]) -> tuple[float, float]:
    """Convert a map; processor seconds and MiB."""
    before, start = anonymous_mib(), time.process_time()
    with PeakMemory() as memory:
        convert_map(*pair, overwrite=True)
    return time.process_time() - start, memory.mib - before


def apart(source: Path, output: Path) -> tuple[float, float]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(one, ((source, output),))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="7000x9344")
    parser.add_argument("--only", nargs="+", default=SUFFIXES, choices=SUFFIXES)
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    height, width = (int(part) for part in given.shape.split("x"))
    lines = []
    with tempfile.TemporaryDirectory(dir=given.work) as folder:
        source = Path(folder, "source.npy")
        make(source, (height, width))
        for suffix in given.only:
            path, back = Path(folder, f"out.{suffix}"), Path(folder, "back.npy")
            write, read = apart(source, path), apart(path, back)
            lines.append(
                {"format": suffix, "megapixels": f"{height * width / 1e6:.4g}", "mib": path.stat().st_size >> 20}
                | {"write_cpu_s": f"{write[0]:.3g}", "write_anonymous_mib": f"{write[1]:.0f}"}
                | {"read_cpu_s": f"{read[0]:.3g}", "read_anonymous_mib": f"{read[1]:.0f}"}
            )
            print(lines[-1], flush=True)
            for left in (path, back, back.with_suffix(".json")):
                left.unlink(missing_ok=True)
            if tuple(given.only) == SUFFIXES:
                with open(RESULTS, "w", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
                    writer.writeheader()
                    writer.writerows(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
