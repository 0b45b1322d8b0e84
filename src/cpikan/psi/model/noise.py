"""The noise of one sample, read + gain * intensity, fitted once per stack from residuals pooled over many pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cpikan.order_statistics import median, quantile
from cpikan.psi.model.schemes import design_matrix

SIGMA_PER_MAD = 1.4826  # of a normal distribution: standard deviation over median absolute deviation
NoiseSource = Literal["residuals", "neighbours", "wavelengths"]
_BINS = 12
_FEWEST = 50  # pixels a bin needs to count, and
_SHARE = 0.02  # of all pixels: broken ones gather in bins of their own
_ROUNDS = 4
_CLIP = 60.0  # residuals this many times the median are faults (dust, a moved pixel), not noise


@dataclass(frozen=True)
class NoiseModel:
    """Variance of one sample in DN^2: ``read_dn2 + gain_dn * intensity``; where it came from, and on how many pixels."""

    read_dn2: float
    gain_dn: float
    source: NoiseSource
    pixels: int

    def scaled(self, factor: float) -> NoiseModel:
        """Scale the variance of the noise by ``factor``, from the disagreement of several wavelengths."""
        return NoiseModel(self.read_dn2 * factor, self.gain_dn * factor, "wavelengths", self.pixels)

    def variance(self, intensity_dn: np.ndarray) -> np.ndarray:
        return self.read_dn2 + self.gain_dn * np.maximum(intensity_dn, 0)


def fit_noise(frames: np.ndarray, steps_deg: tuple[float, ...], quantum_dn: float) -> NoiseModel:
    """Fit the noise of frames (K, P) at known steps, from what the least-squares sinusoid leaves over (K > 3 needed).

    RSS / (K - 3) is an unbiased estimate of the variance in each pixel; averaged in bins of intensity it gives a straight
    line. ``quantum_dn`` bounds the read noise from below by quantum^2 / 12 (quantisation).
    """
    samples = np.asarray(frames, np.float64)
    matrix = design_matrix(steps_deg)
    coefficients = np.linalg.pinv(matrix) @ samples
    residual = samples - matrix @ coefficients
    degrees = samples.shape[0] - np.linalg.matrix_rank(matrix)
    return noise_from_residuals(coefficients[0], (residual**2).sum(axis=0) / degrees, quantum_dn)


def noise_from_residuals(mean_dn: np.ndarray, variance_dn2: np.ndarray, quantum_dn: float) -> NoiseModel:
    """Fit the line through what a fit of the frames has left over: background and residual variance of pixels (P,)."""
    usable = np.isfinite(variance_dn2)
    variance, mean = variance_dn2[usable], mean_dn[usable]
    keep = _not_faulty(mean, variance, quantum_dn**2 / 12)
    return _line(mean[keep], variance[keep], quantum_dn**2 / 12, "residuals")


def _not_faulty(mean: np.ndarray, variance: np.ndarray, smallest: float) -> np.ndarray:
    """Select pixels whose residual is noise, judged against those of the same intensity: dark ones are quieter."""
    if variance.size == 0:
        return np.ones(0, bool)
    which = _bin_numbers(mean)
    keep = np.ones(variance.size, bool)
    for number in np.flatnonzero(np.bincount(which)):
        inside = which == number
        keep[inside] = variance[inside] <= _CLIP * max(median(variance[inside]), smallest)
    return keep


def _bin_numbers(mean: np.ndarray) -> np.ndarray:
    """Assign every pixel a bin of intensity, bins of equal width.

    Not of equal count: where frames are quantised coarsely, pixels whose mean is a whole number of DN have the smaller
    residuals, and narrow bins would take that for a slope.
    """
    low, high = (quantile(mean, share) for share in (0.001, 0.999))
    return np.clip((mean - low) * (_BINS / max(high - low, 1e-12)), 0, _BINS - 1).astype(np.intp)


def noise_from_neighbours(rows: np.ndarray, quantum_dn: float) -> NoiseModel:
    """Estimate the noise of three frames (no residual) by second differences along image rows; ``rows`` (..., W).

    For white noise the second difference has six times the variance of a sample; the median over pixels ignores edges.
    Fringes denser than about 30 pixels enlarge the estimate.
    """
    samples = np.asarray(rows, np.float64)
    second = samples[..., :-2] - 2 * samples[..., 1:-1] + samples[..., 2:]
    second = second[np.isfinite(second)]
    spread = SIGMA_PER_MAD * median(np.abs(second)) if second.size else 0.0
    return NoiseModel(max(spread**2 / 6, quantum_dn**2 / 12), 0.0, "neighbours", int(second.size))


def _line(mean: np.ndarray, variance: np.ndarray, smallest: float, source: NoiseSource) -> NoiseModel:
    """Fit a line of variance over intensity, weighted by what each bin is worth; never negative in slope or offset."""
    if variance.size == 0:
        return NoiseModel(smallest, 0.0, source, 0)
    flat = NoiseModel(max(float(variance.mean()), smallest), 0.0, source, variance.size)
    if variance.size < 50 * _BINS or np.ptp(mean) < 1e-9:
        return flat
    which = _bin_numbers(mean)
    count = np.bincount(which, minlength=_BINS)
    full = count >= max(_FEWEST, _SHARE * variance.size)
    counted = full[which]
    if counted.any():  # the mean must not count the broken ones either
        flat = NoiseModel(max(float(variance[counted].mean()), smallest), 0.0, source, variance.size)
    if full.sum() < 2:
        return flat
    level = np.bincount(which, variance, minlength=_BINS)[full] / count[full]
    centre = np.bincount(which, mean, minlength=_BINS)[full] / count[full]
    expected = np.full(level.shape, flat.read_dn2)
    offset = slope = 0.0
    for _ in range(
        _ROUNDS
    ):  # a bin's error is proportional to its true variance: weights come from the fit, not the bin
        # a bin without noise, as in float frames, would have all the weight there is
        weight = np.sqrt(count[full]) / np.maximum(expected, max(smallest, 1e-9 * float(level.max()), 1e-30))
        columns = np.stack([np.ones_like(centre), centre], axis=1) * weight[:, None]
        offset, slope = np.linalg.lstsq(columns, level * weight, rcond=None)[0]
        if offset < smallest:
            offset = smallest
            slope = float(np.sum(weight**2 * centre * (level - smallest)) / np.sum(weight**2 * centre**2))
        expected = offset + slope * centre
    if slope <= 0:
        return flat
    return NoiseModel(float(offset), float(slope), source, variance.size)
