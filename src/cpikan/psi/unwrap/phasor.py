"""Smoothing of a wrapped phase as phasors, along the local slope, so that dense fringes are not averaged away."""

from __future__ import annotations

import numpy as np
from numba import njit

_FLOOR = np.float32(1e-3)  # weight of a pixel without quality, relative to the mean: it still has a phase
_RADIUS = 2  # of the box in which the slope is estimated, in units of the spacing


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
def smooth(
    real: np.ndarray, imag: np.ndarray, weight: np.ndarray, spacing: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One pass: every phasor plus its neighbours ``spacing`` pixels away, turned back by the local slope, along x and
    then along y.

    ``weight`` is summed alike, so that modulus over weight is the coherence: 1 where all neighbours agree. Several
    passes at growing spacings are a pyramid without decimation.
    """
    across = local_slope(real, imag, 0, spacing, spacing)
    down = local_slope(real, imag, spacing, 0, spacing)
    real, imag = _add_neighbours(real, imag, across, 0, spacing)
    real, imag = _add_neighbours(real, imag, down, spacing, 0)
    weight = _add_weights(_add_weights(weight, 0, spacing), spacing, 0)
    return real, imag, weight


@njit(cache=True, nogil=True)
def box_sum(plane: np.ndarray, spacing: int) -> np.ndarray:
    """Sum over 5 x 5 pixels that are ``spacing`` apart, cut off at the border."""
    height, width = plane.shape
    out = np.empty((height, width), np.float32)
    sums = np.empty(width, np.float32)
    for y in range(height):
        sums[:] = plane[y]
        for step in range(1, _RADIUS + 1):
            if y >= step * spacing:
                _add(sums, plane[y - step * spacing])
            if y + step * spacing < height:
                _add(sums, plane[y + step * spacing])
        row = out[y]
        row[:] = sums
        for step in range(1, _RADIUS + 1):
            if step * spacing < width:
                _add(row[step * spacing :], sums[: width - step * spacing])
                _add(row[: width - step * spacing], sums[step * spacing :])
    return out


@njit(cache=True, nogil=True, inline="always")
def _add(total: np.ndarray, more: np.ndarray) -> None:
    for x in range(total.size):
        total[x] += more[x]


@njit(cache=True, nogil=True)
def lag_products(real: np.ndarray, imag: np.ndarray, dy: int, dx: int) -> tuple[np.ndarray, np.ndarray]:
    """Product of each phasor's neighbour at (y + dy, x + dx) with its own conjugate; zero where there is none."""
    height, width = real.shape
    cosine, sine = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    for y in range(height - dy):
        a, b, c, d = real[y, : width - dx], imag[y, : width - dx], real[y + dy, dx:], imag[y + dy, dx:]
        row_c, row_s = cosine[y], sine[y]
        for x in range(width - dx):
            row_c[x] = c[x] * a[x] + d[x] * b[x]
            row_s[x] = d[x] * a[x] - c[x] * b[x]
    return cosine, sine


@njit(cache=True, nogil=True)
def local_slope(real: np.ndarray, imag: np.ndarray, dy: int, dx: int, spacing: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit phasor (cosine, sine) of the step from (y, x) to (y + dy, x + dx), averaged over the box; 1 where
    unknown."""
    cosine, sine = lag_products(real, imag, dy, dx)
    cosine, sine = box_sum(cosine, spacing), box_sum(sine, spacing)
    height, width = real.shape
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
        a, b, c, d = real[y, : width - dx], imag[y, : width - dx], real[y + dy, dx:], imag[y + dy, dx:]
        there_real, there_imag = out_real[y + dy, dx:], out_imag[y + dy, dx:]
        here_real, here_imag = out_real[y, : width - dx], out_imag[y, : width - dx]
        row_c, row_s = cosine[y], sine[y]
        for x in range(width - dx):
            there_real[x] += a[x] * row_c[x] - b[x] * row_s[x]
            there_imag[x] += a[x] * row_s[x] + b[x] * row_c[x]
        for x in range(width - dx):
            here_real[x] += c[x] * row_c[x] + d[x] * row_s[x]
            here_imag[x] += d[x] * row_c[x] - c[x] * row_s[x]
    return out_real, out_imag


@njit(cache=True, nogil=True)
def _add_weights(weight: np.ndarray, dy: int, dx: int) -> np.ndarray:
    out = weight.copy()
    height, width = weight.shape
    for y in range(height - dy):
        _add(out[y + dy, dx:], weight[y, : width - dx])
        _add(out[y, : width - dx], weight[y + dy, dx:])
    return out
