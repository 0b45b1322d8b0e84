"""Partition: the boxes with overlaps that cover an image or a domain, and their windows that sum to one."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np

from cpikan.errors import InputError
from cpikan.partition.intervals import Intervals, Number, split_at, split_range, spread_tiles
from cpikan.partition.windows import Profile, window


@dataclass(frozen=True)
class Box(Generic[Number]):
    """One member of a partition: the index-th box, at ``position`` of the grid of boxes.

    ``extent`` is all it sees and ``core`` what it alone owns, each (start, stop) per axis, half open; ``next_start`` is
    where the next box of each axis begins, after the last one the end of the axis. Slices are for tiles, of whole pixels.
    """

    index: int
    position: tuple[int, ...]
    extent: tuple[tuple[Number, Number], ...]
    core: tuple[tuple[Number, Number], ...]
    next_start: tuple[Number, ...]

    @property
    def shape(self) -> tuple[Number, ...]:
        """Return the lengths of the extent; for a tile its shape in pixels."""
        return tuple(stop - start for start, stop in self.extent)

    @property
    def slices(self) -> tuple[slice, ...]:
        """Return the extent as an index of an image."""
        return tuple(slice(start, stop) for start, stop in self.extent)

    @property
    def core_slices(self) -> tuple[slice, ...]:
        """Return the core as an index of an image."""
        return tuple(slice(start, stop) for start, stop in self.core)

    @property
    def core_inside(self) -> tuple[slice, ...]:
        """Return the core as an index of the tile that `view` gives."""
        origin = (start for start, _ in self.extent)
        return tuple(slice(start - o, stop - o) for (start, stop), o in zip(self.core, origin, strict=True))

    def view(self, image: np.ndarray) -> np.ndarray:
        """Cut the extent of a tile out of the last axes of ``image``, a view and no copy."""
        index: tuple[Any, ...] = (..., *self.slices)
        return image[index]

    def core_view(self, image: np.ndarray) -> np.ndarray:
        """Cut the core of a tile out of the last axes of ``image``, a view and no copy; the cores make up the image."""
        index: tuple[Any, ...] = (..., *self.core_slices)
        return image[index]


@dataclass(frozen=True)
class Partition(Generic[Number]):
    """A grid of overlapping boxes, the product of one family of intervals per axis, numbered in row-major order.

    Made by ``Partition.tiles`` for an image (whole pixels) or ``Partition.subdomains`` for a domain (coordinates). At
    every point the windows of its boxes sum to one, and at most two per axis are not zero.
    """

    axes: tuple[Intervals[Number], ...]

    def __post_init__(self) -> None:
        if (
            not isinstance(self.axes, tuple)
            or not self.axes
            or not all(isinstance(one, Intervals) for one in self.axes)
        ):
            raise InputError(f"axes {self.axes!r} of a partition: make one by Partition.tiles or Partition.subdomains")

    @staticmethod
    def tiles(
        shape: Sequence[int],
        tile: int | Sequence[int],
        overlap: int | Sequence[int],
        *,
        ramp: int | Sequence[int] | None = None,
        multiple: int = 1,
    ) -> Partition[int]:
        """Cover an image of ``shape`` pixels with tiles at evenly spread starts that overlap by at least ``overlap``.

        ``tile`` and ``overlap`` are one number, or one per axis. ``ramp`` is the length of the blend inside the
        overlap: by default all of it, at most half a tile; 0 leaves the overlap as a halo that is read and thrown away,
        which reproduces the untiled result exactly for a method that looks no farther than half the overlap. Starts and
        sizes are multiples of ``multiple``, to which the image is grown: a network that halves its grid k times is equal
        under shifts of 2^k pixels only. Raises InputError for an overlap that is not below the tile, a ramp longer than
        the overlap or than half a tile, a tile that is no multiple, and sizes below one pixel.
        """
        sizes = per_axis(shape, len(shape), "image shape", 1)
        lengths = per_axis(tile, len(sizes), "tile", 1)
        overlaps = per_axis(overlap, len(sizes), "overlap", 0)
        longest = tuple(min(width, length // 2) for width, length in zip(overlaps, lengths, strict=True))
        ramps = longest if ramp is None else per_axis(ramp, len(sizes), "ramp", 0)
        for layout in zip(lengths, overlaps, ramps, strict=True):
            _check_tile(*layout, multiple)
        axes = zip(sizes, lengths, overlaps, ramps, strict=True)
        return Partition(tuple(spread_tiles(*axis, multiple) for axis in axes))

    @staticmethod
    def subdomains(
        lower: Sequence[float], upper: Sequence[float], counts: Sequence[int], overlap: float
    ) -> Partition[float]:
        """Cut the domain from ``lower`` to ``upper`` into ``counts`` boxes per axis with equal cores.

        ``overlap`` is the length of the ramp between neighbours as a share of the core, 0 (sharp cuts) or 1e-6 to 1.
        Raises InputError for an overlap outside that range, bounds that do not increase, and lists of different
        lengths.
        """
        if not len(lower) == len(upper) == len(counts) >= 1:
            raise InputError(
                f"lower, upper and counts have {len(lower)}, {len(upper)} and {len(counts)} entries: give one per axis"
            )
        _check_overlap(overlap)
        pieces = per_axis(counts, len(counts), "counts", 1)
        for low, high in zip(lower, upper, strict=True):
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise InputError(f"domain from {low} to {high} is empty: give finite bounds, the lower one first")
        return Partition(
            tuple(
                split_range(float(low), float(high), n, overlap)
                for low, high, n in zip(lower, upper, pieces, strict=True)
            )
        )

    @staticmethod
    def between(knots: Sequence[Sequence[float]], overlap: float = 0.0) -> Partition[float]:
        """Cut a domain at the places ``knots`` of every axis, its ends included, into boxes of any lengths.

        ``overlap`` is the length of the ramp between neighbours as a share of the axis's shortest core, as in
        ``subdomains``. Raises InputError for fewer than two places, and for those that do not rise.
        """
        _check_overlap(overlap)
        if not knots or any(len(places) < 2 for places in knots):
            raise InputError(f"knots {[list(places) for places in knots]}: give at least both ends of every axis")
        if not all(math.isfinite(place) for places in knots for place in places):
            raise InputError(f"knots {[list(places) for places in knots]}: give finite places")
        return Partition(tuple(split_at(places, overlap) for places in knots))

    @property
    def counts(self) -> tuple[int, ...]:
        """Count the boxes per axis."""
        return tuple(len(axis) for axis in self.axes)

    @property
    def shape(self) -> tuple[Number, ...]:
        """Return the size of the whole: pixels of the image, lengths of the domain."""
        return tuple(axis.upper - axis.lower for axis in self.axes)

    def __len__(self) -> int:
        return math.prod(self.counts)

    def __getitem__(self, index: int) -> Box[Number]:
        """Return the box with this number; raises IndexError outside [0, len)."""
        if not 0 <= index < len(self):
            raise IndexError(f"box {index} of {len(self)}")
        return self.at(tuple(int(i) for i in np.unravel_index(index, self.counts)))

    def __iter__(self) -> Iterator[Box[Number]]:
        return map(self.at, itertools.product(*map(range, self.counts)))

    def at(self, position: Sequence[int]) -> Box[Number]:
        """Return the box at a position of the grid, one number per axis; raises ValueError outside the grid."""
        index = int(np.ravel_multi_index(tuple(position), self.counts))
        return Box(
            index=index,
            position=tuple(position),
            extent=tuple(axis.extent(i) for axis, i in zip(self.axes, position, strict=True)),
            core=tuple(axis.core(i) for axis, i in zip(self.axes, position, strict=True)),
            next_start=tuple(axis.next_start(i) for axis, i in zip(self.axes, position, strict=True)),
        )

    def owner(self, point: Sequence[float]) -> Box[Number]:
        """Find the box whose core holds a pixel or a point; what lies outside belongs to the nearest box."""
        return self.at([axis.owner(x) for axis, x in zip(self.axes, point, strict=True)])

    def neighbours(self, index: int) -> tuple[int, ...]:
        """List the boxes that share a face, an edge or a corner with box ``index``, rising: windows may overlap."""
        position = self[index].position
        near = (range(max(i - 1, 0), min(i + 2, count)) for i, count in zip(position, self.counts, strict=True))
        indices = (int(np.ravel_multi_index(found, self.counts)) for found in itertools.product(*near))
        return tuple(found for found in indices if found != index)

    def window(self, index: int, points: np.ndarray) -> Profile:
        """Evaluate the window of a box at ``points``, shape (N, axes), float32 or float64.

        Returns the value (N,), the gradient (N, axes) and the unmixed second derivatives (N, axes). Pixel k of an image
        sits at k + 1/2.
        """
        position = self[index].position
        parts = [window(axis, i, points[:, d]) for d, (axis, i) in enumerate(zip(self.axes, position, strict=True))]
        values = np.stack([part.value for part in parts], axis=1)
        others = np.stack([np.delete(values, d, axis=1).prod(axis=1) for d in range(len(parts))], axis=1)
        return Profile(
            values.prod(axis=1),
            others * np.stack([part.d1 for part in parts], axis=1),
            others * np.stack([part.d2 for part in parts], axis=1),
        )


def _check_overlap(overlap: float) -> None:
    """Raise InputError for a share of a core that no ramp can have."""
    if not (overlap == 0 or 1e-6 <= overlap <= 1):
        raise InputError(f"overlap {overlap} is no usable share of a core: give 0, or 1e-6 to 1")


def _check_tile(length: int, overlap: int, ramp: int, multiple: int) -> None:
    """Raise InputError for a tile that cannot be on one axis."""
    room = -(-overlap // multiple) * multiple
    if overlap >= length:
        raise InputError(f"overlap {overlap} is not below the tile {length}: give at most {length - 1}")
    if length % multiple:
        near = max(length // multiple, 1) * multiple
        raise InputError(f"tile {length} is no multiple of {multiple}, which the model needs: give {near}")
    if room >= length:
        raise InputError(
            f"tile {length} has no room for the overlap {overlap} in steps of {multiple}, which the model needs: "
            f"give a tile of {room + multiple} or more"
        )
    if 2 * ramp > length:
        raise InputError(f"ramp {ramp} is more than half of the tile {length}: give at most {length // 2}")
    if ramp > overlap:
        raise InputError(f"ramp {ramp} is longer than the overlap {overlap}: give at most {overlap}")


def per_axis(given: int | Sequence[int], axes: int, what: str, least: int) -> tuple[int, ...]:
    """Return a whole number per axis, a single one for all; raises InputError for others and any below ``least``."""
    try:
        numbers = tuple(map(operator.index, given)) if isinstance(given, Sequence) else (operator.index(given),) * axes
    except TypeError:
        raise InputError(f"{what} {given!r} is not made of whole numbers: give pixels, such as 512") from None
    if len(numbers) != axes or not axes:
        raise InputError(f"{what} {given!r} has {len(numbers)} entries for {axes} axes: give one, or one per axis")
    if min(numbers) < least:
        raise InputError(f"{what} {given!r} is too small: give at least {least}")
    return numbers
