"""Least-squares problems in batches, posed for tests: residuals with a Jacobian or alone, sums, a loss that is not convex."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import jacfwd, jacrev, vmap

from cpikan.errors import InputError
from cpikan.learning.least_squares import LeastSquares
from cpikan.learning.normal_equations import Equations, NormalEquations, ProblemParts
from cpikan.learning.robust import SQUARES, Loss, Squares


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
        eye = torch.eye(self.residuals.shape[-1], dtype=metric.dtype)
        factor, info = torch.linalg.cholesky_ex(scaled @ scaled.mT + damping[:, None, None] * eye)
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


@dataclass(frozen=True)
class Cauchy:
    """width^2 log(1 + (r / width)^2) / 2: outliers fade out altogether; not convex."""

    width: float

    def value(self, residuals: Tensor) -> Tensor:
        """Compute the loss elementwise."""
        return 0.5 * self.width**2 * torch.log1p((residuals / self.width).square())

    def weight(self, residuals: Tensor) -> Tensor:
        """Compute the weight elementwise, at most one."""
        return 1 / (1 + (residuals / self.width).square())


@dataclass(frozen=True)
class WithJacobian:
    """Residuals and Jacobian by the user's own batched function.

    ``function(parameters (n, P), *data)`` returns residuals (n, R) and Jacobian (n, R, P); the tensors of ``data`` begin
    with the problems, and those of problems that are done are left out. ``residuals``, if given, computes the residuals
    alone and spares the Jacobian where a step is only tried.
    """

    function: Callable[..., tuple[Tensor, Tensor]]
    data: tuple[Tensor, ...] = ()
    loss: Loss = SQUARES
    residuals: Callable[..., Tensor] | None = None

    def cost(self, parameters: Tensor) -> Tensor:
        """Compute the loss of each problem, (n,)."""
        if self.residuals is None:
            found = self.function(parameters, *self.data)[0]
        else:
            found = self.residuals(parameters, *self.data)
        return self.loss.value(found).sum(dim=-1)

    def linearise(self, parameters: Tensor) -> NormalEquations | DualEquations:
        """Set up the linear systems at these parameters; raises InputError for shapes that do not fit."""
        residuals, jacobian = self.function(parameters, *self.data)
        n, p = parameters.shape
        if residuals.ndim != 2 or len(residuals) != n or tuple(jacobian.shape) != (n, residuals.shape[1], p):
            raise InputError(
                f"residuals {tuple(residuals.shape)} and Jacobian {tuple(jacobian.shape)} for parameters {(n, p)}: "
                f"give ({n}, R) and ({n}, R, {p})"
            )
        return equations(residuals, jacobian, self.loss)

    def take(self, index: Tensor) -> WithJacobian:
        """Select the problems ``index``."""
        return replace(self, data=tuple(tensor[index] for tensor in self.data))


@dataclass(frozen=True)
class Residuals:
    """Residuals of one problem, ``function(parameters (P,), *data of that problem) -> (R,)``, derived by torch.func.

    The function is batched over the problems with ``vmap``; ``mode`` is "forward" (a column of J per parameter),
    "reverse" (a row per residual), or "auto", the cheaper by counting.
    """

    function: Callable[..., Tensor]
    data: tuple[Tensor, ...] = ()
    loss: Loss = SQUARES
    mode: Literal["auto", "forward", "reverse"] = "auto"

    def cost(self, parameters: Tensor) -> Tensor:
        """Compute the loss of each problem, (n,)."""
        return self.loss.value(self._residuals(parameters)).sum(dim=-1)

    def linearise(self, parameters: Tensor) -> NormalEquations | DualEquations:
        """Set up the linear systems at these parameters; raises InputError for an unknown ``mode``."""
        forward = self.mode == "forward"
        if self.mode == "auto":
            forward = parameters.shape[-1] <= self._residuals(parameters).shape[-1]
        elif self.mode not in ("forward", "reverse"):
            raise InputError(f"mode {self.mode!r}: give auto, forward or reverse")

        def twice(p: Tensor, *data: Tensor) -> tuple[Tensor, Tensor]:
            found = self.function(p, *data)
            return found, found

        derive: Any = jacfwd if forward else jacrev
        jacobian, residuals = vmap(derive(twice, has_aux=True))(parameters, *self.data)
        # some forward-mode rules of torch return float64 whatever they were given
        return equations(residuals.detach(), jacobian.detach().to(residuals.dtype), self.loss)

    def take(self, index: Tensor) -> Residuals:
        """Select the problems ``index``."""
        return replace(self, data=tuple(tensor[index] for tensor in self.data))

    def _residuals(self, parameters: Tensor) -> Tensor:
        with torch.no_grad():
            found = vmap(self.function)(parameters, *self.data)
        if found.ndim != 2:
            raise InputError(f"residuals of one problem have shape {tuple(found.shape[1:])}: give one list, (R,)")
        return found


@dataclass(frozen=True)
class Pointwise:
    """Residuals that each belong to one point, ``function(parameters (P,), *data of that point) -> () or (C,)``.

    The tensors of ``data`` are (n, points, ...). The Jacobian comes from one reverse pass per component, batched over
    points and problems: for a differential equation with many points and parameters this is many times cheaper than
    ``Residuals``, which does not know that a point's residual is its own.
    """

    function: Callable[..., Tensor]
    data: tuple[Tensor, ...]
    loss: Loss = SQUARES

    def cost(self, parameters: Tensor) -> Tensor:
        """Compute the loss of each problem, (n,)."""
        with torch.no_grad():
            found = vmap(self._at_points(self.function))(parameters, *self.data)
        return self.loss.value(found.flatten(1)).sum(dim=-1)

    def linearise(self, parameters: Tensor) -> NormalEquations | DualEquations:
        """Set up the linear systems at these parameters."""

        def twice(p: Tensor, *point: Tensor) -> tuple[Tensor, Tensor]:
            found = self.function(p, *point)
            return found, found

        derive: Any = jacrev(twice, has_aux=True)
        jacobian, residuals = vmap(self._at_points(derive))(parameters, *self.data)
        rows = jacobian.detach().reshape(len(parameters), -1, parameters.shape[-1])
        return equations(residuals.detach().flatten(1), rows, self.loss)

    def take(self, index: Tensor) -> Pointwise:
        """Select the problems ``index``."""
        return replace(self, data=tuple(tensor[index] for tensor in self.data))

    def _at_points(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return vmap(function, in_dims=(None, *(0 for _ in self.data)))


@dataclass(frozen=True)
class Sum:
    """The sum of problems over the same parameters: chunks of so many residuals that one Jacobian would not fit.

    Only one chunk's Jacobian exists at a time; J'J and J'r are accumulated.
    """

    chunks: Sequence[LeastSquares]

    def cost(self, parameters: Tensor) -> Tensor:
        """Compute the loss of each problem, (n,), summed over the chunks."""
        total = self.chunks[0].cost(parameters)
        for chunk in self.chunks[1:]:
            total = total + chunk.cost(parameters)
        return total

    def linearise(self, parameters: Tensor) -> NormalEquations:
        """Set up the linear systems at these parameters, in normal form, summed over the chunks."""
        total = _normal(self.chunks[0].linearise(parameters))
        for chunk in self.chunks[1:]:
            total = total + _normal(chunk.linearise(parameters))
        return total

    def take(self, index: Tensor) -> Sum:
        """Select the problems ``index``."""
        return Sum([chunk.take(index) for chunk in self.chunks])


def _normal(found: Equations) -> NormalEquations:
    if isinstance(found, DualEquations):
        return NormalEquations(found.cost, found.gradient, found.jacobian.mT @ found.jacobian)
    if not isinstance(found, NormalEquations):
        raise InputError(f"{type(found).__name__} cannot be summed: chunks need normal or dual equations")
    return found
