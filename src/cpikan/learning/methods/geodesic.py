"""GeodesicLevenberg: Levenberg-Marquardt with geodesic acceleration, the output layer solved for anew after every step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.fields.functional import parameter_vector, set_parameters
from cpikan.learning.methods.gauss_newton import gauss_newton
from cpikan.learning.methods.last_layer import OutputProblem
from cpikan.learning.methods.method import Method, State
from cpikan.learning.objective import LinearSystem, Objective, half_squares
from cpikan.learning.stop_reason import StopReason
from cpikan.learning.unknowns import is_linear

_PROBE = 0.1  # of a step, where residuals are taken for their second derivative along it (Transtrum and Sethna 2012)
_ACCEPT = 1e-4  # least gain ratio of a step that is taken
_SMALLEST, _LARGEST = 1e-16, 1e16  # damping, relative to the largest diagonal of J'J
_RANK = 1e-8  # damping of the output layer, relative to columns of unit length: coefficients beyond are rounding's
_FLAT = 1e-3
_REFINEMENTS = 1


class _System(NamedTuple):
    """Residuals (R,), their Jacobian (R, P), the gradient J'r (P,) and J'J."""

    residuals: Tensor
    jacobian: Tensor
    gradient: Tensor
    normal: Tensor

    @classmethod
    def of(cls, system: LinearSystem) -> _System:
        """Add the normal matrix to a linear system."""
        residuals, jacobian = system
        return cls(residuals, jacobian, jacobian.mT @ residuals, jacobian.mT @ jacobian)


@dataclass(frozen=True)
class GeodesicLevenberg(Method):
    """Steps d + a / 2 with (J'J + m) d = -J'r and (J'J + m) a = -J' r'', r'' the second derivative of r along d.

    The damping m is that of the identity, scaled by nothing: inner coefficients of a Chebyshev network are of one size. A
    step is taken where it lowers the cost and 2 |a| <= ``bend`` |d|; after it m falls to max(1/3, 1 - (2 gain - 1)^3) of
    itself, else it grows by 2, 4, 8, ... (Nielsen 1999). Then the output layer is solved for by QR, whose coefficients no
    damping holds back. Ends after ``patience`` steps without a lower held-out residual. Source: Transtrum and Sethna,
    arXiv 1201.5885 (2012). Raises InputError for densities, and for a field whose output is not linear unless
    ``solve_output`` is False.
    """

    iterations: int = 100_000
    damping: float = 1e-3
    bend: float = 0.75
    accelerated: bool = True
    solve_output: bool = True
    patience: int | None = 200
    name: str = "geodesic levenberg-marquardt"
    look_every = 5

    def init(self, objective: Objective, field: nn.Module) -> State:
        """Solve for the output layer at the start."""
        if self.solve_output and not is_linear(field):
            raise InputError(
                f"output layer of a {type(field).__name__}: give a field whose output is linear, or solve_output=False"
            )
        self._solve_output(objective, field)
        return {"damping": 0.0, "growth": 2.0, "taken": 0, "reason": int(StopReason.RUNNING)}

    def step(self, objective: Objective, field: nn.Module, state: State) -> tuple[State, float]:
        """Try one step; the field stays where it does not lower the cost."""
        system = state["_system"] if "_system" in state else _System.of(objective.linearise(field))
        cost, start = float(half_squares(system.residuals)), parameter_vector(field)
        largest = float(system.normal.diagonal().amax())
        damping = state["damping"] or self.damping * largest
        state = {**state, "taken": state["taken"] + 1, "_system": system, "damping": damping}
        move, gain = self._tried(objective, field, system, damping)
        if move is None or not gain > _ACCEPT:
            set_parameters(field, start)
            state |= {"damping": damping * state["growth"], "growth": 2 * state["growth"]}
            stuck = state["damping"] > _LARGEST * largest
            return {**state, "reason": int(StopReason.STALLED if stuck else StopReason.RUNNING)}, cost
        self._solve_output(objective, field)
        eased = damping * max(1 / 3, 1 - (2 * gain - 1) ** 3)
        state |= {"damping": max(eased, _SMALLEST * largest), "growth": 2.0}
        del state["_system"]
        system = state["_system"] = _System.of(objective.linearise(field))
        return state, float(half_squares(system.residuals))

    def stop(self, state: State) -> StopReason:
        """Stop where no damping lets the cost fall, and at the number of steps."""
        if state["reason"] != int(StopReason.RUNNING):
            return StopReason(state["reason"])
        return StopReason.BUDGET if state["taken"] >= self.iterations else StopReason.RUNNING

    @torch.no_grad()
    def _tried(
        self, objective: Objective, field: nn.Module, system: _System, damping: float
    ) -> tuple[Tensor | None, float]:
        """Move the field by a step; gives the step, None where there is none to take, and its gain ratio."""
        shifted = system.normal + damping * torch.eye(len(system.gradient), dtype=system.normal.dtype)
        factor, info = torch.linalg.cholesky_ex(shifted)
        if int(info):
            return None, 0.0

        def solved(right: Tensor) -> Tensor:
            found = torch.cholesky_solve(right[:, None], factor).squeeze(1)
            for _ in range(_REFINEMENTS):  # J'J squares the condition of J: what it leaves is taken from J itself
                left = right - system.jacobian.mT @ (system.jacobian @ found) - damping * found
                found = found + torch.cholesky_solve(left[:, None], factor).squeeze(1)
            return found

        start, move = parameter_vector(field), solved(-system.gradient)
        predicted = 0.5 * float(((damping * move - system.gradient) * move).sum())
        if self.accelerated:
            set_parameters(field, start + _PROBE * move)
            probed = objective.residuals(field)
            along = system.jacobian @ move
            second = (2 / _PROBE) * ((probed - system.residuals) / _PROBE - along)
            bent = solved(-(system.jacobian.mT @ second))
            if not 2 * float(bent.norm()) <= self.bend * float(move.norm()):
                return None, 0.0
            move = move + 0.5 * bent
        set_parameters(field, start + move)
        cost = float(half_squares(objective.residuals(field)))
        before = float(half_squares(system.residuals))
        gain = (before - cost) / predicted if math.isfinite(cost) and predicted > 0 else 0.0
        return move, gain

    def _solve_output(self, objective: Objective, field: nn.Module) -> None:
        if self.solve_output:
            gauss_newton(OutputProblem(objective, field, _RANK), 1, 2, _FLAT)
