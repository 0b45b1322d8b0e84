"""Who decides fringe orders best: ``python benchmarks/refiners.py [--size 512] [--seeds 8] [--quick]``.

Six columns on the same frames in the same run, kept in results/refiners.csv. Four wavelengths (5000, 5500, 6050, 6655 nm), a
range of 27 um. The columns:

    pixel      the joint search of every pixel alone
    vote       the order nearest to the median height of 5 x 5 pixels
    phasor     the order nearest to the joint search on phasors averaged over 5 x 5 pixels
    chebyshev  the order nearest to the closed-form Chebyshev surface
    cpikan     the order nearest to that surface with Scaled-cPIKAN on the tiles above noise
    hybrid     maximum a posteriori of phases, neighbours and the closed-form surface (``--method hybrid``)

``noise`` is the phase noise of four frames; with K frames it is sqrt(4 / K) of it. Heights are always formed from the pixel's
own phases and the order. ``surface_rms_nm`` is the error of what a column draws before that (of the height for pixel and
hybrid), ``step`` the part of a step of 120 nm that it shows within two pixels of the edge, ``hole_wrong`` the wrong orders
within five pixels of a hole of 120 pixels.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from cpikan.psi.kernels.arguments import pack_search
from cpikan.psi.kernels.cpu import DemodulationKernels, search_orders
from cpikan.psi.kernels.model import (
    DemodulatedRows,
    Demodulation,
    HeightRows,
    OrderSearch,
    PixelModel,
    empty_demodulated,
    empty_rows,
)
from cpikan.psi.model.schemes import LEAST_SQUARES, PhasorWeights, phasor_weights
from cpikan.psi.refine import orders
from cpikan.psi.refine.blocks import BlockSums
from cpikan.psi.refine.coarse import coarse_heights
from cpikan.psi.refine.field import guiding_surface, measuring_surface

RESULTS = Path(__file__).resolve().parent / "results" / "refiners.csv"
WAVES_NM = (5000.0, 5500.0, 6050.0, 6655.0)
HALF_NM = WAVES_NM[0] / 2
RANGE_NM, STEP_NM = 27e3, 120.0
BACKGROUND, MODULATION = 128.0, 100.0
SURFACES = ("smooth", "etched", "bumps", "mesas")
NOISES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
COLUMNS = ("pixel", "vote", "phasor", "chebyshev", "cpikan", "hybrid")


@dataclass(frozen=True)
class Case:
    """What is simulated; ``missing`` is the share of dead pixels, ``step_error_deg`` rms per frame."""

    surface: str
    noise: float
    frames: int = 4
    missing: float = 0.0
    step_error_deg: float = 0.0
    hole: bool = False
    seeds: int = 1


@dataclass
class Figures:
    """One line of the table."""

    surface: str
    noise: float
    frames: int
    missing: float
    step_error_deg: float
    hole: bool
    column: str
    pixels: int = 0
    wrong: int = 0
    rms_nm: float = 0.0
    surface_rms_nm: float = 0.0
    step: float = float("nan")
    hole_wrong: float = float("nan")
    seconds_per_megapixel: float = 0.0


def surface(kind: str, size: int) -> np.ndarray:
    """Heights (size, size) in nm over 20 um of the range of 27 um; steps lie on multiples of 64 pixels."""
    y, x = np.mgrid[:size, :size]
    v, u = 2 * y / size - 1, 2 * x / size - 1
    height = 8500 * (u**2 + v**2 - 0.8) + 1500 * u * v
    cell = (x // 64 + y // 64) % 2
    if kind == "etched":
        height = height + STEP_NM * cell
    if kind == "bumps":
        for cy, cx in np.random.default_rng(5).uniform(0.1, 0.9, (40, 2)) * size:
            height = height + 500 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * 12.0**2))
    if kind == "mesas":
        height = 0.7 * height + 3700 * cell * ((x % 64 > 16) & (x % 64 < 48) & (y % 64 > 16) & (y % 64 < 48))
    return height


def demodulation(frames: int, noise_dn: float) -> Demodulation:
    """Least squares for three or more frames; two frames, at 0 and 90 degrees, take the background as known."""
    if frames == 2:
        unit = np.array([1.0, 0.0, 1.0])  # of the covariance
        weights = PhasorWeights(np.array([1.0, 0.0]), np.array([0.0, -1.0]), np.zeros(2), np.zeros(2), unit)
    else:
        weights = phasor_weights(LEAST_SQUARES, tuple(360 * k / frames for k in range(frames)))
    many = len(WAVES_NM)
    return Demodulation.of_weights([weights] * many, np.tile([noise_dn**2, 0.0], (many, 1)))


def order_search(size: int) -> OrderSearch:
    """The range about zero, and a little more at its ends for noise."""
    edge = 0.25 * HALF_NM
    low, length = -RANGE_NM / 2 - edge, RANGE_NM + 2 * edge
    many = len(WAVES_NM)
    centre = ((size - 1) / 2, (size - 1) / 2)
    ratio = WAVES_NM[0] / np.array(WAVES_NM)
    plane = np.zeros(many), np.zeros((many, 2))
    return OrderSearch(tuple(range(many)), ratio, HALF_NM, *plane, centre, low, length, low, length, 40.0)


def frames_of(height: np.ndarray, case: Case, noise_dn: float, rng: np.random.Generator) -> np.ndarray:
    """Frames (L, K, H, W) float32; the background taken off where there are two, dead pixels NaN."""
    nominal = np.arange(case.frames) * (90.0 if case.frames == 2 else 360 / case.frames)
    stack = np.empty((len(WAVES_NM), case.frames, *height.shape), np.float32)
    for wave, group in zip(WAVES_NM, stack, strict=True):
        for delta, frame in zip(nominal + rng.normal(0, case.step_error_deg, case.frames), group, strict=True):
            frame[...] = MODULATION * np.cos(4 * np.pi * height / wave + np.radians(delta))
    stack += rng.normal(0, noise_dn, stack.shape).astype(np.float32)
    stack += 0 if case.frames == 2 else BACKGROUND
    dead = rng.random(height.shape) < case.missing
    if case.hole:
        y, x = np.indices(height.shape) - height.shape[0] // 2 + 20
        dead |= y**2 + x**2 < 60**2
    stack[:, :, dead] = np.nan
    return stack


def own_height(rows: DemodulatedRows) -> np.ndarray:
    return np.where(rows.flags & 1, np.nan, rows.height_nm)


def nearest(rows: DemodulatedRows, search: OrderSearch, target_nm: np.ndarray) -> np.ndarray:
    """Heights of the orders that bring the pixel nearest to a target; the pixel's own where that is not known.

    One order of the anchor moves the height by half its wavelength, and the correction by the others with it.
    """
    weight, ratio = rows.weight.astype(np.float64), search.ratio[:, None, None]
    own = rows.phase_cycles[0] + rows.order
    jump = np.rint(np.where(np.isfinite(target_nm), target_nm, own * HALF_NM) / HALF_NM - own)
    anchor = own + jump
    rest = rows.phase_cycles - anchor * ratio
    rest -= np.rint(rest)
    shift = (weight * ratio * rest).sum(axis=0) / (weight * ratio**2).sum(axis=0)
    return np.where(rows.flags & 1, np.nan, (anchor + shift) * HALF_NM)


def by_pixel(rows: DemodulatedRows, search: OrderSearch) -> tuple[np.ndarray, np.ndarray]:
    height = own_height(rows)
    return height, height


def by_vote(rows: DemodulatedRows, search: OrderSearch) -> tuple[np.ndarray, np.ndarray]:
    padded = np.pad(own_height(rows), 2, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5)).reshape(*rows.flags.shape, 25)
    ordered = np.sort(windows, axis=-1)  # NaN last
    known = np.isfinite(ordered).sum(axis=-1)
    target = np.take_along_axis(ordered, np.maximum(known - 1, 0)[..., None] // 2, axis=-1)[..., 0]
    return nearest(rows, search, target), target


def by_phasor(rows: DemodulatedRows, search: OrderSearch) -> tuple[np.ndarray, np.ndarray]:
    valid = (rows.flags & 1) == 0
    weight = np.where(valid, rows.weight, 0).astype(np.float64)
    phasor = weight * np.exp(2j * np.pi * np.where(valid, rows.phase_cycles, 0))
    mean = np.stack([ndimage.uniform_filter(p.real, 5) + 1j * ndimage.uniform_filter(p.imag, 5) for p in phasor])
    total = np.stack([ndimage.uniform_filter(w, 5) for w in weight]) * 25 + 1e-9
    shape = (len(mean), -1)
    turns = (np.angle(mean) / (2 * np.pi)).reshape(shape)
    low, span = search.low_nm / HALF_NM, search.range_nm / HALF_NM
    order, shift, _, _ = search_orders(search.ratio)(turns, 1 / total.reshape(shape), low, span)
    target = ((turns[0] + order + shift) * HALF_NM).reshape(valid.shape)
    return nearest(rows, search, target), target


def sums_of(rows: DemodulatedRows) -> BlockSums:
    sums = BlockSums.zeros(len(rows.phase_cycles), rows.flags.shape)
    sums.add(rows, 0)
    return sums


def by_chebyshev(rows: DemodulatedRows, search: OrderSearch) -> tuple[np.ndarray, np.ndarray]:
    fitted = measuring_surface(coarse_heights(sums_of(rows), search), networks=False)
    target = fitted.rows(0, len(rows.flags), fitted.allowed_nm).height_nm
    return nearest(rows, search, target), target


def by_cpikan(rows: DemodulatedRows, search: OrderSearch) -> tuple[np.ndarray, np.ndarray]:
    fitted = measuring_surface(coarse_heights(sums_of(rows), search))
    target = fitted.rows(0, len(rows.flags), fitted.allowed_nm).height_nm
    return nearest(rows, search, target), target


def by_hybrid(rows: DemodulatedRows, search: OrderSearch) -> tuple[np.ndarray, np.ndarray]:
    fitted, limits = guiding_surface(coarse_heights(sums_of(rows), search)), pack_search(search)
    whole = slice(0, len(rows.flags))
    choice = orders.icm(rows, orders.own_orders(rows, 0, None), fitted.surface(rows, 0, whole), limits)
    out = HeightRows(*empty_rows(*rows.flags.shape))
    orders.form_heights(rows, choice, limits, whole, out)
    return out.height_nm, out.height_nm


BY: dict[str, Callable[[DemodulatedRows, OrderSearch], tuple[np.ndarray, np.ndarray]]] = {
    "pixel": by_pixel,
    "vote": by_vote,
    "phasor": by_phasor,
    "chebyshev": by_chebyshev,
    "cpikan": by_cpikan,
    "hybrid": by_hybrid,
}


def measure(case: Case, size: int) -> list[Figures]:
    """All columns on the same frames, pooled over seeds."""
    truth = surface(case.surface, size)
    noise_dn = case.noise * MODULATION * np.sqrt(2)
    search = order_search(size)
    model = PixelModel(demodulation(case.frames, noise_dn), search)
    base = {key: value for key, value in asdict(case).items() if key != "seeds"}
    table = {name: Figures(column=name, **base) for name in COLUMNS}
    kernels = DemodulationKernels(model, 2)
    for seed in range(case.seeds):
        rows = empty_demodulated(len(WAVES_NM), size, size)
        kernels.demodulate(frames_of(truth, case, noise_dn, np.random.default_rng(seed)), 0, None, rows)
        for name, line in table.items():
            started = time.perf_counter()
            found, drawn = BY[name](rows, search)
            line.seconds_per_megapixel += (time.perf_counter() - started) / truth.size * 1e6 / case.seeds
            _add(line, found - truth, drawn - truth, drawn, rows, case)
    kernels.close()
    for line in table.values():
        line.rms_nm = float(np.sqrt(line.rms_nm / case.seeds))
        line.surface_rms_nm = float(np.sqrt(line.surface_rms_nm / case.seeds))
    return list(table.values())


def _add(
    line: Figures, error: np.ndarray, off: np.ndarray, drawn: np.ndarray, rows: DemodulatedRows, case: Case
) -> None:
    """One seed's errors into the sums of a line."""
    valid = (rows.flags & 1) == 0
    wrong = valid & (np.abs(error) > HALF_NM / 2)
    line.pixels += int(valid.sum())
    line.wrong += int(wrong.sum())
    line.rms_nm += float(np.mean(error[valid & ~wrong] ** 2))
    close = valid & (np.abs(off) < HALF_NM / 2)
    line.surface_rms_nm += float(np.mean(off[close] ** 2))
    if case.surface == "etched":
        line.step = _step(drawn, truth_slope=surface("smooth", len(drawn)))
    if case.hole:
        around = ndimage.binary_dilation(~valid, iterations=5) & valid
        line.hole_wrong = float(wrong[around].mean())


def _step(drawn: np.ndarray, truth_slope: np.ndarray) -> float:
    """The step between columns two pixels on either side of the die edges, as a share of 120 nm."""
    flat = drawn - truth_slope
    size, shares = len(drawn), []
    for edge in range(64, size - 63, 64):
        left, right = flat[:, edge - 2], flat[:, edge + 1]
        sign = np.where(((edge // 64) + np.arange(size) // 64) % 2 == 1, 1.0, -1.0)
        inner = (np.arange(size) % 64 > 8) & (np.arange(size) % 64 < 56)
        jump = (sign * (right - left))[inner]
        shares.append(np.nanmean(jump[np.abs(jump) < HALF_NM / 2]))
    return float(np.mean(shares) / STEP_NM)


def cases(seeds: int, quick: bool) -> list[Case]:
    """The sweep; the case of the targets first, with most pixels."""
    central = [Case(kind, 0.25, seeds=seeds) for kind in SURFACES]
    if quick:
        return central
    sweep = [Case(kind, noise) for kind in SURFACES for noise in NOISES if noise != 0.25]
    few = [Case(kind, 0.25, frames=frames) for kind in SURFACES for frames in (2, 3)]
    missing = [Case(kind, 0.25, missing=share) for kind in SURFACES for share in (0.2, 0.4)]
    steps = [Case(kind, 0.25, step_error_deg=5.0) for kind in SURFACES]
    holes = [replace(case, hole=True) for case in (Case("smooth", 0.25), Case("smooth", 0.5))]
    return central + sweep + few + missing + steps + holes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--seeds", type=int, default=8, help="of the case of the targets")
    parser.add_argument("--quick", action="store_true", help="only that case, and nothing kept")
    given = parser.parse_args()
    lines: list[Figures] = []
    measure(Case("smooth", 0.25), 64)  # compiles
    for case in cases(given.seeds, given.quick):
        lines += (found := measure(case, given.size))
        text = "  ".join(f"{line.column} {line.wrong / line.pixels:.2e}" for line in found)
        print(
            f"{case.surface:7} {case.noise:.2f} {case.frames} {case.missing:.1f} {case.step_error_deg:.0f}  {text}",
            flush=True,
        )
    if not given.quick:
        RESULTS.parent.mkdir(exist_ok=True)
        with open(RESULTS, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(Figures.__dataclass_fields__))
            writer.writeheader()
            writer.writerows(
                {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in asdict(line).items()} for line in lines
            )


if __name__ == "__main__":
    main()
