"""Integer differences between the orders of two tiles, read off the pixels they share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cpikan.compiled import compiled
from cpikan.psi.unwrap.integer_least_squares import OffsetEdges


@dataclass(frozen=True)
class Strip:
    """Orders and node numbers (-1 = no pixel) of one tile on the pixels it shares with another; (h, w) each."""

    orders: np.ndarray
    nodes: np.ndarray


@dataclass(frozen=True)
class Votes:
    """Rows (first node, second node, difference of orders first - second, number of pixels), sorted by the two
    nodes."""

    first: np.ndarray
    second: np.ndarray
    difference: np.ndarray
    pixels: np.ndarray

    @property
    def total(self) -> int:
        return int(self.pixels.sum())

    def between(self, living: np.ndarray) -> Votes:
        """The rows of which both nodes are ``living`` (bool per node)."""
        use = living[self.first] & living[self.second]
        return Votes(self.first[use], self.second[use], self.difference[use], self.pixels[use])

    def wrong(self, offsets: np.ndarray) -> int:
        """Number of pixels on which the two tiles still differ once ``offsets`` are added to the orders of each
        node."""
        return int(self.pixels[self.difference != offsets[self.second] - offsets[self.first]].sum())


def join_votes(votes: list[Votes]) -> Votes:
    """The rows of all; pairs of nodes must not repeat between them (or only counts are wanted)."""
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
    """Number of shared pixels, first and second node and difference, if these are the same for all; otherwise -1
    first."""
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
    """Two strips compared: all votes, one edge per pair of nodes (its commonest difference), and the pixels that
    deviate.

    The weight of an edge is the lead of its commonest difference over the next one (at least half a pixel), so an
    undecided overlap has no say against a clear one.
    """

    votes: Votes
    edges: OffsetEdges
    deviating: np.ndarray


def compare_strips(first: Strip, second: Strip) -> Comparison:
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
    lonely = np.diff(np.append(leads, one.size)) == 1
    weight = np.maximum(pixels[leads] - np.where(lonely, 0, following), 0.5)
    winner = np.zeros(votes.pixels.size, bool)
    winner[order[leads]] = True
    deviating = np.zeros(shared.shape, bool)
    deviating[shared] = ~winner[row]
    return Comparison(votes, OffsetEdges(one[leads], other[leads], votes.difference[order[leads]], weight), deviating)
