"""VolumeWeightedSampler: residuals count by the volume that their points stand for, wherever these lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from cpikan.errors import unknown_name
from cpikan.learning.methods.method import State
from cpikan.learning.objective import Objective, PointSet
from cpikan.learning.samplers.sampler import Sampler, check_sampler
from cpikan.learning.samplers.volumes import ESTIMATES, volumes, weighted
from cpikan.physics.problem import Problem


@dataclass(frozen=True)
class VolumeWeightedSampler:
    """Weigh the interior points of another sampler by their volumes (VW-PINN; Song et al. 2024), whenever it moves them.

    Weighted means of squares are then integrals over the region, whatever density drew the points: dense points count
    less. ``estimate`` says how the volumes are found, see `volumes`.
    """

    base: Sampler
    estimate: str = "neighbours"

    def __post_init__(self) -> None:
        check_sampler(self.base)
        if self.estimate not in ESTIMATES:
            raise unknown_name("estimate of volumes", self.estimate, ESTIMATES)

    @property
    def every(self) -> int:
        """Return the number of steps between two moves of the points."""
        return self.base.every

    def init(self, problem: Problem) -> tuple[Mapping[str, PointSet], State]:
        """Draw the points of all terms, and weigh those inside."""
        sets, state = self.base.init(problem)
        return {**sets, "equation": self._weighted(problem, sets["equation"])}, state

    def update(self, problem: Problem, objective: Objective, field: nn.Module, state: State) -> tuple[Objective, State]:
        """Move the points, and weigh them anew if they have moved."""
        moved, state = self.base.update(problem, objective, field, state)
        if moved is objective:
            return objective, state
        return moved.replace_points("equation", self._weighted(problem, moved.sets["equation"])), state

    def held_out_sampler(self) -> Sampler:
        """Give the held-out points of the other sampler, which are even."""
        return self.base.held_out_sampler()

    def _weighted(self, problem: Problem, at: PointSet) -> PointSet:
        return weighted(problem, at, volumes(problem.region, at.points.numpy(), self.estimate))
