"""The tiles of an image: boxes that overlap, and cores that partition it."""

from __future__ import annotations

from dataclasses import dataclass

from cpikan.partition.intervals import Intervals
from cpikan.partition.partition import Partition


@dataclass(frozen=True)
class Span:
    """Pixels [start, stop) of a tile along one axis, [core_start, core_stop) that it owns, and where the next starts."""

    start: int
    stop: int
    core_start: int
    core_stop: int
    next_start: int


@dataclass(frozen=True)
class TileBox:
    """One tile: its place in the grid and its spans along y and x."""

    row: int
    column: int
    y: Span
    x: Span

    @property
    def window(self) -> tuple[slice, slice]:
        return slice(self.y.start, self.y.stop), slice(self.x.start, self.x.stop)

    @property
    def core(self) -> tuple[slice, slice]:
        return slice(self.y.core_start, self.y.core_stop), slice(self.x.core_start, self.x.core_stop)

    @property
    def core_inside(self) -> tuple[slice, slice]:
        """The core in the coordinates of the tile."""
        y, x = self.y, self.x
        return (
            slice(y.core_start - y.start, y.core_stop - y.start),
            slice(x.core_start - x.start, x.core_stop - x.start),
        )


def tile_grid(shape: tuple[int, int], tile: int, overlap: int) -> tuple[TileBox, ...]:
    """Tiles of an image (H, W), row by row, read off the partition of the image."""
    rows, columns = (_spans(axis) for axis in Partition.tiles(shape, tile, overlap, ramp=0).axes)
    return tuple(TileBox(r, c, y, x) for r, y in enumerate(rows) for c, x in enumerate(columns))


def _spans(axis: Intervals[int]) -> tuple[Span, ...]:
    nexts = (*axis.starts[1:], axis.upper)
    return tuple(Span(*axis.extent(i), *axis.core(i), nexts[i]) for i in range(len(axis)))
