"""Chebyshev collocation on boxes: the honest reference, a polynomial per axis and no network at all.

Values at Chebyshev's extreme points are the unknowns; derivatives are Kronecker products of differentiation matrices
(Trefethen 2000, chapter 6). The problem's own residuals are linearised, so that whatever a field can be asked to satisfy
can be collocated; nonlinear problems by Newton's method.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cpikan.fields.protocol import Jet
from cpikan.physics.linearise import contract, jet_at, pullback
from cpikan.physics.problem import Condition, Problem, Side
from cpikan.physics.regions import Box

_NODES = {1: 65, 2: 33, 3: 12}
_NEWTON, _CLOSE = 30, 1e-11


@dataclass(frozen=True)
class Collocation:
    """A tensor-product polynomial: nodes per axis (physical coordinates) and values (N, outputs) at their products."""

    nodes: tuple[np.ndarray, ...]
    values: np.ndarray

    def __call__(self, ticks: tuple[np.ndarray, ...]) -> Tensor:
        """Interpolate on the grid of these coordinates, barycentric per axis, (n0 * n1 * ..., outputs)."""
        table = self.values.reshape(*(len(n) for n in self.nodes), -1)
        for axis, (nodes, x) in enumerate(zip(self.nodes, ticks, strict=True)):
            table = np.moveaxis(np.tensordot(_interpolation(nodes, x), table, (1, axis)), 0, axis)
        return torch.from_numpy(np.ascontiguousarray(table.reshape(-1, table.shape[-1])))


def collocate(problem: Problem, nodes: int | None = None) -> Collocation | None:
    """Solve a problem on a box by Newton's method.

    None for other regions, unknowns, measured data, derivatives that are not unmixed, or no convergence.
    """
    region = problem.region
    fixed = bool(problem.unknowns) or any(condition.at is not None for condition in problem.conditions)
    if (
        not isinstance(region, Box)
        or region.breaks
        or fixed
        or problem.second not in ("axes", "none")
        or problem.dimension > 3
    ):
        return None
    count = nodes or _NODES[problem.dimension]
    basis = Basis(region, count)
    unknown = torch.zeros(len(basis.points), problem.outputs, dtype=torch.float64)
    for _ in range(_NEWTON):
        residuals, matrix = linearise(problem, region, basis, unknown)
        step = least_squares(matrix, -residuals[:, None]).reshape(unknown.shape)
        if not bool(torch.isfinite(step).all()):
            return None
        unknown = unknown + step
        if float(step.norm()) <= _CLOSE * float(unknown.norm()):
            return Collocation(basis.nodes, unknown.numpy())
    return None


def least_squares(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve min |A x - b| for x (n, k), the shortest where A (m, n) lacks rank.

    By singular values (gelsd): the default driver, gelsy, takes its pivots from memory that torch does not set, so that
    it finds another rank at random (torch 2.13).
    """
    return torch.linalg.lstsq(matrix, right, driver="gelsd").solution


class Basis:
    """Cardinal functions at the product nodes: their derivatives there, (N, N) per axis."""

    def __init__(self, region: Box, count: int) -> None:
        pairs = [_differentiation(count, a, b) for a, b in zip(region.lower, region.upper, strict=True)]
        self.nodes = tuple(nodes for nodes, _ in pairs)
        grid = np.stack(np.meshgrid(*self.nodes, indexing="ij"), axis=-1)
        self.points = torch.from_numpy(grid.reshape(-1, len(pairs)))
        gradient, second = [], []
        for axis, (_, matrix) in enumerate(pairs):
            factors = [np.eye(count)] * len(pairs)
            gradient.append(_kron([*factors[:axis], matrix, *factors[axis + 1 :]]))
            second.append(_kron([*factors[:axis], matrix @ matrix, *factors[axis + 1 :]]))
        value = torch.eye(len(self.points), dtype=torch.float64)
        self._jet = Jet(value, torch.stack(gradient, dim=-1), torch.stack(second, dim=-1))

    def at(self, index: Tensor) -> Jet:
        """Select the jet of the cardinal functions at the nodes ``index``, (B, N), (B, N, d), (B, N, d)."""
        return Jet(*(part[index] for part in self._jet))


def linearise_equation(problem: Problem, basis: Basis, unknown: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Linearise the equation at the nodes ``index`` by the values (N, outputs): residuals (R,), rows (R, N outputs)."""
    local = basis.at(index)
    jet = jet_at(local, unknown)
    found = problem.interior(jet, basis.points[index]).values()
    return torch.cat(list(found)), torch.cat([contract([local], pullback(value, [jet])) for value in found])


def linearise(problem: Problem, region: Box, basis: Basis, unknown: Tensor) -> tuple[Tensor, Tensor]:
    """Linearise the equation at open nodes and the conditions on the boundary; rows of equal length."""
    parts = [linearise_equation(problem, basis, unknown, _open_nodes(problem, region, basis))]
    parts += [
        _condition(condition, region, basis, unknown, part)
        for condition in problem.conditions
        for part in condition.on or region.walls
    ]
    joined, matrix = (torch.cat([pair[number] for pair in parts]).detach() for number in (0, 1))
    size = matrix.norm(dim=1).clamp_min(1e-300)
    return joined / size, matrix / size[:, None]


def _open_nodes(problem: Problem, region: Box, basis: Basis) -> Tensor:
    """Find the nodes that the equation is imposed on: for one output, those on no part that has a condition."""
    closed = torch.zeros(len(basis.points), dtype=torch.bool)
    if problem.outputs == 1:
        for condition in problem.conditions:
            for part in condition.on or region.walls:
                closed |= on_side(region, basis, part)
    return torch.nonzero(~closed).flatten()


def on_side(region: Box, basis: Basis, part: str) -> Tensor:
    axis, end = region.side(part)
    return basis.points[:, axis] == float(basis.nodes[axis][-1 if end else 0])


def _condition(condition: Condition, region: Box, basis: Basis, unknown: Tensor, part: str) -> tuple[Tensor, Tensor]:
    axis, end = region.side(part)
    index = torch.nonzero(on_side(region, basis, part)).flatten()
    normals = torch.zeros(len(index), len(basis.nodes), dtype=torch.float64)
    normals[:, axis] = 1.0 if end else -1.0
    indices = [index]
    if condition.period is not None:
        indices.append(torch.nonzero(on_side(region, basis, f"{condition.period}=max")).flatten())
    bases = [basis.at(one) for one in indices]
    jets = [jet_at(one, unknown) for one in bases]
    residual = condition.residual(jets[0], Side(basis.points[index], normals, jets[1] if len(jets) > 1 else None))
    return residual, contract(bases, pullback(residual, jets))


def _differentiation(count: int, lower: float, upper: float) -> tuple[np.ndarray, np.ndarray]:
    """Compute Chebyshev's extreme points from lower to upper and the matrix of d/dx (diagonal by negative sums)."""
    x = -np.cos(np.pi * np.arange(count) / (count - 1))
    nodes = lower + (upper - lower) * 0.5 * (x + 1)
    nodes[0], nodes[-1] = lower, upper
    weight = np.where((np.arange(count) == 0) | (np.arange(count) == count - 1), 2.0, 1.0) * (-1.0) ** np.arange(count)
    matrix = np.outer(weight, 1 / weight) / (x[:, None] - x + np.eye(count))
    matrix -= np.diag(matrix.sum(axis=1))
    return nodes, matrix * 2 / (upper - lower)


def _interpolation(nodes: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Compute barycentric weights (len(x), nodes) of Chebyshev's extreme points (Berrut and Trefethen 2004)."""
    weight = (-1.0) ** np.arange(len(nodes))
    weight[[0, -1]] *= 0.5
    apart = x[:, None] - nodes
    hit = apart == 0
    share = weight / np.where(hit, 1.0, apart)
    table = share / share.sum(axis=1, keepdims=True)
    table[hit.any(axis=1)] = hit[hit.any(axis=1)]
    return np.asarray(table)


def _kron(factors: list[np.ndarray]) -> Tensor:
    out = np.ones((1, 1))
    for factor in factors:
        out = np.kron(out, factor)
    return torch.from_numpy(out)


def unknowns(found: Collocation) -> int:
    """Count the values at nodes, all outputs."""
    return math.prod(found.values.shape)
