"""How many fringes lie in the field, from wrapped phases at scattered pixels."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
from scipy.spatial import cKDTree

_NEIGHBOURS = 4  # the pixel itself among them
_TAILS = (0.002, 0.998)  # single pixels do not count


def fringe_count(phase_rad: np.ndarray, position: np.ndarray) -> tuple[float, bool]:
    """Range of the phase over 2 pi, and whether neighbours are close enough for it to be more than a lower bound.

    Neighbouring pixels are joined by the tree of the smallest phase differences and unwrapped along it. ``phase_rad`` (P,),
    ``position`` (P, 2).
    """
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
    unwrapped = phase_rad.astype(np.float64).copy()
    for pixel in order[1:]:
        above = unwrapped[parent[pixel]]
        unwrapped[pixel] = above + (phase_rad[pixel] - above + np.pi) % (2 * np.pi) - np.pi
    low, high = np.quantile(unwrapped[order], _TAILS)
    return float((high - low) / (2 * np.pi)), resolved
