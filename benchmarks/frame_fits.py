"""Few or bad frames: closed form against the fit of a smooth surface: ``python benchmarks/frame_fits.py``.

Frames come from the tests' independent generator: two frames with an unknown step; three whose steps coincide in two of
them; three that are tilted against each other. Closed form is ``reconstruct`` as it is; the fit is that of
``--method field``, its phase a Chebyshev series, and for the first seeds also a Scaled-cPIKAN. Errors are RMS in nm of
piston and the sign removed; ``coverage`` is the share of pixels within 1.96 sigma, sigma_nm the RMS of sigma. A result is
right within 5 nm or three sigmas. Prints a line per stack and keeps results/frame_fits.csv, of which every stack replaces
its own row; ``--real`` compares two and three frames of a measured mirror with all twelve.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import cpikan
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.pipeline.stacks.subsample import take_subsample
from cpikan.psi.calibration.samples.subsample import Subsample
from cpikan.psi.calibration.surface_fit.fit import SurfaceFitOptions, fit_surface_to_frames
from cpikan.psi.model.acquisition import Acquisition
from cpikan.surface.apertures.aperture import Circle

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "frame_fits.csv"
DATA = Path(os.environ.get("CPIKAN_DATA", ROOT.parent / "shared" / "data"))
sys.path.insert(0, str(ROOT / "tests"))

from independent_frames import Faults, Scene, make_scene  # noqa: E402

WAVE_NM = 632.8
FAMILIES = ("two frames", "coinciding steps", "tilted frames")
NETWORKS = 10  # seeds of each family for which the network is fitted too
SHAPES = ((256, 256), (300, 400), (480, 640), (600, 800))
MIRROR = ((0, 1), (2, 4), (4, 6), (0, 2, 4), (1, 3, 5))


def scene_of(family: str, seed: int) -> Scene:
    """0.3 to 1.9 um of surface, 1 % of full scale of noise, light uneven by 15 % (20 % under tilted frames)."""
    rng = np.random.default_rng(1000 + seed)
    base = Faults(read_noise=0.01, background=0.15, modulation=0.15, fringes=rng.uniform(1.0, 6.0))
    first = rng.uniform(40, 140)
    shape = SHAPES[seed % len(SHAPES)]
    if family == "two frames":
        return make_scene(seed, shape, [WAVE_NM], [0, first], base)
    if family == "coinciding steps":
        return make_scene(seed, shape, [WAVE_NM], [0, first, first + rng.uniform(-3, 3)], base)
    uneven = replace(base, tilt_rad=0.7, background=0.2, modulation=0.2)
    return make_scene(seed, shape, [WAVE_NM], [0, first, rng.uniform(180, 300)], uneven)


def departure_nm(height: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Pixel by pixel without piston, of the sign that departs less."""
    both = [(sign * height - truth) - np.mean(sign * height - truth) for sign in (1, -1)]
    return np.asarray(min(both, key=np.std))


def error_nm(height: np.ndarray, truth: np.ndarray) -> float:
    """RMS after piston and the sign."""
    return float(np.std(departure_nm(height, truth)))


def closed_form(stack: FrameStack, truth: np.ndarray, mask: Circle | None = None) -> tuple[float | None, str]:
    """Error of ``reconstruct`` without the fit, or why it was refused."""
    with tempfile.TemporaryDirectory() as place:
        try:
            made = cpikan.reconstruct(stack, Path(place) / "out.npy", progress=False, mask=mask)
        except cpikan.InputError as error:
            return None, str(error)
        height = np.array(made.height_nm[:], np.float64)
    where = np.argwhere(np.isfinite(height) & np.isfinite(truth))
    return error_nm(height[tuple(where.T)], truth[tuple(where.T)]), ""


def fitted(sample: Subsample, stack: FrameStack, truth: np.ndarray, options: SurfaceFitOptions) -> dict[str, Any]:
    """Error, seconds and verdict of the fit on the sampled pixels."""
    started = time.perf_counter()
    fit = fit_surface_to_frames(sample, stack.acquisition, stack.saturation_dn, options)
    seconds = time.perf_counter() - started
    where = sample.position[sample.valid & np.isfinite(truth[tuple(sample.position.T)])]
    off, sigma = departure_nm(fit.height_nm(where), truth[tuple(where.T)]), fit.sigma_nm(where)
    name = options.field
    return {
        f"{name}_nm": round(float(np.std(off)), 2),
        f"{name}_sigma_nm": round(float(np.sqrt(np.mean(sigma**2))), 2),
        f"{name}_coverage": round(float(np.mean(np.abs(off) < 1.96 * sigma)), 3),
        f"{name}_chi2": round(fit.chi2, 3),
        f"{name}_verdict": fit.verdict,
        f"{name}_parameters": fit.layout.form,
        f"{name}_seconds": round(seconds, 1),
        "reason": fit.reason,
        "start": fit.start,
        "held_out_chi2": round(fit.held_chi2, 3),
        "temperature": round(fit.temperature, 2),
        "log_odds": round(fit.runner_up, 1),
    }


def row_of(family: str, seed: int, *, network: bool) -> dict[str, Any]:
    """One stack, all columns."""
    scene = scene_of(family, seed)
    stack = FrameStack.from_array(scene.frames, Acquisition((WAVE_NM,)))
    started = time.perf_counter()
    error, _ = closed_form(stack, scene.height_nm)
    row: dict[str, Any] = {
        "family": family,
        "seed": seed,
        "shape": f"{scene.height_nm.shape[0]}x{scene.height_nm.shape[1]}",
        "fringes": round(float(np.ptp(scene.height_nm)) / (WAVE_NM / 2), 2),
        "closed_form_nm": "refused" if error is None else round(error, 2),
        "closed_form_seconds": round(time.perf_counter() - started, 1),
    }
    sample = take_subsample(stack, None)
    if network:
        row |= fitted(sample, stack, scene.height_nm, SurfaceFitOptions("cpikan"))
    return row | fitted(sample, stack, scene.height_nm, SurfaceFitOptions())


def real_rows() -> list[dict[str, Any]]:
    """Two and three frames of the measured mirror against all twelve."""
    from PIL import Image

    folder = DATA / "mlpeck_zernike"
    if not folder.exists():
        print(f"{folder} is not there: no measured frames")
        return []
    frames = np.stack([np.asarray(Image.open(folder / f"Image{i}.jpg").convert("L")) for i in range(5, 17)])
    mask = Circle(390, 295, 225)
    known = Acquisition((654.0,))
    with tempfile.TemporaryDirectory() as place:
        all_twelve = FrameStack.from_array(frames[None], known)
        made = cpikan.reconstruct(all_twelve, Path(place) / "out.npy", progress=False, mask=mask)
        truth = np.array(made.height_nm[:], np.float64)
    rows = []
    for which in MIRROR:
        stack = FrameStack.from_array(frames[None, list(which)], known)
        error, _ = closed_form(stack, truth, mask)
        row: dict[str, Any] = {
            "family": f"mirror, {len(which)} of 12 frames",
            "seed": "-".join(map(str, which)),
            "shape": "600x800",
            "closed_form_nm": "refused" if error is None else round(error, 2),
        }
        rows.append(row | fitted(take_subsample(stack, mask), stack, truth, SurfaceFitOptions()))
        print({k: v for k, v in rows[-1].items() if k != "reason" or v}, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--networks", type=int, default=NETWORKS)
    parser.add_argument("--family", choices=FAMILIES, help="this one alone")
    parser.add_argument("--real", action="store_true", help="the measured mirror alone")
    asked = parser.parse_args()
    families = () if asked.real else FAMILIES if asked.family is None else (asked.family,)
    with threadpool_limits(limits=1):
        for family in families:
            for seed in range(asked.seeds):
                row = row_of(family, seed, network=seed < asked.networks)
                print({k: v for k, v in row.items() if k != "reason" or v}, flush=True)
                keep(row)
        for row in real_rows() if asked.real else []:
            keep(row)
    for family in families:
        tell(family, [row for row in kept() if row["family"] == family])


def tell(family: str, rows: list[dict[str, Any]]) -> None:
    """How many results are right, wrong and refused, and what their sigma covers."""
    given = [row for row in rows if row["chebyshev_verdict"] == "converged"]
    right = [r for r in given if float(r["chebyshev_nm"]) <= max(5.0, 3 * float(r["chebyshev_sigma_nm"]))]
    lost = [r for r in rows if r["closed_form_nm"] == "refused" or float(r["closed_form_nm"]) > 50]
    cover = [float(r["chebyshev_coverage"]) for r in given]
    print(
        f"{family}: closed form fails in {len(lost)} of {len(rows)}; the fit gives {len(given)}, of which {len(right)} are "
        f"right, and refuses {len(rows) - len(given)}; 95 % intervals hold for {np.mean(cover):.1%} of the pixels"
    )


def kept() -> list[dict[str, Any]]:
    """The rows of the table so far."""
    if not RESULTS.exists():
        return []
    with RESULTS.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def keep(row: dict[str, Any]) -> None:
    """In the place of the row of the same stack."""
    key = (row["family"], str(row["seed"]))
    rest = [one for one in kept() if (one["family"], one["seed"]) != key]
    write(sorted([*rest, row], key=lambda one: one["family"]))


def write(rows: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main()
