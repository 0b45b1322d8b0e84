"""Intervals: one axis cut into overlapping pieces that hand over to each other on short ramps."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from cpikan.errors import InputError

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Intervals(Generic[Number]):
    """Pieces of the axis [lower, upper]; piece i reaches over [starts[i], stops[i]).

    Between the pieces i and i + 1 the weight passes from one to the other on the ramp that begins at ``ramps[i]`` and
    is ``ramp`` long; both pieces cover it, and ramps never overlap, so at most two pieces have weight anywhere.
    ``cuts[i]`` lies in the middle of that ramp: the cores [cuts[i - 1], cuts[i]) tile the axis without overlap. Whole
    numbers are pixels (pixel k is the span [k, k + 1), its sample sits at k + 1/2), other numbers are coordinates.
    """

    lower: Number
    upper: Number
    starts: tuple[Number, ...]
    stops: tuple[Number, ...]
    ramps: tuple[Number, ...]
    ramp: Number
    cuts: tuple[Number, ...]

    def __len__(self) -> int:
        return len(self.starts)

    def extent(self, i: int) -> tuple[Number, Number]:
        """Return the interval that piece i sees."""
        return self.starts[i], self.stops[i]

    def next_start(self, i: int) -> Number:
        """Return where piece i + 1 begins; after the last piece the end of the axis."""
        return self.starts[i + 1] if i + 1 < len(self.starts) else self.upper

    def core(self, i: int) -> tuple[Number, Number]:
        """Return the interval that piece i alone owns."""
        return (
            self.cuts[i - 1] if i else self.lower,
            self.cuts[i] if i < len(self.cuts) else self.upper,
        )

    def support(self, i: int) -> tuple[Number, Number]:
        """Return the interval where the window of piece i is not zero: its core and both ramps, in its extent."""
        return (
            self.ramps[i - 1] if i else self.lower,
            self.ramps[i] + self.ramp if i < len(self.ramps) else self.upper,
        )

    def owner(self, x: float) -> int:
        """Find the piece whose core holds x; a cut belongs to the upper piece, a point outside to the nearest end."""
        return bisect_right(self.cuts, x)


def spread_tiles(length: int, tile: int, overlap: int, ramp: int, multiple: int = 1) -> Intervals[int]:
    """Cover ``length`` pixels with the fewest tiles that overlap by at least ``overlap``, at evenly spread starts.

    No tile is a sliver and none leaves the image, whose length grows to a multiple of ``multiple`` as the starts of tiles
    are; a tile longer than the image is cut to it. The ramp sits in the middle of each overlap; it is shortened when
    tiles are so close that two ramps would meet. Needs 0 <= ramp <= overlap < tile, ramp <= tile / 2 and a tile that is a
    multiple.
    """
    length, room = -(-length // multiple), -(-overlap // multiple)  # in units of ``multiple`` pixels
    size = min(tile // multiple, length)
    count = 1 if length <= tile // multiple else -(-(length - room) // (tile // multiple - room))
    gaps = max(count - 1, 1)
    starts = tuple(i * (length - size) // gaps * multiple for i in range(count))
    stops = tuple(start + size * multiple for start in starts)
    width = min([ramp, *(later - start for start, later in itertools.pairwise(starts))])
    ramps = tuple((later + stop - width) // 2 for later, stop in zip(starts[1:], stops, strict=False))
    return Intervals(
        lower=0,
        upper=stops[-1],
        starts=starts,
        stops=stops,
        ramps=ramps,
        ramp=width,
        cuts=tuple(begin + width // 2 for begin in ramps),
    )


def split_range(lower: float, upper: float, count: int, overlap: float) -> Intervals[float]:
    """Cut the coordinates [lower, upper] into ``count`` equal cores with ramps of ``overlap`` (0 to 1) core widths."""
    core = (upper - lower) / count
    return split_at((lower, *(lower + i * core for i in range(1, count)), upper), overlap)


def split_at(knots: Sequence[float], overlap: float) -> Intervals[float]:
    """Cut an axis at given places, both ends included, with ramps of ``overlap`` (0 to 1) times the shortest core."""
    lower, cuts, upper = float(knots[0]), tuple(float(cut) for cut in knots[1:-1]), float(knots[-1])
    if any(later <= cut for cut, later in itertools.pairwise((lower, *cuts, upper))):
        raise InputError(
            f"range {lower} to {upper} is too short for {len(cuts) + 1} pieces: give a longer range or fewer pieces, cuts "
            "in rising order"
        )
    cores = [later - cut for cut, later in itertools.pairwise((lower, *cuts, upper))]
    width = overlap * min(cores) if cuts else 0.0
    ramps = tuple(cut - width / 2 for cut in cuts)
    return Intervals(
        lower=lower,
        upper=upper,
        starts=(lower, *ramps),
        stops=(*(begin + width for begin in ramps), upper),
        ramps=ramps,
        ramp=width,
        cuts=cuts,
    )
