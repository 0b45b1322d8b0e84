"""The pixel pass in plain NumPy, float64, readable first: what the fast kernels are held against."""

from __future__ import annotations

import numpy as np

from cpikan.psi.kernels.model import LOW_SIGMA_RAD, Demodulation, HeightRows, OrderSearch, PhaseRows, PixelModel
from cpikan.psi.kernels.reference import Position, demodulate, noise_image
from cpikan.psi.model.flags import Flag

__all__ = ["demodulate", "heights", "noise_image", "phases", "remove_pistons", "search_orders"]

_TURN = 2 * np.pi


def phases(frames: np.ndarray, model: PixelModel, mask: np.ndarray | None = None, first_row: int = 0) -> PhaseRows:
    """Compute the wrapped phase of one wavelength; ``frames`` (1, K, rows, W), ``mask`` (rows, W) nonzero if valid."""
    place = _places(frames, first_row)
    phase, variance, modulation, snr, saturated, excess = demodulate(frames, model.demodulation, place)
    saturated = _clipped(frames, saturated, snr, model.demodulation)
    valid = _measured(snr, saturated, model.demodulation, mask)
    low = _low(variance / excess, variance[0], snr, model.demodulation)
    nan = np.where(valid, 0, np.nan)
    return PhaseRows(
        (phase[0] + nan).astype(np.float32),
        (np.sqrt(variance[0]) + nan).astype(np.float32),
        np.nan_to_num(modulation[0], nan=0.0, posinf=0.0).astype(np.float32),
        _flags(valid, saturated, low),
    )


def heights(frames: np.ndarray, model: PixelModel, first_row: int = 0, mask: np.ndarray | None = None) -> HeightRows:
    """Compute heights of two or more wavelengths; ``frames`` (L, K, rows, W) start at image row ``first_row``."""
    search = model.search
    assert search is not None, "two or more wavelengths have an order search"
    phase, variance, modulation, snr, saturated, excess = demodulate(
        frames, model.demodulation, _places(frames, first_row)
    )
    saturated = _clipped(frames, saturated, snr, model.demodulation)
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


def remove_pistons(phase_rad: np.ndarray, search: OrderSearch, first_row: int) -> np.ndarray:
    """Convert phases (L, rows, W) to turns, anchor first, without relative piston and tilt between wavelengths."""
    rows, width = phase_rad.shape[1:]
    turns = phase_rad[list(search.order)] / _TURN
    return turns - search.relative_turns(first_row + np.arange(rows)[:, None], np.arange(width)[None, :])


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


def _places(frames: np.ndarray, first_row: int) -> Position:
    """Give the rows and columns of the pixels of a band."""
    y, x = np.mgrid[: frames.shape[2], : frames.shape[3]]
    return y + first_row, x


def _clipped(frames: np.ndarray, saturated: np.ndarray, snr: np.ndarray, model: Demodulation) -> np.ndarray:
    """Tell what counts as clipped: saturated, or at black and bright enough to be measured."""
    total = snr.sum(axis=0)
    seen = (total >= model.snr_min) & np.isfinite(total) & (total > 0)
    return np.asarray((frames >= model.saturation_dn).any(axis=(0, 1)) | (saturated & seen))


def _measured(snr: np.ndarray, saturated: np.ndarray, model: Demodulation, mask: np.ndarray | None) -> np.ndarray:
    total = snr.sum(axis=0)
    valid = (total >= model.snr_min) & np.isfinite(total) & (total > 0) & ~saturated
    return valid if mask is None else valid & (np.asarray(mask) != 0)


def _flags(valid: np.ndarray, saturated: np.ndarray, low: np.ndarray) -> np.ndarray:
    flags = np.where(valid, 0, Flag.INVALID).astype(np.uint8)
    flags |= np.where(saturated, Flag.SATURATED, 0).astype(np.uint8)
    return flags | np.where(low & ~saturated, Flag.LOW_MODULATION, 0).astype(np.uint8)


def _low(variance: np.ndarray, joint: np.ndarray, snr: np.ndarray, model: Demodulation) -> np.ndarray:
    """Tell where a wavelength is noisy by its modulation, (L, ...) rad^2, or the height by that of all, (...) rad^2."""
    with np.errstate(invalid="ignore"):
        weak = ~(snr.sum(axis=0) >= model.snr_min)
        return weak | ~(variance <= LOW_SIGMA_RAD**2).all(axis=0) | (joint > LOW_SIGMA_RAD**2)
