"""Linearised residuals and their damped steps -J'(JJ' + m)^-1 w: by parameters, by residuals, or by products with J alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from jaxtyping import Float
from scipy.linalg.blas import dsyrk
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.learning.jacobian_products import JacobianProducts
from cpikan.learning.krylov import Nystroem, Stopping, conjugate_gradients
from cpikan.learning.objective import Objective

_REFINEMENTS = 1
Solver = Callable[[Tensor], Tensor]  # from w (R,) to -J'(JJ' + m)^-1 w = -(J'J + m)^-1 J'w (P,)


class DampedSystem(Protocol):
    """Residuals (R,) with what is needed of their Jacobian (R, P); ``scale`` is of the size of the largest of J'J."""

    @property
    def residuals(self) -> Tensor: ...

    @property
    def scale(self) -> float: ...

    def times(self, vector: Float[Tensor, " p"]) -> Float[Tensor, " r"]:
        """Multiply v (P,) by J, (R,)."""
        ...

    def transposed(self, dual: Float[Tensor, " r"]) -> Float[Tensor, " p"]:
        """Multiply w (R,) by J', (P,)."""
        ...

    def solver(self, damping: float) -> Solver | None:
        """Make what solves for damped steps; None where the system cannot be factored."""
        ...


@dataclass(frozen=True)
class _Dense:
    residuals: Float[Tensor, " r"]
    jacobian: Float[Tensor, "r p"]

    @cached_property
    def scale(self) -> float:
        """Compute the largest squared length of a column."""
        return float(self.jacobian.square().sum(dim=0).amax())

    def times(self, vector: Float[Tensor, " p"]) -> Float[Tensor, " r"]:
        """Multiply v (P,) by J."""
        return self.jacobian @ vector

    def transposed(self, dual: Float[Tensor, " r"]) -> Float[Tensor, " p"]:
        """Multiply w (R,) by J'."""
        return self.jacobian.mT @ dual


class PrimalSystem(_Dense):
    """J itself, with a Cholesky factor of J'J + m, (P, P): for no more parameters than residuals."""

    @cached_property
    def normal(self) -> Float[Tensor, "p p"]:
        """Compute the lower triangle of J'J: half of it, in half the time."""
        return torch.from_numpy(dsyrk(1.0, self.jacobian.numpy().T, lower=1))

    @cached_property
    def scale(self) -> float:
        """Take the largest squared length of a column."""
        return float(self.normal.diagonal().amax())

    def solver(self, damping: float) -> Solver | None:
        """Factor J'J + m."""
        solve = _cholesky(self.normal, damping, lambda found: self.transposed(self.times(found)) + damping * found)
        return None if solve is None else lambda dual: solve(-self.transposed(dual))


class DualSystem(_Dense):
    """J itself, with a Cholesky factor of JJ' + m, (R, R): for fewer residuals than parameters."""

    @cached_property
    def kernel(self) -> Float[Tensor, "r r"]:
        """Compute the lower triangle of JJ'."""
        return torch.from_numpy(dsyrk(1.0, self.jacobian.numpy().T, trans=1, lower=1))

    def solver(self, damping: float) -> Solver | None:
        """Factor JJ' + m."""
        solve = _cholesky(self.kernel, damping, lambda found: self.times(self.transposed(found)) + damping * found)
        return None if solve is None else lambda dual: -self.transposed(solve(dual))


def _cholesky(matrix: Tensor, damping: float, product: Solver) -> Solver | None:
    """Factor a lower triangle plus damping; what its square of J's condition leaves is taken from ``product`` itself."""
    factor, info = torch.linalg.cholesky_ex(matrix + damping * torch.eye(len(matrix), dtype=matrix.dtype))
    if int(info):
        return None

    def solve(right: Tensor) -> Tensor:
        found = torch.cholesky_solve(right[:, None], factor).squeeze(1)
        for _ in range(_REFINEMENTS):
            found = found + torch.cholesky_solve((right - product(found))[:, None], factor).squeeze(1)
        return found

    return solve


class ProductSystem:
    """Products with J and J' alone: conjugate gradients on JJ' + m or J'J + m, behind a Nystroem preconditioner of ``rank``.

    ``side`` is "rows" for residuals and "columns" for parameters. Nothing of more than ``rank`` times that many numbers is
    ever stored.
    """

    def __init__(self, products: JacobianProducts, side: str, rank: int, stopping: Stopping) -> None:
        self._products, self._side, self._stopping = products, side, stopping
        self.residuals, self.times, self.transposed = products.residuals, products.times, products.transposed
        size = products.rows if side == "rows" else products.columns
        self._sketch = Nystroem.of(self._gram, size, rank, products.residuals) if rank else None

    def _gram(self, vector: Tensor) -> Tensor:
        """Multiply by JJ', or by J'J."""
        if self._side == "rows":
            return self.times(self.transposed(vector))
        return self.transposed(self.times(vector))

    @cached_property
    def scale(self) -> float:
        """Estimate the largest eigenvalue of J'J by Rayleigh's quotient of the gradient."""
        gradient = self.transposed(self.residuals)
        square = float(gradient.square().sum())
        return float(self.times(gradient).square().sum()) / square if square > 0 else 1.0

    def solver(self, damping: float) -> Solver | None:
        """Make the iteration."""
        rows = self._side == "rows"

        def solve(right: Tensor) -> Tensor:
            how = () if self._sketch is None else (self._sketch.preconditioner(damping),)
            return conjugate_gradients(lambda v: self._gram(v) + damping * v, right, self._stopping, *how)[0]

        return (lambda dual: -self.transposed(solve(dual))) if rows else (lambda dual: solve(-self.transposed(dual)))


@dataclass(frozen=True)
class Limits:
    """What may be stored of a Jacobian, ``entries``, and how systems beyond are solved: see ``Stopping`` and ``Nystroem``."""

    entries: int = 20_000_000
    rank: int = 30
    tolerance: float = 1e-3
    products: int = 200

    def __post_init__(self) -> None:
        if self.entries < 0 or self.rank < 0:
            raise InputError(f"{self.entries} stored entries, rank {self.rank}: give 0 or more")
        if self.products < 1 or not 0 < self.tolerance < 1:
            raise InputError(f"{self.products} products to {self.tolerance}: give at least 1, and between 0 and 1")


LIMITS = Limits()


def damped_system(objective: Objective, field: nn.Module, limits: Limits = LIMITS) -> DampedSystem:
    """Linearise and be ready to factor on the smaller side, or by products where J has more than the entries allowed."""
    with torch.no_grad():
        rows = len(objective.residuals(field))
    columns = sum(p.numel() for p in field.parameters())
    if rows * columns > limits.entries:
        products = JacobianProducts(objective, field)
        side = "rows" if rows < columns else "columns"
        return ProductSystem(products, side, limits.rank, Stopping(limits.tolerance, limits.products))
    residuals, jacobian = objective.linearise(field)
    objective.look(rows * columns * min(rows, columns))
    return (DualSystem if rows < columns else PrimalSystem)(residuals, jacobian)
