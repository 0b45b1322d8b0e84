"""The joint fit of steps, tilts, light and harmonics of the frames of one wavelength, from a subsample of pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cpikan.errors import InputError
from cpikan.psi.calibration.smooth_terms import features_of, terms_by_row
from cpikan.psi.calibration.steps.aia import estimate_steps
from cpikan.psi.calibration.steps.bending import FEWEST_FRAMES, fit_response, scaled_response
from cpikan.psi.calibration.steps.carrier import Carrier
from cpikan.psi.calibration.steps.iterate import Solution, solve
from cpikan.psi.calibration.steps.model import Effect, Layout, Samples, pixels_of
from cpikan.psi.calibration.steps.selection import STRONG, covariance_of, select
from cpikan.psi.calibration.steps.step_fit import Context, StepFit, report
from cpikan.psi.calibration.steps.structure import plain_structure
from cpikan.psi.model.frame_model import Response

_EVEN_DEG = (90.0, 60.0, 120.0, 45.0, 72.0, 100.0, 30.0)
_GOOD_NOISE = 0.12  # of the modulation: a fit no worse than this is not a false minimum
_START_ITERATIONS = 6
_PIXELS = 900


@dataclass(frozen=True)
class Guess:
    """Steps (K,) in rad and tilts (K, 2) in rad at the rim."""

    steps_rad: np.ndarray
    tilt_rad: np.ndarray


def best_start(
    samples: Samples, start_rad: np.ndarray | None, guess: Guess | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Choose steps (K - 1,) and tilts (K - 1, 2) at the rim, in rad, of frames 1 .. K-1, where the joint fit begins.

    The steps given are tried first, then those guessed (such as from a carrier), then those of the advanced iterative
    algorithm; even steps only where none of these fits.
    """
    few = samples.some(np.unique(np.linspace(0, samples.pixels - 1, _PIXELS).astype(int)))
    layout = Layout(samples.frames, frozenset({"tilt"}), samples.fields.shape[0])
    tried: list[tuple[float, np.ndarray, np.ndarray]] = []
    none = np.zeros((samples.frames, 2))

    def attempt(steps: np.ndarray, tilt: np.ndarray) -> bool:
        try:
            found = solve(few, layout, layout.started(steps[1:], tilt[1:]), _START_ITERATIONS)
        except np.linalg.LinAlgError:
            return False
        theta = found.state.theta
        tried.append((found.cost, theta[layout.blocks["step"][:, 0]], theta[layout.blocks["tilt"]]))
        return samples.frames > 4 and found.spread.noise < _GOOD_NOISE

    if start_rad is not None:
        if samples.frames <= 4:  # too little is left over to prefer another start
            return start_rad[1:], none[1:]
        if attempt(start_rad, none):
            return tried[0][1:]
    if guess is not None and samples.frames <= 4:
        return guess.steps_rad[1:], guess.tilt_rad[1:]
    if guess is not None and attempt(guess.steps_rad, guess.tilt_rad):
        return tried[-1][1:]
    blind = np.radians(estimate_steps(samples.values[:, :: max(1, samples.pixels // 3000)], None).steps_deg)
    if attempt(blind, none):
        return tried[-1][1:]
    for step in _EVEN_DEG:
        if attempt(np.arange(samples.frames) * np.radians(step), none):
            break
    return min(tried, key=lambda one: one[0])[1:] if tried else (blind[1:], none[1:])


_DEGREE = 6  # of the smooth background and modulation
_FEWEST_PIXELS = 200
_SHADOW = 0.15  # of the modulation of the bright pixels
_COARSE = 2000  # pixels on which the effects are chosen
_ITERATIONS = 20
_DECIDED_FROM_DATA: tuple[Effect, ...] = ("tilt", "gain", "harmonic2", "harmonic3")


@dataclass(frozen=True)
class FitOptions:
    """``effects`` to fit (None: those the data show, out of tilt, gain, harmonic2, harmonic3, with a response
    curve in place of the harmonics where it explains more); ``response`` fits the curve whatever it explains; ``pivot`` (y, x)
    of tilt and defocus in pixels (None: the centroid of the positions); ``carrier`` steps and tilts that are tried first
    where none are given, of either sign."""

    effects: frozenset[Effect] | None = None
    response: bool = False
    carrier: Carrier | None = None
    pivot: tuple[float, float] | None = None


def fit_phase_steps(
    frames: np.ndarray, position: np.ndarray, start_deg: tuple[float, ...] | None, options: FitOptions | None = None
) -> StepFit:
    """Estimate steps, and the tilt, gain and harmonics that the data show, of frames (K, P) at ``position`` (P, 2), rows first.

    All frames and all pixels are fitted together by Gauss-Newton, the background, modulation and phase of every pixel
    eliminated exactly; each pixel's background and modulation are observed once more as those of smooth fields, to within a
    scatter that is estimated too. That carries three and four frames, and the directions in which changes of gain pass for
    changes of step, as far as they can be carried, and the predicted errors say how far. ``start_deg`` (nominal steps) fixes
    the sign; without it 0 < step 1 < 180 deg. Extends Wang and Han, Opt. Lett. 29, 1671 (2004). Raises InputError for fewer
    than three frames, too few pixels, or frames without moving fringes.
    """
    asked = options or FitOptions()
    values, where = _checked(frames, position, start_deg)
    bright = _bright(values)
    pivot = asked.pivot or (float(where[:, 0].mean()), float(where[:, 1].mean()))
    samples, scale, radius = _scaled(values[:, bright], where[bright], pivot)
    start = None if start_deg is None else np.radians(np.asarray(start_deg, float) - start_deg[0])
    guess = None
    if asked.carrier is not None and start is None:
        guess = Guess(asked.carrier.steps_at(pivot), asked.carrier.tilt_rad_px * radius)
    steps, tilt = best_start(samples, start, guess)
    considered = asked.effects if asked.effects is not None else frozenset(_DECIDED_FROM_DATA)
    layout = Layout(samples.frames, considered, samples.fields.shape[0])
    theta = layout.started(steps, tilt)
    modulation = pixels_of(samples, layout, theta)[1]
    lit = modulation > _SHADOW * np.quantile(modulation, 0.9)
    if lit.sum() < _FEWEST_PIXELS:
        raise InputError(
            f"{int(lit.sum())} of {values.shape[1]} sampled pixels show fringes: steps need {_FEWEST_PIXELS}; check the mask"
        )
    samples, seen = samples.some(lit), where[bright][lit]
    layout, theta, omitted, coarse = _chosen(samples, layout, theta, asked)
    if asked.effects is None and ("gain" in layout.effects or _is_odd(values, where, start_deg)):
        layout, theta, coarse = _contrasted(samples, layout, theta, coarse, start)
    solution = solve(samples, layout, theta, _ITERATIONS, coarse.spread)
    solution = replace(solution, iterations=solution.iterations + coarse.iterations)
    samples, solution, response = _bent(samples, solution, asked)
    layout = solution.layout
    if _sign_is_wrong(layout, solution.state.theta, start):
        solution = _mirrored(solution)
    curve = None if response is None else scaled_response(response, scale)
    context = Context(values, where, seen, pivot, scale, radius, omitted, start is not None, curve)
    return report(samples, solution, context)


def _checked(
    frames: np.ndarray, position: np.ndarray, start_deg: tuple[float, ...] | None
) -> tuple[np.ndarray, np.ndarray]:
    values, where = np.asarray(frames, np.float64), np.asarray(position, np.float64)
    if values.ndim != 2 or where.shape != (values.shape[-1], 2):
        raise InputError(f"frames {values.shape} and positions {where.shape}: give (K, P) and (P, 2)")
    if len(values) < 3:
        raise InputError(f"{len(values)} frames: three or more are needed to estimate phase steps")
    if start_deg is not None and len(start_deg) != len(values):
        raise InputError(f"{len(start_deg)} nominal steps for {len(values)} frames: give one per frame")
    finite = np.isfinite(values).all(axis=0)
    if finite.sum() < _FEWEST_PIXELS:
        raise InputError(f"{int(finite.sum())} usable pixels: steps need {_FEWEST_PIXELS}; check the mask")
    return values[:, finite], where[finite]


def _bright(values: np.ndarray) -> np.ndarray:
    """Select pixels that change from frame to frame as much as others; those in shadow would only add noise."""
    spread = values.std(axis=0)
    top = float(np.quantile(spread, 0.9))
    if top <= 1e-9 * max(float(np.abs(values).max()), 1e-30):
        raise InputError("the frames do not change: they hold no fringes that move; check the frames and the steps")
    return spread > 0.05 * top


def _scaled(values: np.ndarray, where: np.ndarray, pivot: tuple[float, float]) -> tuple[Samples, float, float]:
    """Scale samples to units of the modulation and positions to units of the rim; returns both units too."""
    scale = float(np.sqrt(2) * np.median(values.std(axis=0)))
    offset = where - np.asarray(pivot)
    radius = max(float(np.hypot(*offset.T).max()), 1e-12)
    y, x = offset.T / radius
    degree = min(_DEGREE, int(np.sqrt(len(where) / 40)))
    points = np.stack([2 * (c - c.min()) / max(float(np.ptp(c)), 1e-12) - 1 for c in where.T], axis=1)
    fields = np.ascontiguousarray(features_of(points, terms_by_row(degree)).T)
    return Samples(values / scale, np.stack([np.ones_like(y), y, x, y * y + x * x]), fields), scale, radius


def _chosen(
    samples: Samples, layout: Layout, theta: np.ndarray, asked: FitOptions
) -> tuple[Layout, np.ndarray, dict[str, str], Solution]:
    """Choose the effects that the data show, on some of the pixels, and the parameters there."""
    coarse = _some(samples, _COARSE)
    tilted = Layout(layout.frames, layout.effects & {"tilt"}, layout.terms)
    few = _some(samples, _COARSE // 2)
    theta = solve(few, tilted, layout.moved_to(tilted, theta), 4).state.theta
    solution = solve(coarse, layout, tilted.moved_to(layout, theta), _ITERATIONS)
    covariance = covariance_of(coarse, solution)
    kept = layout.effects if asked.effects is not None else frozenset()
    count = coarse.frames * coarse.pixels
    layout, theta, why = select(layout, solution.state.theta, covariance, count, kept)
    return layout, theta, why, solution


def _contrasted(
    samples: Samples, layout: Layout, theta: np.ndarray, coarse: Solution, start_rad: np.ndarray | None
) -> tuple[Layout, np.ndarray, Solution]:
    """Choose between frames of unequal light and frames of unequal contrast: fringes that tremble fade, their light stays.

    With four frames one passes for the other, or for other steps; smooth light tells them apart.
    """
    few = _some(samples, _COARSE)
    other = replace(layout, effects=layout.effects - {"gain"} | {"contrast"})
    start = theta if start_rad is None else layout.started(start_rad[1:], np.zeros((len(start_rad) - 1, 2)))
    found = [
        solve(few, one, layout.moved_to(one, at), _ITERATIONS, coarse.spread)
        for one, at in ((layout, theta), (other, theta), (other, start))
    ]
    best = min(found[1:], key=lambda one: one.cost)
    more = other.own - layout.own
    needed = more * (np.log(few.frames * few.pixels) + STRONG) / few.pixels
    if not best.cost < found[0].cost - needed:
        return layout, theta, coarse
    kept = frozenset(other.effects - {"contrast"})
    count = few.frames * few.pixels
    if "contrast" in select(other, best.state.theta, covariance_of(few, best), count, kept)[2]:
        return layout, theta, coarse
    return other, best.state.theta, best


def _is_odd(values: np.ndarray, where: np.ndarray, start_deg: tuple[float, ...] | None) -> bool:
    """Tell whether the steps to start from leave structure in the samples."""
    if start_deg is None or len(start_deg) < 4:
        return False
    found = plain_structure(values, where, start_deg)
    return found is not None and found.significant


def _some(samples: Samples, count: int) -> Samples:
    return samples.some(np.unique(np.linspace(0, samples.pixels - 1, count).astype(int)))


def _bent(samples: Samples, solution: Solution, asked: FitOptions) -> tuple[Samples, Solution, Response | None]:
    """Solve for light behind a response curve where that explains the samples better than harmonics of fixed ratio."""
    if not asked.response and (asked.effects is not None or not solution.layout.orders):
        return samples, solution, None
    few = _some(samples, _COARSE)
    plain = solve(few, solution.layout, solution.state.theta, _ITERATIONS, solution.spread)
    bent = fit_response(few, plain)
    if bent is not None and (asked.response or bent.cost < plain.cost):
        bent = fit_response(samples, bent.solution)
    elif not asked.response:
        return samples, solution, None
    if bent is None:
        if asked.response:
            raise InputError(
                f"a response curve needs {FEWEST_FRAMES} or more frames whose fringes it can straighten: leave response out"
            )
        return samples, solution, None
    iterations = bent.solution.iterations + solution.iterations
    return bent.samples, replace(bent.solution, iterations=iterations), bent.response


def _sign_is_wrong(layout: Layout, theta: np.ndarray, start: np.ndarray | None) -> bool:
    steps = theta[layout.blocks["step"][:, 0]]
    if start is None:
        return bool(np.sin(steps[0]) < 0)
    return bool(np.cos(-steps - start[1:]).sum() > np.cos(steps - start[1:]).sum())


def _mirrored(solution: Solution) -> Solution:
    """Change the sign of phase, steps and tilts: the frames are the same, so the fit cannot tell."""
    theta, pixel = solution.state.theta.copy(), solution.state.pixel.copy()
    for group in ("step", "tilt", "defocus"):
        if group in solution.layout.blocks:
            theta[solution.layout.blocks[group]] *= -1
    pixel[2] *= -1
    return replace(solution, state=replace(solution.state, theta=theta, pixel=pixel))
