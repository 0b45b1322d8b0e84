"""How far one map lies from another: phase correlation weighed by signal over noise, then least squares below a pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cpikan.registration.kernels import resample_tile

FloatArray = NDArray[np.float64]

SMOOTH_PX = 2.0  # sigma: noise of a pixel would pull shifts to where interpolation averages it
EVERY = 2  # pixels of a smoothed map from one that counts to the next: what lies between follows from them
SHARED_PX = 4 * math.pi * SMOOTH_PX**2 / EVERY**2  # of these, so many have one noise
_FEWEST_PIXELS = 64
_STEPS, _STOP_PX = 20, 1e-4
_FINE = 0.35  # cycles per pixel beyond which a spectrum is taken for noise


@dataclass(frozen=True)
class Match:
    """``second`` at x + ``shift_px`` (rows, columns) is ``first`` at x; the information is its inverse covariance."""

    shift_px: FloatArray
    information: FloatArray
    rms_nm: float


def find_shift(first: FloatArray, second: FloatArray, most_px: int) -> NDArray[np.int64] | None:
    """Find the whole shift of two windows of one shape, at most ``most_px`` in each axis; None where one is empty.

    The cross spectrum is whitened as far as it stands above its own finest part (noise), so that a smooth surface is matched by
    its long waves and a rough one by all.
    """
    windows = [_prepared(one) for one in (first, second)]
    if any(one is None for one in windows):
        return None
    a, b = (np.fft.rfft2(one) for one in windows if one is not None)
    cross = np.conj(a) * b
    size = np.abs(cross)
    rows, columns = np.fft.fftfreq(first.shape[0])[:, None], np.fft.rfftfreq(first.shape[1])[None, :]
    fine = size[np.hypot(rows, columns) > _FINE]
    noise = float(np.median(fine)) if fine.size else 0.0
    found = np.fft.irfft2(cross / (size + 4 * noise + 1e-12 * float(size.max())), first.shape)
    reach = [min(most_px, (length - 1) // 2) for length in first.shape]
    near = np.roll(found, reach, (0, 1))[: 2 * reach[0] + 1, : 2 * reach[1] + 1]
    place = np.unravel_index(int(np.argmax(near)), near.shape)
    return np.array([place[0] - reach[0], place[1] - reach[1]])


def refine_shift(first: FloatArray, second: FloatArray, start: NDArray[np.int64] | FloatArray) -> Match | None:
    """Refine a shift by Gauss-Newton on first(x) - second(x + s) - plane; None where too few pixels are valid in both.

    Both windows are smoothed before. Converges from within the length over which the surfaces change.
    """
    one, two = (_inner(smoothed(part)) for part in (first, second))
    slopes = [np.ascontiguousarray(slope) for slope in np.gradient(two)]
    shift = np.asarray(start, np.float64).copy()
    y, x = np.mgrid[: first.shape[0] : EVERY, : first.shape[1] : EVERY].astype(np.float64)
    one = one[::EVERY, ::EVERY]
    for _ in range(_STEPS):
        moved = [_moved(part, shift)[::EVERY, ::EVERY] for part in (two, *slopes)]
        used = np.isfinite(one) & np.isfinite(moved[0]) & np.isfinite(moved[1]) & np.isfinite(moved[2])
        if np.count_nonzero(used) < _FEWEST_PIXELS:
            return None
        design = np.stack([moved[1][used], moved[2][used], np.ones(used.sum()), y[used], x[used]], 1)
        normal = design.T @ design
        rest = (one - moved[0])[used]
        if np.linalg.cond(normal) > 1e16:
            return None
        step = np.linalg.solve(normal, design.T @ rest)
        shift += np.clip(step[:2], -4, 4)
        if np.abs(step[:2]).max() < _STOP_PX:
            break
    left = rest - design @ step
    variance = float((left**2).mean()) + 1e-30
    reduced = normal[:2, :2] - normal[:2, 2:] @ np.linalg.solve(normal[2:, 2:], normal[2:, :2])
    return Match(shift, reduced / variance / SHARED_PX, float(np.sqrt(variance)))


def smoothed(heights: FloatArray, sigma_px: float = SMOOTH_PX) -> FloatArray:
    """Smooth by a Gaussian renormalised over valid pixels; NaN stays NaN."""
    from scipy.ndimage import gaussian_filter

    valid = np.isfinite(heights)
    if not valid.any():
        return heights
    mean = float(heights[valid].mean())
    share = gaussian_filter(valid.astype(np.float64), sigma_px, mode="nearest")
    total = gaussian_filter(np.where(valid, heights - mean, 0.0), sigma_px, mode="nearest")
    return np.where(valid, total / np.maximum(share, 1e-12) + mean, np.nan)


def _inner(heights: FloatArray) -> FloatArray:
    """Drop the border, where a smoothed window does not know what lies beyond it."""
    rows, columns = (min(math.ceil(3 * SMOOTH_PX), length // 4) for length in heights.shape)
    out = np.full(heights.shape, np.nan)
    middle = slice(rows, heights.shape[0] - rows), slice(columns, heights.shape[1] - columns)
    out[middle] = heights[middle]
    return out


def _moved(values: FloatArray, shift: FloatArray) -> FloatArray:
    out = np.full(values.shape, np.nan)
    matrix = np.array([[1.0, 0.0, shift[0]], [0.0, 1.0, shift[1]]])
    resample_tile(np.ascontiguousarray(values), np.zeros(2, np.int64), matrix, np.zeros(2, np.int64), out)
    return out


def _prepared(heights: FloatArray) -> FloatArray | None:
    """Take the plane off, put 0 where nothing was measured, and let the borders fade."""
    valid = np.isfinite(heights)
    if np.count_nonzero(valid) < _FEWEST_PIXELS:
        return None
    y, x = np.mgrid[: heights.shape[0], : heights.shape[1]]
    design = np.stack([np.ones(valid.sum()), y[valid], x[valid]], 1)
    plane = np.linalg.lstsq(design, heights[valid], rcond=None)[0]
    rest = np.where(valid, heights - plane[0] - plane[1] * y - plane[2] * x, 0.0)
    fade = [np.sin(np.pi * (np.arange(length) + 0.5) / length) for length in heights.shape]
    faded: FloatArray = rest * fade[0][:, None] * fade[1][None, :]
    return faded
