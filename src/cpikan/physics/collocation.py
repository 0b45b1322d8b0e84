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
        """Values (n0 * n1 * ..., outputs) on the grid of these coordinates, by barycentric interpolation per axis."""
        table = self.values.reshape(*(len(n) for n in self.nodes), -1)
        for axis, (nodes, x) in enumerate(zip(self.nodes, ticks, strict=True)):
            table = np.moveaxis(np.tensordot(_interpolation(nodes, x), table, (1, axis)), 0, axis)
        return torch.from_numpy(np.ascontiguousarray(table.reshape(-1, table.shape[-1])))


def collocate(problem: Problem, nodes: int | None = None) -> Collocation | None:
    """Solve a problem on a box; None for other regions, measured data, unmixed derivatives not enough, or no convergence."""
    region = problem.region
    fixed = any(condition.at is not None for condition in problem.conditions)
    if not isinstance(region, Box) or fixed or problem.second not in ("axes", "none") or problem.dimension > 3:
        return None
    count = nodes or _NODES[problem.dimension]
    basis = _Basis(region, count)
    unknown = torch.zeros(len(basis.points), problem.outputs, dtype=torch.float64)
    for _ in range(_NEWTON):
        residuals, matrix = _linearise(problem, region, basis, unknown)
        step = torch.linalg.lstsq(matrix, -residuals[:, None], driver="gelsy").solution.reshape(problem.outputs, -1).mT
        if not bool(torch.isfinite(step).all()):
            return None
        unknown = unknown + step
        if float(step.norm()) <= _CLOSE * float(unknown.norm()):
            return Collocation(basis.nodes, unknown.numpy())
    return None


class _Basis:
    """Cardinal functions at the product nodes: their derivatives there, (N, N) per axis."""

    def __init__(self, region: Box, count: int) -> None:
        pairs = [_differentiation(count, a, b) for a, b in zip(region.lower, region.upper, strict=True)]
        self.nodes = tuple(nodes for nodes, _ in pairs)
        grid = np.stack(np.meshgrid(*self.nodes, indexing="ij"), axis=-1)
        self.points = torch.from_numpy(grid.reshape(-1, len(pairs)))
        self.first, self.second = [], []
        for axis, (_, matrix) in enumerate(pairs):
            factors = [np.eye(count)] * len(pairs)
            self.first.append(_kron([*factors[:axis], matrix, *factors[axis + 1 :]]))
            self.second.append(_kron([*factors[:axis], matrix @ matrix, *factors[axis + 1 :]]))

    def jet(self, unknown: Tensor) -> Jet:
        """The jet at all nodes, its parts leaves to differentiate by."""
        gradient = torch.stack([m @ unknown for m in self.first], dim=-1)
        second = torch.stack([m @ unknown for m in self.second], dim=-1)
        return Jet(*(part.detach().clone().requires_grad_() for part in (unknown, gradient, second)))

    def rows(self, residual: Tensor, jet: Jet, index: Tensor) -> Tensor:
        """d residual / d unknown (B, outputs * N) for residuals (B,) that belong to the nodes ``index``."""
        parts = torch.autograd.grad(residual.sum(), jet, retain_graph=True, allow_unused=True, materialize_grads=True)
        value, gradient, second = (part[index] for part in parts)
        blocks = []
        for output in range(value.shape[1]):
            block = torch.zeros(len(index), len(self.points), dtype=value.dtype)
            block[torch.arange(len(index)), index] = value[:, output]
            for axis in range(gradient.shape[-1]):
                block += gradient[:, output, axis, None] * self.first[axis][index]
                block += second[:, output, axis, None] * self.second[axis][index]
            blocks.append(block)
        return torch.cat(blocks, dim=1)


def _linearise(problem: Problem, region: Box, basis: _Basis, unknown: Tensor) -> tuple[Tensor, Tensor]:
    """Residuals of the equation inside and of the conditions on the boundary, with their Jacobian; rows of equal length."""
    everywhere = torch.arange(len(basis.points))
    open_ends = _open_nodes(problem, region, basis)
    jet = basis.jet(unknown)
    found = problem.interior(jet, basis.points)
    residuals = [value[open_ends] for value in found.values()]
    matrices = [basis.rows(value, jet, everywhere)[open_ends] for value in found.values()]
    for condition in problem.conditions:
        for part in condition.on or region.walls:
            r, m = _condition(condition, region, basis, unknown, part)
            residuals.append(r)
            matrices.append(m)
    joined, matrix = torch.cat(residuals).detach(), torch.cat(matrices)
    size = matrix.norm(dim=1).clamp_min(1e-300)
    return joined / size, matrix / size[:, None]


def _open_nodes(problem: Problem, region: Box, basis: _Basis) -> Tensor:
    """The nodes where the equation is asked for: not those on a part that a condition of the first output is on."""
    closed = torch.zeros(len(basis.points), dtype=torch.bool)
    if problem.outputs == 1:
        for condition in problem.conditions:
            for part in condition.on or region.walls:
                closed |= _on_side(region, basis, part)
    return torch.nonzero(~closed).flatten()


def _on_side(region: Box, basis: _Basis, part: str) -> Tensor:
    axis, end = region.side(part)
    return basis.points[:, axis] == float(basis.nodes[axis][-1 if end else 0])


def _condition(condition: Condition, region: Box, basis: _Basis, unknown: Tensor, part: str) -> tuple[Tensor, Tensor]:
    axis, end = region.side(part)
    index = torch.nonzero(_on_side(region, basis, part)).flatten()
    normals = torch.zeros(len(index), len(basis.nodes), dtype=torch.float64)
    normals[:, axis] = 1.0 if end else -1.0
    jet = basis.jet(unknown)
    local = Jet(*(piece[index] for piece in jet))
    other = partner = None
    if condition.period is not None:
        far = torch.nonzero(_on_side(region, basis, f"{condition.period}=max")).flatten()
        other = basis.jet(unknown)
        partner = Jet(*(piece[far] for piece in other))
    residual = condition.residual(local, Side(basis.points[index], normals, partner))
    rows = basis.rows(residual, jet, index)
    if other is not None:
        rows = rows + basis.rows(residual, other, far)
    return residual, rows


def _differentiation(count: int, lower: float, upper: float) -> tuple[np.ndarray, np.ndarray]:
    """Chebyshev's extreme points from lower to upper and the matrix of d/dx at them (negative sum on the diagonal)."""
    x = -np.cos(np.pi * np.arange(count) / (count - 1))
    nodes = lower + (upper - lower) * 0.5 * (x + 1)
    nodes[0], nodes[-1] = lower, upper
    weight = np.where((np.arange(count) == 0) | (np.arange(count) == count - 1), 2.0, 1.0) * (-1.0) ** np.arange(count)
    matrix = np.outer(weight, 1 / weight) / (x[:, None] - x + np.eye(count))
    matrix -= np.diag(matrix.sum(axis=1))
    return nodes, matrix * 2 / (upper - lower)


def _interpolation(nodes: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(len(x), nodes): barycentric weights of Chebyshev's extreme points (Berrut and Trefethen 2004)."""
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
    """Values at nodes, all outputs."""
    return math.prod(found.values.shape)
