"""Weighted union-find: sets whose members carry an integer relative to the root of their set."""

from __future__ import annotations

import numpy as np

from cpikan.compiled import compiled


@compiled(inline="always")
def find_root(parent: np.ndarray, value: np.ndarray, item: int) -> int:
    """Find the root of ``item``; then ``value[item]`` is relative to that root (path compression keeps the sums)."""
    root, total = item, 0
    while parent[root] != root:
        total += value[root]
        root = parent[root]
    while parent[item] != root and item != root:
        following, step = parent[item], value[item]
        parent[item], value[item] = root, total
        total -= step
        item = following
    return root


@compiled
def spanning_values(
    first: np.ndarray, second: np.ndarray, difference: np.ndarray, nodes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Find values with ``value[second] - value[first] = difference`` along the tree of the edges in given order.

    Returns the root of every node and its value relative to that root (Kruskal with a weighted union-find).
    """
    parent = np.arange(nodes)
    value = np.zeros(nodes, np.int64)
    size = np.ones(nodes, np.int64)
    for edge in range(first.size):
        a, b = first[edge], second[edge]
        root_a, root_b = find_root(parent, value, a), find_root(parent, value, b)
        if root_a == root_b:
            continue
        shift = value[a] + difference[edge] - value[b]  # of the set of b relative to the root of a
        if size[root_a] < size[root_b]:
            root_a, root_b, shift = root_b, root_a, -shift
        parent[root_b] = root_a
        value[root_b] = shift
        size[root_a] += size[root_b]
    for node in range(nodes):
        parent[node] = find_root(parent, value, node)
    return parent, value
