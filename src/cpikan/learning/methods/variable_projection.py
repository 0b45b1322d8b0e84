"""Variable projection: output coefficients eliminated by least squares, Levenberg-Marquardt on all others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.fields.functional import parameter_vector, set_parameters
from cpikan.learning.methods.gauss_newton import gauss_newton
from cpikan.learning.methods.last_layer import OutputProblem
from cpikan.learning.methods.levenberg import FieldProblem, Levenberg
from cpikan.learning.normal_equations import Equations
from cpikan.learning.objective import LinearSystem, Objective
from cpikan.learning.qr_equations import factored
from cpikan.learning.unknowns import is_linear, network_of, output_vector, outputs_of, set_output_vector, unknowns_of

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

    def problem(self, objective: Objective, field: nn.Module, *, fresh: bool) -> FieldProblem:
        """Make the least-squares problem of the inner parameters."""
        return Projected(objective, field, settled=not fresh)


class Projected:
    """An objective as a least-squares problem of the inner parameters (1, P_inner) alone.

    ``settled`` says that the output coefficients are already the best for the inner ones.
    """

    def __init__(self, objective: Objective, field: nn.Module, settled: bool = False) -> None:
        if not is_linear(field):
            raise InputError(f"variable projection of a {type(field).__name__}: give a field whose output is linear")
        self._objective, self._field = objective, field
        self._linear = objective.affine(outputs_of(field))
        outer = _outer_parameters(field)
        self.inner, self._outer = torch.nonzero(~outer).flatten(), torch.nonzero(outer).flatten()
        if not len(self.inner):
            raise InputError(
                f"variable projection of a {type(field).__name__} without inner parameters: use recipe last-layer"
            )
        self._coefficients = output_vector(field)
        self._best_at = parameter_vector(field)[self.inner] if settled else None
        self._best = self._coefficients

    def parameters(self) -> Tensor:
        """Take the inner parameters (1, P_inner) of the field."""
        return parameter_vector(self._field)[None, self.inner]

    def put(self, parameters: Tensor) -> None:
        """Put inner parameters (1, P_inner) into the field, with the coefficients of the last linearisation."""
        vector = parameter_vector(self._field)
        vector[self.inner] = parameters[0]
        set_parameters(self._field, vector)
        set_output_vector(self._field, self._coefficients)

    def cost(self, parameters: Tensor) -> Tensor:
        """Evaluate the cost with the best coefficients, (1,)."""
        self.put(parameters)
        steps, halvings = (1, 1) if self._linear else (_GAUSS_NEWTON, _HALVINGS)
        cost, _ = gauss_newton(OutputProblem(self._objective, self._field, _RANK), steps, halvings, _FLAT)
        self._best_at, self._best = parameters[0].clone(), output_vector(self._field)
        return torch.full((1,), cost, dtype=parameters.dtype)

    def linearise(self, parameters: Tensor) -> Equations:
        """Linearise at the best coefficients, with Kaufman's Jacobian, and factor."""
        if self._best_at is None or not torch.equal(self._best_at, parameters[0]):
            self.cost(parameters)
        self._coefficients = self._best
        self.put(parameters)
        residuals, jacobian = self._objective.linearise(self._field)
        self._objective.look(jacobian.numel() * jacobian.shape[1])
        columns = jacobian[:, self._outer]
        length = columns.norm(dim=0)
        basis = torch.linalg.qr(columns / torch.where(length > 0, length, 1.0))[0]
        inner = jacobian[:, self.inner]
        return factored(LinearSystem(residuals, inner - basis @ (basis.mT @ inner)))

    def take(self, index: Tensor) -> Projected:
        """Return the problem itself: there is but one."""
        return self


def _outer_parameters(field: nn.Module) -> Tensor:
    """Tell which entries of the parameter vector are output coefficients or unknowns, (P,)."""
    with torch.enable_grad():
        total, unknowns = network_of(field).output_coefficients().sum(), unknowns_of(field)
        total = total if unknowns is None else total + unknowns.sum()
        parts = torch.autograd.grad(total, list(field.parameters()), allow_unused=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in parts]) != 0
