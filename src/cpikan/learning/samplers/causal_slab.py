"""CausalSlabSampler: points follow the residuals, slab of time after slab of time (TCAS)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.learning.methods.method import State
from cpikan.learning.objective import Objective, PointSet
from cpikan.learning.samplers.adaptive_residual import check_pool
from cpikan.learning.samplers.draw import Array, Numbers, draw, inclusion
from cpikan.learning.samplers.points import Points
from cpikan.learning.samplers.residual_pool import even_candidates, residual_sizes
from cpikan.learning.samplers.rules import check_density, residual_density
from cpikan.learning.samplers.sampler import Sampler, check_whole
from cpikan.physics.evolution import time_axis
from cpikan.physics.problem import Problem

_STREAM = 12  # of random numbers, beside that of the points
_SETTLED = 0.99  # causal weight of the last slab at which the ladder goes on (Wang, Sankaran and Perdikaris 2024)


@dataclass(frozen=True)
class CausalSlabSampler:
    """Share the points among ``slabs`` of time by residuals and causality (TCAS; Guo et al. 2024), every ``every`` steps.

    Slab i gets points in proportion to w_i times the mean there of |r|^k / mean |r|^k + c (k ``power``, c ``floor``), with
    w_i = exp(-eps sum_{j<i} L_j), L_j the mean residual of slab j relative to that of all slabs at the first time; within
    a slab they are drawn with that density. eps climbs the ``ladder`` whenever all slabs count. With c = 0, k = 1 the
    ratio is the paper's w_i L_i / sum. ``spans`` are shares of the time for marching, such as (0.25, 1.0): points lie in the
    first, until its slabs count at the top of the ladder, then in the next, from the foot of the ladder. Raises InputError
    for a problem that does not evolve.
    """

    base: Points
    every: int = 100
    slabs: int = 10
    ladder: tuple[float, ...] = (1e-2, 1e-1, 1.0, 1e1, 1e2)
    pool: int = 20_000
    power: float = 1.0
    floor: float = 1.0
    spans: tuple[float, ...] = (1.0,)
    adds = False

    def __post_init__(self) -> None:
        check_pool(self, self.base, self.every, self.pool)
        check_density(self.power, self.floor)
        check_whole("CausalSlabSampler", slabs=self.slabs)
        if self.slabs < 2:
            raise InputError(f"{self.slabs} slabs of time: give at least 2")
        if not self.ladder or not all(eps >= 0 for eps in self.ladder):
            raise InputError(f"ladder of causality {self.ladder}: give numbers of 0 or more, the lowest first")
        if (
            not self.spans
            or not self.spans[0] > 0
            or self.spans[-1] != 1
            or list(self.spans) != sorted(set(self.spans))
        ):
            raise InputError(f"spans {self.spans} of the time: give rising shares above 0, and 1 as the last")

    def sized(self, interior: int) -> Self:
        """Take another number of points."""
        return replace(self, base=self.base.sized(interior))

    def init(self, problem: Problem) -> tuple[Mapping[str, PointSet], State]:
        """Draw the points of ``base``; raises InputError for a problem without time."""
        if time_axis(problem) is None:
            raise InputError(
                f"{problem.name} has no axis of time for slabs: give conditions at its lower end and none at its upper, or "
                "another sampler"
            )
        sets = dict(self.base.init(problem)[0])
        sets["equation"] = PointSet(_squeezed(problem, sets["equation"].points, self.spans[0]))
        return sets, {"round": 0, "level": 0, "span": 0, "scale": 0.0}

    def update(self, problem: Problem, objective: Objective, field: nn.Module, state: State) -> tuple[Objective, State]:
        """Draw the interior points anew."""
        rounds, level, span = state["round"] + 1, state["level"], state["span"]
        random = np.random.default_rng([self.base.seed, _STREAM, rounds])
        candidates = _squeezed(problem, even_candidates(problem, self.pool, random), self.spans[span])
        slab, sizes = _slabs(problem, candidates.numpy(), self.slabs), residual_sizes(problem, field, candidates)
        scale = state["scale"] or float(sizes.mean())
        causal = causal_weights(slab, sizes, self.slabs, self.ladder[level] / (scale or 1.0))
        density = causal[slab] * residual_density(sizes, self.power, self.floor)
        drawn = draw(inclusion(density, self.base.interior), random, strata=slab)
        if causal[slab.max()] > _SETTLED:
            level, span = self._next(level, span)
        changed = objective.replace_points("equation", PointSet(candidates[drawn]))
        return changed, {"round": rounds, "level": level, "span": span, "scale": scale}

    def _next(self, level: int, span: int) -> tuple[int, int]:
        """Climb the ladder; from its top go on to the next span, and to its foot."""
        if level + 1 < len(self.ladder):
            return level + 1, span
        return (0, span + 1) if span + 1 < len(self.spans) else (level, span)

    def held_out_sampler(self) -> Sampler:
        """Give the held-out points of ``base``, which stay."""
        return self.base.held_out_sampler()


def _time(problem: Problem) -> tuple[int, float, float]:
    """Give the axis of time with its beginning and its end."""
    time = time_axis(problem)
    assert time is not None
    return time, problem.region.lower[time], problem.region.upper[time]


def _squeezed(problem: Problem, points: Tensor, span: float) -> Tensor:
    """Bring points (n, d) into the first share of the time."""
    time, low, _ = _time(problem)
    found = points.clone()
    found[:, time] = low + span * (points[:, time] - low)
    return found


def _slabs(problem: Problem, points: Array, slabs: int) -> Numbers:
    """Find the slab of every point, (n,)."""
    time, low, high = _time(problem)
    share = (points[:, time] - low) / (high - low)
    return np.minimum((share * slabs).astype(np.intp), slabs - 1)


def causal_weights(slab: Numbers, sizes: Array, slabs: int, eps: float) -> Array:
    """Compute exp(-eps sum_{j<i} L_j) of every slab, (slabs,), L_j the mean of the residuals in slab j."""
    counts = np.maximum(np.bincount(slab, minlength=slabs), 1)
    means = np.bincount(slab, weights=sizes, minlength=slabs) / counts
    return np.asarray(np.exp(-eps * (np.cumsum(means) - means)))
