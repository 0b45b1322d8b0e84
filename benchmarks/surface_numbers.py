"""Surface numbers beside other packages, on real maps and on surfaces with exact answers; time and memory of filters.

``python benchmarks/surface_numbers.py --python INTERPRETER`` compares (an interpreter with surfalize, SurfaceTopography and
prysm; they run in processes of their own) and writes results/surface_numbers.csv; ``--filters`` measures the Gaussian of a
7000 x 9344 map and writes results/surface_filters.csv; ``--whole HxW`` takes what is not done in one sweep, each in a
process of its own, on rough terrain of that size and writes results/surface_whole.csv; ``--spectra`` sums spectra by Parseval's
theorem and fits surfaces of known ones and writes results/surface_spectra.csv. Real maps come from the folder
CPIKAN_DATA; of each the largest rectangle without a hole is taken, piston and tilt removed, since some of these packages
refuse holes.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import cpikan
from cpikan.streaming.memory import PeakMemory, anonymous_mib
from cpikan.surface.areal.families import FAMILIES
from cpikan.surface.areal.texture_direction import texture_direction_deg
from cpikan.surface.filters.gaussian import GaussianMean
from cpikan.surface.filters.kinds import FILTERS
from cpikan.surface.forms.form import fit_form
from cpikan.surface.spectra.power_law import fit_power_law
from cpikan.surface.spectra.psd import WINDOWS, Spectrum, axis_spectrum, plane_spectrum
from cpikan.surface.sums.measure import MeasureSettings, surface_parameters
from cpikan.units import pixel_pair

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("CPIKAN_DATA", HERE.parents[1] / "shared" / "data"))
MAPS = (
    "zygo/metropro-1.dat",
    "zygo/valid_zygo_dat_file.dat",
    "surfaces/opd-1.opd",
    "surfaces/x3p-2.x3p",
    "surfaces/sur-2.sur",
    "surfaces/nms-1.nms",
)
FULL = (7000, 9344)
Line = dict[str, Any]


def widest_rectangle(valid: np.ndarray) -> tuple[slice, slice]:
    """The largest rectangle of valid pixels: over each row the heights of runs above it, and a stack."""
    best, found, runs = 0, (slice(0, 0), slice(0, 0)), np.zeros(valid.shape[1], np.int64)
    for row in range(valid.shape[0]):
        runs = np.where(valid[row], runs + 1, 0)
        stack: list[tuple[int, int]] = []
        for column, run in enumerate([*runs.tolist(), 0]):
            start = column
            while stack and stack[-1][1] >= run:
                start, high = stack.pop()
                if high * (column - start) > best:
                    best = high * (column - start)
                    found = (slice(row - high + 1, row + 1), slice(start, column))
            stack.append((start, run))
    return found


def real_maps() -> Iterator[tuple[str, np.ndarray, tuple[float, float], dict[str, float]]]:
    for name in MAPS:
        stored = cpikan.open_height_map(DATA / name)
        heights = np.asarray(stored.height_nm, np.float64)
        heights = heights[widest_rectangle(np.isfinite(heights))]
        yield (
            Path(name).name,
            fit_form(heights, None, "piston,tilt").remove(heights),
            pixel_pair(stored.pixel_um) or (1.0, 1.0),
            {},
        )


def exact_surfaces() -> Iterator[tuple[str, np.ndarray, tuple[float, float], dict[str, float]]]:
    """Surfaces whose numbers are known: heights of a curve in any order, a plane, a grating, and equal cells."""
    ratio = np.linspace(0, 1, 300 * 400)
    curve = 10 - 20 * ratio + 30 * np.maximum(0, 1 - ratio / 0.1)
    truth = {"sk_nm": 20.0, "spk_nm": 30.0, "svk_nm": 0.0, "smr1_percent": 100 * 30 / 320, "smr2_percent": 100.0}
    truth |= {"vmp_nm": 1.6, "vmc_nm": 0.8 * 16 / 2 - 0.1, "vvc_nm": 0.9 * 18 / 2 - 0.4, "vvv_nm": 0.4, "sxp_nm": 32.0}
    yield "curve", np.random.default_rng(0).permutation(curve).reshape(300, 400), (1.0, 1.0), truth
    y, x = np.mgrid[:300.0, :400.0]
    yield (
        "plane",
        300 * x - 200 * y,
        (1.0, 1.0),
        {"sdq": math.hypot(0.3, 0.2), "sdr_percent": 100 * (math.sqrt(1.13) - 1)},
    )
    turn = math.radians(30.0)
    wave = 10 * np.cos(2 * np.pi * (x * math.cos(turn) - y * math.sin(turn)) / 13.7)
    yield "grating", wave, (1.0, 1.0), {"std_deg": 30.0, "sal_um": 13.7 * math.acos(0.2) / (2 * math.pi)}
    k = 2 * np.pi / 20
    box = 10 * np.cos(k * (x + 0.25)) * np.cos(k * (y + 0.25)) + 1e-9 * y
    top = 10 * math.cos(k / 4) ** 2
    truth = {"s5p_nm": top, "s5v_nm": top, "s10z_nm": 2 * top, "spc_per_mm": top * (2 - 2 * math.cos(k))}
    truth |= {"sal_um": math.acos(0.2) / k, "str": math.acos(0.2) / (math.sqrt(2) * math.acos(math.sqrt(0.2)))}
    yield "egg box", box - box.mean(), (1.0, 1.0), truth


def ours(heights: np.ndarray, pixel_um: tuple[float, float]) -> dict[str, float | None]:
    numbers = surface_parameters(heights, MeasureSettings((), pixel_um=pixel_um)).summary()
    for family in FAMILIES.values():
        numbers |= family.measure(heights, pixel_um)
    return numbers | {"psd_mean_square_nm2": plane_spectrum(heights, pixel_um).mean_square_nm2}


def plain(heights: np.ndarray, found: dict[str, float | None]) -> dict[str, float]:
    """Volumes and reduced heights by their definition, pixel by pixel: what lies above a height, or below."""
    high, low = np.quantile(heights, (0.9, 0.2))
    top = np.quantile(heights, 1 - (found["smr1_percent"] or 0) / 100)
    bottom = np.quantile(heights, 1 - (found["smr2_percent"] or 0) / 100)
    above = {height: float(np.maximum(heights - height, 0).mean()) for height in (high, low, top)}
    below = {height: float(np.maximum(height - heights, 0).mean()) for height in (high, low, bottom)}
    volumes = {"vmp_nm": above[high], "vmc_nm": above[low] - above[high], "vvc_nm": below[high] - below[low]}
    volumes |= {"vvv_nm": below[low], "sxp_nm": float(np.quantile(heights, 0.975) - np.median(heights))}
    shares = {"spk_nm": (above[top], (heights > top).mean()), "svk_nm": (below[bottom], (heights < bottom).mean())}
    return volumes | {key: 2 * volume / share for key, (volume, share) in shares.items() if share > 0}


def compared(python: str, only: str) -> Iterator[Line]:
    for kind, maps in (("real", real_maps()), ("exact", exact_surfaces())):
        for name, heights, pixel_um, truth in maps:
            if not fnmatchcase(name, only):
                continue
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "map.npz")
                np.savez(path, height_nm=heights, pixel_um=pixel_um)
                done = subprocess.run(
                    [python, HERE / "surface_numbers_peer.py", path],
                    capture_output=True,
                    text=True,
                    check=True,
                    timeout=280,
                )
            found = ours(heights, pixel_um)
            print(name, heights.shape, flush=True)
            others = json.loads(done.stdout.splitlines()[-1]) | {"plain sums": plain(heights, found)}
            for program, numbers in others.items():
                if "failed" in numbers:
                    print(f"{program}: {numbers['failed']}")
                    continue
                for key, theirs in numbers.items():
                    if kind == "real" or key in truth:
                        yield line(kind, name, heights.shape, key, found[key], program, theirs, truth.get(key))


def line(
    kind: str,
    name: str,
    shape: tuple[int, ...],
    key: str,
    mine: float | None,
    program: str,
    theirs: float,
    *truth: float | None,
) -> Line:
    scale = abs(truth[0]) if truth[0] else abs(mine or 0.0) or 1.0
    if key == "std_deg" and mine is not None:  # directions: 0 is 180
        mine, scale = theirs + (mine - theirs + 90) % 180 - 90, 180.0
    return {
        "kind": kind,
        "map": name,
        "rows": shape[0],
        "columns": shape[1],
        "number": key,
        "ours": mine,
        "program": program,
        "theirs": theirs,
        "truth": truth[0],
        "relative_difference": None if mine is None else abs(mine - theirs) / scale,
        "error_ours": None if truth[0] is None or mine is None else abs(mine - truth[0]) / scale,
        "error_theirs": None if truth[0] is None else abs(theirs - truth[0]) / scale,
    }


def filters() -> Iterator[Line]:
    """Processor seconds and memory of the Gaussian on 65 megapixels with 3 % of dropouts, and its error at some pixels."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "map.npy")
        stored = np.lib.format.open_memmap(path, "w+", np.float32, FULL)
        rng = np.random.default_rng(0)
        for start in range(0, FULL[0], 500):
            rows = rng.standard_normal((500, FULL[1]), dtype=np.float32).cumsum(1)
            rows[rng.random(rows.shape) < 0.03] = np.nan
            stored[start : start + 500] = rows
        del stored
        heights = np.load(path, mmap_mode="r", allow_pickle=False)
        for nesting in (800.0, 100.0, 20.0):
            out = np.empty(FULL, np.float32)
            with PeakMemory() as memory:
                started, wall = time.process_time(), time.perf_counter()
                mean = GaussianMean(heights, nesting)
                for start in range(0, FULL[0], 512):
                    out[start : start + 512] = mean.rows(start, min(start + 512, FULL[0]))
                seconds, wall = time.process_time() - started, time.perf_counter() - wall
            yield {
                "filter": "gaussian",
                "nesting_px": nesting,
                "megapixels": math.prod(FULL) / 1e6,
                "processor_seconds": round(seconds, 2),
                "wall_seconds": round(wall, 2),
                "peak_anonymous_mib": round(memory.peak(), 1),
                "relative_error": worst(heights, mean, nesting),
            }


def worst(heights: np.ndarray, mean: GaussianMean, nesting: float) -> float:
    """The largest difference from direct sums at nine pixels, corners among them, over the range of the map."""
    found, reach = 0.0, int(2 * nesting)
    for y in (0, FULL[0] // 2, FULL[0] - 1):
        row = mean.rows(y, y + 1)[0]
        for x in (0, FULL[1] // 3, FULL[1] - 1):
            top, left = max(0, y - reach), max(0, x - reach)
            window = np.asarray(heights[top : y + reach + 1, left : x + reach + 1], np.float64)
            down, across = top + np.arange(len(window)) - y, left + np.arange(window.shape[1]) - x
            scale = math.pi / (math.log(2) / math.pi * nesting**2)
            weights = np.exp(-scale * down[:, None] ** 2) * np.exp(-scale * across**2)
            weights[np.isnan(window)] = 0.0
            direct = float((weights * np.nan_to_num(window)).sum() / weights.sum())
            found = max(found, abs(direct - float(row[x])))
    return found / float(np.nanmax(heights) - np.nanmin(heights))


def rough(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Store 50 nm of waves of every direction and of random heights, smoothed over three pixels, 1 % missing: float32 in nm."""
    random, stored = np.random.default_rng(3), np.lib.format.open_memmap(path, "w+", np.float32, shape)
    x = np.arange(shape[1])[None]
    noise = random.normal(size=(2, shape[1] + 2)).astype(np.float32)
    for start in range(0, shape[0], 256):
        y = np.arange(start, min(start + 256, shape[0]))[:, None]
        noise = np.vstack([noise[-2:], random.normal(size=(len(y), shape[1] + 2)).astype(np.float32)])
        heights = 40 * np.sin(x / 37 + y / 53) + 30 * np.sin(y / 71 - x / 90)
        heights += 10 * sum(noise[a : a + len(y), b : b + shape[1]] for a in range(3) for b in range(3))
        stored[start : start + len(y)] = np.where(random.random(heights.shape) < 0.01, np.nan, heights)
    del stored
    return np.load(path, mmap_mode="r", allow_pickle=False)


WHOLE: dict[str, Callable[[np.ndarray], Any]] = {
    **{name: partial(lambda one, heights: FAMILIES[one].measure(heights, 1.0), name) for name in FAMILIES},
    "std": texture_direction_deg,
    "robust": lambda heights: FILTERS["robust"](heights, (100.0, 100.0)).rows(0, 1),
    "spline": lambda heights: FILTERS["spline"](heights, (100.0, 100.0)).rows(0, 1),
}


def whole(shape: tuple[int, int], only: str) -> Iterator[Line]:
    """Processor time and anonymous memory of what more than one sweep of a map takes, the map itself on disk."""
    with tempfile.TemporaryDirectory() as folder:
        small, path = rough(Path(folder, "small.npy"), (90, 120)), Path(folder, "map.npy")
        rough(path, shape)
        for name, measure in WHOLE.items():
            if not fnmatchcase(name, only):
                continue
            measure(small)  # compiled
            inner, outer = os.pipe()
            if (child := os.fork()) == 0:
                heights = np.load(path, mmap_mode="r", allow_pickle=False)
                before = anonymous_mib()
                with PeakMemory() as memory:
                    started = time.process_time()
                    measure(heights)
                    seconds = time.process_time() - started
                os.write(outer, f"{seconds} {memory.peak() - before}".encode())
                os._exit(0)
            os.close(outer)
            with os.fdopen(inner) as told:
                words = told.read().split()
            os.waitpid(child, 0)
            seconds, mib = (float(word) for word in words)
            yield {
                "number": name,
                "megapixels": round(math.prod(shape) / 1e6, 2),
                "processor_seconds": round(seconds, 2),
                "seconds_per_megapixel": round(seconds / math.prod(shape) * 1e6, 3),
                "peak_anonymous_mib": round(mib, 1),
                "bytes_per_pixel": round(mib * 2**20 / math.prod(shape), 1),
            }
            print(name, seconds, mib, flush=True)


def spectra() -> Iterator[Line]:
    """Parseval's theorem on maps with holes, by sums written out, and exponents of surfaces that are drawn from a law.

    Those are a quarter of a periodic surface, so that nothing repeats at their edges; four of each, 1024 x 1024 pixels of
    10 um, fitted from 0.03 to 1 mm. ``difference`` is relative for sums, and that of the mean exponent of the four.
    """
    random = np.random.default_rng(6)
    for shape in ((300, 401), (512, 256), (1, 1000)):
        heights = random.normal(40, 5, shape).cumsum(1)
        heights[random.random(shape) < 0.1] = np.nan
        for window in WINDOWS:
            for along in ("x", "y", "rings"):
                axes = [axis for axis in (0, 1) if along == "rings" or axis == "yx".index(along)]
                expected = weighed_square(heights, axes if window == "hann" else [])
                if along == "rings":
                    found = plane_spectrum(heights, (2.0, 3.0), window).rings().mean_square_nm2
                else:
                    found = axis_spectrum(heights, (2.0, 3.0), "x" if along == "x" else "y", window).mean_square_nm2
                yield {
                    "kind": "parseval",
                    "along": along,
                    "window": window,
                    "rows": shape[0],
                    "columns": shape[1],
                    "truth": expected,
                    "found": found,
                    "sigma": "",
                    "difference": abs(found - expected) / expected,
                }
    for along, exponent in itertools.product(("rings", "x"), (1.5, 2.0, 2.5, 3.0, 3.5)):
        laws = [fit_power_law(drawn_spectrum(exponent, along, seed), 1.0, 0.03) for seed in range(4)]
        mean = float(np.mean([law.exponent for law in laws]))
        yield {
            "kind": "slope",
            "along": along,
            "window": "hann",
            "rows": 1024,
            "columns": 1024,
            "truth": exponent,
            "found": mean,
            "sigma": laws[0].exponent_sigma / 2,
            "difference": abs(mean - exponent),
        }


def weighed_square(heights: np.ndarray, axes: list[int]) -> float:
    """Mean square about the mean under Hann windows along axes, over valid pixels."""
    weights = np.isfinite(heights).astype(np.float64)
    for axis in axes:
        window = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(heights.shape[axis]) + 0.5) / heights.shape[axis])
        weights *= window[:, None] if axis == 0 else window
    apart = np.nan_to_num(heights - np.nanmean(heights))
    return float(((apart * weights) ** 2).sum() / (weights**2).sum())


def drawn_spectrum(exponent: float, along: str, seed: int, size: int = 1024) -> Spectrum:
    """Measure the spectrum of a surface whose density over the plane, or along each row, is drawn from f^-exponent."""
    noise = np.random.default_rng(seed).normal(size=(2 * size, 2 * size))
    if along == "rings":
        frequency = np.hypot(np.fft.fftfreq(2 * size)[:, None], np.fft.rfftfreq(2 * size)[None])
        frequency[0, 0] = np.inf
        heights = np.fft.irfft2(np.fft.rfft2(noise) * frequency ** (-exponent / 2))[:size, :size]
        return plane_spectrum(heights, 10.0).rings()
    frequency = np.fft.rfftfreq(2 * size)
    frequency[0] = np.inf
    heights = np.fft.irfft(np.fft.rfft(noise[:size]) * frequency ** (-exponent / 2))[:, :size]
    return axis_spectrum(heights, 10.0)


def write(path: Path, lines: Iterator[Line], kept: str = "") -> None:
    """Write lines as they come, after the text that is kept."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        file.write(kept)
        for number, one in enumerate(lines):
            writer = csv.DictWriter(file, fieldnames=list(one))
            if number == 0 and not kept:
                writer.writeheader()
            writer.writerow(one)
            file.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", help="an interpreter with surfalize, SurfaceTopography and prysm")
    parser.add_argument("--filters", action="store_true", help="measure the Gaussian of a map of 65 megapixels")
    parser.add_argument(
        "--only", help="maps, or numbers of --whole, whose name has this pattern; lines of others stay in the CSV"
    )
    parser.add_argument("--whole", metavar="HxW", help="measure what is not done in one sweep, on a map of that size")
    parser.add_argument("--spectra", action="store_true", help="sum spectra, and fit surfaces of known ones")
    options = parser.parse_args()
    results = HERE / "results"
    if options.python:
        path, kept = results / "surface_numbers.csv", ""
        if options.only and path.exists():
            head, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = head + "".join(text for text in lines if not fnmatchcase(text.split(",")[1], options.only))
        write(path, compared(options.python, options.only or "*"), kept)
    if options.whole:
        height, width = (int(word) for word in options.whole.split("x"))
        path, kept, name = results / "surface_whole.csv", "", options.only or "*"
        if options.only:
            head, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = head + "".join(text for text in lines if not fnmatchcase(text.split(",")[0], name))
        write(path, whole((height, width), name), kept)
    if options.spectra:
        write(results / "surface_spectra.csv", spectra())
    if options.filters:
        write(results / "surface_filters.csv", filters())


if __name__ == "__main__":
    main()
