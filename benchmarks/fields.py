"""Figures of the fields: ``python benchmarks/fields.py [FIGURE ...] [--stack DIR]``, kept in results/fields.csv.

    jets        derivatives against torch.autograd and numpy.polynomial.chebyshev
    windows     sums of windows over 500 random partitions
    evaluation  a network and a tensor field on 9344 x 7000 pixels, with slopes, against eager torch
    seams       neighbouring tiles of the closed form against each other, without and with noise
    slopes      slopes and curvature within two sigmas of the truth
    tiles       hybrid under other tiles and bands, bit for bit
    full        field and hybrid on a stack (``--stack``, default: one is simulated), time and memory
    auto        auto against pixel at low noise on the same stack

Without names all are measured. Figures that are not asked for stay as they are in the CSV.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.polynomial import chebyshev

import refiners
from cpikan.fields.decomposed import DecomposedField
from cpikan.fields.grid_evaluator import GridEvaluator
from cpikan.fields.grid_slopes import GridSlopes
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.fields.tensor_chebyshev import TensorChebyshev
from cpikan.partition import Partition
from cpikan.partition.windows import window
from cpikan.psi.kernels.cpu import DemodulationKernels
from cpikan.psi.kernels.model import PixelModel, empty_demodulated
from cpikan.psi.refine.closed_form import OVERLAP, TILE, ClosedForm, posterior_sigma
from cpikan.psi.refine.coarse import coarse_heights
from cpikan.psi.refine.field import FittedSurface, measuring_surface
from cpikan.psi.refine.slopes import SLOPE_SIGMAS, SLOPES, SlopeMaps

RESULTS = Path(__file__).resolve().parent / "results" / "fields.csv"
HEIGHT, WIDTH = 7000, 9344
BLOCKS = (HEIGHT // 8, WIDTH // 8)


class Row(NamedTuple):
    """One line of the CSV, in the columns of psi.csv."""

    figure: str
    value: float | str
    unit: str
    target: str
    met: str
    baseline: str
    note: str


def at_most(figure: str, value: float, unit: str, limit: float, note: str, baseline: str = "") -> Row:
    return Row(figure, f"{value:.4g}", unit, f"<= {limit:g}", "yes" if value <= limit else "no", baseline, note)


def _relative(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float(((found - truth).abs().max() / truth.abs().max().clamp_min(1e-30)).detach())


def jets() -> Iterator[Row]:
    """Networks against autograd, single layers against numpy, interior points and the corners of the box."""
    points = torch.cat([2 * torch.rand(200, 2, dtype=torch.float64) - 1, torch.tensor([[1.0, 1], [-1, -1], [1, -1]])])
    worst = layer = 0.0
    for degree in range(3, 13):
        field = ScaledCPIKAN([2, 6, 6, 1], degree, ([-1, -1], [1, 1]), start=Start(seed=degree))
        x = points.clone().requires_grad_(True)
        jet = field.jet(points)
        gradient = torch.autograd.grad(field(x).sum(), x, create_graph=True)[0]
        second = [torch.autograd.grad(gradient[:, k].sum(), x, retain_graph=True)[0][:, k] for k in (0, 1)]
        worst = max(worst, _relative(jet.gradient[:, 0], gradient), _relative(jet.second[:, 0], torch.stack(second, 1)))
        single = TensorChebyshev([degree + 1, degree + 1], ([-1, -1], [1, 1]))
        drawn = np.random.default_rng(degree).normal(size=(degree + 1, degree + 1))
        single.set_output_coefficients(torch.from_numpy(drawn.reshape(-1, 1)))
        jet = single.jet(points)
        y, at = points.numpy().T
        for k in (0, 1):
            once, twice = (
                torch.from_numpy(chebyshev.chebval2d(y, at, chebyshev.chebder(drawn, n, axis=k))) for n in (1, 2)
            )
            layer = max(layer, _relative(jet.gradient[:, 0, k], once), _relative(jet.second[:, 0, k], twice))
    note = "degree 3 to 12, 200 points and corners, largest deviation over the largest value"
    yield at_most("jets_autograd", worst, "", 1e-10, f"ScaledCPIKAN [2, 6, 6, 1], {note}")
    yield at_most("jets_numpy", layer, "", 1e-10, f"TensorChebyshev, {note}")


def windows() -> Iterator[Row]:
    """Largest deviation of the sum of the windows from one."""
    rng = np.random.default_rng(0)
    worst = {np.float32: 0.0, np.float64: 0.0}
    for _ in range(500):
        shape = tuple(int(n) for n in rng.integers(20, 300, 2))
        tile = int(rng.integers(8, 64))
        partition = Partition.tiles(shape, tile, int(rng.integers(0, tile // 2 + 1)))
        for dtype in worst:
            total = np.zeros(shape, dtype)
            for box in partition:
                pixels = [np.arange(*extent).astype(dtype) + dtype(0.5) for extent in box.extent]
                y, x = map(window, partition.axes, box.position, pixels)
                box.view(total)[...] += y.value[:, None] * x.value
            worst[dtype] = max(worst[dtype], float(np.abs(total - 1).max()))
    yield at_most("windows_float32", worst[np.float32], "", 2e-7, "500 random partitions")
    yield at_most("windows_float64", worst[np.float64], "", 5e-16, "500 random partitions")


def _best(work: Callable[[], object], times: int = 3) -> float:
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def evaluation() -> Iterator[Row]:
    """All pixels of a full frame, best of three; eager torch on a band of rows, extrapolated."""
    y, x = (np.arange(HEIGHT) + 0.5) / 8, (np.arange(WIDTH) + 0.5) / 8
    network = ScaledCPIKAN([2, 8, 8, 1], 5, ([0, 0], list(BLOCKS)))
    partition = Partition.tiles(BLOCKS, [TILE, TILE], OVERLAP)
    tensor = TensorChebyshev([14, 14], DecomposedField.boxes(partition), networks=len(partition))
    with torch.no_grad():
        tensor.coefficients.normal_()
    rows = 64
    points = torch.stack(torch.meshgrid(torch.from_numpy(y[:rows]), torch.from_numpy(x), indexing="ij"), dim=-1).float()
    single = ScaledCPIKAN([2, 8, 8, 1], 5, ([0, 0], list(BLOCKS))).float()
    with torch.no_grad():
        eager = _best(lambda: single(points)) * HEIGHT / rows
    for name, field, limit, baseline in (
        ("network", network, 8.0, f"{eager:.3g} s eager torch, float32, from {rows} rows"),
        ("tensor", DecomposedField(partition, tensor), 1.0, ""),
    ):
        grid, slopes = GridEvaluator(field, y, x), GridSlopes(field, y, x)
        band = np.zeros((3, 2 * rows, WIDTH), np.float32)
        slopes.add(0, band)  # compiles
        for _ in grid.bands(2):
            pass
        what = "[2, 8, 8, 1] degree 5" if name == "network" else f"14 x 14 modes on {len(partition)} tiles"
        seconds = _best(lambda grid=grid: [None for _ in grid.bands(2)])
        yield at_most(f"evaluate_{name}", seconds, "s", limit, f"{what}, 9344 x 7000, 2 threads", baseline)
        one = _best(lambda slopes=slopes, band=band: slopes.add(0, band)) * HEIGHT / len(band[0])
        yield Row(f"slopes_{name}", f"{one:.4g}", "s", "", "", "", "two slopes and curvature, 1 thread, from 128 rows")


class Truth(NamedTuple):
    """Heights (H, W) in nm with their slopes and the sum of their second derivatives, per pixel."""

    height: np.ndarray
    slope_y: np.ndarray
    slope_x: np.ndarray
    curvature: np.ndarray


def truths(size: int) -> Iterator[tuple[str, Truth]]:
    """Surfaces whose derivatives are known."""
    y, x = np.mgrid[:size, :size]
    v, u, c = 2 * y / size - 1, 2 * x / size - 1, 2 / size
    bowl = refiners.surface("smooth", size)
    base = (17000 * v + 1500 * u) * c, (17000 * u + 1500 * v) * c, np.full((size, size), 34000 * c * c)
    yield "smooth", Truth(bowl, *base)
    for period in (200, 100):
        k = 2 * np.pi / period
        wave, rate = 300 * np.sin(k * (y + 0.3 * x)), 300 * k * np.cos(k * (y + 0.3 * x))
        yield (
            f"waves of {period} px",
            Truth(bowl + wave, base[0] + rate, base[1] + 0.3 * rate, base[2] - 1.09 * k * k * wave),
        )
    slope_y, slope_x, bend = (part.copy() for part in base)
    for cy, cx in np.random.default_rng(5).uniform(0.1, 0.9, (40, 2)) * size:
        bump = 500 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 288)
        dy, dx = (y - cy) / 144, (x - cx) / 144
        slope_y, slope_x, bend = slope_y - bump * dy, slope_x - bump * dx, bend + bump * (dy**2 + dx**2 - 2 / 144)
    yield "bumps", Truth(refiners.surface("bumps", size), slope_y, slope_x, bend)
    yield "etched", Truth(refiners.surface("etched", size), *base)


def fitted(height: np.ndarray, noise_rad: float, seed: int) -> FittedSurface:
    """The surface of ``--method field`` through simulated frames."""
    size, waves = len(height), len(refiners.WAVES_NM)
    noise_dn = noise_rad * refiners.MODULATION * np.sqrt(2)
    search = refiners.order_search(size)
    kernels = DemodulationKernels(PixelModel(refiners.demodulation(4, max(noise_dn, 1e-6)), search), 2)
    rows = empty_demodulated(waves, size, size)
    frames = refiners.frames_of(height, refiners.Case("", noise_rad), noise_dn, np.random.default_rng(seed))
    kernels.demodulate(frames, 0, None, rows)
    kernels.close()
    return measuring_surface(coarse_heights(refiners.sums_of(rows), search))


def _differences(closed: ClosedForm, values: np.ndarray) -> np.ndarray:
    """What neighbours along a row of tiles say of the blocks both have, one minus the other; ``values`` (N, h, w)."""
    partition, found = closed.tiles.partition, []
    whole = [np.full(partition.shape, np.nan) for _ in partition]
    for box, tile, page in zip(partition, values, whole, strict=True):
        box.view(page)[...] = tile
    place = {box.position: k for k, box in enumerate(partition)}
    for (row, column), k in place.items():
        for other in ((row + 1, column), (row, column + 1)):
            if other in place:
                both = whole[k] - whole[place[other]]
                found.append(both[np.isfinite(both)])
    return np.concatenate(found)


def seams() -> Iterator[Row]:
    """Neighbours against each other in their overlaps."""
    for noise in (0.0, 0.1, 0.25):
        worst, scale = [], 0.0
        for name, truth in truths(1024 if noise == 0 else 512):
            if name not in ("smooth", "waves of 200 px"):
                continue
            closed = fitted(truth.height, noise, 0).closed
            apart = _differences(closed, (closed.tiles.height - closed.residual).numpy())
            if noise == 0:
                scale = float(np.sqrt(np.mean(truth.height**2)))
                worst.append(float(np.sqrt(np.mean(apart**2))) / scale)
            else:
                sigma = float(np.sqrt(np.nanmean(posterior_sigma(closed) ** 2)))
                worst.append(float(np.sqrt(np.mean(apart**2))) / sigma)
        note = "neighbouring tiles in their overlaps, the worse of smooth and waves of 200 px"
        if noise == 0:
            yield at_most("seams_clean", max(worst), "", 1e-4, f"relative L2, {note}")
        else:
            yield at_most(f"seams_{noise}rad", max(worst), "", 3, f"RMS over the predicted standard error, {note}")


def slopes() -> Iterator[Row]:
    """Share of pixels within two predicted sigmas, pooled over seeds."""
    pairs = [(SLOPES[0], SLOPE_SIGMAS[0]), (SLOPES[1], SLOPE_SIGMAS[0]), (SLOPES[2], SLOPE_SIGMAS[1])]
    for noise in (0.05, 0.1, 0.25):
        for name, truth in truths(512):
            hits, errors, sigmas = np.zeros(3), np.zeros(3), np.zeros(3)
            for seed in range(3):
                found = SlopeMaps(fitted(truth.height, noise, seed)).rows(0, 512)
                for k, ((value, sigma), right) in enumerate(zip(pairs, truth[1:], strict=True)):
                    error = found[value] - right
                    hits[k] += np.nanmean(np.abs(error) < 2 * found[sigma]) / 3
                    errors[k] += np.nanmean(error**2) / 3
                    sigmas[k] += np.nanmean(found[sigma] ** 2) / 3
            for k, kind in enumerate(("slope_y", "slope_x", "curvature")):
                unit = "nm/px^2" if k == 2 else "nm/px"
                note = f"RMS error {errors[k] ** 0.5:.3g}, RMS sigma {sigmas[k] ** 0.5:.3g} {unit}, 3 seeds"
                figure = f"{kind}_{name}_{noise}rad".replace(" ", "_")
                yield Row(figure, f"{hits[k]:.4f}", "", ">= 0.95", "yes" if hits[k] >= 0.95 else "no", "", note)


def _simulated(folder: Path, shape: str, *more: str) -> Path:
    command = [sys.executable, "-m", "cpikan", "simulate", folder, "--shape", shape, *more]
    for wave in refiners.WAVES_NM:
        command += ["--wavelength", f"{wave:g} nm"]
    subprocess.run([*command, "--frames", "4"], check=True, capture_output=True)
    return folder


def _reconstructed(stack: Path, out: Path, *more: str) -> dict[str, float]:
    command = [sys.executable, "-m", "cpikan", "reconstruct", stack, "-o", out, "--overwrite", "--json", *more]
    done = subprocess.run(command, check=True, capture_output=True)
    return dict(json.loads(done.stdout))


def tiles(stack: Path | None) -> Iterator[Row]:
    """Outputs of the command line, byte for byte."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        small = _simulated(work / "stack", "700x900", "--read-noise", "25")
        different, bits = 0, b""
        for option in (
            ("--tile", "512"),
            ("--tile", "256"),
            ("--tile", "1024"),
            ("--band-rows", "64"),
            ("--band-rows", "200"),
        ):
            _reconstructed(small, work / "h.npy", "--method", "hybrid", "--all", *option)
            now = b"".join((work / f"h{kind}.npy").read_bytes() for kind in ("", ".sigma", ".flags"))
            bits, different = bits or now, different + (bits != b"" and bits != now)
    yield at_most(
        "hybrid_tiles", different, "of 4", 0, "outputs that differ from tile 512: tiles 256, 1024, bands 64, 200"
    )


def full(stack: Path | None) -> Iterator[Row]:
    """Time and memory of the whole frame."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        frames = stack or _simulated(work / "stack", f"{HEIGHT}x{WIDTH}")
        for name, more in (("field", ()), ("field_all", ("--all",)), ("hybrid", ())):
            found = _reconstructed(frames, work / "o.npy", "--method", name.partition("_")[0], *more)
            note = f"9344 x 7000, 4 x 4 frames, {' '.join(('.npy', *more))}; started in {found['seconds_start']:.1f} s"
            yield at_most(f"{name}_seconds", found["seconds"], "s", 120, note)
            yield at_most(f"{name}_memory", found["peak_anonymous_mib"], "MiB", 2048, note)


def auto(stack: Path | None) -> Iterator[Row]:
    """Auto against pixel, in turns, best of three."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        frames = stack or _simulated(work / "stack", f"{HEIGHT}x{WIDTH}")
        seconds: dict[str, list[float]] = {"auto": [], "pixel": []}
        for _ in range(3):
            for method, found in seconds.items():
                found.append(_reconstructed(frames, work / f"{method}.npy", "--method", method)["seconds"])
        same = (work / "auto.npy").read_bytes() == (work / "pixel.npy").read_bytes()
    best = {method: min(found) for method, found in seconds.items()}
    note = f"{best['auto']:.2f} s against {best['pixel']:.2f} s, heights {'identical' if same else 'different'}"
    yield at_most("auto_over_pixel", best["auto"] / best["pixel"] if same else float("inf"), "x", 1.1, note)


FIGURES: dict[str, Callable[..., Iterator[Row]]] = {
    "jets": jets,
    "windows": windows,
    "evaluation": evaluation,
    "seams": seams,
    "slopes": slopes,
    "tiles": tiles,
    "full": full,
    "auto": auto,
}


def _kept(done: dict[str, list[Row]]) -> None:
    """Write the CSV: what was measured now, and the other groups as they were."""
    if RESULTS.exists():
        with open(RESULTS, newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                group = line.pop("group")
                if group not in done:
                    done.setdefault(f"old {group}", []).append(Row(**line))
    order = {name: k for k, name in enumerate(FIGURES)}
    with open(RESULTS, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("group", *Row._fields))
        for group in sorted(done, key=lambda name: order[name.removeprefix("old ")]):
            writer.writerows((group.removeprefix("old "), *row) for row in done[group])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(FIGURES)}")
    parser.add_argument("--stack", type=Path, help="frames of 9344 x 7000 pixels for full and auto")
    given = parser.parse_args()
    unknown = [name for name in given.figures if name not in FIGURES]
    if unknown:
        parser.error(f"{', '.join(unknown)} unknown: give {', '.join(FIGURES)}")
    done: dict[str, list[Row]] = {}
    for name in given.figures or FIGURES:
        arguments = (given.stack,) if name in ("tiles", "full", "auto") else ()
        done[name] = []
        for row in FIGURES[name](*arguments):
            done[name].append(row)
            print(
                f"{row.figure:32} {row.value:>10} {row.unit:4} {row.target:9} {row.met:4} {row.baseline} {row.note}",
                flush=True,
            )
    _kept(done)


if __name__ == "__main__":
    main()
