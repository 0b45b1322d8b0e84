"""Wrapped phases at scattered pixels, unwrapped: how many fringes lie in the field, and how far they print through."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
from scipy.spatial import cKDTree

from cpikan.surface.spectra.ripple import ripple_of_points

_NEIGHBOURS = 7  # the pixel itself among them; with fewer, pixels in rows farther apart than along them fall apart
_TAILS = (0.002, 0.998)  # single pixels do not count


@dataclass(frozen=True)
class ScatteredPhase:
    """``unwrapped_rad`` (P,); ``reached`` the pixels joined with the first one; ``resolved`` whether neighbours are close
    enough for the fringes between them to be known."""

    unwrapped_rad: np.ndarray
    reached: np.ndarray
    resolved: bool

    @property
    def fringes(self) -> float:
        """Count the fringes: the range of the phase over 2 pi."""
        low, high = np.quantile(self.unwrapped_rad[self.reached], _TAILS)
        return float((high - low) / (2 * np.pi))


def unwrap_scattered(phase_rad: np.ndarray, position: np.ndarray) -> ScatteredPhase:
    """Unwrap phases (P,) at ``position`` (P, 2) along the tree of the smallest differences between neighbours."""
    count = len(phase_rad)
    near = min(_NEIGHBOURS, count)
    other = cKDTree(position).query(position, k=near)[1][:, 1:]
    first, second = np.repeat(np.arange(count), near - 1), other.ravel()
    step = np.abs(np.angle(np.exp(1j * (phase_rad[second] - phase_rad[first]))))
    graph = coo_matrix((step + 1e-6, (first, second)), shape=(count, count)).tocsr()
    tree = minimum_spanning_tree(graph.maximum(graph.T))
    # steps that fill the circle evenly have a median of pi / 2: then the fringes are denser than the samples
    resolved = bool(np.median(step) < 0.35 * np.pi)
    order, parent = breadth_first_order(tree, 0, directed=False)
    unwrapped = phase_rad.astype(np.float64).tolist()  # plain numbers: one after the other they are five times as fast
    for pixel, before in zip(order[1:].tolist(), parent[order[1:]].tolist(), strict=True):
        above = unwrapped[before]
        unwrapped[pixel] = above + (unwrapped[pixel] - above + math.pi) % (2 * math.pi) - math.pi
    return ScatteredPhase(np.array(unwrapped), order, resolved)


_LARGEST_REST = 1.5  # rad about the smooth form: beyond it the orders of a pixel are wrong
_SHARE_WRONG = 0.01
_FEWEST = 1000
_BETWEEN = 1.5  # times the fringe, and three times that: 1.5 and 4.5, where no harmonic is


@dataclass(frozen=True)
class Ripple:
    """Amplitudes in mrad at 1 to 4 times the fringes of two phases, and the largest of the second between these multiples."""

    before_mrad: dict[int, float]
    after_mrad: dict[int, float]
    between_mrad: float


def ripple_before_and_after(before_rad: np.ndarray, after_rad: np.ndarray, position: np.ndarray) -> Ripple | None:
    """Measure amplitudes in mrad at 1 to 4 times the fringes of two wrapped phases (P,) of the same pixels.

    Both refer to the smooth form left by the second; None where the pixels are too few or too far apart to unwrap.
    """
    if len(after_rad) < _FEWEST:
        return None
    scattered = unwrap_scattered(after_rad, position)
    kept = scattered.reached
    change = np.angle(np.exp(1j * (before_rad - after_rad)))[kept]
    if not scattered.resolved or len(kept) < _FEWEST or (np.abs(change) > _LARGEST_REST).mean() > _SHARE_WRONG:
        return None
    after, where = scattered.unwrapped_rad[kept], position[kept]
    between = ripple_of_points(where, after, _BETWEEN * after)
    return Ripple(
        ripple_of_points(where, after + change, after),
        ripple_of_points(where, after, after),
        max(amplitude for k, amplitude in between.items() if k % 2),
    )
