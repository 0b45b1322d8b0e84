"""Affine maps between the pixels of two maps, and a map read through one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.registration.kernels import resample_tile
from cpikan.storage.maps import LazyMap

FloatArray = NDArray[np.float64]

_TILE = 512


@dataclass(frozen=True)
class Affine:
    """Where pixels of an output come from: row and column of the source are ``matrix`` (2, 3) times (row, column, 1)."""

    matrix: FloatArray

    @classmethod
    def about(
        cls,
        source: tuple[float, float],
        output: tuple[float, float],
        turn_deg: float = 0.0,
        scale: float = 1.0,
        aspect: float = 1.0,
        mirrored: bool = False,
    ) -> Affine:
        """Lay the source's pixel ``source`` (row, column) onto the output's ``output``, turned, scaled, mirrored.

        The source is mirrored left to right first, then enlarged by ``scale`` and turned counter-clockwise by ``turn_deg``,
        row 0 on top; rows lie ``aspect`` columns apart.
        """
        cosine, sine = _exact(turn_deg)
        # in (y down, x) of equal units the content turns counter-clockwise, so places are looked up clockwise
        turned = np.array([[cosine, sine], [-sine, cosine]]) / scale
        stretch = np.diag([aspect, 1.0])
        linear = np.linalg.inv(stretch) @ turned @ stretch
        if mirrored:
            linear = np.diag([1.0, -1.0]) @ linear
        offset = np.asarray(source) - linear @ np.asarray(output)
        return cls(np.column_stack([linear, offset]))

    @property
    def whole_pixels(self) -> bool:
        """Tell whether every pixel comes from one pixel."""
        return bool(np.abs(self.matrix - np.round(self.matrix)).max() < 1e-12)

    def at(self, rows: Any, columns: Any) -> FloatArray:
        """Give rows and columns of the source, (2, ...)."""
        y, x = np.broadcast_arrays(np.asarray(rows, np.float64), np.asarray(columns, np.float64))
        found: FloatArray = np.tensordot(self.matrix, np.stack([y, x, np.ones_like(y)]), 1)
        return found

    def inverse(self) -> Affine:
        """Give the map the other way; InputError where there is none."""
        if abs(np.linalg.det(self.matrix[:, :2])) < 1e-12:
            raise InputError("a map that is pressed onto a line cannot be undone: give another scale")
        linear = np.linalg.inv(self.matrix[:, :2])
        return Affine(np.column_stack([linear, -linear @ self.matrix[:, 2]]))


class ResampledMap(LazyMap):
    """A map of ``shape`` read through an `Affine`: NaN where the source has no pixel; memory of tiles of 512 pixels.

    Sampled by cubic convolution, linearly beside missing pixels; pixels that fall onto pixels keep their value.
    """

    def __init__(self, source: Any, affine: Affine, shape: tuple[int, int]) -> None:
        super().__init__(shape, np.dtype(np.float64))
        self._source, self._affine = source, affine

    def _read(self, rows: range, columns: range) -> np.ndarray:
        out = np.full((len(rows), len(columns)), np.nan)
        for top in range(rows.start, rows.stop, _TILE):
            for left in range(columns.start, columns.stop, _TILE):
                bottom, right = min(top + _TILE, rows.stop), min(left + _TILE, columns.stop)
                place = slice(top - rows.start, bottom - rows.start), slice(left - columns.start, right - columns.start)
                out[place] = self._tile(top, bottom, left, right)
        return out

    def _tile(self, top: int, bottom: int, left: int, right: int) -> FloatArray:
        out = np.full((bottom - top, right - left), np.nan)
        corners = self._affine.at([top, top, bottom - 1, bottom - 1], [left, right - 1, left, right - 1])
        first = np.maximum(np.floor(corners.min(1)).astype(int) - 2, 0)
        last = np.minimum(np.ceil(corners.max(1)).astype(int) + 3, self._source.shape)
        if (first < last).all():
            window = np.ascontiguousarray(self._source[first[0] : last[0], first[1] : last[1]], np.float64)
            resample_tile(window, first, self._affine.matrix, np.array([top, left]), out)
        return out


def _exact(turn_deg: float) -> tuple[float, float]:
    quarter = {0.0: (1.0, 0.0), 90.0: (0.0, 1.0), 180.0: (-1.0, 0.0), 270.0: (0.0, -1.0)}
    angle = turn_deg % 360
    return quarter.get(angle, (math.cos(math.radians(angle)), math.sin(math.radians(angle))))
