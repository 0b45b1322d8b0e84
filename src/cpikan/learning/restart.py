"""Restart: a field drawn anew after a start that led nowhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cpikan.errors import InputError
from cpikan.fields.layered import Start
from cpikan.learning.run import Run
from cpikan.learning.stop_reason import StopReason

_STUCK = (
    *(StopReason.GRADIENT, StopReason.STEP, StopReason.COST, StopReason.STALLED, StopReason.DIVERGED),
    *(StopReason.LINE_SEARCH, StopReason.HELD_OUT),
)
FAR = 1e-4  # residual relative to that of u = 0, above which an end is a local minimum and not rounding
_APART = 7919  # between seeds of starts, so that those of neighbouring solves differ


@dataclass(frozen=True)
class Restart:
    """Draw the coefficients anew from another seed; points and weights stay, and the best state is put aside."""

    attempt: int
    name: str = "restart"

    def run(self, run: Run) -> StopReason:
        """Begin again."""
        field: Any = run.field
        run.begin_again(lambda: field.restart(Start(run.seed + _APART * self.attempt)))
        return StopReason.RUNNING


def worth_restarting(run: Run, reason: StopReason) -> bool:
    """Whether a solve is stuck far from the goal with time left, in a field that can be drawn anew."""
    return reason in _STUCK and run.relative() > FAR and run.left_s > 0 and hasattr(run.field, "restart")


def check_restarts(restarts: int) -> None:
    """Raise InputError for a number below zero."""
    if restarts < 0:
        raise InputError(f"{restarts} restarts: give 0 or more")
