"""Nodes, the connected components inside single regions, and the components of the whole map that they make up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cpikan.compiled import compiled


@dataclass(frozen=True)
class NodeCounts:
    """Pixels and orders of each node in the core of its region; arrays with one entry per node.

    ``size`` pixels, ``first`` flat image index of the first pixel, ``low`` smallest order; ``spread`` entries of
    ``counts`` are the histogram of the orders from ``low`` upwards.
    """

    size: np.ndarray
    first: np.ndarray
    low: np.ndarray
    spread: np.ndarray
    counts: np.ndarray

    def emptied(self) -> NodeCounts:
        """Take all pixels from the nodes: another region owns them now."""
        none = np.zeros_like(self.size)
        return NodeCounts(none, np.full_like(self.first, -1), none, none, self.counts[:0])


def join_nodes(counts: list[NodeCounts]) -> NodeCounts:
    """Put the nodes of all regions one after the other."""
    return NodeCounts(
        *(np.concatenate([getattr(s, name) for s in counts]) for name in ("size", "first", "low", "spread", "counts"))
    )


def count_nodes(orders: np.ndarray, labels: np.ndarray, count: int, corner: tuple[int, int, int]) -> NodeCounts:
    """Count the ``count`` nodes of a core (h, w); ``corner`` is its (y, x) in the image and the image's width."""
    size, first, low, high = _extents(orders, labels, count, *corner)
    spread = np.where(size > 0, high - low + 1, 0)
    start = np.concatenate(([0], np.cumsum(spread)))
    return NodeCounts(size, first, low, spread, _histograms(orders, labels, low, start))


@compiled
def _extents(
    orders: np.ndarray, labels: np.ndarray, count: int, top: int, left: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    size, first = np.zeros(count, np.int64), np.full(count, -1, np.int64)
    low, high = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            node = labels[y, x] - 1
            if node < 0:
                continue
            order = orders[y, x]
            if size[node] == 0:
                first[node] = (top + y) * width + left + x
                low[node], high[node] = order, order
            size[node] += 1
            if order < low[node]:
                low[node] = order
            if order > high[node]:
                high[node] = order
    return size, first, low, high


@compiled
def _histograms(orders: np.ndarray, labels: np.ndarray, low: np.ndarray, start: np.ndarray) -> np.ndarray:
    counts = np.zeros(start[-1], np.int64)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            node = labels[y, x] - 1
            if node >= 0:
                counts[start[node] + orders[y, x] - low[node]] += 1
    return counts


@compiled
def numbered(labels: np.ndarray, first_node: int) -> np.ndarray:
    """Number the labels of a tile (1, 2, ...) as nodes int32, the first of which is ``first_node``; -1 = no pixel."""
    out = np.empty(labels.shape, np.int32)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            out[y, x] = labels[y, x] + (first_node - 1) if labels[y, x] > 0 else -1
    return out


@compiled
def write_core(
    orders_out: np.ndarray, component_out: np.ndarray, orders: np.ndarray, labels: np.ndarray, first_node: int
) -> None:
    """Write orders, and node numbers plus one (0 = no pixel), all (h, w)."""
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            orders_out[y, x] = orders[y, x]
            component_out[y, x] = labels[y, x] + first_node if labels[y, x] > 0 else 0


@dataclass(frozen=True)
class ComponentNames:
    """Per node: ``label`` int32 of its component (1, 2, ... by falling size), ``offset`` int64 to add to its orders."""

    label: np.ndarray
    offset: np.ndarray
    sizes: tuple[int, ...]
    lowest: int
    highest: int


def name_components(nodes: NodeCounts, group: np.ndarray, offsets: np.ndarray) -> ComponentNames:
    """Number the groups of nodes by size (ties: by first pixel), each shifted to a (lower) median order of 0."""
    count = int(group.max()) + 1 if group.size else 0
    size = np.bincount(group, nodes.size, minlength=count).astype(np.int64)
    first = np.full(count, np.iinfo(np.int64).max)
    owned = nodes.first >= 0
    np.minimum.at(first, group[owned], nodes.first[owned])
    rank = np.empty(count, np.int64)
    rank[np.lexsort((first, -size))] = np.arange(count)

    node = np.repeat(np.arange(group.size), nodes.spread)
    within = np.arange(node.size) - np.repeat(np.cumsum(nodes.spread) - nodes.spread, nodes.spread)
    order = nodes.low[node] + within + offsets[node]
    by_order = np.lexsort((order, group[node]))
    order, owner, pixels = order[by_order], group[node][by_order], nodes.counts[by_order]
    reached = np.cumsum(pixels) - (np.cumsum(size) - size)[owner]  # pixels of this component up to this order
    middle = np.flatnonzero(2 * reached >= size[owner])
    median = np.zeros(count, np.int64)
    found, at = np.unique(owner[middle], return_index=True)
    median[found] = order[middle[at]]

    used = pixels > 0
    centred = order[used] - median[owner[used]]
    return ComponentNames(
        label=(rank[group] + 1).astype(np.int32),
        offset=offsets - median[group],
        sizes=tuple(int(s) for s in np.sort(size)[::-1] if s > 0),  # nodes of regions that were replaced have no pixel
        lowest=int(centred.min()) if centred.size else 0,
        highest=int(centred.max()) if centred.size else 0,
    )
