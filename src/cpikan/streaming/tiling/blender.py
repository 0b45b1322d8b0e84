"""Blending by ramps, along rows of tiles and then between them: no weight map, no division, no image in memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cpikan.partition import Box, Intervals
from cpikan.streaming.tiling.grid import TileGrid
from cpikan.streaming.tiling.overlap import Disagreement
from cpikan.streaming.tiling.ramps import rising


class Blender:
    """Joins tiles of one grid. Separable windows are differences of ramps, and so

        sum_i w_i u_i = u_0 + sum_i ramp_i (u_i - u_(i-1)):

    where neighbours agree the result is exactly their value, up to the rim. ``halo`` takes each pixel from the tile
    whose core holds it, bit for bit. ``disagreement`` counts how far neighbours differ where they meet. The order of
    the sums is that of the grid, whatever the batches and processes.
    """

    def __init__(self, grid: TileGrid, window: str, disagreement: Disagreement | None = None) -> None:
        self.grid = grid
        self.disagreement = disagreement
        self._halo = window == "halo"
        self._weights = tuple(rising(window, axis.ramp) for axis in (grid.rows, grid.columns))

    def rows_of(self, i: int) -> tuple[int, int]:
        """The image rows to which row i of tiles gives weight."""
        top, bottom = self.grid.rows.support(i)
        return top, min(bottom, self.grid.shape[0])

    def across(self, box: Box[int], values: np.ndarray, band: np.ndarray) -> None:
        """Put one tile (..., h, w) into ``band`` (..., rows of its row of tiles, W); tiles come from left to right."""
        top, bottom = self.rows_of(box.position[0])
        columns, j = self.grid.columns, box.position[1]
        start, stop = columns.support(j)
        stop = min(stop, self.grid.shape[1])
        first_row, first = box.extent[0][0], box.extent[1][0]
        tile = values[..., top - first_row : bottom - first_row, start - first : stop - first]
        shared = columns.ramp if j else 0
        band[..., start + shared : stop] = tile[..., shared:]
        if shared:
            self._join(band[..., start : start + shared], tile[..., :shared], 1)

    def down(self, i: int, carry: np.ndarray | None, band: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Blend a band with the last rows of the one above (``carry``): its finished rows, and the next carry.

        Without a carry the upper ramp stays as it is: on the first band, and where only the next carry is wanted.
        """
        rows = self.grid.rows
        if carry is not None:
            self._join(carry, band[..., : rows.ramp, :], 0)
            band[..., : rows.ramp, :] = carry
        if i == len(rows) - 1:
            return band, None
        done = rows.ramps[i] - self.rows_of(i)[0]
        return band[..., :done, :], band[..., done:, :].copy() if rows.ramp else None

    def _join(self, old: np.ndarray, new: np.ndarray, axis: int) -> None:
        """Let ``old`` hand over to ``new`` along the ramp, in place."""
        weights = self._weights[axis]
        with np.errstate(invalid="ignore"):  # infinite values have no difference
            if self.disagreement is not None:
                self.disagreement.add(old, np.subtract(new, old, dtype=old.dtype))
            if self._halo:
                half = len(weights) // 2
                cut = np.s_[..., half:, :] if axis == 0 else np.s_[..., half:]
                old[cut] = new[cut]
                return
            step = np.subtract(new, old, dtype=old.dtype)
            step *= (weights if axis else weights[:, None]).astype(old.real.dtype)
            old += step


def spans(axis: Intervals[int], size: int) -> Iterator[range]:
    """The pieces of an axis in batches of at most ``size``."""
    for first in range(0, len(axis), size):
        yield range(first, min(first + size, len(axis)))
