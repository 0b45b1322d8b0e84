"""What noise a denoiser leaves, from the noisy map alone: Stein's unbiased risk estimate, with its own uncertainty.

C. Stein, Ann. Statist. 9 (1981) 1135; the divergence by one probe: S. Ramani, T. Blu, M. Unser, IEEE Trans. Image Process.
17 (2008) 1540. For y = h + n with white n of standard deviation s, and any L that is smooth enough,

    E (L(y) - h)^2 = E (L(y) - y)^2 - s^2 + 2 s^2 E dL/dy,     dL/dy = E b (L(y + e s b) - L(y)) / (e s),     b = +1 or -1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

STEP = 0.1  # of a pixel's sigma: the probe
_BLOCK_PX = 16  # blocks whose sums are taken for independent
_FEWEST_BLOCKS = 8
_VARIANCE_KNOWN = 0.02  # relative error of the variance of the noise: sigma is right to one per cent
_SHARE_KNOWN = 0.5  # of the systematic share of the variance, likewise
_CERTAIN = 2.0  # errors of the estimate


@dataclass(frozen=True)
class Place:
    """Corrections of a denoiser on one part (h, w) of a map, all in units of the sigma of each pixel: ``correction`` to it,
    ``moved`` how much more it corrects the part with `STEP` x ``probe`` added, and the ``relative`` sigma that it states; of
    the pixels ``used``."""

    correction: Float[np.ndarray, "h w"]
    moved: Float[np.ndarray, "h w"]
    probe: Float[np.ndarray, "h w"]
    relative: Float[np.ndarray, "h w"]
    used: Bool[np.ndarray, "h w"]


@dataclass(frozen=True)
class NoiseLeft:
    """The share of the noise's variance that a denoiser leaves: as ``found``, with its ``error`` (a standard deviation), and as
    the denoiser has ``said`` itself, over so many ``pixels``.

    ``ratio`` is that of both, the mean of that of blocks, with its ``ratio_error``: blocks where much is left would drown the
    others in a ratio of means.
    """

    found: float
    error: float
    said: float
    ratio: float
    ratio_error: float
    pixels: int

    @property
    def helps(self) -> bool:
        """Tell whether less noise is left than was there."""
        return self.found < 1

    def factor(self, *, shared: bool) -> float:
        """Give the factor of the stated sigma, 1 where estimate and statement differ by less than two errors.

        With noise that is ``shared`` by neighbours a probe without their correlation finds too little of an average's noise:
        then the estimate makes sigma larger, never smaller.
        """
        gap, room = self.ratio - 1, _CERTAIN * self.ratio_error
        if gap > room or (gap < -room and self.ratio > room and not shared):
            return float(np.sqrt(self.ratio))
        return 1.0


def noise_left(places: Sequence[Place], *, systematic: float, phase_noise_rad: float) -> NoiseLeft | None:
    """Estimate the noise that is left at some places; None where too few blocks of pixels are used.

    ``systematic`` is the share of sigma^2 that is no noise: it counts as if it were height. The error has two parts: that of
    a mean, from blocks of 16 x 16 pixels, and that of the variance of the noise, which is known to 2 %, to half of what is
    ``systematic``, and to the square of the phase noise, beyond which arctangents are not linear.
    """
    noise = 1 - systematic
    if noise <= 0 or not places:
        return None
    sums = np.concatenate([_block_sums(place, noise) for place in places])
    sums = sums[sums[:, 0] > 0]
    if len(sums) < _FEWEST_BLOCKS:
        return None
    pixels, terms, said, slope = sums.T
    unknown = np.hypot(_VARIANCE_KNOWN, phase_noise_rad**2) + _SHARE_KNOWN * systematic / noise
    bend = pixels - 2 * slope  # how much terms follow the variance of the noise
    found, error = _mean(terms, bend * unknown, pixels)
    stated = said / pixels
    ratio, ratio_error = _mean(terms / stated, bend / stated * unknown, pixels)
    return NoiseLeft(found, error, float(said.sum() / pixels.sum()), ratio, ratio_error, int(pixels.sum()))


def _mean(sums: np.ndarray, unknown: np.ndarray, pixels: np.ndarray) -> tuple[float, float]:
    """Average sums of blocks over their pixels; the mean and its error, of their scatter and what all have ``unknown``."""
    mean = sums.sum() / pixels.sum()
    scatter = np.sqrt(len(sums) / (len(sums) - 1) * np.sum((sums - mean * pixels) ** 2))
    return float(mean), float(np.hypot(scatter, unknown.sum()) / pixels.sum())


def _block_sums(place: Place, noise: float) -> np.ndarray:
    """Sum over blocks: pixels, terms of the estimate, stated variances, slopes of the denoiser; (blocks, 4)."""
    slope = 1 + place.probe * place.moved / STEP
    terms = place.correction**2 / noise - 1 + 2 * slope
    planes = np.stack([np.ones_like(terms), terms, place.relative**2, slope])
    planes = np.where(place.used, planes, 0.0)
    rows, columns = (range(0, side, _BLOCK_PX) for side in place.used.shape)
    return np.add.reduceat(np.add.reduceat(planes, rows, axis=1), columns, axis=2).reshape(len(planes), -1).T
