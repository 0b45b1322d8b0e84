"""Causal weights: the equation counts at a time once it holds at all times before."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.learning.balancers.point_balancer import PointBalancer, Weights, squares
from cpikan.learning.methods.method import State
from cpikan.learning.objective import Objective, PointSet
from cpikan.physics.evolution import time_axis
from cpikan.physics.problem import Problem

_LEAST = 1e-12  # of a slab's weight: what is below is raised to it, so that it stays a positive number


@dataclass(frozen=True)
class CausalWeights(PointBalancer):
    """Weigh slab i of time by exp(-eps (L_0 + ... + L_i-1)), along ``axis``.

    L_j is the mean square of the equation's residuals in slab j, relative to that of all slabs at the start. ``ladder`` has
    the values of eps: the next one follows when the last slab's weight is above ``enough`` (Wang, Sankaran and Perdikaris,
    Respecting causality, 2024). Weights multiply the cost, so that residuals have their roots.
    """

    axis: int = 0
    slabs: int = 16
    ladder: tuple[float, ...] = (1e-2, 1e-1, 1.0, 10.0, 100.0)
    enough: float = 0.99

    def __post_init__(self) -> None:
        if self.slabs < 2 or self.axis < 0 or not 0 < self.enough < 1:
            raise InputError(
                f"causal weights along axis {self.axis} in {self.slabs} slabs, enough {self.enough}: give 0 or more, at "
                "least 2, and 0 < enough < 1"
            )
        if not self.ladder or not all(eps > 0 for eps in self.ladder) or list(self.ladder) != sorted(self.ladder):
            raise InputError(f"ladder {self.ladder} of causal weights: give rising values above 0")

    @classmethod
    def along_time(cls, problem: Problem) -> CausalWeights:
        """Take the axis that the problem evolves along; raises InputError for a problem without time."""
        axis = time_axis(problem)
        if axis is None:
            raise InputError(
                f"causal weights for {problem.name}, which does not evolve: give a problem with conditions at the start of "
                "an axis and none at its end, or name the axis by CausalWeights(axis=...)"
            )
        return cls(axis=axis)

    def weights(self, plain: Objective, field: nn.Module, state: State) -> tuple[Weights, State]:
        """Weigh the equation's points by what the slabs before them leave."""
        term = next(term for term in plain.terms if term.inside)
        at, size = plain.sets[term.name], squares(plain, field, term, bare=True)
        if self.axis >= at.points.shape[1]:
            raise InputError(f"causal weights along axis {self.axis} of {at.points.shape[1]}: count axes from 0")
        times = at.points[:, self.axis]
        low, high = state.get("low", float(times.min())), state.get("high", float(times.max()))
        first = state.get("first", float(size.mean()))
        slab = self._slab(at, low, high)
        means = size.new_zeros(self.slabs).index_add(0, slab, size)
        means = means / torch.bincount(slab, minlength=self.slabs).clamp_min(1) / (first or 1.0)
        rung = state.get("rung", 0)
        found = _causal(means, self.ladder[rung])
        if float(found[-1]) > self.enough and rung + 1 < len(self.ladder):
            rung += 1
            found = _causal(means, self.ladder[rung])
        more = {"low": low, "high": high, "first": first, "rung": rung, "slabs": found}
        return {term.name: found[slab].sqrt()}, more

    def moved(self, before: Objective, objective: Objective, state: State) -> tuple[Objective, State]:
        """Weigh new points by the slab they are in."""
        more = {name: value for name, value in state.items() if name not in ("points", "given")}
        weights = {}
        for name in state["points"]:
            slab = self._slab(objective.sets[name], state["low"], state["high"])
            weights[name] = state["slabs"][slab].sqrt()
        return self._laid(objective, weights, more)

    def _slab(self, at: PointSet, low: float, high: float) -> Tensor:
        """Number the slabs that points are in, (n,)."""
        place = (at.points[:, self.axis] - low) / ((high - low) or 1.0)
        return (place * self.slabs).long().clamp(0, self.slabs - 1)


def _causal(means: Tensor, eps: float) -> Tensor:
    """Compute exp(-eps times the sum of means before), (slabs,)."""
    before = torch.cumsum(means, dim=0) - means
    return torch.exp(-eps * before.clamp_min(0.0)).clamp_min(_LEAST)
