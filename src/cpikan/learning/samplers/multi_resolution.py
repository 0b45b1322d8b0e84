"""MultiResolution: few points first, more at given steps."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd
from typing import Protocol, Self

from torch import nn

from cpikan.errors import InputError
from cpikan.learning.methods.method import State
from cpikan.learning.objective import Objective, PointSet
from cpikan.learning.samplers.sampler import Sampler, check_whole
from cpikan.physics.problem import Problem


class Sized(Sampler, Protocol):
    """A sampler whose number of interior points can be chosen."""

    @property
    def adds(self) -> bool: ...

    def sized(self, interior: int) -> Self: ...


@dataclass(frozen=True)
class MultiResolution:
    """Take ``counts[i]`` interior points of ``base`` until ``steps[i]`` steps were taken, then the next number.

    The state of a ``base`` that adapts goes on, and so does that of the method. Raises InputError where there is not one
    more count than steps, and for a base whose number cannot be chosen.
    """

    base: Sized
    counts: tuple[int, ...] = (100, 500, 2000)
    steps: tuple[int, ...] = (5000, 8000)

    def __post_init__(self) -> None:
        name = type(self.base).__name__
        if not hasattr(self.base, "sized"):
            raise InputError(f"MultiResolution of {name}: give a sampler with a number of points, and wrap the whole")
        if self.base.adds:
            raise InputError(f"MultiResolution of a {name} that adds points by itself: give another rule")
        for number in (*self.counts, *self.steps):
            check_whole("MultiResolution", count=number)
        rising = all(a < b for a, b in zip((0, *self.steps), self.steps, strict=False))
        if len(self.counts) != len(self.steps) + 1 or not self.steps or not rising or min(self.counts) < 1:
            raise InputError(
                f"counts {self.counts} of points, changed at steps {self.steps}: give rising steps, and one more count"
            )
        self.base.sized(max(self.counts))  # which may be too many for its pool

    @property
    def every(self) -> int:
        """Return the number of steps after which something may be due."""
        return gcd(self.base.every, *self.steps)

    def init(self, problem: Problem) -> tuple[Mapping[str, PointSet], State]:
        """Draw the first number of points."""
        sets, state = self.base.sized(self.counts[0]).init(problem)
        return sets, {"round": 0, "base": state}

    def update(self, problem: Problem, objective: Objective, field: nn.Module, state: State) -> tuple[Objective, State]:
        """Take the next number when due, and let the base move its points when due."""
        rounds, inner = state["round"] + 1, state["base"]
        step = rounds * self.every
        base, due = self.base.sized(self.counts[bisect_right(self.steps, step)]), step in self.steps
        if base.every and (due or step % base.every == 0):
            objective, inner = base.update(problem, objective, field, inner)
        elif due:
            objective = objective.replace_points("equation", base.init(problem)[0]["equation"])
        return objective, {"round": rounds, "base": inner}

    def held_out_sampler(self) -> Sampler:
        """Give the held-out points of the largest number."""
        return self.base.sized(max(self.counts)).held_out_sampler()
