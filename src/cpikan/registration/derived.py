"""Maps that are computed from others when their pixels are read: differences, means, windows, masks, filled holes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.storage.maps import LazyMap
from cpikan.surface.apertures.aperture import Aperture
from cpikan.surface.filters.gaussian import GaussianMean

FloatArray = NDArray[np.float64]
HELD = 0.5  # share of weight around a pixel that is valid where it is filled: less, and it lies outside rather than in a hole


def _shape(source: Any) -> tuple[int, int]:
    return int(source.shape[0]), int(source.shape[1])


class Difference(LazyMap):
    """One map less another of the same shape, NaN where either is."""

    def __init__(self, first: Any, second: Any) -> None:
        super().__init__(_shape(first), np.dtype(np.float64))
        self._pair = first, second

    def _read(self, rows: range, columns: range) -> np.ndarray:
        one, two = (_window(source, rows, columns) for source in self._pair)
        return one - two


class Mean(LazyMap):
    """The mean of maps of one shape over those that are valid at each pixel, at least ``fewest`` of them."""

    def __init__(self, maps: Sequence[Any], fewest: int = 1) -> None:
        super().__init__(_shape(maps[0]), np.dtype(np.float64))
        self._maps, self._fewest = maps, fewest

    def _read(self, rows: range, columns: range) -> np.ndarray:
        total, count = np.zeros((len(rows), len(columns))), np.zeros((len(rows), len(columns)))
        for source in self._maps:
            heights = _window(source, rows, columns)
            valid = np.isfinite(heights)
            total += np.where(valid, heights, 0.0)
            count += valid
        with np.errstate(invalid="ignore"):
            return np.where(count >= self._fewest, total / count, np.nan)


class Window(LazyMap):
    """Rows from ``top`` and columns from ``left`` of a quantity of a map."""

    def __init__(self, source: Any, corner: tuple[int, int], shape: tuple[int, int]) -> None:
        super().__init__(shape, np.dtype(source.dtype))
        self._source, self._corner = source, corner

    def _read(self, rows: range, columns: range) -> np.ndarray:
        top, left = self._corner
        return np.asarray(self._source[top + rows.start : top + rows.stop, left + columns.start : left + columns.stop])


class Between(LazyMap):
    """Heights from ``low`` to ``high``, NaN elsewhere."""

    def __init__(self, source: Any, low: float, high: float) -> None:
        super().__init__(_shape(source), np.dtype(np.float64))
        self._source, self._limits = source, (low, high)

    def _read(self, rows: range, columns: range) -> np.ndarray:
        heights = _window(self._source, rows, columns)
        low, high = self._limits
        with np.errstate(invalid="ignore"):
            return np.where((heights >= low) & (heights <= high), heights, np.nan)


class Grown(LazyMap):
    """A map whose missing pixels have spread by ``reach`` pixels along rows and columns (a square)."""

    def __init__(self, source: Any, reach: int) -> None:
        super().__init__(_shape(source), np.dtype(np.float64))
        self._source, self._reach = source, reach

    def _read(self, rows: range, columns: range) -> np.ndarray:
        wide = [
            range(max(part.start - self._reach, 0), min(part.stop + self._reach, length))
            for part, length in zip((rows, columns), self.shape, strict=True)
        ]
        heights = _window(self._source, wide[0], wide[1])
        missing = (~np.isfinite(heights)).astype(np.int64)
        for axis, (part, around) in enumerate(zip((rows, columns), wide, strict=True)):
            before = np.insert(np.cumsum(missing, axis), 0, 0, axis)
            place = np.arange(part.start, part.stop)
            low = np.maximum(place - self._reach, around.start) - around.start
            high = np.minimum(place + self._reach + 1, around.stop) - around.start
            missing = (np.take(before, high, axis) - np.take(before, low, axis) > 0).astype(np.int64)
        first = rows.start - wide[0].start, columns.start - wide[1].start
        kept = heights[first[0] : first[0] + len(rows), first[1] : first[1] + len(columns)]
        return np.where(missing > 0, np.nan, kept)


class Holes:
    """The missing pixels of a map that are held by valid ones, and the Gaussian mean there.

    A pixel is held where at least half of the weight of the Gaussian of ``nesting_px`` around it falls on valid pixels: true
    in holes up to about that size, never outside a straight or a round edge. With an aperture only pixels inside it.
    """

    def __init__(self, source: Any, nesting_px: float, aperture: Aperture | None = None) -> None:
        if not nesting_px >= 2:
            raise InputError(
                f"reach of a filling {nesting_px:g} is below two pixels: give about the size of the largest hole"
            )
        self.source, self._aperture = source, aperture
        self._mean = GaussianMean(source, nesting_px)
        self._share = GaussianMean(_Valid(source), nesting_px)

    def rows(self, start: int, stop: int) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Give heights of rows with the holes filled, and which pixels those are."""
        heights = np.array(self.source[start:stop], np.float64)
        missing = ~np.isfinite(heights)
        if not missing.any():
            return heights, missing
        if self._aperture is not None:
            missing &= self._aperture.rows(start, stop, heights.shape[1]) != 0
        missing &= self._share.rows(start, stop) >= HELD
        heights[missing] = self._mean.rows(start, stop)[missing]
        return heights, missing & np.isfinite(heights)


class Filled(LazyMap):
    """The heights of `Holes`, or with ``flags`` those of the map with ``mark`` where a hole was filled."""

    def __init__(self, holes: Holes, flags: Any = None, mark: int = 0) -> None:
        kind = np.dtype(np.float64) if not mark else np.dtype(np.uint8)
        super().__init__(_shape(holes.source), kind)
        self._holes, self._flags, self._mark = holes, flags, mark

    def _read(self, rows: range, columns: range) -> np.ndarray:
        heights, filled = self._holes.rows(rows.start, rows.stop)
        part = slice(columns.start, columns.stop)
        if not self._mark:
            return heights[:, part]
        old = 0 if self._flags is None else np.asarray(self._flags[rows.start : rows.stop, part])
        return np.where(filled[:, part], old | np.uint8(self._mark), old).astype(np.uint8)


class _Valid(LazyMap):
    """1 where a map is valid, else 0."""

    def __init__(self, source: Any) -> None:
        super().__init__(_shape(source), np.dtype(np.float64))
        self._source = source

    def _read(self, rows: range, columns: range) -> np.ndarray:
        return np.isfinite(_window(self._source, rows, columns)).astype(np.float64)


def _window(source: Any, rows: range, columns: range) -> FloatArray:
    return np.asarray(source[rows.start : rows.stop, columns.start : columns.stop], np.float64)
