"""AdaptiveResidualSampler: interior points go where the residuals of the field are large."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import nn

from cpikan.errors import InputError
from cpikan.learning.methods.method import State
from cpikan.learning.objective import Objective, PointSet
from cpikan.learning.samplers.points import Points
from cpikan.learning.samplers.residual_pool import ResidualPool, even_candidates
from cpikan.learning.samplers.rules import Rule, rule_named
from cpikan.learning.samplers.sampler import Sampler, check_whole
from cpikan.learning.samplers.volumes import weighted
from cpikan.physics.problem import Problem

_STREAM = 11  # of random numbers, beside that of the points


@dataclass(frozen=True)
class AdaptiveResidualSampler:
    """Begin with the points of ``base``; every ``every`` steps a ``rule`` chooses anew by the residuals.

    Candidates are a ``pool`` of even points, drawn anew each time from the seed of ``base`` and the number of times. Points
    on the boundary stay. The sum of squares then weighs the region by the density of the points; ``unbiased`` takes that
    off again by weights, the inverse of the probability that a point was drawn with (Horvitz and Thompson 1952). The energy
    of a problem is an integral, and needs them. Raises InputError for a pool that is smaller than the number of points, and
    where the rule has no known probabilities.
    """

    base: Points
    rule: Rule | str = "rad"
    every: int = 100
    pool: int = 20_000
    unbiased: bool = False

    def __post_init__(self) -> None:
        check_pool(self, self.base, self.every, self.pool)
        if not hasattr(self.rule, "choose"):
            object.__setattr__(self, "rule", rule_named(self.rule))
        if self.unbiased and not self._rule.known:
            raise InputError(
                f"unbiased points by {self._rule}, which draws with no known probability: give 'rad' or 'quantile', or "
                "weigh by VolumeWeightedSampler"
            )

    @property
    def _rule(self) -> Rule:
        assert not isinstance(self.rule, str)
        return self.rule

    @property
    def adds(self) -> bool:
        """Tell whether the number of points rises by itself."""
        return self._rule.adds

    def sized(self, interior: int) -> Self:
        """Take another number of points."""
        return replace(self, base=self.base.sized(interior))

    def init(self, problem: Problem) -> tuple[Mapping[str, PointSet], State]:
        """Draw the points of ``base``; raises InputError for an energy without ``unbiased``, for which they must be even."""
        if problem.energy is not None and not self.unbiased:
            raise InputError(
                f"{problem.name} has an energy, whose mean over the points must be its integral: give unbiased=True"
            )
        return self.base.init(problem)[0], {"round": 0}

    def update(self, problem: Problem, objective: Objective, field: nn.Module, state: State) -> tuple[Objective, State]:
        """Choose the interior points anew."""
        state = {"round": state["round"] + 1}
        random = np.random.default_rng([self.base.seed, _STREAM, state["round"]])
        now = objective.sets["equation"].points
        pool = ResidualPool(problem, field, now, even_candidates(problem, self.pool, random))
        kept, drawn, probabilities = self._rule.choose(pool, self.base.interior, random)
        if not len(drawn) and len(kept) == len(now):
            return objective, state
        at = PointSet(torch.cat([now[torch.from_numpy(kept)], pool.candidates[torch.from_numpy(drawn)]]))
        if self.unbiased and probabilities is not None:
            at = weighted(problem, at, 1 / probabilities / (1 / probabilities).sum())
        return objective.replace_points("equation", at), state

    def held_out_sampler(self) -> Sampler:
        """Give the held-out points of ``base``, which stay."""
        return self.base.held_out_sampler()


def check_pool(sampler: Sampler, base: Points, every: int, pool: int) -> None:
    """Raise InputError for what is no rule of points, for a number of steps below 1, and for too small a pool."""
    name = type(sampler).__name__
    if not isinstance(base, Points):
        raise InputError(f"{name} of {type(base).__name__}: give Points(interior, boundary) to begin with")
    check_whole(name, every=every, pool=pool)
    if every < 1:
        raise InputError(f"{name} every {every} steps: give 1 or more")
    if pool < base.interior:
        raise InputError(
            f"{name} with a pool of {pool} candidates for {base.interior} points: give some ten times as many"
        )
