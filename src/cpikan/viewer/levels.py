"""Coarser levels of one quantity of a map, made while its rows are read, kept in files without names."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.pipeline.maps.pyramid import halve, level_shapes
from cpikan.storage.maps import MapArray
from cpikan.storage.writers.layout import QUANTITIES
from cpikan.viewer.level_kernels import coarsen_heights, median_spot

CHUNK = 512
_BASE = 2  # the finest level that is made while rows are read: a sixteenth of the pixels; level 1 follows, or is made by tiles
_FACTOR = 1 << _BASE
# a pixel is shown where it lies further from its neighbours than noise ever does: eight standard deviations, of which the
# median of the spots of white noise is 0.275
_SPOTS = 8 / 0.275
_SAMPLES = 16
_PIECE = 128  # rows of level 1 that are there or lost together
_STRIP = 4096  # columns of level 1 that are made at a time


class Levels:
    """Tiles (512, 512) of all levels of a quantity, finest first, each half of the one before as `level_shapes` says.

    A pixel of a coarser level is the mean of the finite ones of its cell, but where one of them stands out from its neighbours
    it is that one (heights), or as the quantity coarsens. Level 0 is the array itself. `fill` makes the others from rows of
    it, a band at a time; a tile whose rows were not filled yet is NaN (flags: invalid).
    """

    def __init__(self, name: str, array: MapArray) -> None:
        self.quantity = QUANTITIES[name]
        self.dtype = self.quantity.dtype
        self.shapes = level_shapes((int(array.shape[0]), int(array.shape[1])))
        self._array = array
        self._heights = name == "height_nm"
        self._kept = [self._new(shape) for shape in self.shapes[_BASE:]]
        self._pits = [self._new(shape) for shape in self.shapes[_BASE:]] if self._heights else []
        self._limit: float | None = None
        self.lost: str | None = None  # why some rows are not in the coarser levels
        self._filled = 0  # rows of level 0 that the coarser levels were made of
        self._halved: NDArray[Any] | None = None  # level 1, of which the first rows are made
        self._halved_rows = 0

    @property
    def band_rows(self) -> int:
        """Count the rows that are filled at a time: a whole number of them in every level."""
        return max(CHUNK, 1 << (len(self.shapes) - 1))

    def fill(self, start: int, stop: int) -> None:
        """Make the coarser levels from rows ``start:stop`` of the finest, a multiple of `band_rows` or the end.

        Rows that the file has lost stay empty, and ``lost`` says why.
        """
        if not self._kept:
            return
        window, before = self._around(start, stop)
        if window is None:
            return
        rows = slice(start // _FACTOR, -(-stop // _FACTOR))
        if self._heights:
            self._fill_heights(window, before, rows)
        else:
            for _ in range(_BASE):
                window = halve(window[before:][: stop - start] if _ == 0 else window, self.quantity.name)
            self._kept[0][rows] = window
        for finer, coarser in zip(range(len(self._kept)), range(1, len(self._kept)), strict=False):
            below, rows = rows, slice(rows.start // 2, -(-rows.stop // 2))
            self._kept[coarser][rows] = halve(np.asarray(self._kept[finer][below]), self.quantity.name)
            if self._heights:
                self._pits[coarser][rows] = _strongest(self._pits[finer][below], self._kept[finer][below])

    def _around(self, start: int, stop: int) -> tuple[NDArray[Any] | None, int]:
        """Read rows ``start:stop`` with one more on each side where there are such; tells how many come before ``start``."""
        for before, after in ((min(1, start), min(1, self.shapes[0][0] - stop)), (0, 0)):
            try:
                return self._rows(start - before, stop + after), before
            except InputError as failure:
                reason = str(failure)
        self.lost = self.lost or reason
        return None, 0

    def fill_all(self, workers: int = 2) -> None:
        """Make all coarser levels; level 1 where it is the only one."""
        if not self._kept:
            return self.halve_all()
        rows, height = self.band_rows, self.shapes[0][0]
        with ThreadPoolExecutor(workers) as pool:
            for done in [pool.submit(self.fill, y, min(height, y + rows)) for y in range(0, height, rows)]:
                done.result()
        self._filled = height
        return None

    def advance(self, rows: int) -> None:
        """Make the coarser levels of the first ``rows`` rows, where that was not done: the others are not there yet."""
        cell, height = 1 << (len(self.shapes) - 1), self.shapes[0][0]
        stop = height if rows >= height else (rows - 1) // cell * cell  # how a row stands out is seen from the next one
        while self._filled < stop:
            after = min(stop, self._filled + self.band_rows)
            self.fill(self._filled, after)
            self._filled = after

    def halve_all(self) -> None:
        """Make level 1 and keep it, band by band, while tiles are asked for; does nothing where there is no room for it."""
        if len(self.shapes) == 1 or self._halved is not None:
            return
        try:
            halved = self._new(self.shapes[1])
        except OSError:
            return
        height, width = self.shapes[1]
        self._halved = halved
        for top in range(0, height, CHUNK):
            bottom = min(height, top + CHUNK)
            for left in range(0, width, _STRIP):
                right = min(width, left + _STRIP)
                try:
                    halved[top:bottom, left:right] = self._halve(top, bottom, left, right)
                except InputError:  # lost: said by each tile that is asked for
                    return
            self._halved_rows = bottom

    def tile(self, level: int, row: int, column: int) -> NDArray[Any]:
        """Make the tile of a level, whole; what lies beyond the map is NaN (0 of integers)."""
        height, width = self.shapes[level]
        top, left = row * CHUNK, column * CHUNK
        if not (0 <= top < height and 0 <= left < width):
            raise IndexError(f"tile {row}, {column} of level {level} is outside the map")
        bottom, right = min(height, top + CHUNK), min(width, left + CHUNK)
        found = self._window(level, top, bottom, left, right)
        if found.shape == (CHUNK, CHUNK):
            return np.ascontiguousarray(found, self.dtype)
        tile = np.full((CHUNK, CHUNK), np.nan if self.dtype.kind == "f" else 0, self.dtype)
        tile[: bottom - top, : right - left] = found
        return tile

    def _window(self, level: int, top: int, bottom: int, left: int, right: int) -> NDArray[Any]:
        if level == 0:
            return np.asarray(self._array[top:bottom, left:right])
        if level >= _BASE:
            part = slice(top, bottom), slice(left, right)
            kept = np.asarray(self._kept[level - _BASE][part])
            return _shown(kept, np.asarray(self._pits[level - _BASE][part])) if self._heights else kept
        if self._halved is not None and bottom <= self._halved_rows:
            return np.asarray(self._halved[top:bottom, left:right])
        return self._halve(top, bottom, left, right)

    def _halve(self, top: int, bottom: int, left: int, right: int) -> NDArray[Any]:
        """Make a part of level 1; rows of it that the file has lost are NaN, InputError where these are all."""
        try:
            return self._halved_part(top, bottom, left, right)
        except InputError as failure:
            self.lost = self.lost or str(failure)
            starts = range(top, bottom, _PIECE)
            pieces = [self._halved_or_none(start, min(bottom, start + _PIECE), left, right) for start in starts]
            if not any(piece is not None for piece in pieces):
                raise
            found = np.full((bottom - top, right - left), self.quantity.fill, self.dtype)
            for start, piece in zip(starts, pieces, strict=True):
                if piece is not None:
                    found[start - top : start - top + len(piece)] = piece
            return found

    def _halved_or_none(self, top: int, bottom: int, left: int, right: int) -> NDArray[Any] | None:
        for margin in (1, 0):
            try:
                return self._halved_part(top, bottom, left, right, margin)
            except InputError:
                continue
        return None

    def _halved_part(self, top: int, bottom: int, left: int, right: int, margin: int = 1) -> NDArray[Any]:
        """Make a part of level 1, with ``margin`` rows more on each side to see which pixels stand out."""
        above, beside = min(margin, top), min(1, left)
        if not self._heights:
            return halve(np.asarray(self._array[2 * top : 2 * bottom, 2 * left : 2 * right]), self.quantity.name)
        fine = self._array[2 * top - above : 2 * bottom + margin, 2 * left - beside : 2 * right + 1]
        window = np.ascontiguousarray(fine, np.float32)
        return _shown(*self._coarse(window, (above, beside), 2, (bottom - top, right - left)))

    def _fill_heights(self, window: NDArray[Any], before: int, rows: slice) -> None:
        shape = (rows.stop - rows.start, self.shapes[_BASE][1])
        self._kept[0][rows], self._pits[0][rows] = self._coarse(window, (before, 0), _FACTOR, shape)

    def _coarse(
        self, window: NDArray[Any], corner: tuple[int, int], factor: int, shape: tuple[int, int]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        mean, pit = np.empty(shape, np.float32), np.empty(shape, np.float32)
        coarsen_heights(window, *corner, factor, np.float32(self.limit), mean, pit)
        return mean, pit

    @property
    def limit(self) -> float:
        """Measure how far a pixel must stand out to be shown, on sixteen strips of the rows that are there."""
        if self._limit is None:
            height = getattr(self._array, "rows", self.shapes[0][0])
            starts = {y * max(0, height - 8) // _SAMPLES for y in range(_SAMPLES)}
            strips = (self._around(start, min(height, start + 8))[0] for start in sorted(starts))
            spots = [median_spot(strip) for strip in strips if strip is not None]
            finite = [spot for spot in spots if np.isfinite(spot)]
            if not finite:
                return float("inf")
            self._limit = _SPOTS * float(np.median(finite))
        return self._limit

    def _rows(self, start: int, stop: int) -> NDArray[Any]:
        kind = np.float32 if self._heights else self.dtype
        return np.ascontiguousarray(self._array[start:stop, :], kind)

    def _new(self, shape: tuple[int, int]) -> NDArray[Any]:
        array = unnamed_array(shape, self.dtype)
        if self.quantity.fill:
            array[:] = self.quantity.fill
        return array


def unnamed_array(shape: tuple[int, int], dtype: np.dtype) -> NDArray[Any]:
    """Map a new file of zeros into memory, which is gone with the array; raises OSError where there is no room."""
    with tempfile.TemporaryFile() as file:  # the mapping holds what has no name
        size = shape[0] * shape[1] * dtype.itemsize
        if hasattr(os, "posix_fallocate"):  # a full disk shows now, not as a signal when the mapping is written
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
        return cast(NDArray[Any], np.memmap(file, dtype, "r+", shape=shape))


def _shown(mean: NDArray[Any], pit: NDArray[Any]) -> NDArray[Any]:
    return np.where(np.isfinite(pit), pit, mean)


def _strongest(pits: NDArray[Any], means: NDArray[Any]) -> NDArray[Any]:
    """Keep of four cells the pit that lies furthest from its cell's mean."""
    height, width = (-(-size // 2) for size in pits.shape)
    best = np.full((height, width), np.nan, np.float32)
    depth = np.zeros((height, width), np.float32)
    for y in (0, 1):
        for x in (0, 1):
            pit, mean = pits[y::2, x::2], means[y::2, x::2]
            part = slice(0, pit.shape[0]), slice(0, pit.shape[1])
            deeper = np.abs(pit - mean) > depth[part]
            best[part] = np.where(deeper, pit, best[part])
            depth[part] = np.where(deeper, np.abs(pit - mean), depth[part])
    return best
