"""Demodulation in plain NumPy, float64, readable first: for a subsample, and what the fast kernels are held against."""

from __future__ import annotations

import numpy as np

from cpikan.psi.kernels.model import (
    PARITY_BEND,
    PARITY_MAX,
    PARITY_ROUNDING,
    Demodulation,
)

Position = tuple[np.ndarray, np.ndarray]  # image rows and columns of pixels


def demodulate(frames: np.ndarray, model: Demodulation, position: Position | None = None) -> tuple[np.ndarray, ...]:
    """Demodulate to phase (rad), its variance (rad^2), modulation B, B^2 / var B: (L, ...); clipped at white or black: (...);
    and by what factor (L, ...) the variance is above that of noise, because samples contradict each other.

    ``frames`` is (L, K, ...). A sample that is not finite makes everything of its wavelength NaN. ``position`` says where
    the pixels (...) are; needed where the model's weights vary over the image: they are then exact in every pixel.
    """
    stack = np.asarray(frames, np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        u, v, mean, parity, covariance = _sums(stack, model, position)
        var_u, cov, var_v = covariance
        sample_variance = _sample_variance(mean, model)
        over = np.maximum((parity**2 - PARITY_ROUNDING * mean**2) / sample_variance - PARITY_MAX, 0.0)
        excess = 1.0 + over * (2.0 + PARITY_BEND * over)
        power = u * u + v * v
        modulation_variance = sample_variance * (var_u + var_v) / 2
        # the noise adds 2 var B to B^2 on average: take it off, or weak pixels would look better than they are
        true_power = np.maximum(power - 2 * modulation_variance, power / 4)
        spread = sample_variance * (var_u * v * v - 2 * cov * u * v + var_v * u * u)
        variance = spread / (power * true_power) + _column(model.phase_floor_rad2, stack)
        saturated = np.asarray(model.clips(stack).any(axis=(0, 1)))
        quality = power / (modulation_variance * excess)
        return np.arctan2(v, u), variance * excess, np.sqrt(power), quality, saturated, excess


def noise_image(
    frames: np.ndarray, model: Demodulation, position: Position | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the parity of frames (L, K, ...), in standard deviations of noise, and their phasors u + i v: (L, ...)."""
    u, v, mean, parity, _ = _sums(np.asarray(frames, np.float64), model, position)
    with np.errstate(invalid="ignore"):
        return parity / np.sqrt(_sample_variance(mean, model)), u + 1j * v


def _column(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Shape one number a wavelength so that it goes with pixels (L, ...) of frames ``like`` (L, K, ...)."""
    return values.reshape((-1,) + (1,) * (like.ndim - 2))


def _sample_variance(mean: np.ndarray, model: Demodulation) -> np.ndarray:
    read, gain = (model.noise[:, i].reshape((-1,) + (1,) * (mean.ndim - 1)) for i in range(2))
    return np.asarray(read + gain * np.maximum(mean, 0))


def _sums(
    stack: np.ndarray, model: Demodulation, position: Position | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
    """Compute u, v, A, parity and (var u, cov, var v) at unit noise, each (L, ...) or as good."""
    if model.models is not None:
        assert position is not None, "weights that vary over the image need the pixels' positions"
        return _field_phasor(stack, model, position)
    u, v, mean = _phasor(stack, model)
    parity = np.einsum("lk,lk...->l...", model.parity, stack)
    return u, v, mean, parity, tuple(_column(model.covariance[:, i], stack) for i in range(3))


def _phasor(stack: np.ndarray, model: Demodulation) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute u = B cos phi, v = B sin phi and A, each (L, ...), by the same weights in every pixel."""
    mean = np.einsum("lk,lk...->l...", model.mean, stack)
    if model.carre:
        return *_carre_phasor(stack, model), mean
    u = np.einsum("lk,lk...->l...", model.cosine, stack)
    return u, np.einsum("lk,lk...->l...", model.sine, stack), mean


def _field_phasor(
    stack: np.ndarray, model: Demodulation, position: Position
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
    """Compute u, v, A, parity and (var u, cov, var v) at unit noise, each (L, ...), by least-squares weights per pixel."""
    y, x = np.broadcast_arrays(*position)
    found = []
    assert model.models is not None
    lengths = np.linalg.norm(model.parity, axis=1)
    for one, samples, length in zip(model.models, stack, lengths, strict=True):
        weights, constants, covariance = one.linear_at(y, x)
        light = np.moveaxis(one.light_dn(samples), 0, -1)
        mean, u, v = np.moveaxis((weights @ light[..., None])[..., 0] + constants, -1, 0)
        phasor = one.unlocked(u + 1j * v, y, x)
        parts = (covariance[..., i, j] for i, j in ((1, 1), (1, 2), (2, 2)))
        parity = length * (one.parity_at(y, x) * (light - one.offset_dn)).sum(axis=-1)
        found.append((phasor.real, phasor.imag, mean, parity, *parts))
    u, v, mean, parity, *spread = (np.stack(part) for part in zip(*found, strict=True))
    return u, v, mean, parity, tuple(spread)


def _carre_phasor(stack: np.ndarray, model: Demodulation) -> tuple[np.ndarray, np.ndarray]:
    real, imag, scale, sign = (model.cosine[:, i].reshape((-1,) + (1,) * (stack.ndim - 2)) for i in range(4))
    outer, inner = stack[:, 0] - stack[:, 3], stack[:, 1] - stack[:, 2]
    even = (stack[:, 1] + stack[:, 2] - stack[:, 0] - stack[:, 3]) * scale
    odd = sign * np.sqrt(np.abs((3 * inner - outer) * (inner + outer))) * np.sign(inner) * np.abs(scale)
    return even * real - odd * imag, even * imag + odd * real
