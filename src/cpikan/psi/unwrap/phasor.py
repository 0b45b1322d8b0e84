"""Smoothing of a wrapped phase as phasors, along the local slope, so that dense fringes are not averaged away."""

from __future__ import annotations

import numpy as np
from numba import njit

_FLOOR = np.float32(1e-3)  # weight of a pixel without quality, relative to the mean: it still has a phase
_RADIUS = 2  # of the box in which the slope is estimated, pixels


@njit(cache=True, nogil=True)
def relative_quality(phase_rad: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """Quality over its mean, at least 0.001; 0 where the phase is not finite. Shape (h, w), float32."""
    height, width = phase_rad.shape
    total, pixels = 0.0, 0
    for y in range(height):
        for x in range(width):
            if np.isfinite(phase_rad[y, x]):
                pixels += 1
                if np.isfinite(quality[y, x]) and quality[y, x] > 0:
                    total += quality[y, x]
    scale = np.float32(pixels / total if total > 0 else 0.0)
    out = np.zeros((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            if np.isfinite(phase_rad[y, x]):
                value = quality[y, x] * scale
                out[y, x] = value if np.isfinite(value) and value > _FLOOR else _FLOOR
    return out


@njit(cache=True, nogil=True)
def phasors(phase_rad: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Real and imaginary part of weight * exp(i phase); zero where the weight is zero."""
    height, width = phase_rad.shape
    real, imag = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            if weight[y, x] > 0:
                real[y, x] = weight[y, x] * np.cos(phase_rad[y, x])
                imag[y, x] = weight[y, x] * np.sin(phase_rad[y, x])
    return real, imag


@njit(cache=True, nogil=True)
def angles(real: np.ndarray, imag: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Phase of the phasors in rad, float32; NaN where the weight is zero."""
    height, width = real.shape
    out = np.full((height, width), np.nan, np.float32)
    for y in range(height):
        for x in range(width):
            if weight[y, x] > 0:
                out[y, x] = np.arctan2(imag[y, x], real[y, x])
    return out


@njit(cache=True, nogil=True)
def smooth(real: np.ndarray, imag: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One pass: every phasor plus its neighbours turned back by the local slope, along x and then along y."""
    across, down = _slope(real, imag, 0, 1), _slope(real, imag, 1, 0)
    real, imag = _add_neighbours(real, imag, across, 0, 1)
    return _add_neighbours(real, imag, down, 1, 0)


@njit(cache=True, nogil=True)
def _box_sum(plane: np.ndarray) -> np.ndarray:
    """Sum over a square of 2 * _RADIUS + 1 pixels, cut off at the border."""
    height, width = plane.shape
    rows, out = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    for y in range(height):
        for other in range(max(0, y - _RADIUS), min(height, y + _RADIUS + 1)):
            for x in range(width):
                rows[y, x] += plane[other, x]
    for y in range(height):
        for shift in range(-_RADIUS, _RADIUS + 1):
            for x in range(max(0, -shift), min(width, width - shift)):
                out[y, x] += rows[y, x + shift]
    return out


@njit(cache=True, nogil=True)
def _slope(real: np.ndarray, imag: np.ndarray, dy: int, dx: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit phasor (cosine, sine) of the step from (y, x) to (y + dy, x + dx), averaged over the box; 1 where
    unknown."""
    height, width = real.shape
    cosine, sine = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    for y in range(height - dy):
        for x in range(width - dx):
            cosine[y, x] = real[y + dy, x + dx] * real[y, x] + imag[y + dy, x + dx] * imag[y, x]
            sine[y, x] = imag[y + dy, x + dx] * real[y, x] - real[y + dy, x + dx] * imag[y, x]
    cosine, sine = _box_sum(cosine), _box_sum(sine)
    for y in range(height):
        for x in range(width):
            size = np.sqrt(cosine[y, x] * cosine[y, x] + sine[y, x] * sine[y, x])
            if size > 0:
                cosine[y, x] /= size
                sine[y, x] /= size
            else:
                cosine[y, x], sine[y, x] = 1, 0
    return cosine, sine


@njit(cache=True, nogil=True)
def _add_neighbours(
    real: np.ndarray, imag: np.ndarray, slope: tuple[np.ndarray, np.ndarray], dy: int, dx: int
) -> tuple[np.ndarray, np.ndarray]:
    cosine, sine = slope
    out_real, out_imag = real.copy(), imag.copy()
    height, width = real.shape
    for y in range(height - dy):
        for x in range(width - dx):
            c, s = cosine[y, x], sine[y, x]
            out_real[y + dy, x + dx] += real[y, x] * c - imag[y, x] * s
            out_imag[y + dy, x + dx] += real[y, x] * s + imag[y, x] * c
        for x in range(width - dx):
            c, s = cosine[y, x], sine[y, x]
            out_real[y, x] += real[y + dy, x + dx] * c + imag[y + dy, x + dx] * s
            out_imag[y, x] += imag[y + dy, x + dx] * c - real[y + dy, x + dx] * s
    return out_real, out_imag
