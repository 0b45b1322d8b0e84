"""The advanced iterative algorithm: phase steps from the frames themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cpikan.errors import InputError
from cpikan.psi.schemes import design_matrix

_ITERATIONS = 200
_TOLERANCE_DEG = 1e-3


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
    and the sign is chosen so that the first step lies in (0, 180). Source: Wang and Han, Opt. Lett. 29, 1671 (2004); the
    start after Vargas, Quiroga, Belenguer, Opt. Lett. 36, 1326 (2011). Raises InputError when frames carry no fringes.
    """
    samples = np.asarray(frames, np.float64)
    delta = _principal_start(samples) if start_deg is None else np.radians(start_deg)
    converged, used = False, 0
    while not converged and used < _ITERATIONS:
        used += 1
        _, u, v = np.linalg.pinv(design_matrix(tuple(np.degrees(delta)))) @ samples
        columns = np.stack([np.ones_like(u), u, -v], axis=1)
        _, cosine, sine = np.linalg.lstsq(columns, samples.T, rcond=None)[0]
        fresh = np.arctan2(sine, cosine)
        fresh = fresh - fresh[0]
        change = np.abs(np.angle(np.exp(1j * (fresh - delta)))).max()
        delta = fresh
        converged = bool(change < np.radians(_TOLERANCE_DEG))
    if start_deg is None and not 0 < np.angle(np.exp(1j * delta[1])) < np.pi:
        delta = -delta
    steps = tuple(float(step) for step in np.degrees(delta) % 360)
    singular = np.linalg.svd(design_matrix(steps), compute_uv=False)
    return EstimatedSteps(steps, used, converged, float(singular[-1] / singular[0]))


def _principal_start(samples: np.ndarray) -> np.ndarray:
    """Steps from the two leading principal components of the frames about their mean."""
    centred = samples - samples.mean(axis=0)
    left, strength, _ = np.linalg.svd(centred, full_matrices=False)
    if len(strength) < 2 or strength[1] < 1e-9 * max(strength[0], 1e-30):
        raise InputError("the frames do not shift against each other: steps cannot be estimated; give --phase-steps")
    delta = np.arctan2(left[:, 1] * strength[1], left[:, 0] * strength[0])
    return delta - delta[0]
