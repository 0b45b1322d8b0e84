"""Steps, tilts, gains and harmonics from the frames themselves: ``python benchmarks/calibration.py [--stacks 200]``.

Prints each figure and keeps it in results/calibration.csv. The random stacks come from the tests' independent generator.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cpikan.psi.steps_fit.frame_fit import demodulated
from cpikan.psi.tilt_aia import FitOptions, FrameFit, fit_frames
from ledger import Row, keep

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "calibration.csv"
DATA = Path(os.environ.get("CPIKAN_DATA", ROOT.parent / "shared" / "data"))
sys.path.insert(0, str(ROOT / "tests"))

from independent_frames import Faults, make_scene  # noqa: E402

MIRROR_DEG = (66.0, 59.1, 60.9, 55.7, 60.0, 58.4, 62.0, 61.2, 60.6, 54.4, 62.8)
MIRROR_PIVOT = (295.0, 390.0)
SHAPE = (240, 320)
NOISE = 0.01  # of full scale; the modulation is 0.3 of it


@dataclass(frozen=True)
class Stack:
    """A random stack, sampled: frames (K, P), positions, and what made it."""

    frames: np.ndarray
    position: np.ndarray
    nominal_deg: tuple[float, ...]
    steps_deg: np.ndarray
    phase_rad: np.ndarray
    pivot: tuple[float, float]
    fringes: float


def random_stack(seed: int, frames: int | None = None, noise: float = NOISE) -> Stack:
    """3-13 frames, step errors to 15 deg, tilts to 0.5 rad at the edge, gains to 5 %, harmonics to 10 % (second) and 5 %
    (third), 2-60 fringes, uneven light; ``noise`` is a share of full scale."""
    rng = np.random.default_rng(seed)
    count = frames or int(rng.integers(3, 14))
    step = rng.choice([90.0, 120.0]) if count == 3 else rng.choice([60.0, 90.0]) if count > 4 else 90.0
    nominal = step * np.arange(count)
    later = np.arange(count) > 0
    edge, second, third = rng.uniform(0, 0.5), rng.uniform(0, 0.1), rng.uniform(0, 0.05)
    fringes = float(np.exp(rng.uniform(np.log(2), np.log(60))))
    faults = Faults(
        tilt_rad=edge / 2.5,
        harmonic2=second,
        harmonic3=third,
        background=0.3,
        modulation=0.3,
        bits=None,
        fringes=fringes,
        aperture=0.8,
    )
    steps = nominal + later * rng.uniform(-15, 15, count)
    scene = make_scene(seed, SHAPE, [633.0], steps, faults)
    gain = 1 + later * rng.uniform(-0.05, 0.05, count)
    image = scene.frames[0] * gain[:, None, None]
    image = 255 * (image + rng.normal(0, noise, image.shape))
    where = np.argwhere(scene.mask)
    pivot = (float(where[:, 0].mean()), float(where[:, 1].mean()))
    where = where[:: max(1, len(where) // 12_000)]
    y, x = where.T
    phase = 4 * np.pi * scene.height_nm[y, x] / 633.0
    return Stack(image[:, y, x], where.astype(float), tuple(nominal), steps, phase, pivot, fringes)


def options(stack: Stack) -> FitOptions:
    return FitOptions(pivot=stack.pivot)


def off_deg(found: object, true: object) -> np.ndarray:
    return (np.subtract(found, true) + 180) % 360 - 180


def phase_error(fit: FrameFit, stack: Stack) -> tuple[float, float]:
    """Ripple at twice the fringes and RMS of the phase error in mrad, its form of first order taken off."""
    off = np.angle(np.exp(1j * (fit.phase_rad(stack.frames, stack.position) - stack.phase_rad)))
    y, x = (stack.position - stack.position.mean(axis=0)).T / 100
    plane = np.stack([np.ones_like(y), y, x], axis=1)
    off = np.angle(np.exp(1j * (off - np.angle(np.exp(1j * off).mean()))))
    off = off - plane @ np.linalg.lstsq(plane, off, rcond=None)[0]
    waves = np.stack([f(k * stack.phase_rad) for k in (1, 2, 3, 4) for f in (np.cos, np.sin)], axis=1)
    found = np.linalg.lstsq(waves, off, rcond=None)[0]
    return 1e3 * float(np.hypot(found[2], found[3])), 1e3 * float(off.std())


def random_rows(stacks: int, *, blind: bool = False) -> list[Row]:
    prefix = "blind" if blind else "stacks"
    kept, sigmas, ripples, errors, seconds, valid = 0, [], [], [], [], 0
    for seed in range(stacks):
        stack = random_stack(seed)
        started = time.perf_counter()
        fit = fit_frames(stack.frames, stack.position, None if blind else stack.nominal_deg, options(stack))
        seconds.append(time.perf_counter() - started)
        off = off_deg(fit.steps_deg, stack.steps_deg)[1:]
        ripple, rms = phase_error(fit, stack)
        line = f"{seed:4d} K={len(off) + 1:2d} fringes {stack.fringes:5.1f} off {np.abs(off).max():6.3f} deg"
        z = np.abs(np.radians(off)) / fit.step_error_rad[1:]
        print(
            line,
            f"z {z.max():5.2f} ripple {ripple:6.2f} mrad ({1e3 * fit.ripple_rad:.2f}) it {fit.iterations}",
            end=" ",
        )
        print(fit.effects, fit.reason or "determined")
        if not fit.determined:
            continue
        kept += 1
        valid += bool(np.abs(off).max() < 6 and rms < 300)
        sigmas += list(z)
        ripples.append(ripple)
        errors.append(float(np.abs(off).max()))
    share = 100 * valid / max(kept, 1)
    inside, good = 100 * float(np.mean(np.array(sigmas) < 3)), 100 * float(np.mean(np.array(ripples) <= 5))
    note = f"{stacks} stacks, {'steps unknown' if blind else 'nominal start'}"
    return [
        Row(f"{prefix}_not_refused", round(100 * kept / stacks, 1), "%", "", "", "", note),
        Row(
            f"{prefix}_valid",
            round(share, 1),
            "%",
            ">= 99",
            share >= 99,
            "",
            "of those not refused: steps within 6 deg",
        ),
        Row(f"{prefix}_within_3_sigma", round(inside, 1), "%", ">= 95", inside >= 95, "", "single steps"),
        Row(f"{prefix}_ripple_within_5_mrad", round(good, 1), "%", "100", good >= 100, "", "2x, phase against truth"),
        Row(f"{prefix}_ripple_median", round(float(np.median(ripples)), 3), "mrad", "<= 5", "", "", note),
        Row(f"{prefix}_ripple_worst", round(max(ripples), 2), "mrad", "<= 5", max(ripples) <= 5, "", note),
        Row(
            f"{prefix}_step_error_median",
            round(float(np.median(errors)), 3),
            "deg",
            "",
            "",
            "",
            "worst step of a stack",
        ),
        Row(f"{prefix}_step_error_worst", round(max(errors), 2), "deg", "", "", "", "worst step of all stacks"),
        Row(f"{prefix}_seconds_median", round(float(np.median(seconds)), 3), "s", "", "", "", "about 12 000 pixels"),
    ]


def grey(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        pixels = np.asarray(image)
    return (pixels if pixels.ndim == 2 else pixels[..., 0]).astype(float)


def sampled(names: list[Path], inside: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    frames = np.stack([grey(name) for name in names])
    where = np.argwhere(np.ones(frames.shape[1:], bool) if inside is None else inside)
    # a stride that is no divisor of the width: the samples must not fall in columns
    where = where[:: max(1, len(where) // 12_000)]
    return frames[:, where[:, 0], where[:, 1]], where.astype(float)


def predicted_sigma(fit: FrameFit, frames: np.ndarray, where: np.ndarray) -> float:
    """Median phase noise of the pixels by the noise of the fit, in rad."""
    (_, u, v), design = demodulated(fit, frames, where)[0][:3], fit.model.design_at(where[:, 0], where[:, 1])
    inverse = np.linalg.inv(design.transpose(0, 2, 1) @ design)[:, 1:3, 1:3]
    across = np.stack([-v, u], axis=1) / np.hypot(u, v)[:, None] ** 2
    return fit.noise_dn * float(np.sqrt(np.median(np.einsum("pi,pij,pj->p", across, inverse, across))))


def mirror_rows() -> list[Row]:
    y, x = np.mgrid[0:600, 0:800]
    inside = (y - MIRROR_PIVOT[0]) ** 2 + (x - MIRROR_PIVOT[1]) ** 2 <= 225**2
    frames, where = sampled([DATA / "mlpeck_zernike" / f"Image{i}.jpg" for i in range(5, 17)], inside)
    rows = []
    for name, effects in (("", None), ("_tilt_only", frozenset({"tilt"}))):
        fit = fit_frames(frames, where, None, FitOptions(effects=effects, pivot=MIRROR_PIVOT))  # type: ignore[arg-type]
        off = float(np.abs(off_deg(np.diff(fit.steps_deg), MIRROR_DEG)).max())
        given = " ".join(f"{step % 360:.1f}" for step in np.diff(fit.steps_deg))
        error = float(np.degrees(fit.step_error_rad).max())
        note = f"{given}; {', '.join(fit.effects)}; predicted error {error:.2f} deg; fringes {fit.fringes:.1f}"
        rows.append(Row(f"mirror_increments{name}", round(off, 2), "deg", "<= 1.5", off <= 1.5, "AIA + tilt", note))
        left = fit.residual_over_three_dn
        rows.append(Row(f"mirror_residual{name}", round(left, 2), "DN", "<= 9", left <= 9, "10.95", "median, N - 3"))
        tilt = np.abs(225 * fit.model.tilt_rad_px).max(axis=0).round(3)
        rows.append(
            Row(f"mirror_tilt{name}", float(tilt.max()), "rad", "", "", "0.44 x, 0.26 y", f"at the edge {tilt}")
        )
    halves = [fit_frames(part, where, None, FitOptions(pivot=MIRROR_PIVOT)) for part in (frames[:6], frames[6:])]
    phases = [half.phase_rad(part, where) for half, part in zip(halves, (frames[:6], frames[6:]), strict=True)]
    apart = np.angle(np.exp(1j * (phases[1] - phases[0])))
    apart = np.angle(np.exp(1j * (apart - np.angle(np.exp(1j * apart).mean()))))
    plane = np.column_stack([np.ones(len(where)), where - where.mean(axis=0)])
    apart -= plane @ np.linalg.lstsq(plane, apart, rcond=None)[0]
    scatter = 1.4826 * float(np.median(np.abs(apart))) / np.sqrt(2)
    expected = float(np.sqrt(np.mean([predicted_sigma(half, frames[:6], where) ** 2 for half in halves])))
    near = abs(scatter / expected - 1) <= 0.15
    note = f"of one half, six frames; predicted {1e3 * expected:.1f} from the noise of the fit"
    rows.append(Row("mirror_halves_scatter", round(1e3 * scatter, 1), "mrad", "15 % of predicted", near, "", note))
    full = fit_frames(frames, where, None, FitOptions(pivot=MIRROR_PIVOT))
    for name, half, first in (("first", halves[0], 0), ("last", halves[1], 6)):
        together = np.array(full.steps_deg)[first : first + 6]
        off = float(np.abs(off_deg(half.steps_deg, together - together[0])).max())
        note = (
            f"predicted error {float(np.degrees(half.step_error_rad).max()):.2f} deg; tilt gauge of its own first frame"
        )
        rows.append(Row(f"mirror_{name}_six_against_all", round(off, 2), "deg", "", "", "", note))
    return rows


def other_rows() -> list[Row]:
    rows = []
    names = [DATA / "nzhagen_fpp" / f"lens_orig_{step:03d}.jpg" for step in (0, 90, 180, 270)]
    frames, where = sampled(names)
    fit = fit_frames(frames, where, None)
    off = float(np.abs(np.diff(fit.steps_deg) - 90).max())
    rows.append(Row("nzhagen_steps", round(off, 2), "deg", "<= 0.5", off <= 0.5, "90.3 90.2 89.9", described(fit)))
    for name, files in (
        ("fresnel", [f"I{i}_Fresnel_Lens.bmp" for i in range(4)]),
        ("usaf", [f"usaf_{i}_cut.jpg" for i in (1, 2, 3)]),
    ):
        frames, where = sampled([DATA / "pyDHM" / file for file in files])
        fit = fit_frames(frames, where, None)
        error = float(np.degrees(fit.step_error_rad).max())
        rows.append(Row(f"pydhm_{name}_step_error", round(error, 2), "deg", "", "", "", described(fit)))
    return rows


def described(fit: FrameFit) -> str:
    steps = " ".join(f"{step:.1f}" for step in fit.steps_deg)
    verdict = "determined" if fit.determined else f"not determined: {fit.reason}"
    return f"steps {steps}; conditioning {fit.conditioning:.2f}; {', '.join(fit.effects)}; {verdict}"


def speed_row() -> Row:
    stack = random_stack(3, frames=16)
    best = np.inf
    for _ in range(3):
        started = time.perf_counter()
        fit_frames(stack.frames, stack.position, stack.nominal_deg, FitOptions(pivot=stack.pivot))
        best = min(best, time.perf_counter() - started)
    note = f"{stack.frames.shape[1]} pixels x 16 frames, all effects"
    return Row("fit_seconds", round(best, 3), "s", "<= 0.3", best <= 0.3, "", note)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stacks", type=int, default=200)
    rows = [speed_row()]
    if DATA.is_dir():
        rows += mirror_rows() + other_rows()
    else:
        print(f"measured data absent at {DATA}: set CPIKAN_DATA", file=sys.stderr)
    stacks = parser.parse_args().stacks
    rows += random_rows(stacks) + random_rows(stacks, blind=True)
    for row in rows:
        print(f"{row.figure:32} {row.value!s:>10} {row.unit:6} {row.target:8} {row.met!s:6} {row.note}")
    keep(RESULTS, rows)


if __name__ == "__main__":
    main()
