"""What the shipped network is worth: ``python benchmarks/learned.py [--model wafer] [--seeds 20] [--size 512] [--data DIR]``.

Kept in results/learned.csv. Columns, on the same frames in the same run, four wavelengths of 5000 to 6655 nm unless said:

    pixel, hybrid   as ``reconstruct --method``
    mean3           the mean of 3 x 3 pixels of hybrid
    bilateral, nlm  scikit-image's, on hybrid; their strength is the one that shows as much of a step of 120 nm as the network,
                    with ``_85`` the one that shows 85 % of it
    learned         ``--method learned``

``noise`` is the rms error of right-order pixels over that of ``pixel``, ``far`` the same eight pixels and more from any edge
of the truth, ``near`` on the other pixels; ``step`` the part of a step of 120 nm that is left one to three pixels off its edge;
``wrong`` the share of wrong orders; ``coverage`` how many errors lie within 1.96 sigma. Scenes: ``simulated`` (seeds the
network has not seen, whole wafers), ``close`` (their centres at the pixel size of 7000 rows), ``independent`` (another
generator, of the tests), ``steps`` (a chequerboard of 120 nm on a tilted plane, which also gives ``step``), ``waves`` (a
transfer function: rows of the table with the wavelength in pixels), and, with --data, ``mirror``: real frames, 4 of 12, against
the map of the other eight.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

import cpikan
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.pipeline.training.simulated_stacks import noisy_instrument
from cpikan.psi.model.acquisition import Acquisition
from cpikan.psi.simulate import SimulationSettings, simulate_stack
from cpikan.surface.apertures.aperture import Circle

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results" / "learned.csv"
WAVES_NM = (5000.0, 5500.0, 6050.0, 6655.0)
STEPS_DEG = (0.0, 90.0, 180.0, 270.0)
HALF_NM = WAVES_NM[0] / 2
RANGE_NM = 27e3
STEP_NM = 120.0
EDGE_NM = 25.0  # a truth that changes by more from pixel to pixel, its slope taken off, has an edge
HELD_OUT = 900_000  # the first seed; those of training are below 100 000
ADDED_DN = (0.0, 10.0, 20.0)
KINDS = ("wafer", "etched", "bumps", "smooth")
FULL_SCALE_UM = 44.6  # a pixel of 7000 rows over a wafer of 300 mm
PERIODS_PX = (4, 6, 8, 12, 16, 24, 32, 48, 64, 128)
COLUMNS = ("pixel", "hybrid", "mean3", "bilateral", "bilateral_85", "nlm", "nlm_85", "learned")
Filter = Callable[[np.ndarray, float], np.ndarray]


@dataclass
class Scene:
    """Frames and the truth behind them."""

    name: str
    case: str
    stack: FrameStack
    truth_nm: np.ndarray
    noise_rad: float


def stack_of(frames: np.ndarray, waves: tuple[float, ...] = WAVES_NM, bits: int = 8) -> FrameStack:
    steps = tuple(STEPS_DEG for _ in waves)
    return FrameStack.from_array(frames, Acquisition(waves, steps, "trusted", None, bits))


def frames_of(height_nm: np.ndarray, noise_rad: float, seed: int) -> np.ndarray:
    """Frames (L, 4, H, W) of a height, digitised to 16 bit, so that the noise is what was asked for."""
    rng = np.random.default_rng(seed)
    phase = 4 * np.pi * height_nm / np.array(WAVES_NM)[:, None, None]
    light = np.stack([0.5 + 0.3 * np.cos(phase + np.radians(step)) for step in STEPS_DEG], axis=1)
    light += rng.normal(0, 0.3 * noise_rad * np.sqrt(2), light.shape)
    return np.clip(np.rint(65535 * light), 0, 65535).astype(np.uint16)


def simulated(size: int, seeds: int, noise_rad: float, pixel_um: float | None = None) -> list[Scene]:
    """Whole wafers, or with ``pixel_um`` their centres."""
    scenes = []
    for number in range(seeds):
        kind = KINDS[number % len(KINDS)]
        settings = SimulationSettings(
            (size, size),
            WAVES_NM,
            seed=HELD_OUT + number,
            surface=kind,
            instrument=noisy_instrument(noise_rad, 4),
            pixel_um=pixel_um,
        )
        frames, truth = simulate_stack(settings)
        stack = FrameStack.from_array(frames, settings.acquisition)
        name = "simulated" if pixel_um is None else "close"
        scenes.append(Scene(name, f"{kind}-{settings.seed}", stack, truth, noise_rad))
    return scenes


def independent(size: int, seeds: int, noise_rad: float) -> list[Scene]:
    sys.path.insert(0, str(ROOT.parent / "tests"))
    from independent_frames import Faults, make_stack

    scenes = []
    for number in range(seeds):
        # the amplitude is 0.30 of full scale, unevenly lit by a fifth
        faults = Faults(
            read_noise=0.3 * noise_rad * np.sqrt(2), modulation=0.2, background=0.1, holes=3, bits=12, fringes=6
        )
        frames, truth, mask = make_stack(HELD_OUT + number, (size, size), WAVES_NM, STEPS_DEG, faults)
        truth = np.where(mask, truth, np.nan)
        scenes.append(Scene("independent", f"{HELD_OUT + number}", stack_of(frames, bits=12), truth, noise_rad))
    return scenes


def plane(size: int) -> np.ndarray:
    y, x = np.indices((size, size))
    return 0.7 * x - 0.4 * y


def chequerboard(size: int) -> np.ndarray:
    y, x = np.indices((size, size))
    return STEP_NM * ((x // 64 + y // 64) % 2) + plane(size)


def steps(size: int, noise_rad: float, seed: int = 1) -> Scene:
    truth = chequerboard(size)
    return Scene("steps", f"{seed}", stack_of(frames_of(truth, noise_rad, seed), bits=16), truth, noise_rad)


def edge_response(height_nm: np.ndarray) -> float:
    """The part of the step that is left one to three pixels off the upright edges, away from their ends."""
    size = height_nm.shape[0]
    flat = height_nm - plane(size)
    found = []
    for edge in range(64, size - 32, 64):
        for top in range(0, size, 64):
            rows = slice(top + 8, top + 56)
            sign = 1 if (edge // 64 + top // 64) % 2 else -1
            found.append(
                sign * (np.nanmean(flat[rows, edge : edge + 3]) - np.nanmean(flat[rows, edge - 3 : edge])) / STEP_NM
            )
    return float(np.mean(found))


def run(scene: Scene, model: str) -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
    """Height, sigma and seconds of pixel, hybrid and learned."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for method in ("pixel", "hybrid", "learned"):
            chosen: dict[str, Any] = {"model": model} if method == "learned" else {}
            if scene.stack.shape[0] > 1:
                chosen["range_nm"] = RANGE_NM
            result = cpikan.reconstruct(
                scene.stack,
                Path(folder) / f"{method}.npy",
                method=method,
                all_quantities=True,
                progress=False,
                **chosen,
            )
            height, sigma = np.array(result.height_nm[...]), np.array(result.sigma_nm[...])
            found[method] = height, sigma, float(result.summary["seconds"])
    return found


def mean3(height: np.ndarray, sigma_nm: float) -> np.ndarray:
    valid = np.isfinite(height)
    count = ndimage.uniform_filter(valid.astype(float), 3)
    return np.where(valid, ndimage.uniform_filter(np.where(valid, height, 0.0), 3) / np.maximum(count, 1e-9), np.nan)


def bilateral(strength: float) -> Filter:
    """Range sigma of ``strength`` noise sigmas; slopes taken off first, holes filled by their surroundings."""

    def filtered(height: np.ndarray, sigma_nm: float) -> np.ndarray:
        from skimage.restoration import denoise_bilateral

        form, rest = detrended(height)
        return form + denoise_bilateral(
            rest, win_size=9, sigma_color=strength * sigma_nm, sigma_spatial=3.0, mode="reflect"
        )

    return filtered


def nlm(strength: float) -> Filter:
    def filtered(height: np.ndarray, sigma_nm: float) -> np.ndarray:
        from skimage.restoration import denoise_nl_means

        form, rest = detrended(height)
        return form + denoise_nl_means(
            rest, patch_size=5, patch_distance=6, h=strength * sigma_nm, sigma=sigma_nm, fast_mode=True
        )

    return filtered


def detrended(height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The form, by a wide Gaussian, and what is left; NaN stays in the form."""
    valid = np.isfinite(height)
    weight = ndimage.gaussian_filter(valid.astype(float), 24)
    form = ndimage.gaussian_filter(np.where(valid, height, 0.0), 24) / np.maximum(weight, 1e-9)
    return np.where(valid, form, np.nan), np.where(valid, height - form, 0.0)


def matched(make: Callable[[float], Filter], height: np.ndarray, sigma_nm: float, wanted: float) -> float:
    """The strength at which a filter leaves as much of the step as ``wanted``: bisection, stronger is blurrier."""
    low, high = 0.05, 8.0
    for _ in range(12):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if edge_response(make(middle)(height, sigma_nm)) > wanted else (low, middle)
    return float(low)


def figures(
    scene: Scene, column: str, height: np.ndarray, sigma: np.ndarray | None, pixel: np.ndarray
) -> dict[str, Any]:
    truth = scene.truth_nm
    seen = np.isfinite(height) & np.isfinite(truth)
    error = height - truth
    error -= np.median(error[seen])
    reference = pixel - truth
    reference -= np.median(reference[seen])
    wrong = seen & (np.abs(error) > HALF_NM / 2)
    right = seen & ~wrong & (np.abs(reference) < HALF_NM / 2)
    jump = np.maximum(*(np.abs(ndimage.correlate1d(truth, [1, -3, 3, -1], axis=a)) for a in (0, 1)))
    close = ndimage.binary_dilation(~(jump < EDGE_NM), iterations=8)

    def ratio(where: np.ndarray) -> float:
        if where.sum() < 100:
            return float("nan")
        return float(np.sqrt(np.mean(error[where] ** 2) / np.mean(reference[where] ** 2)))

    covered = float("nan") if sigma is None else float(np.mean(np.abs(error[right]) < 1.96 * sigma[right]))
    return {
        "scene": scene.name,
        "case": scene.case,
        "noise_rad": scene.noise_rad,
        "column": column,
        "noise": ratio(right),
        "far": ratio(right & ~close),
        "near": ratio(right & close),
        "rms_nm": float(np.sqrt(np.mean(error[right] ** 2))),
        "wrong": float(wrong.sum() / max(seen.sum(), 1)),
        "coverage": covered,
    }


def waves(size: int, model: str, noise_rad: float) -> list[dict[str, Any]]:
    """How much of waves of one noise sigma amplitude is left, by their wavelength."""
    rows = []
    for period in PERIODS_PX:
        x = np.arange(size)
        sigma_nm = noise_rad * 5700 / (4 * np.pi) / 2
        wave = np.tile(np.sin(2 * np.pi * x / period), (size, 1))
        scene = Scene(
            "waves", f"{period}", stack_of(frames_of(sigma_nm * wave, noise_rad, period), bits=16), wave, noise_rad
        )
        for column, (height, _, _) in run(scene, model).items():
            inside, pure = (a[:, period:-period] for a in (height - np.nanmean(height), wave))
            kept = float(np.nanmean(inside * pure) / np.mean(pure**2) / sigma_nm)
            rows.append(
                {"scene": "waves", "case": f"{period} px", "noise_rad": noise_rad, "column": column, "step": kept}
            )
    return rows


def mirror(data: Path, model: str) -> list[dict[str, Any]]:
    """Real frames: four of twelve, as they are and with noise added, against the map of the other eight, piston and tilt
    taken off, on pixels valid in both."""
    with cpikan.open_stack(data / "mlpeck_zernike", wavelengths="654 nm", phase_steps="unknown") as whole:
        frames = np.array(whole.rows(0, whole.shape[2]))
    chosen = [0, 1, 3, 4]  # steps of about 60 degrees
    others = [k for k in range(frames.shape[1]) if k not in chosen]
    reference = mirror_map(frames[:, others], "pixel", model)
    rows = []
    for added in ADDED_DN:
        noise = np.random.default_rng(int(added)).normal(0, added, frames[:, chosen].shape)
        seen = np.clip(np.rint(frames[:, chosen] + noise), 0, 255).astype(frames.dtype)
        for method in ("pixel", "hybrid", "learned"):
            gap = mirror_map(seen, method, model) - reference
            there = np.isfinite(gap)
            gap -= np.median(gap[there])
            detail = gap - ndimage.uniform_filter(np.where(there, gap, 0), 31)
            rows.append(
                {
                    "scene": "mirror",
                    "case": f"{added:g} DN added",
                    "column": method,
                    "rms_nm": float(np.sqrt(np.mean(gap[there] ** 2))),
                    "near": float(np.sqrt(np.mean(detail[there] ** 2))),
                }
            )
    return rows


def mirror_map(frames: np.ndarray, method: str, model: str) -> np.ndarray:
    stack = FrameStack.from_array(np.ascontiguousarray(frames), Acquisition((654.0,), None, "unknown", None, 8))
    more: dict[str, Any] = {"model": model} if method == "learned" else {}
    more |= {"remove": "piston,tilt", "mask": Circle(390, 295, 225), "progress": False}
    with tempfile.TemporaryDirectory() as folder:
        return np.array(cpikan.reconstruct(stack, Path(folder) / "map.npy", method=method, **more).height_nm[...])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="wafer")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.05, 0.1, 0.2, 0.3])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for noise in given.noise:
        board = steps(given.size, noise)
        found = run(board, given.model)
        wanted = edge_response(found["learned"][0])
        sigma = float(np.nanmedian(found["hybrid"][1]))
        filters: dict[str, Filter] = {"mean3": mean3}
        for name, make in (("bilateral", bilateral), ("nlm", nlm)):
            filters[name] = make(matched(make, found["hybrid"][0], sigma, wanted))
            filters[name + "_85"] = make(matched(make, found["hybrid"][0], sigma, 0.85))
        seeds = given.seeds if noise == 0.2 else max(given.seeds // 5, 1)
        scenes = [board, *simulated(given.size, seeds, noise), *independent(given.size, seeds, noise)]
        scenes += simulated(given.size, seeds, noise, FULL_SCALE_UM)
        for scene in scenes:
            found = run(scene, given.model)
            pixel, hybrid = found["pixel"][0], found["hybrid"][0]
            spread = float(np.nanmedian(found["hybrid"][1]))
            for column in COLUMNS:
                if column in found:
                    height, its_sigma, seconds = found[column]
                else:
                    height, its_sigma, seconds = filters[column](hybrid, spread), None, float("nan")
                row = figures(scene, column, height, its_sigma, pixel) | {"seconds": seconds}
                if scene is board:
                    row["step"] = edge_response(height)
                rows.append(row)
        rows += waves(given.size, given.model, noise) if noise in (0.1, 0.2) else []
        tell(rows, noise)
    if given.data is not None:
        rows += mirror(given.data, given.model)
        print(*(row for row in rows if row["scene"] == "mirror"), sep="\n")
    write(rows, given.out)


def tell(rows: list[dict[str, Any]], noise: float) -> None:
    """Means over the scenes of one noise."""
    print(f"sigma_phi {noise} rad")
    for scene in ("steps", "close", "simulated", "independent"):
        for column in COLUMNS:
            mine = [r for r in rows if (r["scene"], r.get("noise_rad"), r["column"]) == (scene, noise, column)]
            values = {
                k: [r[k] for r in mine if np.isfinite(r[k])] for k in ("noise", "far", "near", "wrong", "coverage")
            }
            means = {k: float(np.mean(v)) for k, v in values.items() if v}
            worst = max(r["noise"] for r in mine)
            told = " ".join(f"{name} {value:.4g}" for name, value in means.items())
            step = f" step {mine[0]['step']:.3f}" if "step" in mine[0] else ""
            print(f"  {scene:12s} {column:10s} {told} worst {worst:.3f}{step}", flush=True)


def write(rows: list[dict[str, Any]], path: Path) -> None:
    names = [
        "scene",
        "case",
        "noise_rad",
        "column",
        "noise",
        "far",
        "near",
        "step",
        "rms_nm",
        "wrong",
        "coverage",
        "seconds",
    ]
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


if __name__ == "__main__":
    main()
