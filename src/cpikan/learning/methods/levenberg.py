"""Levenberg: all parameters of a field by Levenberg-Marquardt, each step through a QR factor instead of J'J."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from cpikan.fields.functional import parameter_vector, set_parameters
from cpikan.learning import levenberg_marquardt as batch
from cpikan.learning.least_squares import LeastSquares
from cpikan.learning.methods.method import Method, State
from cpikan.learning.normal_equations import Equations
from cpikan.learning.objective import Objective
from cpikan.learning.qr_equations import factored
from cpikan.learning.stop_reason import StopReason

_NUMBERS = ("metric", "damping", "growth", "iterations", "reason")  # of a state; the rest follows from the parameters


class FieldProblem(LeastSquares, Protocol):
    """A least-squares problem of one set of parameters (1, P), which may be some of the field's."""

    def parameters(self) -> Tensor:
        """Take the parameters (1, P) of the field."""
        ...

    def put(self, parameters: Tensor) -> None:
        """Put parameters (1, P) into the field."""
        ...


class AllParameters:
    """An objective as a least-squares problem of all parameters of a field."""

    def __init__(self, objective: Objective, field: nn.Module) -> None:
        self._objective, self._field = objective, field

    def parameters(self) -> Tensor:
        """Take the parameters (1, P) of the field."""
        return parameter_vector(self._field)[None]

    def cost(self, parameters: Tensor) -> Tensor:
        """Evaluate the cost, (1,)."""
        self.put(parameters)
        with torch.no_grad():
            return self._objective.cost(self._field)[None]

    def linearise(self, parameters: Tensor) -> Equations:
        """Linearise, and factor."""
        self.put(parameters)
        system = self._objective.linearise(self._field)
        self._objective.look(system.jacobian.numel() * min(system.jacobian.shape))
        return factored(system)

    def take(self, index: Tensor) -> AllParameters:
        """Return the problem itself: there is but one."""
        return self

    def put(self, parameters: Tensor) -> None:
        """Put parameters (1, P) into the field."""
        set_parameters(self._field, parameters[0])


@dataclass(frozen=True)
class Levenberg(Method):
    """Levenberg-Marquardt on all parameters; ends early after ``patience`` steps without a lower held-out residual."""

    iterations: int = 400
    damping: float = 1e-3
    patience: int | None = 30
    name: str = "levenberg-marquardt"
    look_every = 1

    @property
    def _settings(self) -> batch.Settings:
        return batch.Settings(iterations=self.iterations, damping=self.damping)

    def problem(self, objective: Objective, field: nn.Module, *, fresh: bool) -> FieldProblem:
        """Make the least-squares problem; ``fresh`` where no step was taken from here before."""
        return AllParameters(objective, field)

    def init(self, objective: Objective, field: nn.Module) -> State:
        """Linearise at the start."""
        problem = self.problem(objective, field, fresh=True)
        start = problem.parameters()
        state = batch.begin(problem, start, self._settings)
        problem.put(start)
        return _state(problem, state)

    def step(self, objective: Objective, field: nn.Module, state: State) -> tuple[State, float]:
        """Try one damped step; the field stays where it does not lower the cost."""
        problem = state.get("_problem") or self.problem(objective, field, fresh=False)
        parameters = problem.parameters()
        equations = state["_equations"] if "_equations" in state else problem.linearise(parameters)
        numbers = {name: state[name] for name in _NUMBERS}
        found = batch.advance(problem, batch.State(torch.arange(1), parameters, equations, **numbers), self._settings)
        problem.put(found.parameters)
        return _state(problem, found), float(found.equations.cost)

    def stop(self, state: State) -> StopReason:
        """Stop at the tolerances of Levenberg-Marquardt."""
        return StopReason(int(state["reason"]))


def _state(problem: FieldProblem, state: batch.State) -> State:
    numbers = {name: getattr(state, name) for name in _NUMBERS}
    return {**numbers, "_problem": problem, "_equations": state.equations}
