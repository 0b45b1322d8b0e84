"""Strong Wolfe line search by bracketing and cubic zoom (Nocedal and Wright 2006, algorithms 3.5 and 3.6)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Cost = Callable[[Tensor], tuple[float, Tensor]]  # parameters (P,) to cost and gradient (P,)


@dataclass(frozen=True)
class Trial:
    """A point on the line: its step length, parameters, cost, gradient (P,), and slope along the line."""

    length: float
    at: Tensor
    cost: float
    gradient: Tensor
    slope: float

    @property
    def finite(self) -> bool:
        """Tell whether the cost and the slope along the line are finite."""
        return math.isfinite(self.cost) and math.isfinite(self.slope)


def wolfe(
    cost: Cost, start: Trial, direction: Tensor, first: float = 1.0, c1: float = 1e-4, c2: float = 0.9, most: int = 30
) -> tuple[Trial | None, int]:
    """Find a trial with f <= f0 + c1 a f0' and |f'| <= c2 |f0'|, or None; count the evaluations of the cost.

    ``start`` has length 0 and the slope along ``direction``. A step to where the cost is not finite is shortened. When the
    strong conditions cannot be met in ``most`` evaluations, the best trial with enough decrease stands in.
    """
    calls = 0

    def at(length: float) -> Trial:
        nonlocal calls
        calls += 1
        point = start.at + length * direction
        value, gradient = cost(point)
        return Trial(length, point, value, gradient, float(gradient @ direction))

    def enough(trial: Trial) -> bool:
        return trial.finite and trial.cost <= start.cost + c1 * trial.length * start.slope

    low, high, length, best = start, None, first, None
    while calls < most:
        trial = at(length)
        if enough(trial) and (best is None or trial.cost < best.cost):
            best = trial
        if not enough(trial) or (low.length > 0 and trial.cost >= low.cost):
            high = trial
        elif abs(trial.slope) <= -c2 * start.slope:
            return trial, calls
        elif trial.slope * ((high.length if high else math.inf) - trial.length) >= 0:
            high, low = low, trial
        else:
            low = trial
        if high is None:
            length = 2 * trial.length
        else:
            if abs(high.length - low.length) <= 1e-14 * max(1.0, low.length):
                break
            length = _between(low, high)
    return best, calls


def _between(low: Trial, high: Trial) -> float:
    """Find the minimum of the cubic through both ends, kept off them by a tenth; the middle where there is none."""
    width = high.length - low.length
    if not high.finite:
        return low.length + 0.1 * width
    d1 = low.slope + high.slope - 3 * (low.cost - high.cost) / (low.length - high.length)
    square = d1 * d1 - low.slope * high.slope
    share = 0.5
    if square >= 0:
        d2 = math.copysign(math.sqrt(square), width)
        bottom = high.slope - low.slope + 2 * d2
        if bottom != 0:
            share = 1 - (high.slope + d2 - d1) / bottom
    return low.length + min(0.9, max(0.1, share)) * width


def trial_at(cost: Cost, parameters: Tensor) -> Trial:
    """Evaluate cost and gradient at ``parameters`` as the start of a line search."""
    value, gradient = cost(parameters)
    return Trial(0.0, parameters, value, gradient, 0.0)


def with_slope(trial: Trial, direction: Tensor) -> Trial:
    """Turn the end of one line into the start of the next, with the slope along ``direction``."""
    return Trial(0.0, trial.at, trial.cost, trial.gradient, float(torch.dot(trial.gradient, direction)))
