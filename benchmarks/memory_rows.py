"""Memory of every method over the number of rows: is it a constant number of bands?

    python benchmarks/memory_rows.py [--width 2048] [--rows 4096 16384 65536] [--methods pixel auto hybrid field learned]
                                     [--work DIR] [--csv FILE]

Frames of two wavelengths with noise are written band by band and reconstructed by the command line, one process a line:
results/memory_rows.csv has the peak of its anonymous memory (`peak_anonymous_mib`, mapped files not counted). ``share`` is the
peak over that of the fewest rows. Before, each method runs once on few rows: compiling takes memory of its own.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from pathlib import Path

import numpy as np

from ledger import command

RESULTS = Path(__file__).parent / "results" / "memory_rows.csv"
WAVES_NM = (5000.0, 5500.0)
STEPS_DEG = (0, 90, 180, 270)
METHODS = ("pixel", "auto", "hybrid", "field", "learned")
_BAND = 256


def write_frames(path: Path, rows: int, width: int, noise_dn: float = 6.0) -> None:
    """Write frames (2, 4, rows, width) uint8 of a wavy slope, a band at a time."""
    frames = np.lib.format.open_memmap(path, "w+", np.uint8, (2, 4, rows, width))
    draw = np.random.default_rng(5)
    noise = draw.normal(0, noise_dn, (len(STEPS_DEG), _BAND, width)).astype(np.float32)
    x = np.arange(width, dtype=np.float32)
    for first in range(0, rows, _BAND):
        y = np.arange(first, min(first + _BAND, rows), dtype=np.float32)[:, None]
        height = 900 * np.sin(x / 90) + 700 * np.sin(y / 130)
        for i, wave in enumerate(WAVES_NM):
            for k, step in enumerate(STEPS_DEG):
                light = 120 + 70 * np.cos(4 * np.pi * height / wave + np.deg2rad(step))
                frames[i, k, first : first + len(y)] = np.rint(light + np.roll(noise[k], first + i)[: len(y)]).clip(
                    0, 255
                )
    frames.flush()


def measure(frames: Path, method: str, work: Path) -> dict[str, float]:
    """Reconstruct and return the figures of a line."""
    output = work / "map.npy"
    waves = [f"{wave}nm" for wave in WAVES_NM]
    more = ("--phase-steps", ",".join(map(str, STEPS_DEG)), "--method", method, "--overwrite", "--threads", 1)
    result, seconds = command("reconstruct", frames, "-o", output, "--wavelength", *waves, *more)
    return {
        "peak_anonymous_mib": round(result["peak_anonymous_mib"], 1),
        "seconds": round(seconds, 1),
        "methods_used": "+".join(result["methods_used"]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--rows", type=int, nargs="+", default=[4096, 16384, 65536])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--noise", type=float, default=6.0, help="of a frame, in DN; fringes have 70")
    parser.add_argument("--work", type=Path, help="folder for frames and maps (default: a temporary one)")
    parser.add_argument("--csv", type=Path, default=RESULTS)
    given = parser.parse_args()
    lines: list[dict[str, object]] = []
    first: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="cpikan-rows-", dir=given.work) as folder:
        frames = Path(folder, "frames.npy")
        write_frames(frames, _BAND, given.width, given.noise)
        for method in given.methods:
            measure(frames, method, Path(folder))
        for rows in sorted(given.rows):
            write_frames(frames, rows, given.width, given.noise)
            for method in given.methods:
                found = measure(frames, method, Path(folder))
                share = found["peak_anonymous_mib"] / first.setdefault(method, found["peak_anonymous_mib"])
                lines.append({"method": method, "rows": rows, "width": given.width, **found, "share": round(share, 4)})
                print(lines[-1], flush=True)
            frames.unlink()
    with open(given.csv, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
