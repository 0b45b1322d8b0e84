"""The grid of tiles over an image: evenly spread starts, aligned to what the model's depth allows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from cpikan.errors import InputError
from cpikan.partition import Box, Intervals, Partition
from cpikan.partition.intervals import spread_tiles


@dataclass(frozen=True)
class TileGrid:
    """Tiles of one size over an image of ``shape`` (H, W), first at 0 and last flush with the end, row by row.

    ``partition`` covers the image, grown at the bottom and on the right to a multiple of ``multiple`` pixels.
    """

    shape: tuple[int, int]
    partition: Partition[int]
    multiple: int = 1

    @property
    def rows(self) -> Intervals[int]:
        return self.partition.axes[0]

    @property
    def columns(self) -> Intervals[int]:
        return self.partition.axes[1]

    @property
    def tile(self) -> tuple[int, int]:
        """Rows and columns of every tile."""
        return self.rows.stops[0], self.columns.stops[0]

    @property
    def overlap(self) -> tuple[int, int]:
        """The smallest overlap of neighbours on each axis; 0 where there is one tile only."""
        return _least_overlap(self.rows), _least_overlap(self.columns)

    @property
    def emitted(self) -> tuple[int, ...]:
        """Row i of tiles finishes the image rows [emitted[i], emitted[i + 1])."""
        return (0, *self.rows.ramps, self.shape[0])

    def __len__(self) -> int:
        return len(self.partition)

    def __iter__(self) -> Iterator[Box[int]]:
        return iter(self.partition)


def tile_grid(
    shape: tuple[int, int],
    tile: tuple[int, int],
    overlap: tuple[int, int],
    *,
    ramp: tuple[int, int] | None = None,
    multiple: int = 1,
) -> TileGrid:
    """Cover ``shape`` with the fewest tiles that overlap by at least ``overlap`` pixels, at evenly spread starts.

    Starts and sizes are multiples of ``multiple``: a network that halves its grid k times is equal under shifts of 2^k
    pixels only. A tile larger than the image is cut to it. ``ramp`` is centred in each overlap; by default as long as
    the overlap, at most half a tile. Raises InputError for an overlap that is not below the tile, a ramp longer than
    half a tile or than the overlap, and a tile that is no multiple.
    """
    ramps = ramp or (min(overlap[0], tile[0] // 2), min(overlap[1], tile[1] // 2))
    for length, width, blend in zip(tile, overlap, ramps, strict=True):
        if width >= length:
            raise InputError(f"overlap {width} is not below the tile {length}: give at most {length - 1}")
        if length % multiple:
            near = max(length // multiple, 1) * multiple
            raise InputError(f"tile {length} is no multiple of {multiple}, which the model needs: give {near}")
        if -(-width // multiple) * multiple >= length:
            raise InputError(
                f"tile {length} has no room for the overlap {width} in steps of {multiple}, which the model needs: "
                f"give a tile of {(-(-width // multiple) + 1) * multiple} or more"
            )
        if 2 * blend > length:
            raise InputError(f"ramp {blend} is more than half of the tile {length}: give at most {length // 2}")
        if blend > width:
            raise InputError(f"ramp {blend} is longer than the overlap {width}: give at most {width}")
    axes = tuple(
        _aligned(length, size, width, blend, multiple)
        for length, size, width, blend in zip(shape, tile, overlap, ramps, strict=True)
    )
    return TileGrid(shape, Partition(axes), multiple)


def _aligned(length: int, tile: int, overlap: int, ramp: int, multiple: int) -> Intervals[int]:
    """One axis: spread in units of ``multiple``, then ramps in the middle of the overlaps, in pixels."""
    units = spread_tiles(-(-length // multiple), tile // multiple, -(-overlap // multiple), 0)
    starts = tuple(start * multiple for start in units.starts)
    stops = tuple(stop * multiple for stop in units.stops)
    steps = [later - start for start, later in itertools.pairwise(starts)]
    width = min([ramp, *steps])
    begins = tuple((later + stop - width) // 2 for later, stop in zip(starts[1:], stops[:-1], strict=True))
    return Intervals(0, stops[-1], starts, stops, begins, width, tuple(begin + width // 2 for begin in begins))


def _least_overlap(axis: Intervals[int]) -> int:
    return min((stop - later for stop, later in zip(axis.stops, axis.starts[1:], strict=False)), default=0)
