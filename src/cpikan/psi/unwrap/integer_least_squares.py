"""Integer offsets of the parts of a map from the differences measured where the parts overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.optimize import linprog
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import spsolve

from cpikan.compiled import compiled
from cpikan.errors import InputError
from cpikan.psi.unwrap.union_find import spanning_values

_EXACT_EDGES = 100_000  # above this the linear program takes many seconds, so the best of the fast answers is kept
_SWEEPS = 100


@dataclass(frozen=True)
class OffsetEdges:
    """Measured ``offset[second] - offset[first] = difference`` with a ``weight`` above zero; 1-D arrays of one
    length."""

    first: np.ndarray
    second: np.ndarray
    difference: np.ndarray
    weight: np.ndarray

    def take(self, which: np.ndarray) -> OffsetEdges:
        return OffsetEdges(self.first[which], self.second[which], self.difference[which], self.weight[which])

    def residual(self, offsets: np.ndarray) -> np.ndarray:
        """Subtract the found from the measured difference, per edge."""
        return self.difference - (offsets[self.second] - offsets[self.first])

    def misfit(self, offsets: np.ndarray) -> float:
        """Compute the weighted L1 misfit, the quantity that is minimised."""
        return float(np.sum(self.weight * np.abs(self.residual(offsets))))


@dataclass(frozen=True)
class OffsetSolution:
    """``offsets`` int64 and ``group`` int64 (connected part of the graph) per node; ``misfit`` is the weighted L1
    misfit.

    ``exact`` is False when the edges were too many for the exact method and do not all agree.
    """

    offsets: np.ndarray
    group: np.ndarray
    misfit: float
    exact: bool


def solve_offsets(nodes: int, edges: OffsetEdges, node_size: np.ndarray | None = None) -> OffsetSolution:
    """Find integers, one per node, that satisfy the measured differences with the least weighted L1 misfit.

    In each connected group of nodes the largest one (``node_size``; the first one without it) gets 0. Where all edges agree,
    the maximum-weight spanning tree is the answer. The other groups are solved exactly as a linear program: its matrix is
    an incidence matrix, totally unimodular, so its vertices are integers (Costantini, IEEE TGRS 36, 813 (1998)). Beyond
    100 000 edges the better of the tree and of rounded weighted least squares is taken, both improved by moving nodes and
    clusters. Raises InputError for nodes that do not exist or weights that are not positive.
    """
    edges = _checked(nodes, edges)
    tree = edges.take(np.argsort(-edges.weight, kind="stable"))
    root, offsets = spanning_values(tree.first, tree.second, tree.difference, nodes)
    group = np.unique(root, return_inverse=True)[1].reshape(-1) if nodes else np.zeros(0, np.int64)
    exact = True
    disagreeing = np.unique(group[edges.first[edges.residual(offsets) != 0]])
    if disagreeing.size:
        members = np.flatnonzero(np.isin(group, disagreeing))
        fixed = np.unique(group[members], return_index=True)[1]  # one node of each group is held at zero
        offsets[members], exact = _solve_groups(fixed, _renumbered(edges, members, nodes), offsets[members])
    _fix_gauge(offsets, group, node_size)
    return OffsetSolution(offsets, group, edges.misfit(offsets), exact)


def _checked(nodes: int, edges: OffsetEdges) -> OffsetEdges:
    first, second = np.asarray(edges.first, np.int64), np.asarray(edges.second, np.int64)
    difference, weight = np.asarray(edges.difference, np.int64), np.asarray(edges.weight, np.float64)
    if not first.shape == second.shape == difference.shape == weight.shape or first.ndim != 1:
        raise InputError(
            "edges have arrays of different lengths: give one first, second, difference and weight per edge"
        )
    if first.size and not (min(first.min(), second.min()) >= 0 and max(first.max(), second.max()) < nodes):
        raise InputError(f"edges name nodes outside 0..{nodes - 1}: number the nodes from 0")
    if not np.all(np.isfinite(weight) & (weight > 0)):
        raise InputError("edge weights must be finite and above zero: leave out edges that carry no information")
    return OffsetEdges(first, second, difference, weight)


def _renumbered(edges: OffsetEdges, members: np.ndarray, nodes: int) -> OffsetEdges:
    """Select the edges among ``members`` and number those nodes 0, 1, ... anew."""
    number = np.full(nodes, -1)
    number[members] = np.arange(members.size)
    part = edges.take(number[edges.first] >= 0)
    return OffsetEdges(number[part.first], number[part.second], part.difference, part.weight)


def _fix_gauge(offsets: np.ndarray, group: np.ndarray, node_size: np.ndarray | None) -> None:
    size = np.zeros(offsets.size) if node_size is None else np.asarray(node_size)
    order = np.lexsort((np.arange(offsets.size), -size, group))
    leaders = order[np.unique(group[order], return_index=True)[1]]
    offsets -= offsets[leaders][group]


def _solve_groups(fixed: np.ndarray, edges: OffsetEdges, tree: np.ndarray) -> tuple[np.ndarray, bool]:
    """Find integers of least misfit, and whether they are proven so; ``tree`` is an answer to start from."""
    if edges.first.size <= _EXACT_EDGES:
        optimum = _linear_program(tree.size, fixed, edges)
        if optimum is not None:
            return optimum, True
    least_squares = _rounded_least_squares(tree.size, fixed, edges)
    return min((_improved(start, edges) for start in (tree, least_squares)), key=edges.misfit), False


def _rounded_least_squares(nodes: int, fixed: np.ndarray, edges: OffsetEdges) -> np.ndarray:
    """Solve weighted least squares with the ``fixed`` nodes held at zero, rounded."""
    rows = np.tile(np.arange(edges.first.size), 2)
    signs = np.repeat([1.0, -1.0], edges.first.size)
    free = np.setdiff1d(np.arange(nodes), fixed)
    shape = (edges.first.size, nodes)
    incidence = sparse.csr_array((signs, (rows, np.concatenate((edges.second, edges.first)))), shape=shape)[:, free]
    weighted = incidence.T.multiply(edges.weight).tocsc()
    offsets = np.zeros(nodes, np.int64)
    solution = spsolve((weighted @ incidence).tocsc(), weighted @ edges.difference.astype(np.float64))
    offsets[free] = np.rint(solution).astype(np.int64)
    return offsets


def _improved(offsets: np.ndarray, edges: OffsetEdges) -> np.ndarray:
    """Move single nodes, then clusters of nodes whose edges agree, as long as the misfit falls."""
    offsets = offsets.copy()
    while True:
        before = edges.misfit(offsets)
        offsets += _moves(offsets.size, edges, edges.residual(offsets))
        residual = edges.residual(offsets)
        agree = residual == 0
        links = sparse.coo_array(
            (np.ones(int(agree.sum())), (edges.first[agree], edges.second[agree])), shape=(offsets.size,) * 2
        )
        count, cluster = connected_components(links, directed=False)
        between = OffsetEdges(cluster[edges.first], cluster[edges.second], residual, edges.weight).take(~agree)
        offsets += _moves(count, between, between.difference)[cluster]
        if not edges.misfit(offsets) < before:
            return offsets


def _moves(nodes: int, edges: OffsetEdges, residual: np.ndarray) -> np.ndarray:
    """Find integers by which iterated conditional modes move the nodes."""
    ends = np.concatenate((edges.first, edges.second)).astype(np.int64)
    order = np.argsort(ends, kind="stable")
    others = np.concatenate((edges.second, edges.first)).astype(np.int64)[order]
    wanted = np.concatenate((-residual, residual)).astype(np.int64)[order]
    start = np.searchsorted(ends[order], np.arange(nodes + 1))
    return _conditional_modes(start, others, wanted, np.tile(edges.weight, 2)[order])


@compiled
def _conditional_modes(start: np.ndarray, others: np.ndarray, wanted: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Set each node in turn to the value of least misfit with its neighbours (a weighted median), until none changes.

    Edge e of a node asks for ``value[node] = value[others[e]] + wanted[e]``.
    """
    value = np.zeros(start.size - 1, np.int64)
    for _ in range(_SWEEPS):
        changed = False
        for node in range(value.size):
            low, high = start[node], start[node + 1]
            best, least = value[node], 0.0
            for e in range(low, high):
                if others[e] != node:
                    least += weight[e] * abs(value[others[e]] + wanted[e] - best)
            for candidate in range(low, high):
                trial, cost = value[others[candidate]] + wanted[candidate], 0.0
                for e in range(low, high):
                    if others[e] != node:
                        cost += weight[e] * abs(value[others[e]] + wanted[e] - trial)
                if others[candidate] != node and cost < least * (1 - 1e-12):
                    best, least = trial, cost
            if best != value[node]:
                value[node] = best
                changed = True
        if not changed:
            break
    return value


def _linear_program(nodes: int, fixed: np.ndarray, edges: OffsetEdges) -> np.ndarray | None:
    """Minimise the weighted L1 misfit exactly: difference = offset[second] - offset[first] + over - under."""
    count = edges.first.size
    rows = np.tile(np.arange(count), 4)
    slack = nodes + np.arange(count)
    columns = np.concatenate((edges.second, edges.first, slack, slack + count))
    values = np.repeat([1.0, -1.0, 1.0, -1.0], count)
    equal = sparse.csr_array((values, (rows, columns)), shape=(count, nodes + 2 * count))
    cost = np.concatenate((np.zeros(nodes), edges.weight, edges.weight)) / edges.weight.max()
    bounds = np.zeros((nodes + 2 * count, 2))
    bounds[:nodes, 0], bounds[:, 1] = -np.inf, np.inf
    bounds[fixed] = 0
    found = linprog(cost, A_eq=equal, b_eq=edges.difference.astype(float), bounds=bounds, method="highs-ds")
    return np.rint(found.x[:nodes]).astype(np.int64) if found.status == 0 else None
