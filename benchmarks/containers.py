"""Frames of 9344 x 7000 pixels from every container: processor seconds and memory of reading them by bands.

    python benchmarks/containers.py [--height 7000] [--width 9344] [--frames 3] [--only NAME ...] [--work DIR]

Each container is written and then read once, from row 0 to the last in bands of 64 rows, in a process of its own.
results/containers.csv has the processor seconds, the pixels read in one of them, and the peak of the anonymous memory over
what the process had before it opened the file (mapped files are not counted). ``temporary`` is the size of the file that
takes what cannot be read by rows.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results" / "containers.csv"
_BAND = 64


def picture(shape: tuple[int, int, int]) -> np.ndarray:
    """Make frames (K, H, W) of 12 bits with fringes and noise."""
    steps, height, width = shape
    draw = np.random.default_rng(3)
    noise = draw.integers(0, 32, (256, width), dtype=np.uint16)
    out = np.empty(shape, np.uint16)
    x = np.arange(width, dtype=np.float32) / 40
    for first in range(0, height, 256):
        y = np.arange(first, min(height, first + 256), dtype=np.float32)[:, None] / 60
        for step in range(steps):
            out[step, first : first + len(y)] = 2000 + 1800 * np.cos(x + y + 1.57 * step) + noise[: len(y)]
    return out


def _npy(folder: Path, frames: np.ndarray) -> tuple[str, dict]:
    np.save(folder / "x.npy", frames)
    return str(folder / "x.npy"), {}


def _turned(folder: Path, frames: np.ndarray) -> tuple[str, dict]:
    return _npy(folder, frames)[0], {"rotate": 90}


def _corrected(folder: Path, frames: np.ndarray) -> tuple[str, dict]:
    np.save(folder / "dark.npy", frames[0] // 100)
    np.save(folder / "flat.npy", 3000 + frames[1] // 10)
    return _npy(folder, frames)[0], {"dark": str(folder / "dark.npy"), "flat": str(folder / "flat.npy")}


def _packed(folder: Path, frames: np.ndarray) -> tuple[str, dict]:
    flat = frames.reshape(-1, 2)
    triples = np.stack([flat[:, 0] >> 4, (flat[:, 0] & 15) | (flat[:, 1] & 15) << 4, flat[:, 1] >> 4], axis=1)
    triples.astype(np.uint8).tofile(folder / "x.raw")
    return str(folder / "x.raw"), {
        "raw": {"pixel": "Mono12Packed", "width": frames.shape[2], "height": frames.shape[1]}
    }


def _fits(folder: Path, frames: np.ndarray) -> tuple[str, dict]:
    from astropy.io import fits

    fits.PrimaryHDU(frames).writeto(folder / "x.fits")
    return str(folder / "x.fits"), {}


def _matlab(folder: Path, frames: np.ndarray) -> tuple[str, dict]:
    import scipy.io

    scipy.io.savemat(folder / "x.mat", {"frames": np.moveaxis(frames, 0, -1)})
    return str(folder / "x.mat"), {}


def _npz(folder: Path, frames: np.ndarray) -> tuple[str, dict]:
    np.savez_compressed(folder / "x.npz", frames=frames)
    return str(folder / "x.npz"), {}


def _pgm(folder: Path, frames: np.ndarray) -> tuple[str, dict]:
    for step, frame in enumerate(frames):
        with open(folder / f"s{step}.pgm", "wb") as file:
            file.write(b"P5\n%d %d\n4095\n" % (frame.shape[1], frame.shape[0]))
            frame.astype(">u2").tofile(file)
    return str(folder), {}


def _video(folder: Path, frames: np.ndarray) -> tuple[str, dict]:
    import av

    with av.open(str(folder / "x.avi"), "w") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "gray"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray((frame >> 4).astype(np.uint8), format="gray")))
        file.mux(stream.encode())
    return str(folder / "x.avi"), {}


CONTAINERS: dict[str, tuple[Callable[[Path, np.ndarray], tuple[str, dict]], bool]] = {
    "npy": (_npy, False),
    "npy, dark and flat": (_corrected, False),
    "npy, turned by 90 deg": (_turned, True),
    "raw, Mono12Packed": (_packed, False),
    "FITS": (_fits, False),
    "MATLAB 5": (_matlab, True),
    "npz, compressed": (_npz, True),
    "PGM": (_pgm, True),
    "AVI, FFV1 of 8 bits": (_video, True),
}


def read(source: str, more: dict) -> dict[str, float]:
    """Read all rows of a stack, in this process."""
    from cpikan.pipeline.stacks.stack import open_stack
    from cpikan.streaming.memory import PeakMemory, anonymous_mib

    wave = {} if "wavelengths" in more else {"wavelengths": ["632.8 nm"]}
    import scipy.io  # noqa: F401 - imports are not what is measured

    before, started = anonymous_mib(), time.process_time()
    with PeakMemory(0.005) as memory, open_stack(source, **wave, **more) as stack:
        wavelengths, steps, height, width = stack.shape
        out = np.empty((wavelengths, steps, _BAND, width), stack.dtype)
        for start in range(0, height, _BAND):
            stop = min(height, start + _BAND)
            stack.rows(start, stop, out if stop - start == _BAND else None)
        pixels = wavelengths * steps * height * width
    seconds = time.process_time() - started
    return {"seconds": seconds, "megapixels_per_second": pixels / 1e6 / seconds, "peak_mib": memory.mib - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=7000)
    parser.add_argument("--width", type=int, default=9344)
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=CONTAINERS)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--read", nargs=2, help=argparse.SUPPRESS)  # a process of its own: source and keywords
    given = parser.parse_args()
    if given.read:
        print(json.dumps(read(given.read[0], json.loads(given.read[1]))))
        return
    frames, lines = picture((given.frames, given.height, given.width)), []
    for name in given.only or CONTAINERS:
        write, temporary = CONTAINERS[name]
        with tempfile.TemporaryDirectory(prefix="cpikan-containers-", dir=given.work) as folder:
            source, more = write(Path(folder), frames)
            command = [sys.executable, __file__, "--read", source, json.dumps(more)]
            found = json.loads(subprocess.run(command, capture_output=True, check=True, env=os.environ).stdout)
        size = frames.nbytes // (2 if "8 bits" in name else 1)
        lines.append(
            {
                "container": name,
                "frames": given.frames,
                "height": given.height,
                "width": given.width,
                "seconds": round(found["seconds"], 2),
                "megapixels_per_second": round(found["megapixels_per_second"], 1),
                "peak_mib": round(found["peak_mib"], 1),
                "temporary_mib": round(size / 2**20) if temporary else 0,
            }
        )
        print(lines[-1], flush=True)
        keep(lines)


def keep(lines: list[dict]) -> None:
    """Write the lines into the results; those of other containers stay."""
    names = [line["container"] for line in lines]
    known = list(csv.DictReader(RESULTS.open(encoding="utf-8"))) if RESULTS.exists() else []
    rows = [*(row for row in known if row["container"] not in names), *lines]
    rows.sort(key=lambda row: list(CONTAINERS).index(row["container"]))
    with open(RESULTS, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(lines[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
