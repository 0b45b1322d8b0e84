"""The pixel pass in plain NumPy, float64, readable first: what the fast kernels are held against."""

from __future__ import annotations

import numpy as np

from cpikan.psi.kernels.model import (
    LOW_SIGMA_RAD,
    PARITY_BEND,
    PARITY_MAX,
    PARITY_ROUNDING,
    Demodulation,
    HeightRows,
    OrderSearch,
    PhaseRows,
    PixelModel,
)
from cpikan.psi.model.flags import Flag

_TURN = 2 * np.pi


Position = tuple[np.ndarray, np.ndarray]  # image rows and columns of pixels


def demodulate(frames: np.ndarray, model: Demodulation, position: Position | None = None) -> tuple[np.ndarray, ...]:
    """Demodulate to phase (rad), its variance (rad^2), modulation B, B^2 / var B: (L, ...); saturated: (...);
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
        saturated = np.asarray((stack >= model.saturation_dn).any(axis=(0, 1)))
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


def _places(frames: np.ndarray, first_row: int) -> Position:
    """Give the rows and columns of the pixels of a band."""
    y, x = np.mgrid[: frames.shape[2], : frames.shape[3]]
    return y + first_row, x


def _carre_phasor(stack: np.ndarray, model: Demodulation) -> tuple[np.ndarray, np.ndarray]:
    real, imag, scale, sign = (model.cosine[:, i].reshape((-1,) + (1,) * (stack.ndim - 2)) for i in range(4))
    outer, inner = stack[:, 0] - stack[:, 3], stack[:, 1] - stack[:, 2]
    even = (stack[:, 1] + stack[:, 2] - stack[:, 0] - stack[:, 3]) * scale
    odd = sign * np.sqrt(np.abs((3 * inner - outer) * (inner + outer))) * np.sign(inner) * np.abs(scale)
    return even * real - odd * imag, even * imag + odd * real


def _measured(snr: np.ndarray, saturated: np.ndarray, model: Demodulation, mask: np.ndarray | None) -> np.ndarray:
    total = snr.sum(axis=0)
    valid = (total >= model.snr_min) & np.isfinite(total) & (total > 0) & ~saturated
    return valid if mask is None else valid & (np.asarray(mask) != 0)


def _flags(valid: np.ndarray, saturated: np.ndarray, low: np.ndarray) -> np.ndarray:
    flags = np.where(valid, 0, Flag.INVALID).astype(np.uint8)
    flags |= np.where(saturated, Flag.SATURATED, 0).astype(np.uint8)
    return flags | np.where(low & ~saturated, Flag.LOW_MODULATION, 0).astype(np.uint8)


def phases(frames: np.ndarray, model: PixelModel, mask: np.ndarray | None = None, first_row: int = 0) -> PhaseRows:
    """Compute the wrapped phase of one wavelength; ``frames`` (1, K, rows, W), ``mask`` (rows, W) nonzero if valid."""
    place = _places(frames, first_row)
    phase, variance, modulation, snr, saturated, excess = demodulate(frames, model.demodulation, place)
    valid = _measured(snr, saturated, model.demodulation, mask)
    low = _low(variance / excess, variance[0], snr, model.demodulation)
    nan = np.where(valid, 0, np.nan)
    return PhaseRows(
        (phase[0] + nan).astype(np.float32),
        (np.sqrt(variance[0]) + nan).astype(np.float32),
        np.nan_to_num(modulation[0], nan=0.0, posinf=0.0).astype(np.float32),
        _flags(valid, saturated, low),
    )


def _low(variance: np.ndarray, joint: np.ndarray, snr: np.ndarray, model: Demodulation) -> np.ndarray:
    """Tell where a wavelength is noisy by its modulation, (L, ...) rad^2, or the height by that of all, (...) rad^2."""
    with np.errstate(invalid="ignore"):
        weak = ~(snr.sum(axis=0) >= model.snr_min)
        return weak | ~(variance <= LOW_SIGMA_RAD**2).all(axis=0) | (joint > LOW_SIGMA_RAD**2)


def search_orders(
    turns: np.ndarray, variance: np.ndarray, search: OrderSearch, low_nm: float, range_nm: float
) -> tuple[np.ndarray, ...]:
    """Try every order for the most likely: order, correction (turns), its chi squared, the runner-up's, weight sum.

    ``turns`` (L, ...) are phases in turns, anchor first, pistons removed; ``variance`` in turns^2. For each order k of the
    anchor the other wavelengths take their nearest order; over the height the misfit is a parabola whose minimum is
    sum w r^2 - (sum w ratio r)^2 / sum w ratio^2.
    """
    ratio = search.ratio.reshape((-1,) + (1,) * (turns.ndim - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = 1 / variance
        total = (weight * ratio**2).sum(axis=0)
        low = low_nm / search.half_wave_nm
        high = (low_nm + range_nm) / search.half_wave_nm
        start = np.ceil(low - turns[0])
        best = np.full(turns.shape[1:], np.inf)
        second, order, shift = best.copy(), np.zeros_like(best), np.zeros_like(best)
        for j in range(int(np.ceil(range_nm / search.half_wave_nm))):
            k = start + j
            predicted = (turns[0] + k) * ratio - turns
            residual = -(predicted - np.rint(predicted))
            slope = (weight * ratio * residual).sum(axis=0)
            cost = (weight * residual**2).sum(axis=0) - slope**2 / total
            cost = np.where((turns[0] + k < high) | (j == 0), cost, np.inf)
            better = cost < best
            second = np.where(better, best, np.minimum(second, cost))
            order, shift = np.where(better, k, order), np.where(better, slope / total, shift)
            best = np.where(better, cost, best)
    return order, shift, best, second, total


def form_height_nm(turns: np.ndarray, order: np.ndarray, shift: np.ndarray, half_wave_nm: float) -> np.ndarray:
    """Form the height in nm from the anchor's phase (turns), its order and the others' correction (turns)."""
    return (turns + order + shift) * half_wave_nm


def remove_pistons(phase_rad: np.ndarray, search: OrderSearch, first_row: int) -> np.ndarray:
    """Convert phases (L, rows, W) to turns, anchor first, without relative piston and tilt between wavelengths."""
    rows, width = phase_rad.shape[1:]
    turns = phase_rad[list(search.order)] / _TURN
    return turns - search.relative_turns(first_row + np.arange(rows)[:, None], np.arange(width)[None, :])


def heights(frames: np.ndarray, model: PixelModel, first_row: int = 0, mask: np.ndarray | None = None) -> HeightRows:
    """Compute heights of two or more wavelengths; ``frames`` (L, K, rows, W) start at image row ``first_row``."""
    search = model.search
    assert search is not None, "two or more wavelengths have an order search"
    phase, variance, modulation, snr, saturated, excess = demodulate(
        frames, model.demodulation, _places(frames, first_row)
    )
    valid = _measured(snr, saturated, model.demodulation, mask)
    turns = remove_pistons(phase, search, first_row)
    spread = variance[list(search.order)] / _TURN**2
    order, shift, best, second, total = search_orders(turns, spread, search, search.near_low_nm, search.near_range_nm)
    if search.near_range_nm < search.range_nm:
        wide = search_orders(turns, spread, search, search.low_nm, search.range_nm)
        far = best > search.misfit_max
        order, shift, best, second = (
            np.where(far, w, n) for w, n in zip(wide[:4], (order, shift, best, second), strict=True)
        )
    if search.finest:
        shift, total = np.zeros_like(shift), 1 / spread[0]
    height = form_height_nm(turns[0], order, shift, search.half_wave_nm)
    sigma = search.half_wave_nm / np.sqrt(total)
    with np.errstate(invalid="ignore"):
        ambiguous = valid & ((second - best < search.margin_min) | (best > search.misfit_max))
    nan = np.where(valid, 0, np.nan)
    low = _low(variance / excess, _TURN**2 / total, snr, model.demodulation)
    flags = _flags(valid, saturated, low)
    return HeightRows(
        (height + nan).astype(np.float32),
        (sigma + nan).astype(np.float32),
        np.nan_to_num(modulation.mean(axis=0), nan=0.0, posinf=0.0).astype(np.float32),
        flags | np.where(ambiguous, Flag.AMBIGUOUS, 0).astype(np.uint8),
    )
