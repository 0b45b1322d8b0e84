"""Patches of pixels that lie whole orders off a surface: moved onto it where that mends their jumps, kept where it makes some.

A real detail that stands an order off the surface and was unwrapped along its flanks has no jumps around it: moving it would
make them. A patch that unwrapping left on a wrong order is cut off by jumps all around, and moving it closes them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from cpikan.compiled import compiled

_OFF, _ON = 0.75, 0.25  # turns from the surface: before a move at least, after it at most
_MENDED = 4  # times fewer jumps after than before
_MOST = 4_000_000  # candidates: beyond it the surfaces know too little


@dataclass(frozen=True)
class Candidates:
    """Pixels that lie whole turns off: flat image ``index`` int64, ``move`` int32 (turns to add), and bits of the neighbours
    right, below, left, above that are more than half a turn away ``before`` and ``after`` the pixel alone is moved (uint8)."""

    index: np.ndarray
    move: np.ndarray
    before: np.ndarray
    after: np.ndarray


def find_candidates(
    turns: np.ndarray, component: np.ndarray, surface_turns: np.ndarray, first: int, inner: slice
) -> Candidates:
    """Find candidates in the rows ``inner`` of rows from image row ``first`` on, with a row of neighbours on each side.

    ``turns`` (rows, W) float64 are unwrapped, ``component`` 0 where there is no pixel, ``surface_turns`` NaN where unknown.
    """
    with np.errstate(invalid="ignore"):
        off = surface_turns - turns[inner]
        move = np.rint(off)
        found = (np.abs(off) >= _OFF) & (np.abs(off - move) <= _ON) & (component[inner] > 0)
    y, x = np.nonzero(found)
    moves = move[y, x].astype(np.int32)
    before, after = np.zeros(len(y), np.uint8), np.zeros(len(y), np.uint8)
    _jumps(turns, component, y + inner.start, x, moves, before, after)
    return Candidates((first + inner.start + y).astype(np.int64) * turns.shape[1] + x, moves, before, after)


@compiled
def _jumps(turns, component, rows, columns, moves, before, after):  # type: ignore[no-untyped-def]
    for i in range(len(rows)):
        y, x = rows[i], columns[i]
        for k, (dy, dx) in enumerate(((0, 1), (1, 0), (0, -1), (-1, 0))):
            v, u = y + dy, x + dx
            if not (0 <= v < turns.shape[0] and 0 <= u < turns.shape[1]) or component[v, u] != component[y, x]:
                continue
            apart = turns[v, u] - turns[y, x]
            before[i] |= np.uint8((abs(apart) > 0.5) << k)
            after[i] |= np.uint8((abs(apart - moves[i]) > 0.5) << k)


def choose(parts: list[Candidates], width: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Choose the patches to move: flat indices and moves of their pixels, and the number of patches.

    A patch is a connected set of candidates with the same move; neighbours inside it move along and do not count.
    """
    many = sum(len(p.index) for p in parts)
    if not 0 < many <= _MOST:
        return np.zeros(0, np.int64), np.zeros(0, np.int32), 0
    index, move, before, after = (
        np.concatenate([getattr(p, n) for p in parts]) for n in ("index", "move", "before", "after")
    )
    order = np.argsort(index)
    index, move, before, after = index[order], move[order], before[order].copy(), after[order].copy()
    links = []
    for bit, step in ((0, 1), (1, width)):
        other = np.searchsorted(index, index + step)
        other = np.minimum(other, many - 1)
        same = (index[other] == index + step) & (move[other] == move)
        if step == 1:
            same &= index % width != width - 1
        mine = np.flatnonzero(same)
        links.append((mine, other[mine]))
        for where, back in ((mine, bit), (other[mine], bit + 2)):
            before[where] &= np.uint8(~(1 << back) & 15)
            after[where] &= np.uint8(~(1 << back) & 15)
    a, b = (np.concatenate([link[k] for link in links]) for k in (0, 1))
    count, patch = connected_components(coo_matrix((np.ones(len(a), bool), (a, b)), (many, many)), directed=False)
    bits = np.array([bin(k).count("1") for k in range(16)])
    had, has = (np.bincount(patch, bits[mask], count) for mask in (before, after))
    good = (had > 0) & (_MENDED * has <= had)
    chosen = good[patch]
    return index[chosen], move[chosen], int(good.sum())
