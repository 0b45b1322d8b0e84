"""Where two parts of the map meet: their votes on the offset between them, and the pixels they disagree on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cpikan.psi.unwrap.integer_least_squares import OffsetEdges
from cpikan.psi.unwrap.overlap import Strip, Votes, compare_strips, count_votes

_PER_TURN = np.float32(1 / (2 * np.pi))


@dataclass(frozen=True)
class Contact:
    """``window`` of the map that both parts cover, their ``votes`` and ``edges`` there, the votes of the pairs across
    the ``seam``, and the pixels off the commonest difference (one bit each). ``newest`` is the largest node number when
    they were compared: what is newer replaced a part."""

    window: tuple[slice, slice]
    votes: Votes
    edges: OffsetEdges
    seam: Votes
    deviating: np.ndarray
    newest: int

    def alive(self, living: np.ndarray) -> bool:
        """Whether parts that were compared here are still there (``living`` per node)."""
        return bool(np.any(living[self.votes.first] & living[self.votes.second]))

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
        ambiguous[self.window] |= flags & (nodes <= self.newest)


def compare(before: Strip, here: Strip, window: tuple[slice, slice], seam: Votes, newest: int) -> Contact:
    """Compare two parts on the pixels of ``window``."""
    compared = compare_strips(before, here)
    return Contact(window, compared.votes, compared.edges, seam, np.packbits(compared.deviating), newest)


def rows_of(strip: Strip, rows: slice) -> Strip:
    return Strip(strip.orders[rows], strip.nodes[rows])


def turned(strip: Strip) -> Strip:
    return Strip(strip.orders.T, strip.nodes.T)


def seam_votes(first: Strip, second: Strip, phase_rad: np.ndarray) -> Votes:
    """Differences of two tiles at the border of their cores (the middle column), where both keep the pair within pi."""
    border = phase_rad.shape[1] // 2
    p, q = (slice(None), border - 1), (slice(None), border)
    valid = (second.nodes[p] >= 0) & (second.nodes[q] >= 0)
    step = -np.rint((phase_rad[q] - phase_rad[p]) * _PER_TURN)
    smooth = (second.orders[q] - second.orders[p] == step) & (first.orders[q] - first.orders[p] == step)
    use = valid & smooth
    difference = first.orders[q][use] - second.orders[q][use]
    return count_votes(first.nodes[q][use], second.nodes[q][use], difference)[0]


def outer_seam_votes(stored: Strip, new: Strip, inner_orders: np.ndarray, step: np.ndarray) -> Votes:
    """The same at the border of a region, where only the region's own orders are known on both sides.

    ``stored`` and ``new`` are the orders (n,) of the pixels just outside, ``inner_orders`` the region's just inside,
    and ``step`` the order step from outside to inside that keeps a pair within pi.
    """
    use = (stored.nodes >= 0) & (new.nodes >= 0) & (inner_orders - new.orders == step)
    return count_votes(stored.nodes[use], new.nodes[use], stored.orders[use] - new.orders[use])[0]
