"""The significant dales of a map of any size: watershed with Wolf pruning, swept in bands of rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.surface.filters.gaussian import Rows

FloatArray = NDArray[np.float64]

PRUNING = 0.05  # of Sz (ISO 25178-3)
_BAND_PIXELS = 1 << 21


class _Band(NamedTuple):
    """Rows [start, stop) of a map with the rows beside them that there are: float64, the first own one at ``first``."""

    start: int
    stop: int
    first: int
    heights: FloatArray

    @property
    def own(self) -> slice:
        return slice(self.first, self.first + self.stop - self.start)


def height_bands(source: Rows, sign: float = 1.0) -> Iterator[_Band]:
    """Read a map times ``sign`` (1 for dales, -1 for hills) from top to bottom."""
    height, width = (int(size) for size in source.shape)
    step = max(1, _BAND_PIXELS // width)
    for start in range(0, height, step):
        stop, top = min(start + step, height), max(start - 1, 0)
        yield _Band(start, stop, start - top, sign * np.asarray(source[top : min(stop + 1, height)], np.float64))


@dataclass(frozen=True)
class Dales:
    """The dales of a map: each pixel (H, W) has a basin, -1 where it is missing, and each basin a dale.

    ``pits`` are flat indices of the deepest pixel of each dale, ``depths_nm`` the heights there, ``spill_nm`` where it
    overflows, inf for none; ``open`` tells which touch the map's edge or a hole.
    """

    basins: Int32[np.ndarray, "h w"]
    dales: NDArray[np.int32]
    pits: NDArray[np.int64]
    depths_nm: FloatArray
    spill_nm: FloatArray
    open: NDArray[np.bool_]

    @property
    def labels(self) -> Int32[np.ndarray, "h w"]:
        """Number the dale of each pixel from 0, -1 where it is missing."""
        return np.append(self.dales, np.int32(-1))[self.basins]


def find_dales(height_nm: Rows, pruning: float = PRUNING, sign: float = 1.0) -> Dales:
    """Segment a map (H, W) times ``sign`` into dales at least ``pruning`` x Sz deep up to where they overflow.

    Each pixel runs down to its lowest neighbour of eight; a dale less deep than that joins the neighbour across its
    lowest saddle, the shallowest first (Wolf, Fortschr.-Ber. VDI 5/33 (1991); Scott, Int. J. Mach. Tools Manuf. 44, 635
    (2004)). Hills are the dales of the negative map (``sign`` -1). Three sweeps in bands; kept are 5 bytes a pixel, and some
    30 for each place where two basins meet. Raises InputError for a pruning that is no share.
    """
    from cpikan.surface.areal.watershed_kernel import PIT, descend, fill_basins, join_dales

    if not 0 <= pruning <= 1:
        raise InputError(f"pruning {pruning} is no share of Sz: give 0 to 1, such as 0.05")
    height, width = (int(size) for size in height_nm.shape)
    ways, basins, pit_heights, highest = (
        np.empty((height, width), np.uint8),
        np.empty((height, width), np.int32),
        [],
        -np.inf,
    )
    for band in height_bands(height_nm, sign):
        descend(band.heights, band.first, band.own.stop, ways[band.start : band.stop])
        own = band.heights[band.own]
        pit_heights.append(own[ways[band.start : band.stop] == PIT])
        highest = max(highest, float(np.max(own, initial=-np.inf, where=np.isfinite(own))))
    count = fill_basins(ways, basins)
    pixels = np.flatnonzero(ways.reshape(-1) == PIT)
    del ways
    deepest = np.concatenate(pit_heights)
    ends, levels, edge = _meetings(height_nm, sign, basins, count)
    parent, spill = np.arange(count, dtype=np.int32), np.full(count, np.inf)
    threshold = pruning * (highest - float(deepest.min(initial=highest))) if count else 0.0
    join_dales(ends, levels, np.argsort(levels, kind="stable"), deepest, threshold, parent, spill)
    while not np.array_equal(parent, parent[parent]):  # all ways to their ends, twice as far every time
        parent = parent[parent]
    lowest, numbers = np.unique(parent, return_inverse=True)
    touching = np.zeros(lowest.size, bool)
    touching[numbers[edge]] = True
    return Dales(basins, numbers.astype(np.int32), pixels[lowest], deepest[lowest], spill[lowest], touching)


def _meetings(
    source: Rows, sign: float, basins: NDArray[np.int32], count: int
) -> tuple[NDArray[np.int32], NDArray[np.floating], NDArray[np.bool_]]:
    """Find all places where basins meet: pairs, heights (as exact as the map's own) and which basins touch an edge.

    Of the places of a pair in one band the lowest counts, the first of several: a pair that does not join there does not
    join higher up.
    """
    from cpikan.surface.areal.watershed_kernel import meetings

    exact = getattr(source, "dtype", np.dtype(np.float64))
    kind = exact if exact in (np.float32, np.float16) else np.dtype(np.float64)
    edge, found = np.zeros(count, bool), [(np.empty((0, 2), np.int32), np.empty(0, kind))]
    room = _BAND_PIXELS
    for band in height_bands(source, sign):
        part = basins[band.start - band.first : band.start - band.first + len(band.heights)]
        while True:
            ends, levels = np.empty((room, 2), np.int32), np.empty(room)
            met = meetings(band.heights, part, band.first, band.own.stop, edge, ends, levels)
            if met <= room:
                break
            room = met
        order = np.lexsort((levels[:met], ends[:met, 1], ends[:met, 0]))
        pairs = ends[order]
        lowest = np.append(True, (pairs[1:] != pairs[:-1]).any(axis=1)) if met else np.empty(0, bool)
        kept = np.sort(order[lowest])
        found.append((ends[kept], levels[kept].astype(kind)))
    return np.concatenate([one for one, _ in found]), np.concatenate([one for _, one in found]), edge
