"""The elimination of `dissection` by several processes, each of its own part of the grid, joined along the separators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from cpikan.learning.share import Share
from cpikan.learning.strategies.block_band import BlockRows
from cpikan.learning.strategies.dissection import (
    Element,
    Kept,
    eliminated,
    joined,
    longest_columns,
    pair_of,
    put_back,
    solve_dissected,
    split,
    whole,
)
from cpikan.partition.owners import merges


def solve_shared(sets: Sequence[BlockRows], places: Tensor, damping: float, share: Share) -> Tensor:
    """Minimise |J c + r|^2 over c (E, K) as `solve_dissected` does, of whose rows each process gives its own.

    A process eliminates its boxes by itself. Its triangle over what others touch too goes to the process that joins the two
    parts, and values come back the same way: what is sent grows with the unknowns between shares, not with the boxes.
    Returns what is known here: the coefficients of the process's own boxes, and of those beside them.
    """
    if share.alone:
        return solve_dissected(sets, places, damping)
    mine, count = share.mine.tolist(), len(places)
    if share.split:
        elements, sizes = split(sets, places, damping, mine)
    else:
        longest = _longest(sets, count, share)
        elements, sizes = whole(sets, places, damping, longest, mine)
    found = _Tree(share, sizes, count).solve(elements)
    values = torch.zeros(count, sets[0].jacobian.shape[-1], dtype=torch.float64)
    for block in mine:
        values[block] = found.get(block, 0.0)
    share.spread(values)
    broken = share.ranks.total((~torch.isfinite(values).all()).double()[None])
    return torch.full_like(values, torch.nan) if float(broken) else values


def _longest(sets: Sequence[BlockRows], count: int, share: Share) -> list[float]:
    """Find the longest column of every block, of those at the border over all processes."""
    found = torch.tensor(longest_columns(sets, count), dtype=torch.float64)
    border = share.border
    found[border] = share.ranks.largest(found[border])
    kept: list[float] = found.tolist()
    return kept


class _Tree:
    """The elimination of one process's elements, and its part in joining those of all."""

    def __init__(self, share: Share, sizes: dict[int, int], count: int) -> None:
        self._share, self._sizes, self._count = share, sizes, count
        self._kept: list[Kept] = []

    def solve(self, elements: list[Element]) -> dict[int, Tensor]:
        """Eliminate upwards, substitute downwards; gives the nodes of these elements."""
        ranks, here = self._share.ranks, self._share.ranks.rank
        total = Counter(node for one in elements for node in one.nodes)
        total.update(node for node in list(total) if not self._inside(node, here, here + 1))
        left = eliminated(elements, total, self._sizes, self._kept)
        given: list[
            tuple[int, Element]
        ] = []  # who gave an element to be joined here, and how many rows were kept by then
        above = None
        levels: list[int] = []
        for first, middle, last in merges(here, ranks.size):
            if here == first:
                other = self._received(middle)
                given.append((middle, other))
                levels.append(len(self._kept))
                done = partial(self._inside, first=first, last=last)
                left = joined([left, other], done, self._sizes, self._kept)
            elif here == middle:
                self._send(left, first)
                above = first
                break
        return self._back(left, above, given, levels)

    def _back(
        self, left: Element, above: int | None, given: list[tuple[int, Element]], levels: list[int]
    ) -> dict[int, Tensor]:
        """Take the values of the nodes that are left, find all others, and give those that others wait for."""
        ranks, found = self._share.ranks, {}
        if above is not None and left.nodes:
            values = ranks.receive(above).flatten()
            found = dict(zip(left.nodes, values.split([self._sizes[node] for node in left.nodes]), strict=True))
        stop = len(self._kept)
        for (whose, other), level in zip(reversed(given), reversed(levels), strict=True):
            put_back(self._kept[level:stop], self._sizes, found)
            stop = level
            if other.nodes:
                ranks.send(torch.cat([found[node] for node in other.nodes])[None], whose)
        put_back(self._kept[:stop], self._sizes, found)
        return found

    def _inside(self, node: int, first: int, last: int) -> bool:
        """Tell whether only processes of a span touch a node."""
        reaches = [self._share.reach(block) for block in pair_of(node, self._count)]
        return min(low for low, _ in reaches) >= first and max(high for _, high in reaches) < last

    def _send(self, one: Element, to: int) -> None:
        ranks = self._share.ranks
        ranks.send(torch.tensor([one.nodes, [self._sizes[node] for node in one.nodes]], dtype=torch.float64), to)
        ranks.send(one.rows, to)

    def _received(self, source: int) -> Element:
        nodes, sizes = self._share.ranks.receive(source).long().tolist()
        self._sizes |= dict(zip(nodes, sizes, strict=True))
        return Element((0.0,), tuple(nodes), self._share.ranks.receive(source))
