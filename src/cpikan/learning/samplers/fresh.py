"""FreshPoints: other points every so many steps, drawn anew (deep Galerkin)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import nn

from cpikan.errors import InputError
from cpikan.learning.methods.method import State
from cpikan.learning.objective import Objective, PointSet
from cpikan.learning.samplers.points import Points
from cpikan.learning.samplers.sampler import check_whole
from cpikan.physics.problem import Problem


@dataclass(frozen=True)
class FreshPoints:
    """Draw the points of every term anew ``every`` steps, as ``base`` does from another seed; measured data stay.

    Every step for the deep Galerkin method, where the cost is an integral that is never seen twice at the same points
    (Sirignano and Spiliopoulos, J. Comput. Phys. 375, 1339, 2018): for methods that follow a gradient. Raises InputError for
    ``every`` below 1 and a base that is no rule of points.
    """

    base: Points
    every: int = 1

    def __post_init__(self) -> None:
        check_whole("FreshPoints", every=self.every)
        if not isinstance(self.base, Points):
            raise InputError(f"FreshPoints of {type(self.base).__name__}: give Points(interior, boundary, rule)")
        if self.base.rule == "grid":
            raise InputError("FreshPoints on a grid, which is the same whatever is drawn: give another rule, as random")
        if self.every < 1:
            raise InputError(f"FreshPoints every {self.every} steps: give at least 1")

    def init(self, problem: Problem) -> tuple[Mapping[str, PointSet], State]:
        """Draw the points of all terms."""
        return self.base.init(problem)[0], {"round": 0}

    def update(self, problem: Problem, objective: Objective, field: nn.Module, state: State) -> tuple[Objective, State]:
        """Draw others."""
        rounds = state["round"] + 1
        sets, _ = replace(self.base, seed=self.base.seed + 15_485_863 * rounds).init(problem)
        for name, at in sets.items():
            objective = objective.replace_points(name, at)
        return objective, {"round": rounds}

    def held_out_sampler(self) -> Points:
        """Give the held-out points of the base, which stay."""
        return self.base.held_out_sampler()
