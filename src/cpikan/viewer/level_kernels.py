"""Coarser levels of a map: means of what is finite, beside them the pixel that stands out most from its neighbours."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from cpikan.compiled import compiled

_jit: Any = functools.partial(compiled, error_model="numpy", fastmath={"reassoc", "contract", "nsz"}, boundscheck=False)


@_jit
def _row_spots(above, row, below, spots):  # type: ignore[no-untyped-def]
    """Fill ``spots`` with how far pixels lie from the mean of two opposite neighbours, in the direction where that is least.

    A straight edge or a slope has a direction along which it is straight, a scratch has one along which it goes on; a pit or
    a spike has none. Directions that leave the map or meet NaN do not count.
    """
    width = row.size
    for x in range(width):
        spots[x] = 0.0
    for x in range(1, width - 1):
        value = row[x]
        across = value - 0.5 * (row[x - 1] + row[x + 1])
        down = value - 0.5 * (above[x] + below[x])
        falling = value - 0.5 * (above[x - 1] + below[x + 1])
        rising = value - 0.5 * (above[x + 1] + below[x - 1])
        least = np.float32(math.inf)
        spot = np.float32(0.0)
        take = abs(across) < least
        spot, least = across if take else spot, abs(across) if take else least
        take = abs(down) < least
        spot, least = down if take else spot, abs(down) if take else least
        take = abs(falling) < least
        spot, least = falling if take else spot, abs(falling) if take else least
        take = abs(rising) < least
        spots[x] = rising if take else spot


@_jit
def coarsen_heights(window, top, left, factor, limit, mean, pit):  # type: ignore[no-untyped-def]
    """Fill ``mean`` (h, w) with means of cells of ``factor`` x ``factor`` pixels of ``window``, from ``top``, ``left`` on.

    ``pit`` gets the pixel of a cell that stands out most from its neighbours, NaN where none does so by more than ``limit``.
    ``window`` has a row and a column more on each side where the map has them. The last cells may be cut by the end of the map.
    """
    rows, width = window.shape
    spots = np.zeros(width, np.float32)
    total, count = np.zeros(mean.shape[1], np.float32), np.zeros(mean.shape[1], np.int32)
    depth = np.zeros(mean.shape[1], np.float32)
    for cell in range(mean.shape[0]):
        total[:] = 0.0
        count[:] = 0
        depth[:] = limit
        pit[cell, :] = math.nan
        for y in range(top + cell * factor, min(top + (cell + 1) * factor, rows)):
            row = window[y]
            inside = 0 < y < rows - 1
            if inside:
                _row_spots(window[y - 1], row, window[y + 1], spots)
            for column in range(mean.shape[1]):
                for x in range(left + column * factor, min(left + (column + 1) * factor, width)):
                    value = row[x]
                    good = abs(value) < math.inf
                    total[column] += value if good else np.float32(0.0)
                    count[column] += 1 if good else 0
                    if inside and abs(spots[x]) > depth[column]:
                        depth[column] = abs(spots[x])
                        pit[cell, column] = value
        for column in range(mean.shape[1]):
            mean[cell, column] = total[column] / count[column] if count[column] else np.float32(math.nan)


def median_spot(rows: np.ndarray) -> float:
    """Compute the median of how far finite pixels of some rows stand out from their neighbours; NaN where there are none."""
    spots, found = np.zeros(rows.shape[1], np.float32), []
    for y in range(1, len(rows) - 1):
        _row_spots(rows[y - 1], rows[y], rows[y + 1], spots)
        found.append(np.abs(spots[1:-1][np.isfinite(rows[y, 1:-1])]))
    every = np.concatenate(found) if found else np.empty(0, np.float32)
    return float(np.median(every)) if every.size else math.nan
