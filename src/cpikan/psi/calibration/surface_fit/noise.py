"""Noise of samples of raw frames: read, shot and quantisation noise from pixels that follow each other in a row."""

from __future__ import annotations

import numpy as np

from cpikan.psi.model.noise import NoiseModel, noise_from_residuals

_FOURTH = np.array([1.0, -4.0, 6.0, -4.0, 1.0])
_LEAST_SHARE = 1e-4  # of the frames' scatter: float frames without noise are known to rounding, far below this


def sample_noise(rows: np.ndarray, quantum_dn: float) -> NoiseModel:
    """Fit the variance over intensity from fourth differences along rows (..., W), broken pixels and edges left out.

    White noise has 70 times its variance in a fourth difference, fringes of period p pixels only (2 pi / p)^4 of their
    amplitude: a hundredth at 20 pixels. Means of squares are not biased by quantisation as medians of whole numbers are.
    """
    samples = np.asarray(rows, np.float64)
    width = samples.shape[-1] - 4
    if width < 1:
        return NoiseModel(quantum_dn**2 / 12, 0.0, "neighbours", 0)
    shifted = [samples[..., i : i + width] for i in range(5)]
    fourth = sum(c * part for c, part in zip(_FOURTH, shifted, strict=True))
    level = sum(shifted[1:], shifted[0]) / 5.0
    found = noise_from_residuals(level.ravel(), np.asarray(fourth**2 / 70.0).ravel(), quantum_dn)
    return NoiseModel(found.read_dn2, found.gain_dn, "neighbours", found.pixels)


def noise_of_samples(rows: np.ndarray, frames: np.ndarray, quantum_dn: float) -> tuple[float, np.ndarray]:
    """Estimate the noise of a sample of medium light in DN, and its ratio to the noise of each of ``frames`` (K, P)."""
    model = sample_noise(rows, quantum_dn)
    variance = np.maximum(model.variance(frames), (_LEAST_SHARE * float(frames.std())) ** 2)
    medium = float(np.median(variance))
    return medium**0.5, np.sqrt(medium / variance)
