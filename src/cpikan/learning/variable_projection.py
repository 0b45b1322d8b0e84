"""Variable projection: output coefficients eliminated by least squares, Levenberg-Marquardt on all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cpikan.errors import InputError
from cpikan.fields.functional import parameter_vector, set_parameters
from cpikan.fields.protocol import LinearOutput
from cpikan.learning.last_layer import StackedQR
from cpikan.learning.levenberg_stage import Levenberg, descend, factored
from cpikan.learning.normal_equations import Equations
from cpikan.learning.run import Run
from cpikan.learning.stop_reason import StopReason

_RANK = 1e-12  # damping of the eliminated coefficients, relative to columns of unit length
_GAUSS_NEWTON, _HALVINGS, _FLAT = 4, 6, 1e-3


@dataclass(frozen=True)
class VariableProjection(Levenberg):
    """min over inner parameters a of min over c of |r(a, c)|^2, with c the output coefficients.

    In a linear problem c is found by one QR; in others by a few steps of Gauss-Newton from where it was. The Jacobian is
    Kaufman's: that of r by a at fixed c, projected off the columns of c (Golub and Pereyra 1973; Kaufman 1975). Raises
    InputError for a field whose output is not linear, or that has no parameters besides it.
    """

    name: str = "variable projection"

    def run(self, run: Run) -> StopReason:
        """Iterate; the state that was best at held-out points stays."""
        kept = run.kept()
        problem = Projected(run, settled=bool(kept))
        return descend(run, problem, parameter_vector(run.field)[problem.inner], self, kept)


class Projected:
    """The rows of a run as a least-squares problem of the inner parameters (1, P_inner) alone.

    ``settled`` says that the output coefficients are already the best for the inner ones.
    """

    def __init__(self, run: Run, settled: bool = False) -> None:
        field: Any = run.field
        if not isinstance(run.field, LinearOutput):
            raise InputError(f"variable projection of a {type(field).__name__}: give a field whose output is linear")
        self._run, self._field = run, field
        self._linear = run.rows.affine(field.outputs)
        outer = _outer_parameters(field)
        self.inner, self._outer = torch.nonzero(~outer).flatten(), torch.nonzero(outer).flatten()
        if not len(self.inner):
            raise InputError(
                f"variable projection of a {type(field).__name__} without inner parameters: use recipe last-layer"
            )
        self._coefficients = field.output_coefficients().detach().clone()
        self._best_at = parameter_vector(run.field)[self.inner] if settled else None
        self._best = self._coefficients

    def put(self, parameters: Tensor) -> None:
        """Put inner parameters (1, P_inner) into the field, with the coefficients of the last linearisation."""
        vector = parameter_vector(self._run.field)
        vector[self.inner] = parameters[0]
        set_parameters(self._run.field, vector)
        self._field.set_output_coefficients(self._coefficients)

    def cost(self, parameters: Tensor) -> Tensor:
        """Half the sum of squares with the best coefficients, (1,)."""
        self.put(parameters)
        cost = self._eliminate()[None]
        self._best_at, self._best = parameters[0].clone(), self._field.output_coefficients().detach().clone()
        return cost

    def linearise(self, parameters: Tensor) -> Equations:
        """Residuals with the best coefficients and Kaufman's Jacobian, factored."""
        if self._best_at is None or not torch.equal(self._best_at, parameters[0]):
            self.cost(parameters)
        self._coefficients = self._best
        self.put(parameters)
        residuals, jacobian = self._run.rows.linearise(self._run.field)
        columns = jacobian[:, self._outer]
        length = columns.norm(dim=0)
        basis = torch.linalg.qr(columns / torch.where(length > 0, length, 1.0))[0]
        inner = jacobian[:, self.inner]
        return factored(residuals, inner - basis @ (basis.mT @ inner))

    def take(self, index: Tensor) -> Projected:
        """There is but one problem."""
        return self

    def _eliminate(self) -> Tensor:
        """Set the output coefficients to their best; the cost there."""
        rows, field = self._run.rows, self._field
        residuals, jacobian = rows.linearise(field, last_only=True)
        cost = 0.5 * residuals.square().sum()
        for _ in range(1 if self._linear else _GAUSS_NEWTON):
            if not bool(torch.isfinite(jacobian).all() & torch.isfinite(cost)):
                return torch.full_like(cost, torch.inf)
            step = StackedQR.of(jacobian, _RANK).solve(-residuals)
            reached = self._shortened(step, cost)
            if reached is None:
                break
            done, cost = bool(reached > (1 - _FLAT) * cost), reached
            if self._linear or done:
                break
            residuals, jacobian = rows.linearise(field, last_only=True)
        return cost

    @torch.no_grad()
    def _shortened(self, step: Tensor, before: Tensor) -> Tensor | None:
        """Take the longest of 1, 1/2, 1/4, ... of the step that lowers the cost; None, and no step, where none does."""
        kept = self._field.output_coefficients().detach().clone()
        for halving in range(1 if self._linear else _HALVINGS):
            self._field.set_output_coefficients(kept + 0.5**halving * step.reshape(kept.shape))
            cost = 0.5 * self._run.rows.residuals(self._run.field).square().sum()
            if bool(cost < before):
                return cost
        self._field.set_output_coefficients(kept)
        return None


def _outer_parameters(field: Any) -> Tensor:
    """Which entries of the parameter vector are output coefficients, (P,)."""
    with torch.enable_grad():
        total = field.output_coefficients().sum()
        parts = torch.autograd.grad(total, list(field.parameters()), allow_unused=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in parts]) != 0
