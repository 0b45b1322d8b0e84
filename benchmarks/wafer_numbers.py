"""Wafer numbers on exact surfaces against a plain evaluation over the same pixels, notches, speed, and stitched maps.

python benchmarks/wafer_numbers.py [--pixels 2000] [--surfaces bowl ...]    results/wafer_numbers.csv, a line each
python benchmarks/wafer_numbers.py --notches           results/wafer_notches.csv: five angles, 2000 and 7000 pixels
python benchmarks/wafer_numbers.py --speed             results/wafer_speed.csv: 9344 x 7000 pixels
python benchmarks/wafer_numbers.py --stitch [2000]     results/stitched_maps.csv: 5 x 5 maps, on whole pixels and off them
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"
sys.path.insert(0, str(ROOT / "tests"))

from cpikan.pipeline.maps.height_map import HeightMap, open_height_map  # noqa: E402
from cpikan.pipeline.maps.wafer.measure import wafer_numbers  # noqa: E402
from cpikan.pipeline.maps.wafer.settings import WaferSettings  # noqa: E402
from cpikan.registration.mosaic import Mosaic, place_maps  # noqa: E402
from cpikan.streaming.memory import anonymous_mib  # noqa: E402
from cpikan.wafer.outline import find_wafer  # noqa: E402
from plain_wafer import Disc, noise_shares, plain_numbers  # noqa: E402

NOTCHES = {"flat": 270.0, "notch 0": 0.0, "notch 45": 45.0, "notch 123.4": 123.4, "notch 311.7": 311.7}
SURFACES = ("bowl", "dome", "saddle", "cylinder", "ramps", "waves", "roll-off", *NOTCHES)
CONDITIONS = ((0.0, 0.0), (0.0, 1.0), (0.03, 0.0))  # missing, noise in nm
COMPARED = ("gflr_um", "gfld_um", "gf3r_um", "gf3d_um", "sori_um", "bow_um")


def surface(name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    radius2 = (x * x + y * y) / 150**2
    return {
        "bowl": lambda: 20000 * radius2 + 3 * x,
        "dome": lambda: -20000 * radius2,
        "saddle": lambda: 9000 * (x * x - y * y) / 150**2,
        "cylinder": lambda: 5000 * (0.6 * x + 0.8 * y) ** 2 / 150**2,
        "ramps": lambda: 40 * ((x + 13) % 26) - 25 * ((y + 4) % 8),
        "waves": lambda: 100 * np.sin(x / 9) * np.cos(y / 7),
        "roll-off": lambda: -30 * np.maximum(150 * np.sqrt(radius2) - 144, 0) ** 2,
    }.get(name, lambda: 0 * x)()


def made(disc: Disc, name: str) -> np.ndarray:
    """The map, a band at a time."""
    out = np.empty((disc.pixels, disc.pixels))
    for start in range(0, disc.pixels, 250):
        stop = min(start + 250, disc.pixels)
        out[start:stop] = disc.cut(surface(name, *disc.places(start, stop)), start)
    return out


def lines_of(name: str, pixels: int) -> Iterator[dict[str, Any]]:
    """A line for each condition; noise against what the same pixels give without."""
    exact: dict[str, Any] = {}
    for missing, noise in CONDITIONS:
        disc = Disc(pixels, 150.0, NOTCHES.get(name, 270.0), missing, noise)
        heights = made(disc, name)
        given = HeightMap(Path(name), {"height_nm": heights}, {"acquisition": {"pixel_um": disc.pixel_mm * 1e3}})
        begun = time.process_time()
        found = wafer_numbers(given, WaferSettings(diameter="300mm")).summary()
        seconds = time.process_time() - begun
        exact = found if not noise else exact
        off = largest_difference(found, plain_numbers(heights, found))
        span = float(np.nanmax(heights) - np.nanmin(heights))
        notch = abs((found["notch_deg"] - disc.notch_deg + 180) % 360 - 180)
        shares = noise_shares(found, exact, noise) if noise else {}
        yield {
            "surface": name,
            "pixels": pixels,
            "missing": missing,
            "noise_nm": noise,
            "range_nm": f"{span:.6g}",
            "off_nm": f"{off * 1e3:.3g}",
            "off_of_range": f"{off * 1e3 / span:.3g}" if span else "0",
            "notch_off_deg": f"{notch:.4f}",
            **{key: f"{shares[key]:.3f}" if shares else "" for key in ("bow_sigmas", "least_fall", "most_growth")},
            "seconds": f"{seconds:.2f}",
        }


def largest_difference(found: dict[str, Any], expected: dict[str, Any]) -> float:
    """The largest difference of all numbers, in um."""
    off = [abs(found[key] - expected[key]) for key in COMPARED]
    for site, plain in zip(found["sites"], expected["sites"], strict=True):
        off += [abs(site[key] - value) for key, value in plain.items()]
    return max(off + [abs(a["esfqr_um"] - b) for a, b in zip(found["sectors"], expected["esfqr_um"], strict=True)])


def notch_line(notch: float, pixels: int, missing: float) -> dict[str, Any]:
    """Find the wafer alone: the error of the notch in degrees and of the centre in pixels."""
    disc = Disc(pixels, 150.0, notch, missing)

    def bands() -> Iterator[tuple[int, np.ndarray]]:
        for start in range(0, pixels, 250):
            stop = min(start + 250, pixels)
            yield start, disc.cut(np.zeros((stop - start, 1)), start)

    found = find_wafer(bands, (pixels, pixels), (disc.pixel_mm, disc.pixel_mm))
    off = (found.notch_deg - notch + 180) % 360 - 180 if found.notch_deg is not None else np.nan
    return {
        "notch_deg": notch,
        "pixels": pixels,
        "missing": missing,
        "off_deg": f"{abs(off):.4f}",
        "centre_off_px": f"{np.hypot(found.x - disc.centre[0], found.y - disc.centre[1]):.4f}",
    }


def speed() -> dict[str, Any]:
    """Processor seconds and memory of all numbers of a wafer on 9344 x 7000 pixels in a .npy, kernels compiled before."""
    height, width = 7000, 9344
    pixel = 300 / (0.985 * height)
    x = (np.arange(width) - width / 2 + 3.3) * pixel
    random = np.random.default_rng(0)
    small = Disc(600, 50.0)
    warm = HeightMap(
        Path("warm"), {"height_nm": made(small, "waves")}, {"acquisition": {"pixel_um": small.pixel_mm * 1e3}}
    )
    wafer_numbers(warm, WaferSettings(diameter="100mm"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "wafer.npy")
        file = np.lib.format.open_memmap(path, "w+", np.float32, (height, width))
        for start in range(0, height, 250):
            y = ((height / 2 + 1.7 - np.arange(start, start + 250)) * pixel)[:, None]
            heights = surface("dome", x, y) + surface("waves", x, y) + random.normal(size=(250, width))
            inside = (x * x + y * y <= 150**2) & (-y - 149 <= np.abs(x))
            file[start : start + 250] = np.where(inside, heights, np.nan)
        del file
        peak, done = [0.0], threading.Event()

        def watch() -> None:
            while not done.wait(0.02):
                peak[0] = max(peak[0], anonymous_mib())

        watcher = threading.Thread(target=watch)
        watcher.start()
        begun, wall = time.process_time(), time.perf_counter()
        wafer_numbers(open_height_map(path), WaferSettings(diameter="300mm", pixel_size=f"{pixel} mm"))
        seconds, elapsed = time.process_time() - begun, time.perf_counter() - wall
        done.set()
        watcher.join()
    return {
        "height": height,
        "width": width,
        "processor_seconds": f"{seconds:.2f}",
        "seconds": f"{elapsed:.2f}",
        "peak_anonymous_mib": f"{peak[0]:.0f}",
    }


def terrain(size: int, seed: int) -> np.ndarray:
    """50 nm, its amplitude falling with the square of the frequency."""
    spectrum = np.fft.rfft2(np.random.default_rng(seed).normal(size=(size, size)))
    spectrum /= np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]).clip(0.1 / size) ** 2
    spectrum[0, 0] = 0
    heights = np.fft.irfft2(spectrum, (size, size))
    heights *= 50 / heights.std()
    return heights.astype(np.float32)


@dataclass(frozen=True)
class Tiles:
    """Maps of one terrain, an empty one among them; where they should lie and where they do."""

    truth: np.ndarray
    maps: list[np.ndarray]
    nominal: np.ndarray
    real: np.ndarray


def between(heights: np.ndarray, corner: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Cut a window at any place by splines of fifth order."""
    whole = np.floor(corner).astype(int)
    if (whole == corner).all():
        return heights[whole[0] : whole[0] + shape[0], whole[1] : whole[1] + shape[1]]
    low = np.maximum(whole - 12, 0)
    around = heights[low[0] : whole[0] + shape[0] + 12, low[1] : whole[1] + shape[1] + 12]
    moved = ndimage.shift(around, -(corner - whole), order=5, mode="nearest")
    at = whole - low
    return moved[at[0] : at[0] + shape[0], at[1] : at[1] + shape[1]]


def made_tiles(size: int, whole: bool, grid: int = 5) -> Tiles:
    """15 % overlap, stage errors up to 10 pixels, tilts, 1 nm of noise, one map empty."""
    step, random = int(0.85 * size), np.random.default_rng(4)
    truth = terrain(step * (grid - 1) + size + 40, 5)
    y, x = np.arange(size)[:, None], np.arange(size)[None]
    maps, nominal, real = [], [], []
    for k in range(grid * grid):
        place = np.array(divmod(k, grid)) * step
        at = place + 20 + (random.integers(-10, 11, 2) if whole else random.uniform(-10, 10, 2))
        heights = between(truth, at, (size, size)) + random.normal(size=(size, size)).astype(np.float32)
        heights += (500 * random.normal() + random.normal() * y + random.normal() * x).astype(np.float32)
        maps.append(np.full((size, size), np.nan, np.float32) if k == grid * grid // 2 else heights)
        nominal.append(place)
        real.append(at)
    return Tiles(truth, maps, np.array(nominal, float), np.array(real, float))


def bound_px(tiles: Tiles, used: np.ndarray) -> float:
    """The Cramer-Rao bound of places against their mean, RMS of all, with planes unknown and the slopes of the truth known.

    Differences on an overlap have twice the variance of the noise; where three maps and more overlap they count as independent.
    """
    count, size = len(tiles.maps), len(tiles.maps[0])
    information = np.zeros((count, 5, count, 5))
    for i, j in itertools.combinations(np.flatnonzero(used), 2):
        low = np.ceil(np.maximum(tiles.real[i], tiles.real[j])).astype(int)
        high = np.floor(np.minimum(tiles.real[i], tiles.real[j]) + size).astype(int)
        if (high - low < 12).any():
            continue
        heights = tiles.truth[low[0] : high[0], low[1] : high[1]].astype(float)
        y, x = np.mgrid[low[0] : high[0], low[1] : high[1]] / len(tiles.truth) - 0.5
        design = np.stack([*np.gradient(heights), np.ones_like(y), y, x], 2).reshape(-1, 5)
        for a, b, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
            information[a, :, b] += sign * design.T @ design / 2
    covariance = np.linalg.pinv(information.reshape(5 * count, -1), rcond=1e-10, hermitian=True)
    return float(np.sqrt(np.diag(covariance).reshape(count, 5)[used, :2].mean()))


def stitched(size: int, whole: bool) -> dict[str, Any]:
    """Stitch 5 x 5 maps without a look at the truth; errors of places against their mean, of heights less one plane."""
    tiles = made_tiles(size, whole)
    begun = time.process_time()
    placement = place_maps(tiles.maps, tiles.nominal)
    mosaic = Mosaic(tiles.maps, placement)
    parts = [(top, mosaic[top : top + 256]) for top in range(0, mosaic.shape[0], 256)]
    seconds = time.process_time() - begun
    away = (placement.places - tiles.real)[placement.matched]
    corner = mosaic.origin - away.mean(0)
    sums, total, count, square = np.zeros((3, 3)), np.zeros(3), 0, 0.0
    for top, part in parts:
        rest = part - between(tiles.truth, corner + np.array([top, 0]), part.shape)
        rows, columns = np.nonzero(np.isfinite(rest))
        design = np.stack([np.ones(rows.size), (rows + top) / mosaic.shape[0], columns / mosaic.shape[1]], 1)
        values = rest[rows, columns]
        sums += design.T @ design
        total += design.T @ values
        square += float(values @ values)
        count += rows.size
    rms = np.sqrt((square - total @ np.linalg.solve(sums, total)) / count)
    errors = np.abs(away - away.mean(0))
    return {
        "stage_errors": "whole pixels" if whole else "any",
        "maps": len(tiles.maps),
        "pixels": size,
        "matched": int(placement.matched.sum()),
        "registration_rms_px": f"{np.sqrt((errors**2).mean()):.4f}",
        "registration_max_px": f"{errors.max():.4f}",
        "bound_rms_px": f"{bound_px(tiles, placement.matched):.4f}",
        "sigma_rms_px": f"{np.sqrt((placement.sigma_px[placement.matched] ** 2).mean()):.4f}",
        "rms_nm": f"{rms:.4f}",
        "noise_nm": 1.0,
        "processor_seconds": f"{seconds:.1f}",
    }


def write(name: str, lines: list[dict[str, Any]], *, added: bool = False) -> None:
    path = RESULTS / f"{name}.csv"
    new = not (added and path.exists())
    with open(path, "w" if new else "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(lines)
    for line in lines:
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pixels", type=int, nargs="+", default=[2000])
    parser.add_argument("--surfaces", nargs="+", default=SURFACES)
    parser.add_argument("--notches", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--stitch", type=int, nargs="?", const=2000, metavar="PIXELS")
    parser.add_argument("--add", action="store_true", help="keep the lines that are there")
    given = parser.parse_args()
    if given.notches:
        for k, (pixels, notch) in enumerate((n, a) for n in (2000, 7000) for a in NOTCHES.values()):
            write("wafer_notches", [notch_line(notch, pixels, missing) for missing in (0.0, 0.03)], added=k > 0)
        return None
    if given.speed:
        return write("wafer_speed", [speed()])
    if given.stitch:
        return write("stitched_maps", [stitched(given.stitch, whole) for whole in (True, False)])
    for k, (pixels, name) in enumerate((n, s) for n in given.pixels for s in given.surfaces):
        write("wafer_numbers", list(lines_of(name, pixels)), added=given.add or k > 0)
    return None


if __name__ == "__main__":
    main()
