"""LastLayer: the output coefficients by linear least squares, iterated (Gauss-Newton) where the problem is nonlinear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cpikan.errors import InputError
from cpikan.fields.protocol import LinearOutput
from cpikan.learning.run import Run
from cpikan.learning.stop_reason import StopReason

_HALVINGS = 12
_FLAT = 1e-3  # Gauss-Newton is done when a step lowers the cost by less than this share of it
_REFINEMENTS = 2


@dataclass(frozen=True)
class LastLayer:
    """Solve for the last layer by QR: one step and one of iterative refinement in a linear problem.

    ``damping`` is relative to columns of unit length: it holds back directions that the rows do not see at all.
    """

    iterations: int = 30
    damping: float = 1e-14
    name: str = "last layer"

    def run(self, run: Run) -> StopReason:
        """Iterate until a step does not help; costs fall in every step that is taken."""
        field: Any = run.field
        if not isinstance(run.field, LinearOutput):
            raise InputError(f"last-layer step for {type(field).__name__}: give a field whose output is linear")
        if run.rows.affine(field.outputs):
            return self._once(run, field)
        for _ in range(self.iterations):
            residuals, jacobian = run.rows.linearise(field, last_only=True)
            cost = float(0.5 * residuals.square().sum())
            step = StackedQR.of(jacobian, self.damping).solve(-residuals)
            if not bool(torch.isfinite(step).all()):
                return StopReason.DIVERGED
            reached = _shorten(run, field, step, cost)
            ended = run.note(cost if reached is None else reached, check=True)
            if ended is not None:
                return ended
            if reached is None or reached > (1 - _FLAT) * cost:
                return StopReason.COST
        return StopReason.BUDGET

    def _once(self, run: Run, field: Any) -> StopReason:
        """From zero in one solve, refined with the same factor: residuals anew, another right-hand side."""
        field.set_output_coefficients(torch.zeros_like(field.output_coefficients()))
        residuals, jacobian = run.rows.linearise(field, last_only=True)
        factor = StackedQR.of(jacobian, self.damping)
        del jacobian
        cost = float(0.5 * residuals.square().sum())
        for _ in range(1 + _REFINEMENTS):
            step = factor.solve(-residuals)
            if not bool(torch.isfinite(step).all()):
                return StopReason.DIVERGED
            reached = _shorten(run, field, step, cost, halvings=1)
            ended = run.note(cost if reached is None else reached, check=True)
            if ended is not None:
                return ended
            if reached is None:
                break
            cost = reached
            with torch.no_grad():
                residuals = run.rows.residuals(field)
        return StopReason.COST


@dataclass(frozen=True)
class StackedQR:
    """min |A x - b|^2 + damping^2 |S x|^2 with S the lengths of A's columns, by Householder QR of the stacked system.

    Normal equations would square the condition number and end near 1e-8.
    """

    reflectors: Tensor
    factors: Tensor
    length: Tensor

    @classmethod
    def of(cls, matrix: Tensor, damping: float) -> StackedQR:
        """Factor A (m, n) once for any number of right-hand sides; an A that is not finite solves to NaN."""
        length = matrix.norm(dim=0)
        length = torch.where(length > 0, length, torch.ones_like(length))
        below = damping * torch.eye(len(length), dtype=matrix.dtype, device=matrix.device)
        return cls(*torch.geqrf(torch.cat([matrix / length, below])), length)

    def solve(self, right: Tensor) -> Tensor:
        """x (n,) for b (m,)."""
        count = len(self.length)
        padded = torch.cat([right, right.new_zeros(count)])[:, None]
        turned = torch.ormqr(self.reflectors, self.factors, padded, transpose=True)[:count]
        solved = torch.linalg.solve_triangular(self.reflectors[:count], turned, upper=True)
        return solved.squeeze(-1) / self.length


def _shorten(run: Run, field: Any, step: Tensor, before: float, halvings: int = _HALVINGS) -> float | None:
    """Take the longest of 1, 1/2, 1/4, ... of the step that lowers the cost; None, and no step, when none does."""
    kept = field.output_coefficients().detach().clone()
    with torch.no_grad():
        for halving in range(halvings):
            field.set_output_coefficients(kept + 0.5**halving * step.reshape(kept.shape))
            cost = float(0.5 * run.rows.residuals(run.field).square().sum())
            if cost < before:
                return cost
        field.set_output_coefficients(kept)
    return None
