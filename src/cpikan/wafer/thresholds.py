"""Threshold height analysis (THA): peak to valley in circular windows, and the height that a share of the area exceeds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cpikan.wafer.high_pass import spans_of
from cpikan.wafer.kernels import window_rows
from cpikan.wafer.outline import Wafer

FloatArray = NDArray[np.float64]

WINDOWS_MM = (2.0, 10.0)  # diameters
SHARE = 5e-4  # of the area: the height that it exceeds is reported
_STEPS = 8  # centres at most this part of a diameter apart
_FEWEST_SHARE = 0.5  # of the pixels of a window
_SMALLEST_PX = 3.0  # diameter of a window


@dataclass(frozen=True)
class ThresholdHeights:
    """Peak to valley of every window, falling, in nm; ``diameter_mm`` of the windows."""

    diameter_mm: float
    falling_nm: FloatArray

    def exceeded_by(self, share: float = SHARE) -> float:
        """Give the height that at most ``share`` of the windows exceed, in nm; NaN without a window."""
        count = self.falling_nm.size
        return float(self.falling_nm[min(int(share * count), count - 1)]) if count else math.nan

    def curve(self, points: int = 100) -> list[list[float]]:
        """Give the curve as pairs (share of the area, height in nm that it exceeds), shares evenly apart in logarithm."""
        if not self.falling_nm.size:
            return []
        shares = np.unique([*np.geomspace(1 / self.falling_nm.size, 1, points), SHARE])
        return [[float(share), self.exceeded_by(share)] for share in shares]


class Windows:
    """Circular windows of ``diameter_mm`` that lie within ``radius_mm`` of the centre, on a grid of pixels.

    Centres lie at most an eighth of the diameter apart, or one pixel where that is more; a pixel is in a window where its
    centre lies within half the diameter of the window's. A window counts where at least half of its pixels are valid.
    Fed with bands of rows, in order or not; memory of the windows and a few rows.
    """

    def __init__(self, wafer: Wafer, radius_mm: float, diameter_mm: float, shape: tuple[int, int]) -> None:
        down, across = wafer.pixel_mm
        self.diameter_mm, half = diameter_mm, diameter_mm / 2
        rows = int(half / down)
        self._reach = np.array(
            [int(math.sqrt(max(half**2 - (k * down) ** 2, 0)) / across) for k in range(rows + 1)] + [-1], np.int64
        )
        step = [max(1, int(diameter_mm / _STEPS / size)) for size in wafer.pixel_mm]
        y = _places(shape[0], rows, step[0], wafer.y, (radius_mm - half) / down)
        x = _places(shape[1], int(self._reach[0]), step[1], wafer.x, (radius_mm - half) / across)
        away = np.hypot((y[:, None] - wafer.y) * down, (x[None, :] - wafer.x) * across)
        inside = away <= radius_mm - half + 1e-9 * radius_mm
        seen = diameter_mm >= _SMALLEST_PX * max(wafer.pixel_mm)
        self.inside = inside if seen and inside.size else np.zeros((0, 0), bool)
        self.centres = y, x
        self._spans = spans_of(wafer, radius_mm, shape)
        self._windows = np.array([_ends(row) for row in self.inside], np.int64).reshape(-1, 2)
        self._grid = np.array([y[0], x[0], *step]) if self.inside.size else np.zeros(4, np.int64)
        size = self.inside.shape
        self._found = np.full(size, -np.inf), np.full(size, np.inf), np.zeros(size, np.int32)

    def add(self, start: int, heights: FloatArray) -> None:
        """Take rows from ``start``, heights in nm, NaN where no pixel counts."""
        if self.inside.size:
            window_rows(heights, start, self._grid, self._reach, self._spans, self._windows, *self._found)

    def peak_to_valley(self) -> FloatArray:
        """Give peak to valley of the windows by row and column of their centres, NaN where a window does not count."""
        chords = 2 * self._reach[:-1] + 1
        whole = int(2 * chords.sum() - chords[0])
        tops, lows, pixels = self._found
        with np.errstate(invalid="ignore"):
            return np.where(self.inside & (pixels >= _FEWEST_SHARE * whole), tops - lows, np.nan)

    def heights(self) -> ThresholdHeights:
        """Sort peak to valley of all windows that count."""
        found = self.peak_to_valley()
        return ThresholdHeights(self.diameter_mm, np.sort(found[np.isfinite(found)])[::-1])


def _ends(row: NDArray[np.bool_]) -> tuple[int, int]:
    """Find the run of windows that lie inside, [first, last)."""
    places = np.flatnonzero(row)
    return (int(places[0]), int(places[-1]) + 1) if places.size else (0, 0)


def _places(length: int, margin: int, step: int, middle: float, reach: float) -> NDArray[np.int64]:
    """List pixels ``step`` apart, one of them nearest the middle, whose windows end on the map and within ``reach``."""
    low = max(margin, math.ceil(middle - reach))
    high = min(length - 1 - margin, math.floor(middle + reach))
    nearest = round(middle)
    first = nearest + step * math.ceil((low - nearest) / step)
    return np.arange(first, high + 1, step, dtype=np.int64)
