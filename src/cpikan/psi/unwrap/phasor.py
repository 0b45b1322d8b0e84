"""Smoothing of a wrapped phase as phasors, along the local slope, so that dense fringes are not averaged away."""

from __future__ import annotations

import numpy as np

from cpikan.compiled import compiled
from cpikan.psi.kernels.cpu_phasors import fill_phase_cycles

_TURN, _PER_TURN = np.float32(2 * np.pi), np.float32(1 / (2 * np.pi))
_FLOOR = np.float32(1e-3)  # weight of a pixel without quality, relative to the mean: it still has a phase
_RADIUS = 2  # of the box in which the slope is estimated, in units of the spacing


@compiled
def relative_quality(phase_rad: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """Divide the quality by its mean, at least 0.001; 0 where the phase is not finite. Shape (h, w), float32."""
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


@compiled
def phasors(phase_rad: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute real and imaginary part of weight * exp(i phase); zero where the weight is zero."""
    height, width = phase_rad.shape
    real, imag = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    for y in range(height):
        _phasor_row(phase_rad[y], weight[y], real[y], imag[y])
    return real, imag


@compiled
def _phasor_row(phase_rad: np.ndarray, weight: np.ndarray, real: np.ndarray, imag: np.ndarray) -> None:
    """Fill a row by Taylor series on a quarter turn, at most 1e-7 off; no branches, so it runs on whole vectors."""
    quarter, half = np.float32(0.25), np.float32(0.5)
    for x in range(phase_rad.size):
        turns = phase_rad[x] * _PER_TURN
        turns -= np.rint(turns)
        size = abs(turns)
        cosine = _sine(quarter - size)
        sine = _sine(half - size if size > quarter else size)
        sine = -sine if turns < 0 else sine
        w = weight[x]
        real[x] = w * cosine if w > 0 else np.float32(0)
        imag[x] = w * sine if w > 0 else np.float32(0)


@compiled(inline="always")
def _sine(turns: np.float32) -> np.float32:
    """Compute the sine of -0.25 to 0.25 turns."""
    a = turns * _TURN
    s = a * a
    p = np.float32(-1 / 39916800)
    p = p * s + np.float32(1 / 362880)
    p = p * s + np.float32(-1 / 5040)
    p = p * s + np.float32(1 / 120)
    p = p * s + np.float32(-1 / 6)
    return a + a * s * p


@compiled
def angles(real: np.ndarray, imag: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Compute the phase of the phasors in rad, float32; NaN where the weight is zero."""
    height, width = real.shape
    out = np.empty((height, width), np.float32)
    for y in range(height):
        row, kept = out[y], weight[y]
        fill_phase_cycles(real[y], imag[y], row, width)
        for x in range(width):
            row[x] = row[x] * _TURN if kept[x] > 0 else np.float32(np.nan)
    return out


@compiled
def smooth(
    real: np.ndarray, imag: np.ndarray, weight: np.ndarray, spacing: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Add to every phasor its neighbours ``spacing`` pixels away, turned back by the local slope, along x, then y.

    ``weight`` is summed alike, so that modulus over weight is the coherence: 1 where all neighbours agree. Several
    passes at growing spacings are a pyramid without decimation.
    """
    here = np.intp(0)  # no literal: for one everything below would be compiled once more, along x and along y
    across = local_slope(real, imag, here, spacing, spacing)
    down = local_slope(real, imag, spacing, here, spacing)
    real, imag = _add_neighbours(real, imag, across, here, spacing)
    real, imag = _add_neighbours(real, imag, down, spacing, here)
    weight = _add_weights(_add_weights(weight, here, spacing), spacing, here)
    return real, imag, weight


@compiled
def box_sum(plane: np.ndarray, spacing: int) -> np.ndarray:
    """Sum over 5 x 5 pixels that are ``spacing`` apart, cut off at the border."""
    height, width = plane.shape
    out = np.empty((height, width), np.float32)
    sums = np.empty(width, np.float32)
    for y in range(height):
        _copy(plane[y], sums)
        for step in range(1, _RADIUS + 1):
            if y >= step * spacing:
                _add(sums, plane[y - step * spacing])
            if y + step * spacing < height:
                _add(sums, plane[y + step * spacing])
        row = out[y]
        _copy(sums, row)
        for step in range(1, _RADIUS + 1):
            if step * spacing < width:
                _add(row[step * spacing :], sums[: width - step * spacing])
                _add(row[: width - step * spacing], sums[step * spacing :])
    return out


@compiled(inline="always")
def _copy(given: np.ndarray, out: np.ndarray) -> None:
    """Copy by a loop: an assignment of arrays takes seconds to compile for the words it would refuse other lengths with."""
    for x in range(out.size):
        out[x] = given[x]


@compiled(inline="always")
def _add(total: np.ndarray, more: np.ndarray) -> None:
    for x in range(total.size):
        total[x] += more[x]


@compiled
def lag_products(real: np.ndarray, imag: np.ndarray, dy: int, dx: int) -> tuple[np.ndarray, np.ndarray]:
    """Multiply each phasor's neighbour at (y + dy, x + dx) with its own conjugate; zero where there is none."""
    height, width = real.shape
    cosine, sine = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    for y in range(height - dy):
        a, b, c, d = real[y, : width - dx], imag[y, : width - dx], real[y + dy, dx:], imag[y + dy, dx:]
        row_c, row_s = cosine[y], sine[y]
        for x in range(width - dx):
            row_c[x] = c[x] * a[x] + d[x] * b[x]
            row_s[x] = d[x] * a[x] - c[x] * b[x]
    return cosine, sine


@compiled
def local_slope(real: np.ndarray, imag: np.ndarray, dy: int, dx: int, spacing: int) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the unit phasor (cosine, sine) of the step from (y, x) to (y + dy, x + dx), averaged over the box.

    The phasor is 1 where the step is not known.
    """
    cosine, sine = lag_products(real, imag, dy, dx)
    cosine, sine = box_sum(cosine, spacing), box_sum(sine, spacing)
    for y in range(real.shape[0]):
        _make_unit(cosine[y], sine[y])
    return cosine, sine


@compiled(error_model="numpy")
def _make_unit(cosine: np.ndarray, sine: np.ndarray) -> None:
    for x in range(cosine.size):
        size = np.sqrt(cosine[x] * cosine[x] + sine[x] * sine[x])
        known = size > 0
        scale = np.float32(1) / size if known else np.float32(0)
        cosine[x] = cosine[x] * scale if known else np.float32(1)
        sine[x] = sine[x] * scale


@compiled
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


@compiled
def _add_weights(weight: np.ndarray, dy: int, dx: int) -> np.ndarray:
    out = weight.copy()
    height, width = weight.shape
    for y in range(height - dy):
        _add(out[y + dy, dx:], weight[y, : width - dx])
        _add(out[y, : width - dx], weight[y + dy, dx:])
    return out
