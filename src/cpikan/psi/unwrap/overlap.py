"""Overlaps of two regions of the map: their votes on the offset between them, and the pixels they disagree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cpikan.compiled import compiled
from cpikan.psi.unwrap.integer_least_squares import OffsetEdges

_PER_TURN = np.float32(1 / (2 * np.pi))


@dataclass(frozen=True)
class OverlapStrip:
    """Orders and node numbers (-1 = no pixel) of one tile on the pixels it shares with another; (h, w) each."""

    orders: np.ndarray
    nodes: np.ndarray

    @property
    def T(self) -> OverlapStrip:
        return OverlapStrip(self.orders.T, self.nodes.T)

    def cut(self, part: slice | tuple[slice | int, slice | int]) -> OverlapStrip:
        """Cut out the rows, or rows and columns, of ``part``, as views."""
        return OverlapStrip(self.orders[part], self.nodes[part])


@dataclass(frozen=True)
class Votes:
    """Rows (first node, second node, difference of orders first - second, number of pixels), sorted by both nodes."""

    first: np.ndarray
    second: np.ndarray
    difference: np.ndarray
    pixels: np.ndarray

    @property
    def total(self) -> int:
        return int(self.pixels.sum())

    def between(self, active: np.ndarray) -> Votes:
        """Select the rows of which both nodes are ``active`` (bool per node)."""
        use = active[self.first] & active[self.second]
        return Votes(self.first[use], self.second[use], self.difference[use], self.pixels[use])

    def wrong(self, offsets: np.ndarray) -> int:
        """Count the pixels that still differ once ``offsets`` (one per node) are added to the orders."""
        return int(self.pixels[self.difference != offsets[self.second] - offsets[self.first]].sum())


def join_votes(votes: list[Votes]) -> Votes:
    """Join the rows of all votes; pairs of nodes must not repeat between them (or only counts are wanted)."""
    none = np.zeros(0, np.int64)
    names = ("first", "second", "difference", "pixels")
    return Votes(*(np.concatenate([none, *(getattr(v, name) for v in votes)]) for name in names))


def count_votes(first: np.ndarray, second: np.ndarray, difference: np.ndarray) -> tuple[Votes, np.ndarray]:
    """Count equal triples of the 1-D arrays; also returns the row of each pixel."""
    if not first.size:
        none = np.zeros(0, np.int64)
        return Votes(none, none, none, none), none
    bases = [int(a.min()) for a in (first, second, difference)]
    spans = [int(a.max()) - base + 1 for a, base in zip((first, second, difference), bases, strict=True)]
    key = ((first.astype(np.int64) - bases[0]) * spans[1] + second - bases[1]) * spans[2] + difference - bases[2]
    if spans[0] * spans[1] * spans[2] <= 4 * key.size:  # a table is faster than sorting
        table = np.bincount(key)
        values = np.flatnonzero(table)
        pixels = table[values]
        row_of = np.cumsum(table > 0) - 1
        row = row_of[key]
    else:
        values, row, pixels = np.unique(key, return_inverse=True, return_counts=True)
    pair, step = np.divmod(values, spans[2])
    return Votes(pair // spans[1] + bases[0], pair % spans[1] + bases[1], step + bases[2], pixels), row


@compiled
def one_difference(
    first_orders: np.ndarray, first_nodes: np.ndarray, second_orders: np.ndarray, second_nodes: np.ndarray
) -> tuple[int, int, int, int]:
    """Count shared pixels; then first and second node and difference, if these are the same for all, else -1 first."""
    pixels, a, b, difference = 0, -1, -1, 0
    for y in range(first_nodes.shape[0]):
        for x in range(first_nodes.shape[1]):
            if first_nodes[y, x] < 0 or second_nodes[y, x] < 0:
                continue
            here = first_orders[y, x] - second_orders[y, x]
            if pixels == 0:
                a, b, difference = first_nodes[y, x], second_nodes[y, x], here
            elif first_nodes[y, x] != a or second_nodes[y, x] != b or here != difference:
                return -1, a, b, difference
            pixels += 1
    return pixels, a, b, difference


@dataclass(frozen=True)
class Comparison:
    """All votes of two strips, one edge per pair of nodes (its commonest difference), and which pixels deviate, (h, w).

    The weight of an edge is the lead of its commonest difference over the next one (at least half a pixel), so an
    undecided overlap has no say against a clear one.
    """

    votes: Votes
    edges: OffsetEdges
    deviating: np.ndarray


def compare_strips(first: OverlapStrip, second: OverlapStrip) -> Comparison:
    """Compare two tiles on the pixels they share."""
    total, a, b, difference = one_difference(first.orders, first.nodes, second.orders, second.nodes)
    if total >= 0:
        first_node, second_node, step, pixels = (np.full(min(total, 1), v, np.int64) for v in (a, b, difference, total))
        edges = OffsetEdges(first_node, second_node, step, pixels.astype(float))
        nothing = np.zeros(first.nodes.shape, bool)
        return Comparison(Votes(first_node, second_node, step, pixels), edges, nothing)
    shared = (first.nodes >= 0) & (second.nodes >= 0)
    difference = first.orders[shared].astype(np.int64) - second.orders[shared]
    votes, row = count_votes(first.nodes[shared], second.nodes[shared], difference)
    order = np.lexsort((np.abs(votes.difference), -votes.pixels, votes.second, votes.first))
    one, other, pixels = votes.first[order], votes.second[order], votes.pixels[order]
    leads = np.flatnonzero(np.diff(one, prepend=-1) | np.diff(other, prepend=-1)) if one.size else np.zeros(0, np.int64)
    following = np.append(pixels[1:], 0)[leads]
    unanimous = np.diff(np.append(leads, one.size)) == 1
    weight = np.maximum(pixels[leads] - np.where(unanimous, 0, following), 0.5)
    winner = np.zeros(votes.pixels.size, bool)
    winner[order[leads]] = True
    deviating = np.zeros(shared.shape, bool)
    deviating[shared] = ~winner[row]
    return Comparison(votes, OffsetEdges(one[leads], other[leads], votes.difference[order[leads]], weight), deviating)


@dataclass(frozen=True)
class Overlap:
    """``window`` of the map that two regions cover, their ``votes`` and ``edges`` there, the votes of the pairs across the
    ``seam`` of their cores, and the pixels off the commonest difference (one bit each). ``last_node`` is the largest node
    number when they were compared: later nodes are those of a region that replaced one of the two."""

    window: tuple[slice, slice]
    votes: Votes
    edges: OffsetEdges
    seam: Votes
    deviating: np.ndarray
    last_node: int

    def is_active(self, active: np.ndarray) -> bool:
        """Test whether two nodes that were compared here are ``active`` still (bool per node)."""
        return bool(np.any(active[self.votes.first] & active[self.votes.second]))

    def flag(self, ambiguous: np.ndarray, component: np.ndarray, offsets: np.ndarray) -> None:
        """Flag the pixels that deviate, and all of two nodes whose commonest difference ``offsets`` do not meet.

        ``ambiguous`` and ``component`` (node numbers plus one) are those of the whole map.
        """
        bad = self.edges.residual(offsets) != 0
        if not (bad.any() or self.deviating.any()):
            return
        nodes = np.asarray(component[self.window]) - np.int32(1)
        flags = np.unpackbits(self.deviating, count=nodes.size).reshape(nodes.shape).astype(bool)
        flags |= np.isin(nodes, np.concatenate((self.edges.first[bad], self.edges.second[bad])))
        ambiguous[self.window] |= flags & (nodes <= self.last_node)


def tile_seam_votes(first: OverlapStrip, second: OverlapStrip, phase_rad: np.ndarray) -> Votes:
    """Count differences of two tiles at the border of their cores where both keep the pair within pi.

    The border is the middle column.
    """
    border = phase_rad.shape[1] // 2
    p, q = (slice(None), border - 1), (slice(None), border)
    valid = (second.nodes[p] >= 0) & (second.nodes[q] >= 0)
    step = -np.rint((phase_rad[q] - phase_rad[p]) * _PER_TURN)
    smooth = (second.orders[q] - second.orders[p] == step) & (first.orders[q] - first.orders[p] == step)
    use = valid & smooth
    difference = first.orders[q][use] - second.orders[q][use]
    return count_votes(first.nodes[q][use], second.nodes[q][use], difference)[0]


def margin_seam_votes(stored: OverlapStrip, new: OverlapStrip, inner_orders: np.ndarray, step: np.ndarray) -> Votes:
    """Count differences at the border of a new region where its own orders, known on both sides, keep the pair within pi.

    ``stored`` and ``new`` are the map's and the region's strips (n,) just outside, ``inner_orders`` the region's just
    inside, and ``step`` the order step from outside to inside that keeps a pair within pi.
    """
    use = (stored.nodes >= 0) & (new.nodes >= 0) & (inner_orders - new.orders == step)
    return count_votes(stored.nodes[use], new.nodes[use], stored.orders[use] - new.orders[use])[0]


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
