"""Processor seconds of a solve, without those of looking at its error."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cpikan.learning.solver import test_points
from cpikan.physics.problem import Problem
from pde_watch import TOLERANCES
from peers.problems import varying

TIMES = tuple(f"s_{tolerance:.0e}".replace("e-0", "e-") for tolerance in TOLERANCES)
_EVERY_S = 0.5
Values = Callable[[Tensor], Tensor]


class TimeUp(Exception):
    """The time that was given is over."""


class Clock:
    """Errors on the test points on the way; looking at them stops the clock."""

    def __init__(self, problem: Problem, limit_s: float) -> None:
        self.problem, self.limit_s, self.x = problem, limit_s, test_points(problem)
        truth = problem.reference_values(self.x)
        # further outputs, such as second derivatives, may have no reference: they are not judged
        self.truth = truth[:, [output for output in varying(problem) if output < truth.shape[1]]]
        self.errors: list[tuple[float, float]] = []
        self.iterations, self._looked = 0, 0.0
        self.start()

    def start(self) -> None:
        """Begin to count: what was before, as compiling, is not counted."""
        self._started = time.process_time()

    @property
    def seconds(self) -> float:
        """Return the processor seconds."""
        return time.process_time() - self._started

    def tick(self, values: Values) -> bool:
        """Count an iteration, look at the error now and then; tells whether time is up."""
        self.iterations += 1
        now = self.seconds
        if now - self._looked > _EVERY_S or now > self.limit_s:
            self.look(values)
        return now > self.limit_s

    def look(self, values: Values) -> None:
        """Take the error of ``values`` (n, d) -> (n, varying outputs): relative L2, of the worst output."""
        begun, at = time.process_time(), self.seconds
        with torch.no_grad():
            found = torch.cat([values(part).detach().double() for part in self.x.split(8192)])
        miss = (found - self.truth).norm(dim=0) / self.truth.norm(dim=0)
        self.errors.append((at, float(miss.max())))
        self._looked = at
        self._started += time.process_time() - begun

    def row(self, coefficients: list[float] | None = None) -> dict[str, Any]:
        """Give the columns of the table; the error is the larger of the field's and the coefficients'."""
        reached = (next((s for s, error in self.errors if error <= tolerance), None) for tolerance in TOLERANCES)
        return {
            **errors(self.problem, self.errors[-1][1], coefficients or []),
            "best_l2": min(error for _, error in self.errors),
            "cpu_seconds": self.errors[-1][0],
            "iterations": self.iterations,
            **dict(zip(TIMES, reached, strict=True)),
        }


def errors(problem: Problem, relative_l2: float, coefficients: list[float]) -> dict[str, Any]:
    """Join the error of the field and those of coefficients, relative to their true values."""
    off = [abs(one / (truth or 1) - 1) for one, truth in zip(coefficients, problem.constants.values(), strict=False)]
    return {
        "error": max([relative_l2, *off]),
        "relative_l2": relative_l2,
        "coefficient_error": max(off) if off else None,
    }
