"""Gaps and holes of one wavelength that only the background of the whole frame bridges, and the coupling of a field's tiles.

    python benchmarks/far_gaps.py [--seeds 10] [--full | --only-full] [--kinds trench ...]

Small frames have 600 x 450 pixels and gaps of 128, ``--full`` adds 9344 x 7000 with gaps of 2000, one seed each. Lines of the
kinds and sizes that are measured replace those in ``results/far_gaps.csv``. Surfaces are
random Zernike polynomials up to radial order 8 of 3 turns RMS (one turn: half a wavelength of 632.8 nm), or smoothed noise;
the noise of a pixel is 0.05 rad. Kinds of ``results/far_gaps.csv``:

* ``trench``: two sides of a trench from edge to edge, one raised by random whole turns; ``step``: also by 0.1 to 0.5
  turns; ``rough``: a surface that turns over within the trench. ``outcome``: right, apart (left ambiguous), or wrong.
* ``trench-filled``, ``island-filled``: in-painting of a map that is one component; ``rms_nm`` of the error in the hole,
  ``pull`` that over sigma, ``peak_mib`` the largest anonymous memory of the process. ``smooth-N``: noise smoothed over N blocks
  of 8 pixels, around a hole of 16 blocks.
* ``field``, ``field-before``: the surface of ``--method field`` with and without coupling; ``jump_sigma`` is the RMS of what
  neighbouring tiles' own surfaces differ by on shared borders over the stated sigma, ``jump_largest_nm`` the largest of
  these, ``blended_nm`` the largest jump of the blended surface.
* ``run``: frames of 8 bit with a trench without light, reconstructed by ``cpikan reconstruct --method field --inpaint``:
  right where the map is one component, no pixel is on another order and the whole trench is filled. ``run-island``: a round
  hole; ``run-step`` and ``run-rough``: a trench with such a step or surface, ``apart`` where the run says `orders-apart` and
  every measured pixel of the smaller side is flagged ambiguous.
* ``whole``, ``whole-before``: frames of four wavelengths reconstructed by ``--method field`` with and without the coupling of
  tiles, one after the other; right where no pixel of the map is on another order.

Seconds are processor seconds.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from scipy.special import eval_jacobi
from threadpoolctl import threadpool_limits

from cpikan.pipeline.reconstruction.stages.inpaint import fill_holes
from cpikan.psi.refine import field
from cpikan.psi.refine.coarse import CoarseHeights
from cpikan.psi.refine.field import FittedSurface, measuring_surface
from cpikan.psi.refine.footprint import MeanPixels
from cpikan.psi.refine.frame_joining import join_over_frame
from cpikan.psi.refine.hole_guess import Surroundings, guess_hole
from cpikan.psi.refine.joining import join_components
from cpikan.psi.refine.unwrapped import UnwrappedBlocks
from cpikan.streaming.engine import Band
from cpikan.streaming.memory import PeakMemory

RESULTS = Path(__file__).parent / "results" / "far_gaps.csv"
SMALL, FULL = (450, 600), (7000, 9344)
TURN_NM, NOISE_RAD = 632.8 / 2, 0.05
NOISE_TURNS = NOISE_RAD / (2 * np.pi)
EVERY = 7  # pixels of a run that are looked at, along both axes
AMBIGUOUS, GUESSED = 8, 32  # flags
KINDS = (
    *("trench", "step", "rough", "trench-filled", "island-filled"),
    *("smooth-6", "smooth-9", "smooth-12", "field-before", "field", "run", "run-island", "run-step", "run-rough"),
    "whole",
)
COLUMNS = (
    "kind",
    "height",
    "width",
    "gap_px",
    "seed",
    "outcome",
    "rms_nm",
    "pull",
    "sigma_nm",
    "jump_sigma",
    "jump_largest_nm",
    "blended_nm",
    "seconds",
    "peak_mib",
)


def zernike(seed: int, order: int = 8) -> np.ndarray:
    """Draw Chebyshev coefficients (order + 1, order + 1) of random Zernike polynomials over a 3 : 4 frame, 3 turns RMS."""
    rng = np.random.default_rng(seed)
    y, x = (np.cos(np.pi * (np.arange(24) + 0.5) / 24) for _ in range(2))
    radius, angle = np.hypot(0.6 * y[:, None], 0.8 * x), np.arctan2(0.6 * y[:, None], 0.8 * x)
    total = np.zeros((24, 24))
    for n in range(1, order + 1):
        for m in range(-n, n + 1, 2):
            radial = radius ** abs(m) * eval_jacobi((n - abs(m)) // 2, 0, abs(m), 2 * radius**2 - 1)
            total += rng.normal() * radial * (np.cos(m * angle) if m >= 0 else np.sin(-m * angle))
    inverse = np.linalg.pinv(np.polynomial.chebyshev.chebvander(y, order))
    factors = inverse @ total @ np.linalg.pinv(np.polynomial.chebyshev.chebvander(x, order)).T
    even = evaluate(factors, (45, 60), slice(0, 45))
    return factors / even.std() * 3.0


def evaluate(factors: np.ndarray, shape: tuple[int, int], rows: slice) -> np.ndarray:
    """Evaluate the surface in turns at the centres of some rows of an array over the frame."""
    at = [(2 * np.arange(n) + 1) / n - 1 for n in shape]
    y, x = (np.polynomial.chebyshev.chebvander(a, factors.shape[0] - 1) for a in (at[0][rows], at[1]))
    return y @ factors @ x.T


def smoothed(seed: int, shape: tuple[int, int], length: float) -> np.ndarray:
    """Draw noise smoothed over ``length`` elements, of 1 turn RMS."""
    step = max(1, int(length / 6))  # drawn coarsely and interpolated
    size = [-(-n // step) + 2 for n in shape]
    wide = int(4 * length / step)
    drawn = ndimage.gaussian_filter(
        np.random.default_rng(seed).normal(size=[n + 2 * wide for n in size]), length / step
    )
    cut = ndimage.zoom(drawn[wide:-wide, wide:-wide], step, order=3)[: shape[0], : shape[1]]
    return np.asarray(cut / cut.std())


def blocks_of(shape: tuple[int, int]) -> tuple[int, int]:
    return -(-shape[0] // 8), -(-shape[1] // 8)


def joined(kind: str, shape: tuple[int, int], gap_px: int, seed: int) -> dict[str, Any]:
    """Join the sides of a trench at a random place."""
    rng = np.random.default_rng(seed)
    grid, gap = blocks_of(shape), gap_px // 8
    at = int(rng.uniform(0.25, 0.75) * (grid[1] - gap))
    label = np.ones(grid, np.int32)
    label[:, at : at + gap] = 0
    left, right = (1, 2) if at > grid[1] - at - gap else (2, 1)  # by falling size
    label[:, :at], label[:, at + gap :] = left, right
    whole = int(rng.integers(-9, 10))
    turns = smoothed(seed, grid, gap / 4) if kind == "rough" else evaluate(zernike(seed), grid, slice(None))
    step = float(rng.uniform(0.1, 0.5)) if kind == "step" else 0.0
    turns = turns + rng.normal(0, NOISE_TURNS / 8, grid) + (whole + step) * (label == 2)
    known = label > 0
    zeros = np.zeros((2, *grid)), np.zeros((3, *grid))
    sigma = np.where(known, NOISE_TURNS / 8, np.inf)
    blocks = UnwrappedBlocks(
        shape, label, np.where(known, turns, np.nan), sigma, *zeros, 64 * np.bincount(label.ravel())
    )
    start = time.process_time()
    with PeakMemory() as memory:
        found = join_over_frame(blocks, join_components(blocks, every=True))
    seconds = time.process_time() - start
    outcome = "apart" if found.components == 2 else "right" if found.level[2] - found.level[1] == -whole else "wrong"
    return {
        "kind": kind,
        "gap_px": gap_px,
        "outcome": outcome,
        "seconds": round(seconds, 2),
        "peak_mib": round(memory.mib),
    }


def hole_of(kind: str, shape: tuple[int, int], size: int) -> Callable[[Band], np.ndarray]:
    """Make the hole, rows of which a band asks for: an island, or a trench."""
    middle = shape[0] // 2, int(0.53 * shape[1])
    x = np.abs(np.arange(shape[1]) - middle[1])

    def rows(band: Band) -> np.ndarray:
        y = np.arange(band.start, band.stop)[:, None] - middle[0]
        return (
            np.hypot(y, x) < size / 2
            if kind.startswith("island")
            else np.broadcast_to(x < size / 2, (band.rows, len(x)))
        )

    return rows


def filled(kind: str, shape: tuple[int, int], gap_px: int, seed: int) -> dict[str, Any]:
    """Fill a hole of a map that is one component."""
    factors, hole = zernike(seed), hole_of(kind, shape, gap_px)

    def truth(band: Band) -> np.ndarray:
        return evaluate(factors, shape, slice(band.start, band.stop)) * TURN_NM

    def rows(band: Band) -> tuple[np.ndarray, np.ndarray]:
        height = np.empty((band.rows, shape[1]), np.float32)
        for y in range(band.start, band.stop):  # the same noise whatever the bands
            noise = np.random.default_rng((seed, y)).standard_normal(shape[1], np.float32)
            height[y - band.start] = noise * np.float32(NOISE_TURNS * TURN_NM)
        height += truth(band)
        gone = hole(band)
        height[gone] = np.nan
        return height, np.where(gone, 0, 1).astype(np.int32)

    gap = np.ones(blocks_of(shape), bool) if kind.startswith("trench") else None
    bands = [Band(0, a, min(a + 64, shape[0])) for a in range(0, shape[0], 64)]
    with tempfile.TemporaryDirectory() as folder:
        out = tuple(np.memmap(Path(folder) / name, np.float32, "w+", shape=shape) for name in ("height", "sigma"))
        start = time.process_time()
        with PeakMemory() as memory:
            report = fill_holes(rows, bands, (out[0], out[1]), gap)
        seconds = time.process_time() - start
        sums = np.zeros(4)
        for band in bands:
            mine = hole(band)
            error, sigma = ((a[band.start : band.stop] - b)[mine] for a, b in ((out[0], truth(band)), (out[1], 0.0)))
            sums += len(error), (error**2).sum(), ((error / sigma) ** 2).sum(), (sigma**2).sum()
    rms, pull, sigma = np.sqrt(sums[1:] / sums[0])
    return {
        "kind": kind,
        "gap_px": gap_px,
        "outcome": "filled" if report["pixels_left_open"] == 0 else "open",
        "rms_nm": f"{rms:.3g}",
        "pull": f"{pull:.3g}",
        "sigma_nm": f"{sigma:.3g}",
        "seconds": round(seconds, 1),
        "peak_mib": round(memory.mib),
    }


def guessed(kind: str, seed: int) -> dict[str, Any]:
    """Guess what lies in a hole of 16 blocks from 16 blocks around it."""
    rng, grid = np.random.default_rng(seed), (48, 48)
    truth = smoothed(seed, grid, float(kind.split("-")[1])) * TURN_NM
    hole = np.hypot(*(np.indices(grid) - 23.5)) < 8
    noise = NOISE_TURNS * TURN_NM
    measured = np.where(hole, np.nan, truth + rng.normal(0, noise / 8, grid))
    start = time.process_time()
    with PeakMemory() as memory:
        found = guess_hole(Surroundings(measured, noise, hole))
    seconds = time.process_time() - start
    assert found is not None
    every = slice(0, 8 * grid[0]), slice(0, 8 * grid[1])
    height, sigma = (a.reshape(grid[0], 8, grid[1], 8).mean(axis=(1, 3)) for a in found.rows(*every))
    error = (height - truth)[hole]
    rms, pull, sigma_rms = (float(np.sqrt(np.mean(np.square(a)))) for a in (error, error / sigma[hole], sigma[hole]))
    return {
        "kind": kind,
        "gap_px": 128,
        "outcome": "filled",
        "rms_nm": f"{rms:.3g}",
        "pull": f"{pull:.3g}",
        "sigma_nm": f"{sigma_rms:.3g}",
        "seconds": round(seconds, 2),
        "peak_mib": round(memory.mib),
    }


def fitted(kind: str, shape: tuple[int, int], seed: int) -> dict[str, Any]:
    """Fit the field of a whole frame, with its tiles coupled or as before."""
    grid = blocks_of(shape)
    rng = np.random.default_rng(seed)
    height = (evaluate(zernike(seed), grid, slice(None)) + rng.normal(0, NOISE_TURNS / 8, grid)) * TURN_NM
    moments = MeanPixels(np.zeros((2, *grid)), np.full((3, *grid), [[[5.25]], [[5.25]], [[0.0]]]))
    sigma, turns = np.full(grid, NOISE_TURNS / 8 * TURN_NM), (height / TURN_NM)[None]
    coarse = CoarseHeights(shape, height, sigma, moments, turns, np.ones((1, *grid)), np.array([TURN_NM]))
    real = field.couple
    try:
        if kind == "field-before":
            field.couple = lambda closed, empty, ranks: closed
        start = time.process_time()
        with PeakMemory() as memory:
            surface = measuring_surface(coarse, networks=False)
        seconds = time.process_time() - start
    finally:
        field.couple = real
    jumps, blended = borders(surface)
    return {
        "kind": kind,
        "gap_px": 0,
        "outcome": "fitted",
        "jump_sigma": f"{np.sqrt(np.mean(jumps[1] ** 2)):.3g}",
        "jump_largest_nm": f"{np.abs(jumps[0]).max():.3g}",
        "blended_nm": f"{blended:.2g}",
        "seconds": round(seconds, 2),
        "peak_mib": round(memory.mib),
    }


def borders(surface: FittedSurface) -> tuple[np.ndarray, float]:
    """Subtract own surfaces of neighbours on shared borders: in nm, and over sigma, (2, N); the largest jump after blending."""
    closed, partition = surface.closed, surface.closed.tiles.partition
    factors = closed.field.parts.get_parameter("coefficients").detach().numpy()
    sigma = surface.sigma_nm()
    place = {box.position: box for box in partition}
    found, blended = [], 0.0
    for box in partition:
        for axis in (0, 1):
            other = place.get((box.position[0] + (axis == 0), box.position[1] + (axis == 1)))
            if other is None:
                continue
            edge, along = box.core[axis][1], np.arange(*box.core[1 - axis])
            at = [np.full(len(along), float(edge)), along + 0.5][:: 1 if axis == 0 else -1]
            own = [_own(factors[one.index], one.extent, at) for one in (box, other)]
            where = (edge, along) if axis == 0 else (along, edge)
            found.append(np.stack([own[0] - own[1], (own[0] - own[1]) / sigma[where]]))
            if box.index % 17 == 0:  # of some borders: a field of a frame is slow at single points
                sides = [np.stack([a + s * (k == axis) for k, a in enumerate(at)], axis=1) for s in (-1e-9, 1e-9)]
                with torch.no_grad():
                    one, two = (closed.field(torch.from_numpy(side))[:, 0] for side in sides)
                blended = max(blended, float((one - two).abs().max()))
    return np.concatenate(found, axis=1), blended


def _own(factors: np.ndarray, extent: tuple[tuple[int, int], ...], at: list[np.ndarray]) -> np.ndarray:
    scaled = [2 * (a - low) / (high - low) - 1 for a, (low, high) in zip(at, extent, strict=True)]
    return np.polynomial.chebyshev.chebval2d(scaled[0], scaled[1], factors)


def _measured(kind: str, shape: tuple[int, int], gap_px: int, seed: int) -> list[dict[str, Any]]:
    if kind == "whole":
        return whole(shape, seed)
    if kind.startswith("run"):
        return [ran(kind, shape, gap_px, seed)]
    if kind.startswith("field"):
        return [fitted(kind, shape, seed)]
    if kind.startswith("smooth"):
        return [guessed(kind, seed)]
    return [(filled if kind.endswith("filled") else joined)(kind, shape, gap_px, seed)]


@dataclass(frozen=True)
class Scene:
    """What frames show: the surface in turns on some rows, where there is no light, and the wavelengths."""

    shape: tuple[int, int]
    turns: Callable[[Band], np.ndarray]
    dark: Callable[[Band], np.ndarray]
    wavelengths_nm: tuple[float, ...] = (2 * TURN_NM,)

    def write(self, folder: Path, seed: int) -> None:
        """Write four frames of 8 bit per wavelength and what is known of them."""
        count, width = len(self.wavelengths_nm), self.shape[1]
        frames = np.lib.format.open_memmap(folder / "frames.npy", "w+", np.uint8, (count, 4, *self.shape))
        scatter = 100 * np.float32(NOISE_RAD * np.sqrt(2))
        noise = np.random.default_rng(seed).standard_normal((4, 250, width), np.float32) * scatter
        for band in self.bands():
            turns, light = self.turns(band), np.where(self.dark(band), np.float32(0), np.float32(100))
            for number, wavelength in enumerate(self.wavelengths_nm):
                phase = (4 * np.pi * TURN_NM / wavelength * turns).astype(np.float32)
                for k in range(4):
                    rolled = np.roll(noise[k], 37 * band.start + 1009 * number, axis=1)[: band.rows]
                    frames[number, k, band.start : band.stop] = np.rint(
                        128 + light * np.cos(phase + k * np.float32(np.pi / 2)) + rolled
                    )
        frames.flush()
        named = ", ".join(f'"{one:g} nm"' for one in self.wavelengths_nm)
        (folder / "frames.toml").write_text(f"wavelengths = [{named}]\nphase_steps = [0, 90, 180, 270]\n")

    def bands(self) -> list[Band]:
        return [Band(0, a, min(a + 250, self.shape[0])) for a in range(0, self.shape[0], 250)]

    def sampled(self, rows: Callable[[Band], np.ndarray]) -> np.ndarray:
        """Collect every seventh pixel."""
        return np.concatenate([rows(band)[-band.start % EVERY :: EVERY, ::EVERY] for band in self.bands()])


def scene_of(kind: str, shape: tuple[int, int], gap_px: int, seed: int) -> Scene:
    """Make the scene of a run with one wavelength."""
    dark, factors = hole_of("island" if kind == "run-island" else "trench", shape, gap_px), zernike(seed)
    step = float(np.random.default_rng(seed).uniform(0.1, 0.5)) if kind == "run-step" else 0.0
    beyond = np.arange(shape[1]) > int(0.53 * shape[1])
    rough = smoothed(seed, shape, gap_px / 4).astype(np.float32) if kind == "run-rough" else None

    def turns(band: Band) -> np.ndarray:
        rows = slice(band.start, band.stop)
        return rough[rows] if rough is not None else evaluate(factors, shape, rows) + step * beyond

    return Scene(shape, turns, dark)


def reconstructed(folder: Path, *flags: str, before: bool = False) -> tuple[dict[str, Any], float]:
    """Reconstruct frames by ``cpikan reconstruct --method field``, a process of its own; its summary and processor seconds."""
    given = ["reconstruct", str(folder / "frames.npy"), "-o", str(folder / "o.npy"), "--method", "field"]
    given += [*flags, "--overwrite", "--all", "--threads", "1", "--json"]
    start = [sys.executable, __file__, "--uncoupled"] if before else [sys.executable, "-m", "cpikan"]
    used = _children_s()
    done = subprocess.run([*start, *given], capture_output=True, text=True, check=True)
    return json.loads(done.stdout), _children_s() - used


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def uncoupled(arguments: list[str]) -> None:
    """Run the command line with tiles of the field as they are fitted, each by itself."""
    from cpikan.cli import main as command_line

    field.couple = lambda closed, empty, ranks: closed
    raise SystemExit(command_line(arguments))


def ran(kind: str, shape: tuple[int, int], gap_px: int, seed: int) -> dict[str, Any]:
    """Reconstruct frames of one wavelength with a dark trench or hole, from one edge to the other or in the middle."""
    scene = scene_of(kind, shape, gap_px, seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        scene.write(folder, seed)
        summary, seconds = reconstructed(folder, "--inpaint")
        sample = slice(None, None, EVERY), slice(None, None, EVERY)
        height, sigma, flag = (
            np.load(folder / f"o{name}.npy", mmap_mode="r")[sample] for name in ("", ".sigma", ".flags")
        )
    gone, error = scene.sampled(scene.dark), height - scene.sampled(scene.turns) * TURN_NM
    found = {
        "kind": kind,
        "gap_px": gap_px,
        "seconds": round(seconds, 1),
        "peak_mib": round(summary["peak_anonymous_mib"]),
    }
    print(summary["refining"], summary["inpainting"], summary["warning_names"], file=sys.stderr)
    if summary["components"] > 1:
        smaller = ~gone & ((flag & GUESSED) == 0) & (np.arange(gone.shape[1]) * EVERY > int(0.53 * shape[1]))
        said = bool((flag[smaller] & AMBIGUOUS).all()) and "orders-apart" in summary["warning_names"]
        return {**found, "outcome": "apart" if said else "silent"}
    error -= np.nanmedian(error[~gone])
    wrong = int((np.abs(error[~gone]) > TURN_NM / 2).sum())
    guess = gone & ((flag & GUESSED) > 0)
    of = error[guess], (error / sigma)[guess], sigma[guess]
    rms, pull, of_sigma = (float(np.sqrt(np.nanmean(np.square(one)))) for one in of)
    right = not wrong and guess.sum() == gone.sum()
    figures = {"rms_nm": f"{rms:.3g}", "pull": f"{pull:.3g}", "sigma_nm": f"{of_sigma:.3g}"}
    return {**found, "outcome": "right" if right else "wrong", **figures}


def whole(shape: tuple[int, int], seed: int) -> list[dict[str, Any]]:
    """Reconstruct the same frames of four wavelengths without and with coupled tiles, after small runs that compile."""
    factors, waves = zernike(seed), (5000.0, 5500.0, 6050.0, 6655.0)
    rows: dict[str, dict[str, Any]] = {}
    for size in (SMALL, shape):

        def turns(band: Band, size: tuple[int, int] = size) -> np.ndarray:
            return evaluate(factors, size, slice(band.start, band.stop))

        def dark(band: Band, size: tuple[int, int] = size) -> np.ndarray:
            return np.zeros((band.rows, size[1]), bool)

        scene = Scene(size, turns, dark, waves)
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            scene.write(folder, seed)
            truth = scene.sampled(scene.turns) * TURN_NM
            for kind in ("whole-before", "whole"):
                summary, seconds = reconstructed(folder, before=kind == "whole-before")
                error = np.load(folder / "o.npy", mmap_mode="r")[::EVERY, ::EVERY] - truth
                error -= np.nanmedian(error)  # pixels without a measurement have no height
                rows[kind] = {
                    "kind": kind,
                    "gap_px": 0,
                    "outcome": "right" if np.nanmax(np.abs(error)) < min(waves) / 4 else "wrong",
                    "rms_nm": f"{np.sqrt(np.nanmean(error**2)):.3g}",
                    "seconds": round(seconds, 1),
                    "peak_mib": round(summary["peak_anonymous_mib"]),
                }
    return list(rows.values())


def main() -> None:
    if sys.argv[1:2] == ["--uncoupled"]:
        uncoupled(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--full", action="store_true", help="also a whole frame of 9344 x 7000, one seed")
    parser.add_argument("--only-full", action="store_true", help="a whole frame alone")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    given = parser.parse_args()
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    if RESULTS.is_file():
        with RESULTS.open(newline="") as file:
            rows = {_place(one): one for one in csv.DictReader(file)}
    sizes = [] if given.only_full else [(SMALL, 128, given.seeds)]
    sizes += [(FULL, 2000, 1)] if given.full or given.only_full else []
    for shape, gap, seeds in sizes:
        for kind in given.kinds:
            for seed in range(seeds if shape == SMALL or not kind.startswith("smooth") else 0):
                for found in _measured(kind, shape, gap, seed):
                    row = {"height": shape[0], "width": shape[1], "seed": seed, **found}
                    rows[_place(row)] = row
                    print(row, file=sys.stderr, flush=True)
                keep(rows.values())


def keep(rows: Iterable[dict[str, Any]]) -> None:
    """Write the lines by size, kind and seed."""
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(
            sorted(
                rows,
                key=lambda one: (int(one["height"]), (*KINDS, "whole-before").index(one["kind"]), int(one["seed"])),
            )
        )


def _place(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in ("kind", "height", "seed"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with threadpool_limits(limits=1, user_api="blas"):
        main()
