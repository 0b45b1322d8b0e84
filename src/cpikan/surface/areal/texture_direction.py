"""The direction of the texture, Std of ISO 25178-2:2021, from a spectrum that lies in a temporary file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cpikan.storage.scratch import Spill
from cpikan.surface.filters.gaussian import Rows
from cpikan.units import PixelUm, pixel_pair

FloatArray = NDArray[np.float64]

_BINS, _AROUND = 180, 6.0  # sectors of half a turn; degrees
_BAND_PIXELS, _COLUMNS = 1 << 20, 256


def texture_direction_deg(height_nm: Rows, pixel_um: PixelUm = 1.0) -> float | None:
    """Find the direction in which the angular spectrum of amplitudes is the largest: Std; None for a flat map (H, W).

    In degrees from +x towards +y on the map as it is seen (row 0 on top), 0 to 180; the lay lies across it. Amplitudes
    are those of the heights about their mean, holes filled with it, under a Hann window; they are summed over sectors of
    one degree up to the lower of both Nyquist frequencies, and the direction is the mean within 6 degrees of the largest,
    weighted by power. The spectrum lies in a temporary file of 8 bytes a pixel in TMPDIR; memory is that of a band.
    """
    shape = int(height_nm.shape[0]), int(height_nm.shape[1])
    mean = _mean(height_nm)
    if mean is None or min(shape) < 3:
        return None
    spectrum = _spectrum(height_nm, mean)
    pair = pixel_pair(pixel_um) or (1.0, 1.0)
    sectors = np.zeros(_BINS)
    for degrees, amplitude, count in _lines(spectrum, shape, pair):
        sectors += np.bincount(np.rint(degrees).astype(np.int64) % _BINS, amplitude * count, _BINS)
    direction = float(sectors.argmax())
    for _ in range(3):  # to the middle of what stands out there
        moment = power = 0.0
        for degrees, amplitude, count in _lines(spectrum, shape, pair):
            offset = (degrees - direction + 90) % 180 - 90
            weight = np.where(np.abs(offset) <= _AROUND, count * amplitude**2, 0.0)
            moment, power = moment + float((weight * offset).sum()), power + float(weight.sum())
        direction = (direction + moment / power) % 180
    return direction


def _bands(shape: tuple[int, ...]) -> Iterator[slice]:
    step = max(1, _BAND_PIXELS // int(shape[1]))
    yield from (slice(start, start + step) for start in range(0, int(shape[0]), step))


def _mean(source: Rows) -> float | None:
    """Average the valid heights; None where there is none, or all are equal."""
    total, count, low, high = 0.0, 0, np.inf, -np.inf
    for band in _bands(source.shape):
        heights = np.asarray(source[band], np.float64)
        valid = heights[np.isfinite(heights)]
        if valid.size:
            total, count = total + float(valid.sum()), count + valid.size
            low, high = min(low, float(valid.min())), max(high, float(valid.max()))
    return total / count if low < high else None


def _spectrum(source: Rows, mean: float) -> NDArray[np.complex128]:
    """Transform the heights about their mean under a Hann window: frequencies of rows, and from 0 on of columns."""
    from scipy.fft import fft, rfft

    height, width = int(source.shape[0]), int(source.shape[1])
    down, across = (np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2 for size in (height, width))
    out = Spill(Path(tempfile.gettempdir())).empty((height, width // 2 + 1), np.complex128)
    for band in _bands(source.shape):
        heights = np.asarray(source[band], np.float64)
        values = np.where(np.isfinite(heights), heights - mean, 0.0)
        out[band] = rfft(values * down[band, None] * across, axis=1)
    for left in range(0, out.shape[1], _COLUMNS):
        columns = slice(left, left + _COLUMNS)
        out[:, columns] = fft(out[:, columns], axis=0)
    return out


def _lines(
    spectrum: NDArray[np.complex128], shape: tuple[int, int], pair: tuple[float, float]
) -> Iterator[tuple[FloatArray, FloatArray, FloatArray]]:
    """Give direction in degrees, amplitude, and how many times it counts (its mirror is not stored) of each wave."""
    from scipy.fft import fftfreq, rfftfreq

    down, across = fftfreq(shape[0], pair[0]), rfftfreq(shape[1], pair[1])
    for band in _bands(spectrum.shape):
        y, x = np.meshgrid(down[band], across, indexing="ij")
        radius = np.hypot(y, x)
        inside = (radius > 0) & (radius <= 0.5 / max(pair))
        degrees = np.degrees(np.arctan2(-y[inside], x[inside])) % 180
        yield degrees, np.abs(spectrum[band][inside]), np.where(x[inside] > 0, 2.0, 1.0)
