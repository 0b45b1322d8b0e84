"""The tiles of an image: boxes that overlap, and cores that partition it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """Pixels [start, stop) of a tile along one axis and [core_start, core_stop) that it owns."""

    start: int
    stop: int
    core_start: int
    core_stop: int


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


def split_axis(length: int, tile: int, overlap: int) -> tuple[Span, ...]:
    """Spans of at most ``tile`` pixels that share exactly ``overlap`` with the next; cores meet in the middle of it."""
    step = tile - overlap
    count = max(1, -(-(length - overlap) // step))
    edges = [0, *(i * step + overlap // 2 for i in range(1, count)), length]
    return tuple(Span(i * step, min(i * step + tile, length), edges[i], edges[i + 1]) for i in range(count))


def tile_grid(shape: tuple[int, int], tile: int, overlap: int) -> tuple[TileBox, ...]:
    """Tiles of an image (H, W), row by row."""
    columns = split_axis(shape[1], tile, overlap)
    rows = split_axis(shape[0], tile, overlap)
    return tuple(TileBox(r, c, y, x) for r, y in enumerate(rows) for c, x in enumerate(columns))
