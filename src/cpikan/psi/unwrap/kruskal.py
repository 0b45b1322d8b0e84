"""Quality-guided unwrapping of a tile: the spanning tree of the most reliable edges."""

from __future__ import annotations

import numpy as np
from numba import njit

from cpikan.psi.unwrap.raster import order_step
from cpikan.psi.unwrap.union_find import find_root

_TURN = np.float32(2 * np.pi)
_DROPPED_BITS = 15  # of a float32: 8 bits of the mantissa stay, so costs within 0.4 % count as equal
_BUCKETS = int(np.array(np.inf, np.float32).view(np.int32)) >> _DROPPED_BITS


@njit(cache=True, nogil=True, inline="always")
def _wrapped(difference: float) -> float:
    return difference - _TURN * np.rint(difference / _TURN)


@njit(cache=True, nogil=True)
def pixel_cost(phase_rad: np.ndarray) -> np.ndarray:
    """Mean squared wrapped second difference over the directions available (Herraez et al., Appl. Opt. 41, 7437
    (2002))."""
    height, width = phase_rad.shape
    cost = np.empty((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            here = phase_rad[y, x]
            cost[y, x] = 0
            if not np.isfinite(here):
                continue
            total, found = np.float32(0), 0
            for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
                if y < dy or y + dy >= height or x < abs(dx) or x + abs(dx) >= width:
                    continue
                second = _wrapped(phase_rad[y + dy, x + dx] - here) - _wrapped(here - phase_rad[y - dy, x - dx])
                if np.isfinite(second):
                    total += second * second
                    found += 1
            cost[y, x] = total / found if found else _TURN * _TURN
    return cost


@njit(cache=True, nogil=True)
def _edge_buckets(phase_rad: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Bucket of every edge, cheapest first: the upper bits of the float32 sum of its two pixel costs; -1 = no edge.

    The first half are the edges to the right neighbour, the second half those to the neighbour below.
    """
    height, width = phase_rad.shape
    value = np.full((2, height, width), np.inf, np.float32)
    for y in range(height):
        for x in range(width):
            if not np.isfinite(phase_rad[y, x]):
                continue
            if x + 1 < width and np.isfinite(phase_rad[y, x + 1]):
                value[0, y, x] = cost[y, x] + cost[y, x + 1]
            if y + 1 < height and np.isfinite(phase_rad[y + 1, x]):
                value[1, y, x] = cost[y, x] + cost[y + 1, x]
    buckets = value.reshape(-1).view(np.int32) >> _DROPPED_BITS
    return np.where(buckets < _BUCKETS, buckets, -1)


@njit(cache=True, nogil=True)
def _sorted_edges(bucket: np.ndarray) -> np.ndarray:
    """Edge numbers in ascending bucket (counting sort, stable), without the edges that do not exist."""
    start = np.zeros(_BUCKETS + 1, np.int64)
    for edge in range(bucket.size):
        start[bucket[edge] + 1] += 1  # edges that do not exist are counted in front
    start[0] = 0
    for i in range(1, _BUCKETS + 1):
        start[i] += start[i - 1]
    edges = np.empty(start[_BUCKETS], np.int32)
    for edge in range(bucket.size):
        if bucket[edge] >= 0:
            edges[start[bucket[edge]]] = edge
            start[bucket[edge]] += 1
    return edges


@njit(cache=True, nogil=True)
def kruskal_unwrap(phase_rad: np.ndarray, cost: np.ndarray, orders: np.ndarray, labels: np.ndarray) -> int:
    """Fill ``orders`` and ``labels`` (int32, shape of ``phase_rad`` float32; NaN = no pixel, label 0) along the tree.

    ``cost`` (float32, finite, at least 0) orders the edges. Returns the number of 4-connected components.
    """
    height, width = phase_rad.shape
    pixels = height * width
    flat = phase_rad.reshape(-1)
    parent = np.arange(pixels).astype(np.int32)
    value, size = np.zeros(pixels, np.int32), np.ones(pixels, np.int32)
    for edge in _sorted_edges(_edge_buckets(phase_rad, cost)):
        a = edge if edge < pixels else edge - pixels
        b = a + 1 if edge < pixels else a + width
        root_a, root_b = find_root(parent, value, a), find_root(parent, value, b)
        if root_a == root_b:
            continue
        shift = value[a] + order_step(flat[a], flat[b]) - value[b]
        if size[root_a] < size[root_b]:
            root_a, root_b, shift = root_b, root_a, -shift
        parent[root_b], value[root_b] = root_a, shift
        size[root_a] += size[root_b]
    number = np.zeros(pixels, np.int32)
    count = 0
    for p in range(pixels):
        y, x = p // width, p % width
        orders[y, x], labels[y, x] = 0, 0
        if np.isfinite(flat[p]):
            root = find_root(parent, value, p)
            if number[root] == 0:
                count += 1
                number[root] = count
            orders[y, x], labels[y, x] = value[p], number[root]
    return count
