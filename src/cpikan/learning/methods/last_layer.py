"""LastLayer: the output coefficients by linear least squares, iterated (Gauss-Newton) where the problem is nonlinear."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.learning.methods.gauss_newton import backtracked
from cpikan.learning.methods.method import Method, State
from cpikan.learning.objective import Objective, Place, half_squares
from cpikan.learning.qr_equations import StackedQR
from cpikan.learning.stop_reason import StopReason
from cpikan.learning.unknowns import is_linear, output_vector, outputs_of, set_output_vector, zero_output

_HALVINGS = 12
_FLAT = 1e-3  # Gauss-Newton is done when a step lowers the cost by less than this share of it
_REFINEMENTS = 2


class OutputProblem:
    """An objective as a least-squares problem of what a field's output is linear in; ``damping`` as of ``StackedQR``."""

    def __init__(self, objective: Place, field: nn.Module, damping: float) -> None:
        self._objective, self._field, self._damping = objective, field, damping

    def position(self) -> Tensor:
        """Copy the coefficients."""
        return output_vector(self._field)

    def put(self, position: Tensor) -> None:
        """Put coefficients into the field."""
        set_output_vector(self._field, position)

    def cost(self) -> float:
        """Evaluate the cost."""
        with torch.no_grad():
            return float(self._objective.cost(self._field))

    def step(self) -> tuple[float, Tensor]:
        """Give the cost and the full Gauss-Newton step."""
        return self.factor()[1:]

    def factor(self) -> tuple[StackedQR, float, Tensor]:
        """Give the factor of the Jacobian with the cost and the full step."""
        system = self._objective.linearise(self._field, "output")
        factor = StackedQR.of(system.jacobian, self._damping)
        return factor, float(system.cost), factor.solve(-system.residuals)

    def refine(self, factor: StackedQR) -> tuple[float, Tensor]:
        """Compute the cost and the step with a factor of the same Jacobian."""
        with torch.no_grad():
            residuals = self._objective.residuals(self._field)
        return float(half_squares(residuals)), factor.solve(-residuals)


@dataclass(frozen=True)
class LastLayer(Method):
    """Solve for the last layer by QR: one step and two of iterative refinement in a linear problem.

    ``damping`` is relative to columns of unit length: it holds back directions that the rows do not see at all.
    """

    iterations: int = 30
    damping: float = 1e-14
    name: str = "last layer"
    look_every = 1

    def init(self, objective: Objective, field: nn.Module) -> State:
        """Begin from zero in a linear problem; raises InputError for a field whose output is not linear."""
        if not is_linear(field):
            raise InputError(f"last-layer step for {type(field).__name__}: give a field whose output is linear")
        linear = objective.affine(outputs_of(field))
        if linear:
            zero_output(field)
        return {"taken": 0, "linear": linear, "reason": int(StopReason.RUNNING)}

    def step(self, objective: Objective, field: nn.Module, state: State) -> tuple[State, float]:
        """Solve, or solve again with the same factor; a step is taken as far as it lowers the cost."""
        problem, linear = OutputProblem(objective, field, self.damping), state["linear"]
        state = {**state, "taken": state["taken"] + 1}
        factor = state.get("_factor")
        if factor is None:
            factor, cost, step = problem.factor()
        if linear:
            state["_factor"] = factor
        if linear and state["taken"] > 1:
            cost, step = problem.refine(factor)
        if not bool(torch.isfinite(step).all()):
            return {**state, "reason": int(StopReason.DIVERGED)}, cost
        reached = backtracked(problem, step, cost, 1 if linear else _HALVINGS)
        flat = reached is None or (not linear and reached > (1 - _FLAT) * cost)
        if flat or (linear and state["taken"] > _REFINEMENTS):
            state["reason"] = int(StopReason.COST)
        return state, cost if reached is None else reached

    def stop(self, state: State) -> StopReason:
        """Stop where a step hardly helps."""
        if state["reason"] == StopReason.RUNNING and state["taken"] >= self.iterations:
            return StopReason.BUDGET
        return StopReason(state["reason"])
