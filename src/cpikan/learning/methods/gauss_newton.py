"""Gauss-Newton steps that are halved until the cost falls, and the loop of such steps."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor


class Linearised(Protocol):
    """A least-squares problem that can be placed, and knows its full Gauss-Newton step."""

    def position(self) -> Tensor: ...

    def put(self, position: Tensor) -> None: ...

    def cost(self) -> float: ...

    def step(self) -> tuple[float, Tensor]:
        """Give the cost at the position and the full step from there."""
        ...


def backtracked(problem: Linearised, step: Tensor, before: float, halvings: int) -> float | None:
    """Take the longest of 1, 1/2, 1/4, ... of a step that lowers the cost; None, and no step, where none does."""
    start = problem.position()
    for halving in range(halvings):
        problem.put(start + 0.5**halving * step)
        cost = problem.cost()
        if cost < before:
            return cost
    problem.put(start)
    return None


def gauss_newton(problem: Linearised, steps: int, halvings: int, flat: float, least: float = 0.0) -> tuple[float, int]:
    """Minimise by backtracked steps; gives the cost and the number of steps.

    The loop ends where no step lowers the cost, where one lowers it by less than the share ``flat`` of it or is nowhere
    longer than ``least``, or, with a cost of infinity, where cost or step are not finite.
    """
    cost = math.inf
    for taken in range(steps):
        before, step = problem.step()
        if not math.isfinite(before) or not bool(torch.isfinite(step).all()):
            return math.inf, taken
        reached = backtracked(problem, step, before, halvings)
        if reached is None:
            return before, taken
        cost = reached
        if reached > (1 - flat) * before or float(step.abs().max()) < least:
            return reached, taken + 1
    return cost, steps
