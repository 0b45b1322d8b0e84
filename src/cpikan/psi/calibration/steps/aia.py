"""The advanced iterative algorithm: phase steps from the frames themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cpikan.errors import InputError
from cpikan.psi.model.schemes import design_matrix

_ITERATIONS = 200
_TOLERANCE_DEG = 1e-4
_MEMORY = 5  # earlier rounds mixed in
_WILDEST = 0.5  # rad
_ROUNDINGS = 40


@dataclass(frozen=True)
class EstimatedSteps:
    """Cumulative steps from frame 0 in degrees, in [0, 360); ``iterations`` used and whether they ``converged``.

    ``conditioning`` is the smallest over the largest singular value of the steps' design matrix (1 is best).
    """

    steps_deg: tuple[float, ...]
    iterations: int
    converged: bool
    conditioning: float


def estimate_steps(frames: np.ndarray, start_deg: tuple[float, ...] | None) -> EstimatedSteps:
    """Estimate the steps of one wavelength from frames (K, P) by alternating least squares over pixels and frames.

    ``start_deg`` (nominal steps) also fixes the sign of the phase; without it the start is a principal component analysis
    and the sign is chosen so that the first step lies in (0, 180). Background and modulation may differ by pixel. Five or
    more frames determine their steps; with four, one combination of the steps, and with three, all of them keep the
    value of the start, which blind rests on a modulation that does not depend on the phase. Source: Wang and Han, Opt.
    Lett. 29, 1671 (2004); the start after Vargas, Quiroga, Belenguer, Opt. Lett. 36, 1326 (2011). Raises InputError when
    frames carry no fringes.
    """
    samples = np.asarray(frames, np.float64)
    delta = _blind_start(samples) if start_deg is None else np.radians(start_deg)
    converged, used = False, 0
    past: list[tuple[np.ndarray, np.ndarray]] = []
    while not converged and used < _ITERATIONS:
        used += 1
        change = _sweep(samples, delta)
        converged = bool(np.abs(change).max() < np.radians(_TOLERANCE_DEG))
        past = [*past[-_MEMORY:], (delta, change)]
        delta = delta + _accelerated(past)
    if start_deg is None and not 0 < np.angle(np.exp(1j * delta[1])) < np.pi:
        delta = -delta
    steps = tuple(float(step) for step in np.degrees(delta) % 360)
    singular = np.linalg.svd(design_matrix(steps), compute_uv=False)
    return EstimatedSteps(steps, used, converged, float(singular[-1] / singular[0]))


def _sweep(samples: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """Change the steps by one round of the algorithm; returns the change in rad."""
    background, u, v = np.linalg.pinv(design_matrix(tuple(np.degrees(delta)))) @ samples
    columns = np.stack([np.ones_like(u), u, -v], axis=1)
    # without each pixel's own background: uneven illumination would pass for a shift
    _, cosine, sine = np.linalg.lstsq(columns, (samples - background).T, rcond=None)[0]
    fresh = np.arctan2(sine, cosine)
    return np.angle(np.exp(1j * (fresh - fresh[0] - delta)))


def _accelerated(past: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Compute the next change by Anderson's mixing of the last ones; five uneven frames need hundreds of plain rounds.

    Source: Walker and Ni, SIAM J. Numer. Anal. 49, 1715 (2011). A mixed change that is wild is not taken.
    """
    at, change = past[-1]
    if len(past) < 2:
        return change
    moved = np.stack([at - before for before, _ in past[:-1]], axis=1)
    turned = np.stack([change - before for _, before in past[:-1]], axis=1)
    share = np.linalg.lstsq(turned, change, rcond=1e-8)[0]
    mixed = change - (moved + turned) @ share
    return mixed if np.abs(mixed).max() < _WILDEST else change


def _blind_start(samples: np.ndarray) -> np.ndarray:
    """Guess steps from the two leading principal components of the frames: their plane, made round, and its circle.

    The components are the phasors of the pixels up to a linear map of the plane. The right map is the one under which
    modulation does not depend on phase; it holds for few fringes and uneven light, where equal variances do not.
    """
    centred = samples - samples.mean(axis=0)
    left, strength, right = np.linalg.svd(centred, full_matrices=False)
    if len(strength) < 2 or strength[1] < 1e-9 * max(strength[0], 1e-30):
        raise InputError("the frames do not shift against each other: steps cannot be estimated; give --phase-steps")
    loadings, phasors = left[:, :2] * strength[:2], right[:2] * np.sqrt(samples.shape[1])
    for _ in range(_ROUNDINGS):
        rounding = _rounding(phasors)
        phasors, loadings = rounding @ phasors, loadings @ np.linalg.inv(rounding)
        if np.abs(rounding - np.eye(2)).max() < 1e-5:
            break
    # taking off each pixel's mean has moved the circle on which the frames lie: its centre, after Kasa (1976)
    columns = np.column_stack([2 * loadings, np.ones(len(loadings))])
    centre = np.linalg.lstsq(columns, (loadings**2).sum(axis=1), rcond=None)[0][:2]
    along, across = (loadings - centre).T
    delta = np.arctan2(across, along)
    return delta - delta[0]


def _rounding(phasors: np.ndarray) -> np.ndarray:
    """Compute the map (2, 2), near one, that removes the dependence of log B^2 on twice the phase, to first order."""
    power = (phasors**2).sum(axis=0)
    use = power > 0.1 * np.quantile(power, 0.9)  # without those in shadow
    phase, level = np.arctan2(phasors[1], phasors[0])[use], np.log(power[use])
    columns = np.stack([np.ones_like(phase), *(f(k * phase) for k in (1, 2) for f in (np.cos, np.sin))], axis=1)
    weight = np.ones_like(level)
    for _ in range(3):  # shadows and dust are far off: Cauchy weights
        found = np.linalg.lstsq((columns.T * weight) @ columns, (columns.T * weight) @ level, rcond=None)[0]
        off = (level - columns @ found) ** 2
        weight = 1 / (1 + off / max(float(np.median(off)), 1e-12))
    c, s = np.clip(found[3:], -0.8, 0.8)
    return np.eye(2) - 0.5 * np.array([[c, s], [s, -c]])
