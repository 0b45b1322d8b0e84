"""Damped linear systems through QR factors, without squaring their condition; for Levenberg-Marquardt and for last layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from cpikan.learning.normal_equations import ProblemParts
from cpikan.learning.objective import LinearSystem


@dataclass(frozen=True)
class _QRParts(ProblemParts):
    cost: Tensor
    gradient: Tensor
    diagonal: Tensor

    @classmethod
    def _with(cls, system: LinearSystem, *factors: Tensor) -> Self:
        """Join the parts of one problem with its factors; every part gets a leading axis of one."""
        residuals, jacobian = system
        parts = (system.cost, jacobian.mT @ residuals, jacobian.square().sum(dim=0), *factors)
        return cls(*(part[None] for part in parts))


@dataclass(frozen=True)
class QREquations(_QRParts):
    """R of J = Q R and Q'r: the damped step solves min |[R S; sqrt(m)] y + [Q'r; 0]| with S = D^-1/2, step = S y.

    The condition of J enters once, not squared: residuals can fall below 1e-8 of where they started.
    """

    triangle: Tensor
    turned: Tensor

    @classmethod
    def of(cls, system: LinearSystem) -> QREquations:
        """Factor r (R,) and J (R, P) of one problem."""
        residuals, jacobian = system
        stacked = torch.cat([jacobian, residuals[:, None]], dim=1)
        triangle = torch.linalg.qr(stacked, mode="r")[1]
        width = jacobian.shape[1]
        return cls._with(system, triangle[:width, :width], triangle[:width, width])

    def step(self, damping: Tensor, metric: Tensor) -> tuple[Tensor, Tensor]:
        """Solve for the damped step (1, P), and tell whether it is finite (1,)."""
        scale = metric[0].rsqrt()
        width = len(scale)
        below = damping[0].sqrt() * torch.eye(width, dtype=scale.dtype, device=scale.device)
        right = torch.cat([self.turned[0], self.turned.new_zeros(width)])[:, None]
        stacked = torch.cat([torch.cat([self.triangle[0] * scale, below]), right], dim=1)
        if not bool(torch.isfinite(stacked).all()):
            return torch.zeros_like(metric), torch.zeros(1, dtype=torch.bool)
        factor = torch.linalg.qr(stacked, mode="r")[1]
        solved = torch.linalg.solve_triangular(factor[:width, :width], factor[:width, width:], upper=True)
        step = -(scale * solved.squeeze(-1))[None]
        return step, torch.isfinite(step).all(dim=-1)


@dataclass(frozen=True)
class DualQREquations(_QRParts):
    """J (1, R, P) and r (1, R) themselves, for fewer rows than parameters: a factor of size R instead of P.

    The damped step is S times the first P entries of the shortest z with [J S, sqrt(m)] z = -r, S = D^-1/2, found by QR of
    the transposed; in exact arithmetic -D^-1 J' (J D^-1 J' + m)^-1 r, the Woodbury form, without squaring the condition.
    """

    jacobian: Tensor
    residuals: Tensor

    @classmethod
    def of(cls, system: LinearSystem) -> DualQREquations:
        """Keep r (R,) and J (R, P) of one problem."""
        return cls._with(system, system.jacobian, system.residuals)

    def step(self, damping: Tensor, metric: Tensor) -> tuple[Tensor, Tensor]:
        """Solve for the damped step (1, P), and tell whether it is finite (1,)."""
        scale, jacobian, residuals = metric[0].rsqrt(), self.jacobian[0], self.residuals[0]
        rows, width = jacobian.shape
        below = damping[0].sqrt() * torch.eye(rows, dtype=scale.dtype, device=scale.device)
        stacked = torch.cat([(jacobian * scale).mT, below])
        if not bool(torch.isfinite(stacked).all()):
            return torch.zeros_like(metric), torch.zeros(1, dtype=torch.bool)
        turn, factor = torch.linalg.qr(stacked)
        solved = torch.linalg.solve_triangular(factor.mT, -residuals[:, None], upper=False)
        step = (scale * (turn[:width] @ solved).squeeze(-1))[None]
        return step, torch.isfinite(step).all(dim=-1)


def factored(system: LinearSystem) -> QREquations | DualQREquations:
    """Choose the smaller of both QR forms: the dual one for fewer rows than parameters."""
    rows, width = system.jacobian.shape
    return DualQREquations.of(system) if rows < width else QREquations.of(system)


@dataclass(frozen=True)
class StackedQR:
    """min |A x - b|^2 + damping^2 |S x|^2 with S the lengths of A's columns, by Householder QR of the stacked system.

    Normal equations would square the condition number and end near 1e-8.
    """

    reflectors: Tensor
    factors: Tensor
    length: Tensor

    @classmethod
    def of(cls, matrix: Float[Tensor, "m n"], damping: float) -> StackedQR:
        """Factor A (m, n) once for any number of right-hand sides; an A that is not finite solves to NaN."""
        length = matrix.norm(dim=0)
        length = torch.where(length > 0, length, torch.ones_like(length))
        below = damping * torch.eye(len(length), dtype=matrix.dtype, device=matrix.device)
        return cls(*torch.geqrf(torch.cat([matrix / length, below])), length)

    def solve(self, right: Float[Tensor, " m"]) -> Float[Tensor, " n"]:
        """Solve the stacked system for x (n,) given b (m,)."""
        count = len(self.length)
        padded = torch.cat([right, right.new_zeros(count)])[:, None]
        turned = torch.ormqr(self.reflectors, self.factors, padded, transpose=True)[:count]
        solved = torch.linalg.solve_triangular(self.reflectors[:count], turned, upper=True)
        return solved.squeeze(-1) / self.length
