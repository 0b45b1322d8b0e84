"""Damped: Levenberg-Marquardt steps with the damping of the identity, bent by geodesic acceleration; how they are solved
for is the method's."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import nn

from cpikan.errors import InputError
from cpikan.fields.functional import parameter_vector, set_parameters
from cpikan.learning.damped_systems import DampedSystem
from cpikan.learning.methods.method import Method, State
from cpikan.learning.objective import Objective, Place, half_squares
from cpikan.learning.stop_reason import StopReason

_PROBE = 0.1  # of a step, where residuals are taken for their second derivative along it (Transtrum and Sethna 2012)
_ACCEPT = 1e-4  # least gain ratio of a step that is taken
SMALLEST, LARGEST = 1e-16, 1e16  # damping, relative to the scale of J'J


@dataclass(frozen=True)
class Damped(Method):
    """Steps d + a / 2 with (J'J + m) d = -J'r and (J'J + m) a = -J' r'', r'' the second derivative of r along d.

    The damping m is that of the identity, scaled by nothing: inner coefficients of a Chebyshev network are of one size. A
    step is taken where it lowers the cost and 2 |a| <= ``bend`` |d|; after it m falls to max(1/3, 1 - (2 gain - 1)^3) of
    itself, else it grows by 2, 4, 8, ... (Nielsen 1999). Ends after ``patience`` looks without a lower held-out residual.
    Source: Transtrum and Sethna, arXiv 1201.5885 (2012). Raises InputError for densities.
    """

    iterations: int = 100_000
    damping: float = 1e-3
    bend: float = 0.75
    accelerated: bool = True
    patience: int | None = 200
    look_every = 5

    def __post_init__(self) -> None:
        if self.iterations < 1 or not self.damping > 0:
            raise InputError(
                f"{self.iterations} steps of {self.name} from damping {self.damping}: give at least 1, and more than 0"
            )

    @abstractmethod
    def system(self, place: Place, field: nn.Module) -> DampedSystem:
        """Linearise where the field is."""

    def place(self, objective: Objective, field: nn.Module) -> Place:
        """Give what evaluates the objective where the field is now."""
        return objective

    def settle(self, place: Place, field: nn.Module) -> None:
        """Improve the field at the start and after every step that is taken."""

    def init(self, objective: Objective, field: nn.Module) -> State:
        """Settle at the start."""
        objective.need_residuals()
        self.settle(objective, field)
        return {"damping": 0.0, "growth": 2.0, "taken": 0, "reason": int(StopReason.RUNNING)}

    def step(self, objective: Objective, field: nn.Module, state: State) -> tuple[State, float]:
        """Try one step; the field stays where it does not lower the cost."""
        system = state["_system"] if "_system" in state else self.system(objective, field)
        cost, start, scale = float(half_squares(system.residuals)), parameter_vector(field), system.scale
        damping = state["damping"] or self.damping * scale
        state = {**state, "taken": state["taken"] + 1, "_system": system, "damping": damping}
        place, gain = self._tried(objective, field, system, damping)
        if place is None or not gain > _ACCEPT:
            set_parameters(field, start)
            state |= {"damping": damping * state["growth"], "growth": 2 * state["growth"]}
            stuck = state["damping"] > LARGEST * scale
            return {**state, "reason": int(StopReason.STALLED if stuck else StopReason.RUNNING)}, cost
        self.settle(place, field)
        eased = damping * max(1 / 3, 1 - (2 * gain - 1) ** 3)
        state |= {"damping": max(eased, SMALLEST * scale), "growth": 2.0}
        del state["_system"], system  # before the next one is made: a Jacobian may be most of the memory
        system = state["_system"] = self.system(place, field)
        return state, float(half_squares(system.residuals))

    def stop(self, state: State) -> StopReason:
        """Stop where no damping lets the cost fall, and at the number of steps."""
        if state["reason"] != int(StopReason.RUNNING):
            return StopReason(state["reason"])
        return StopReason.BUDGET if state["taken"] >= self.iterations else StopReason.RUNNING

    @torch.no_grad()
    def _tried(
        self, objective: Objective, field: nn.Module, system: DampedSystem, damping: float
    ) -> tuple[Place | None, float]:
        """Move the field by a step; gives the place, None where there is no step to take, and the gain ratio."""
        solve = system.solver(damping)
        if solve is None:
            return None, 0.0
        start, move = parameter_vector(field), solve(system.residuals)
        along = system.times(move)
        predicted = -float(along @ system.residuals) - 0.5 * float(along @ along)
        if self.accelerated:
            set_parameters(field, start + _PROBE * move)
            second = (2 / _PROBE) * ((objective.residuals(field) - system.residuals) / _PROBE - along)
            bent = solve(second)
            if not 2 * float(bent.norm()) <= self.bend * float(move.norm()):
                return None, 0.0
            move = move + 0.5 * bent
        set_parameters(field, start + move)
        place = self.place(objective, field)
        cost, before = float(place.cost(field)), float(half_squares(system.residuals))
        return place, (before - cost) / predicted if math.isfinite(cost) and predicted > 0 else 0.0
