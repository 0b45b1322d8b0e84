"""Across a gap: by how many turns one side of a smooth surface is off, from both sides at once.

The surface is a Gaussian process that penalises third derivatives (kernel -r^4 log r, quadratics free: Duchon 1977, Wahba,
"Spline Models for Observational Data", 1990), the offset of one side is one more unknown. How rough the surface is follows
from the data by restricted likelihood, summed over all roughnesses, so a surface that is rough at its edges predicts little
across the gap and says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh, qr

_ROUGHNESS = np.logspace(-12, 6, 55)  # of the process over the noise, in windows of size one
_LEAST_SIGMA = 5e-4  # turns: what blocks of pixels are good for at best


@dataclass(frozen=True)
class Offset:
    """The offset of a side in turns and its standard uncertainty; the density of the nearest integer over the next, as the
    difference of chi squared."""

    turns: float
    sigma: float
    margin: float


def offset_across(position: np.ndarray, turns: np.ndarray, sigma: np.ndarray, other: np.ndarray) -> Offset | None:
    """Estimate how far in turns the side ``other`` (N, bool) lies above the smooth surface through the rest.

    ``position`` (N, 2) in any unit, heights ``turns`` (N,) and their ``sigma`` in turns. None where the points do not
    determine a quadratic and the offset.
    """
    place = position - position.mean(axis=0)
    place = place / max(np.abs(place).max(), 1e-30)
    y, x = place.T
    free = np.column_stack([np.ones_like(x), x, y, x * x, x * y, y * y])
    if min(int(other.sum()), int((~other).sum())) < free.shape[1] or len(x) < 4 * free.shape[1]:
        return None
    noise = np.hypot(sigma, _LEAST_SIGMA)
    square = ((place[:, None] - place[None]) ** 2).sum(axis=-1)
    kernel = -0.5 * square**2 * np.log(np.maximum(square, 1e-30))  # -r^4 log r, positive once quadratics are out
    both = qr(free / noise[:, None])[0]
    rest = both[:, free.shape[1] :]
    values, vectors = eigh(rest.T @ (kernel / noise[:, None] / noise[None]) @ rest)
    turn = vectors.T @ rest.T
    z, a = turn @ (turns / noise), turn @ (other / noise)
    return _mixture(np.maximum(values, 0.0), z, a)


def _mixture(values: np.ndarray, z: np.ndarray, a: np.ndarray) -> Offset | None:
    """Average the offset under every roughness, weighted by its restricted likelihood."""
    scale = values.max()
    if scale <= 0 or not np.isfinite(scale):
        return None
    spread = 1 + (_ROUGHNESS[:, None] * 1e6 / scale) * values
    aa, az, zz = ((u * v / spread).sum(axis=1) for u, v in ((a, a), (a, z), (z, z)))
    many = len(z) - 1
    offset = az / aa
    left = np.maximum(zz - offset * az, 0.0)
    noise = np.maximum(left / many, 1.0)  # at least what the pixels' sigma says
    log = -0.5 * (np.log(spread).sum(axis=1) + np.log(aa) + many * np.log(noise) + left / noise)
    share = np.exp(log - log.max())
    share /= share.sum()
    variance = noise / aa
    mean = float(share @ offset)
    sigma = float(np.sqrt(share @ (variance + (offset - mean) ** 2)))
    nearest = np.rint(mean)
    logs = [
        float(np.logaddexp.reduce(np.log(share + 1e-300) - 0.5 * ((k - offset) ** 2 / variance + np.log(variance))))
        for k in (nearest - 1, nearest, nearest + 1)
    ]
    return Offset(mean, sigma, 2 * (logs[1] - max(logs[0], logs[2])))
