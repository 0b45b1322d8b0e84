"""Trusted steps against the frames: what the frames say of them, and whether that matters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cpikan.errors import InputError
from cpikan.order_statistics import median, quantile
from cpikan.psi.calibration.regression import regressed
from cpikan.psi.calibration.smooth_terms import features_of, terms_by_row
from cpikan.psi.calibration.steps.aia import estimate_steps
from cpikan.psi.calibration.steps.fit import fit_phase_steps
from cpikan.psi.calibration.steps.step_fit import StepFit
from cpikan.psi.calibration.steps.structure import LEAST_SHARE, Structure, structure_of
from cpikan.psi.model.schemes import design_matrix

_CHECKED_PIXELS = 3000  # for the deviation: milliseconds, and steps to a tenth of a degree
_ONE_SIDED = 0.5  # |mean exp(i k phi)|, k = 1, 2, of pixels that do not fill the circle: their steps are not to be had
_SIGMAS = 5.0  # of the fit by which it contradicts what was given
_LEAST_STEP_ERROR_RAD = np.radians(0.05)  # no fit is better than that: fringes are no exact cosines
_LEAST_RATIO = 0.005  # of a harmonic to the fringe, or of contrast that is lost
_HARMFUL = 0.1  # of the phase's noise variance: errors below it change no uncertainty by five per cent
_BETTER = 0.9  # of the residual power: a fit that leaves more than this explains nothing
_FAR_LESS, _AS_GOOD = 0.3, 1.5  # of what the given steps leave, and of what the best leave
_SAME_DEG = 4.0  # between steps that are the same
_PLANE = 3
_FOLLOWS, _CLEARER = 0.8, 0.4  # mean cosine of what parts fitted from given steps, and from mirrored ones
_RIPPLES = (1, 2, 3, 4)  # times the fringe
_LIT = 0.3  # of the modulation of the bright pixels
_LIGHT_DEGREE = 6  # of the smooth light that three and four frames are judged against
_SETTLED_DEG = 2.0  # of a step's error, where the fit rests on smooth light


@dataclass(frozen=True)
class TrustedCheck:
    """What the frames say of trusted steps.

    ``deviation_deg``: fitted minus given steps, a lower bound with four frames, None where the frames do not say. ``fit``: the
    joint fit of steps, tilts, light and harmonics, None where nothing called for one or it is not determined. ``harm_rad``:
    root mean square of the phase error that the given steps leave. ``contradicted``: the fit is off by more than five of
    its standard errors, and the error matters beside the noise.
    """

    deviation_deg: tuple[float, ...] | None
    structure: Structure | None
    fit: StepFit | None = None
    harm_rad: float = 0.0
    contradicted: bool = False


def check_trusted(samples: np.ndarray, position: np.ndarray, given: tuple[float, ...]) -> TrustedCheck:
    """Check given steps against frames (K, P) at ``position`` (P, 2).

    The joint fit takes most of a second: it is made only where the given steps leave structure in the residuals, or with
    three and four frames, which leave little or none, where the light follows the fringes. Some of the pixels tell most
    stacks that have none.
    """
    every = max(1, samples.shape[1] // _CHECKED_PIXELS)
    few, where = samples[:, ::every], position[::every]
    deviation = _deviation(few, given)
    structure, light = _structures(few, where, given)
    if every > 1 and not _is_clear(structure, light):
        structure, light = _structures(samples, position, given)
    if not any(one is not None and one.significant for one in (structure, light)):
        return TrustedCheck(deviation, structure)
    try:
        fit = fit_phase_steps(samples, position, _likely(few, given))
    except (InputError, np.linalg.LinAlgError):
        return TrustedCheck(deviation, structure)
    if not (fit.determined and _fills_circle(fit.phase_rad(few, where)) and _is_better(fit, samples, given)):
        return TrustedCheck(deviation, structure)
    harm, noise = _harm_rad(fit, samples, position, given)
    contradicted = harm**2 > _HARMFUL * noise**2 and _is_sure(fit, given, by_light=structure is None)
    return TrustedCheck(deviation, structure, fit, harm, contradicted)


def _likely(samples: np.ndarray, given: tuple[float, ...]) -> tuple[float, ...]:
    """Choose what the fit begins with: the given steps, or those with two frames exchanged where these leave far less."""
    if len(given) < 4:
        return given
    left = {steps: left_over(samples, steps) for steps in exchanges(given)}
    nearest = next(steps for steps, one in left.items() if one <= _AS_GOOD * min(left.values()))
    return nearest if left[nearest] < _FAR_LESS * left_over(samples, given) else given


def exchanges(given: tuple[float, ...]) -> list[tuple[float, ...]]:
    """List the steps that two exchanged frames would have had, neighbours first."""
    found = []
    for apart in range(1, len(given)):
        for j in range(len(given) - apart):
            steps = list(given)
            steps[j], steps[j + apart] = given[j + apart], given[j]
            found.append(tuple(steps))
    return found


def exchanged_frames(steps_deg: Sequence[float], given: tuple[float, ...]) -> tuple[int, int] | None:
    """Find two frames whose exchange alone explains fitted steps that the given ones do not; None where there are none."""
    if np.abs(change_deg(steps_deg, given)).max() < _SAME_DEG:
        return None  # frames a whole turn apart may stand for each other
    for steps in exchanges(given):
        pair = [k for k in range(len(given)) if steps[k] != given[k]]
        if len(pair) == 2 and np.abs(change_deg(steps_deg, steps)).max() < _SAME_DEG:
            return pair[0], pair[1]
    return None


def left_over(samples: np.ndarray, steps_deg: tuple[float, ...]) -> float:
    """Compute the median of what uniform steps leave of the samples (K, P) of a pixel, in DN^2."""
    design = design_matrix(steps_deg)
    values = np.asarray(samples, np.float64)
    return median(((values - design @ (np.linalg.pinv(design) @ values)) ** 2).sum(axis=0))


def step_change_deg(fit: StepFit, given: tuple[float, ...]) -> np.ndarray:
    """Subtract given from fitted steps, in degrees within half a turn, (K,)."""
    return change_deg(fit.steps_deg, given)


def change_deg(steps_deg: Sequence[float], given: Sequence[float]) -> np.ndarray:
    """Subtract given from other steps, in degrees within half a turn, (K,)."""
    # steps are relative to frame 0: the given ones may start anywhere
    off = np.subtract(steps_deg, np.subtract(given, given[0]))
    return np.asarray((off + 180) % 360 - 180)


def sign_is_open(fit: StepFit, given: tuple[float, ...]) -> bool:
    """Tell whether the sign of the phase is a guess: fitted steps follow the given ones in both directions as well.

    They do where an exchange of two frames explains them, and another one their negatives, or where they follow the given ones,
    times a gain of the piezo from a half to one and a half, in one direction little more than in the other.
    """
    if exchanged_frames(fit.steps_deg, given) is not None:
        return exchanged_frames([-step for step in fit.steps_deg], given) is not None
    steps = fit.model.steps_rad[1:]
    scaled = np.linspace(0.5, 1.5, 21)[:, None] * np.radians(np.subtract(given, given[0]))[1:]
    along, against = (float(np.cos(sign * steps - scaled).mean(axis=1).max()) for sign in (1, -1))
    return along < _FOLLOWS and along - against < _CLEARER


def _is_sure(fit: StepFit, given: tuple[float, ...], *, by_light: bool) -> bool:
    """Tell whether steps, tilts, light or harmonics are off by more than five standard errors."""
    step_error = np.maximum(fit.step_error_rad, _LEAST_STEP_ERROR_RAD)
    if by_light and np.degrees(step_error.max()) > _SETTLED_DEG:
        return False
    if (np.radians(np.abs(step_change_deg(fit, given))) > _SIGMAS * step_error)[1:].any():
        return True
    if "tilt" in fit.effects and (np.abs(fit.model.tilt_rad_px) > _SIGMAS * fit.tilt_error_rad_px)[1:].any():
        return True
    if "gain" in fit.effects and (np.abs(fit.model.gain - 1) > _SIGMAS * fit.gain_error)[1:].any():
        return True
    if (np.abs(fit.model.fringe_contrast - 1) > _LEAST_RATIO).any():
        return True
    return any(abs(ratio) > _LEAST_RATIO for ratio in fit.harmonic_ratio.values()) or fit.model.response is not None


def _is_better(fit: StepFit, samples: np.ndarray, given: tuple[float, ...]) -> bool:
    """Tell whether the fit leaves clearly less of the samples than the given steps; three frames leave nothing to ask."""
    if len(given) < 4:
        return True
    design = design_matrix(given)
    rest = samples - design @ (np.linalg.pinv(design) @ samples.astype(np.float64))
    plain = float(np.sqrt(median((rest**2).sum(axis=0)) / (len(given) - 3)))
    return not fit.residual_over_three_dn > _BETTER * plain


def _harm_rad(fit: StepFit, samples: np.ndarray, position: np.ndarray, given: tuple[float, ...]) -> tuple[float, float]:
    """Compute root mean squares in rad: of the phase error that the given steps leave, and of the phase's noise."""
    _, u, v = np.linalg.pinv(design_matrix(given)) @ np.asarray(samples, np.float64)
    size = np.hypot(u, v)
    lit = size > _LIT * quantile(size, 0.9)
    phase = fit.phase_rad(samples, position)[lit]
    unit = np.exp(1j * (np.arctan2(v, u)[lit] - phase))
    off = np.angle(unit * np.conj(unit.mean()))
    # both weigh the frames differently, so that the difference has noise: what follows the fringes is the error; a piston
    # and a tilt are only those of another reference
    basis = np.linalg.qr(_ripples(phase, position[lit]))[0]
    along = basis.T @ off
    along[:_PLANE] = 0
    harm = float(np.sqrt(np.mean((basis @ along) ** 2)))
    return harm, fit.noise_dn / median(size[lit]) * float(np.sqrt(2 / len(given)))


def _ripples(phase_rad: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Build waves of 0 to 4 times the fringe, each even or rising along rows or columns, first the plane: (P, 27)."""
    y, x = (2 * (c - c.mean()) / max(float(np.ptp(c)), 1e-12) for c in np.asarray(position, float).T)
    waves = [np.ones_like(phase_rad), *(f(k * phase_rad) for k in _RIPPLES for f in (np.cos, np.sin))]
    return np.stack([wave * place for wave in waves for place in (np.ones_like(y), y, x)], axis=1)


def _fills_circle(phase_rad: np.ndarray) -> bool:
    """Tell whether the phases of the pixels fill the circle: without that their steps are not to be had."""
    unit = np.exp(1j * phase_rad)
    return max(abs(unit.mean()), abs((unit**2).mean())) <= _ONE_SIDED


def _structures(
    samples: np.ndarray, position: np.ndarray, given: tuple[float, ...]
) -> tuple[Structure | None, Structure | None]:
    """Look for structure in what given steps leave of samples, and in the light they find in three and four frames."""
    design = design_matrix(given)
    values = np.asarray(samples, np.float64)
    found = np.linalg.pinv(design) @ values
    structure = structure_of(values - design @ found, found, position, len(given) - 3)
    return structure, _structure_of_light(found, position) if len(given) <= 4 else None


def _is_clear(*found: Structure | None) -> bool:
    """Tell whether structures of some of the pixels, where there are any, rule out one of all that would be significant.

    The share s of p pixels scatters by 2 sqrt(s / p) and by noise alone, sqrt(2 m) / p with m = 14 columns: with 3000 pixels
    and s at the least that is significant, 0.0065, so that a third of it is 3 standard deviations below.
    """
    told = [one.share for one in found if one is not None]
    return bool(told) and max(told) < LEAST_SHARE / 3


def _structure_of_light(found: np.ndarray, position: np.ndarray) -> Structure | None:
    """Look for what background and modulation in ``found`` (A, B cos phi, B sin phi) hold of the fringes but a smooth field."""
    background, u, v = found
    size = np.hypot(u, v)
    lit = size > _LIT * quantile(size, 0.9)
    points = np.stack([2 * (c - c.min()) / max(float(np.ptp(c)), 1e-12) - 1 for c in position[lit].T], axis=1)
    smooth = features_of(points, terms_by_row(_LIGHT_DEGREE)).T
    light = np.stack([background[lit], size[lit]])
    rest = light - regressed(smooth, light) @ smooth
    level = median(size[lit])
    return structure_of(rest, np.stack([np.full(len(points), level), u[lit], v[lit]]), position[lit], 1)


def _deviation(samples: np.ndarray, given: tuple[float, ...]) -> tuple[float, ...] | None:
    """Compute fitted minus given steps, in degrees; a lower bound with four frames, None with three."""
    if len(given) < 4:
        return None
    _, u, v = np.linalg.pinv(design_matrix(given)) @ np.asarray(samples, np.float64)
    if not _fills_circle(np.arctan2(v, u)):
        return None
    try:
        found = estimate_steps(samples, given)
    except (InputError, np.linalg.LinAlgError):
        return None
    if not found.converged:
        return None
    # steps are relative to frame 0: the given ones may start anywhere
    off = np.subtract(found.steps_deg, np.subtract(given, given[0]))
    return tuple(float(d) for d in (off + 180) % 360 - 180)
