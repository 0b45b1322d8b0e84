"""StopReason: why a solver stopped, as a value, with what to try next."""

from __future__ import annotations

from enum import IntEnum


class OutOfTime(Exception):
    """There is no time left for the work that was to be done."""


class StopReason(IntEnum):
    """Name why a solver stopped; the value of ``Solution.stop_reason``."""

    RUNNING = 0
    GRADIENT = 1
    STEP = 2
    COST = 3
    TARGET = 4
    STALLED = 5
    BUDGET = 6
    DIVERGED = 7
    BAD_START = 8
    LINE_SEARCH = 9
    TIME = 10
    HELD_OUT = 11
    NEXT_LEVEL = 12
    ASKED = 13

    @property
    def converged(self) -> bool:
        """Tell whether a tolerance or the target was met."""
        return StopReason.GRADIENT <= self <= StopReason.TARGET

    @property
    def text(self) -> str:
        """Describe what happened, and what to try next."""
        return _TEXTS[self]


_TEXTS = {
    StopReason.RUNNING: "still running",
    StopReason.GRADIENT: "converged: the residuals are orthogonal to every column of the Jacobian",
    StopReason.STEP: "converged: a full step changes the parameters by less than the tolerance",
    StopReason.COST: "converged: the cost falls by less than the tolerance",
    StopReason.TARGET: "converged: the cost is at the target that was given",
    StopReason.STALLED: "stalled: no step lowers the cost; check the Jacobian, or continue with a quasi-Newton method",
    StopReason.BUDGET: "budget of iterations used up: continue from here with more",
    StopReason.DIVERGED: "residuals were not finite however short the step, the last finite parameters are kept: "
    "bound the parameters or start elsewhere",
    StopReason.BAD_START: "residuals or Jacobian are not finite at the start: start elsewhere",
    StopReason.LINE_SEARCH: "the line search found no lower cost along the direction: float64, a new start, or "
    "Levenberg-Marquardt go further",
    StopReason.TIME: "the time is used up: continue from here with more",
    StopReason.ASKED: "the callback asked for the end: continue from here without it",
    StopReason.NEXT_LEVEL: "the next level was judged not to fit into the time that is left: give more seconds for another",
    StopReason.HELD_OUT: "the residual at held-out points has stopped falling, the best state is kept: more points or a "
    "larger network go further",
}
