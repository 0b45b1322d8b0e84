"""The damped linear systems of a least-squares step, for batches of problems: normal and dual form."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from cpikan.learning.robust import Loss, Squares


class Equations(Protocol):
    """Least squares linearised at the parameters of n problems: cost (n,), gradient J'r and diagonal of J'J (n, P)."""

    @property
    def cost(self) -> Tensor: ...

    @property
    def gradient(self) -> Tensor: ...

    @property
    def diagonal(self) -> Tensor: ...

    def step(self, damping: Tensor, metric: Tensor) -> tuple[Tensor, Tensor]:
        """Solve (J'J + damping diag(metric)) step = -J'r for steps (n, P), and tell which have a factor (n,)."""
        ...

    def take(self, index: Tensor) -> Self: ...

    def replace(self, index: Tensor, new: Self) -> Self: ...


class ProblemParts:
    """Picking and putting back problems, for dataclasses of tensors that all begin with the problems."""

    def take(self, index: Tensor) -> Any:
        """Select the problems ``index``."""
        return type(self)(*(getattr(self, f.name)[index] for f in dataclasses.fields(self)))  # type: ignore[arg-type]

    def replace(self, index: Tensor, new: Any) -> Any:
        """Copy the parts with the problems ``index`` taken from ``new``."""
        names = [f.name for f in dataclasses.fields(self)]  # type: ignore[arg-type]
        return type(self)(*(getattr(self, n).index_copy(0, index, getattr(new, n)) for n in names))


@dataclass(frozen=True)
class NormalEquations(ProblemParts):
    """With J'J (n, P, P): what sums over chunks of residuals, however many there are."""

    cost: Tensor
    gradient: Tensor
    matrix: Tensor

    @property
    def diagonal(self) -> Tensor:
        """Return diag(J'J), (n, P)."""
        return self.matrix.diagonal(dim1=-2, dim2=-1)

    def step(self, damping: Tensor, metric: Tensor) -> tuple[Tensor, Tensor]:
        """Solve (S J'J S + damping) S^-1 step = -S J'r with S = metric^-1/2, by batched Cholesky."""
        scale = metric.rsqrt()
        system = self.matrix * scale[:, :, None] * scale[:, None, :]
        factor, info = torch.linalg.cholesky_ex(_add_diagonal(system, damping))
        solved = torch.cholesky_solve((self.gradient * scale)[..., None], factor).squeeze(-1)
        return -scale * solved, info == 0

    def __add__(self, other: NormalEquations) -> NormalEquations:
        return NormalEquations(self.cost + other.cost, self.gradient + other.gradient, self.matrix + other.matrix)


@dataclass(frozen=True)
class DualEquations(ProblemParts):
    """With J (n, R, P) and r (n, R) themselves: for fewer residuals than parameters.

    (J'J + m D)^-1 J'r = D^-1 J' (J D^-1 J' + m)^-1 r, a system of R unknowns instead of P.
    """

    cost: Tensor
    gradient: Tensor
    jacobian: Tensor
    residuals: Tensor

    @property
    def diagonal(self) -> Tensor:
        """Compute diag(J'J), (n, P)."""
        return (self.jacobian * self.jacobian).sum(dim=-2)

    def step(self, damping: Tensor, metric: Tensor) -> tuple[Tensor, Tensor]:
        """Solve the dual system by batched Cholesky."""
        scale = metric.rsqrt()
        scaled = self.jacobian * scale[:, None, :]
        factor, info = torch.linalg.cholesky_ex(_add_diagonal(scaled @ scaled.mT, damping))
        solved = torch.cholesky_solve(self.residuals[..., None], factor)
        return -scale * (scaled.mT @ solved).squeeze(-1), info == 0


def equations(residuals: Tensor, jacobian: Tensor, loss: Loss) -> NormalEquations | DualEquations:
    """Linearise from r (n, R) and J (n, R, P): rows weighted by the square root of the loss's weight.

    The gradient is that of the loss; J'WJ leaves out its curvature, as iteratively reweighted least squares does.
    """
    rows, weighted = jacobian, residuals
    if not isinstance(loss, Squares):
        root = loss.weight(residuals).sqrt()
        rows, weighted = jacobian * root[..., None], residuals * root
    cost = loss.value(residuals).sum(dim=-1)
    gradient = (rows.mT @ weighted[..., None]).squeeze(-1)
    if rows.shape[-2] < rows.shape[-1]:
        return DualEquations(cost, gradient, rows, weighted)
    return NormalEquations(cost, gradient, rows.mT @ rows)


def _add_diagonal(system: Tensor, damping: Tensor) -> Tensor:
    eye = torch.eye(system.shape[-1], dtype=system.dtype, device=system.device)
    return system + damping[:, None, None] * eye
