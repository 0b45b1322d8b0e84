"""Rectangles of regions that are unwrapped again as one: those whose orders disagree where they overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cpikan.psi.unwrap.overlap import Votes

LARGEST_REGION = 1 << 22  # pixels; unwrapping takes up to about 150 bytes for each
_SHARE = 0.005  # of the pixels two tiles share: single pixels differ in noise, a fault cut differently is a patch


@dataclass(frozen=True)
class Rectangle:
    """Pixels [top, bottom) x [left, right)."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def window(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def pixels(self) -> int:
        return (self.bottom - self.top) * (self.right - self.left)

    def holds(self, y: int, x: int) -> bool:
        """Test whether pixel (y, x) lies in the rectangle."""
        return self.top <= y < self.bottom and self.left <= x < self.right

    def grown(self, margin: int, shape: tuple[int, int]) -> Rectangle:
        return Rectangle(
            max(0, self.top - margin),
            min(shape[0], self.bottom + margin),
            max(0, self.left - margin),
            min(shape[1], self.right + margin),
        )


def contested_pairs(votes: Votes, region_of_node: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Find pairs (n, 2) of regions that still differ on more than 0.5 % of the pixels they share, the worst first."""
    first, second = region_of_node[votes.first], region_of_node[votes.second]
    if not first.size:
        return np.empty((0, 2), np.int64)
    pairs, row = np.unique(np.stack((first, second), axis=1), axis=0, return_inverse=True)
    row = row.reshape(-1)
    wrong = np.where(votes.difference != offsets[votes.second] - offsets[votes.first], votes.pixels, 0)
    shared, differing = np.bincount(row, votes.pixels), np.bincount(row, wrong)
    share = differing / shared
    worst_first = np.argsort(-share, kind="stable")
    return pairs[worst_first[share[worst_first] > _SHARE]]


def join_rectangles(
    cores: Sequence[Rectangle], pairs: np.ndarray, largest: int, merged: np.ndarray | None = None
) -> list[Rectangle]:
    """Make rectangles of whole regions that hold as many of the ``pairs`` (n, 2) as fit in ``largest`` pixels each.

    The ``cores`` of the regions partition the map; those ``merged`` (bool per region) were joined before. Pairs are joined
    in the order given to the rectangle around both, which takes in every core it touches; what would be too large is not
    joined. With a merged region that is contested again the rectangle grows by half its longer side all round if it can:
    a cut that ought to follow a fault leaves a region that is narrow across it by its sides.
    """
    box = np.array([(c.top, c.bottom, c.left, c.right) for c in cores], np.int64).reshape(-1, 4)
    again = np.zeros(len(cores), bool) if merged is None else merged
    group = np.arange(len(cores))
    joined: set[int] = set()
    for a, b in pairs:
        if group[a] == group[b]:
            continue
        inside = _whole(box, group, (group == group[a]) | (group == group[b]), 0)
        if again[inside].any():
            around = _bounds(box[inside])
            wide = _whole(box, group, inside, max(around.bottom - around.top, around.right - around.left) // 2)
            inside = wide if _bounds(box[wide]).pixels <= largest else inside
        if _bounds(box[inside]).pixels <= largest:
            group[inside] = group[a]
            joined.add(int(group[a]))
    return [_bounds(box[group == g]) for g in np.unique(group) if int(g) in joined]


def _whole(box: np.ndarray, group: np.ndarray, inside: np.ndarray, margin: int) -> np.ndarray:
    """Add to ``inside`` (bool per region) all groups that the rectangle around it, once with a margin, touches."""
    while True:
        around = _bounds(box[inside])
        touched = (box[:, 0] < around.bottom + margin) & (box[:, 1] > around.top - margin)
        touched &= (box[:, 2] < around.right + margin) & (box[:, 3] > around.left - margin)
        touched = np.isin(group, group[touched])
        if np.array_equal(touched, inside):
            return inside
        inside, margin = touched, 0


def _bounds(boxes: np.ndarray) -> Rectangle:
    return Rectangle(*(int(f(boxes[:, i])) for i, f in enumerate((np.min, np.max, np.min, np.max))))
