"""Spring: natural gradient steps that keep a share of the last one, on all points or on mini-batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.fields.functional import parameter_vector, set_parameters
from cpikan.learning.damped_systems import LIMITS, DampedSystem, Limits, damped_system
from cpikan.learning.methods.damped import LARGEST, SMALLEST
from cpikan.learning.methods.method import Method, State
from cpikan.learning.mini_batch import check_batch, mini_batch
from cpikan.learning.objective import Objective, half_squares
from cpikan.learning.stop_reason import StopReason

_HALVINGS = 10
_FLOOR, _NOISE = 1e-12, 1e-2  # least damping on all points and on mini-batches, relative to the scale of J'J
_EASED, _RISEN = 1 / 3, 4.0  # of the damping after a full step, and after one that had to be cut to a quarter or less


@dataclass(frozen=True)
class Spring(Method):
    """Steps s that solve min |J s + r|^2 + m |s - ``momentum`` s_before|^2, with s_before the last step.

    That is momentum s_before - J'(JJ' + m)^-1 (r + momentum J s_before): what the last step knew of directions that these
    rows do not see stays. Without momentum it is the natural gradient (minSR). A step is halved until it lowers the cost of
    its points; where none does it is left, and so is the momentum. The damping m begins at ``damping`` of the scale of J'J,
    falls after full steps and rises after short ones, and stays above ``least`` of the scale: on mini-batches (``batch``
    interior points, drawn anew for every step) that keeps noise out, and is 1e-2 unless it is given. Source: Goldshlager,
    Abrahamsen and Lin, J. Comput. Phys. 516, 113351 (2024). Raises InputError for densities.
    """

    iterations: int = 100_000
    damping: float = 1e-3
    momentum: float = 0.9
    batch: int | None = None
    least: float | None = None
    limits: Limits = LIMITS
    name: str = "spring"
    takes_batches: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_batch(self.batch, self.name)
        if self.iterations < 1 or not 0 <= self.momentum < 1:
            raise InputError(
                f"{self.iterations} steps of spring with momentum {self.momentum}: give at least 1, and from 0 to below 1"
            )
        if not self.damping > 0 or (self.least is not None and not self.least >= 0):
            raise InputError(f"damping {self.damping}, {self.least} at least: give more than 0, and 0 or more")

    def batched(self, size: int) -> Spring:
        """Draw so many interior points for every step."""
        return replace(self, batch=size)

    @property
    def _floor(self) -> float:
        if self.least is not None:
            return self.least
        return _FLOOR if self.batch is None else _NOISE

    def init(self, objective: Objective, field: nn.Module) -> State:
        """Start without a step to remember."""
        objective.need_residuals()
        return {"step": 0, "damping": 0.0, "reason": int(StopReason.RUNNING)}

    def step(self, objective: Objective, field: nn.Module, state: State) -> tuple[State, float]:
        """Step on the points of this step's batch; the field stays where no length lowers their cost."""
        part = mini_batch(objective, self.batch, state["step"])
        system, start = damped_system(part, field, self.limits), parameter_vector(field)
        scale, cost = system.scale, float(half_squares(system.residuals))
        damping = state["damping"] or self.damping * scale
        number = {"step": state["step"] + 1, "reason": int(StopReason.RUNNING)}
        move = self.move(system, damping, state.get("move"))
        for halving in range(_HALVINGS):
            if move is None:
                break
            set_parameters(field, start + 0.5**halving * move)
            with torch.no_grad():
                reached = float(part.cost(field))
            if reached < cost:
                change = _EASED if halving == 0 else 1.0 if halving == 1 else _RISEN
                kept = max(change * damping, max(self._floor, SMALLEST) * scale)
                return {**number, "damping": kept, "move": 0.5**halving * move}, reached
        set_parameters(field, start)
        risen = _RISEN * damping
        stuck = risen > LARGEST * scale
        return {**number, "damping": risen, "reason": int(StopReason.STALLED if stuck else StopReason.RUNNING)}, cost

    def move(self, system: DampedSystem, damping: float, before: Tensor | None) -> Tensor | None:
        """Solve for a step (P,), given the last one; None where the system cannot be factored."""
        solve = system.solver(damping)
        if solve is None:
            return None
        if before is None:
            return solve(system.residuals)
        kept = self.momentum * before
        return kept + solve(system.residuals + system.times(kept))

    def stop(self, state: State) -> StopReason:
        """Stop where no damping lets the cost fall, and at the number of steps."""
        if state["reason"] != int(StopReason.RUNNING):
            return StopReason(state["reason"])
        return StopReason.BUDGET if state["step"] >= self.iterations else StopReason.RUNNING
