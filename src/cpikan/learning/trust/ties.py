"""Ties: what holds at breaks that no condition is on, where a solver joins the pieces by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from cpikan.fields.protocol import Jet
from cpikan.learning.objective import Objective, PointSet, Term
from cpikan.learning.samplers.points import unit_points
from cpikan.physics.evolution import derived
from cpikan.physics.problem import Problem
from cpikan.physics.regions import Box


def tied(problem: Problem, objective: Objective, count: int) -> Objective:
    """Add equal values, and equal slopes where the equation bends an output, at ``count`` points of breaks left free."""
    region = problem.region
    if not isinstance(region, Box):
        return objective
    bound = {part for condition in problem.conditions for part in condition.on or ()}
    for name, (axis, _) in region.inner.items():
        if name not in bound:
            unit = unit_points(count, problem.dimension - 1, "chebyshev", 0)
            points = torch.from_numpy(region.on(name, unit)[0]).clone()
            above = points.clone()
            above[:, axis] = torch.nextafter(points[:, axis], torch.full_like(points[:, axis], torch.inf))
            term = Term(name, _jumps(problem, axis))
            objective = replace(
                objective,
                terms=(*objective.terms, term),
                sets={**objective.sets, name: PointSet(points, partner=above)},
                weights={**objective.weights, name: len(points) ** -0.5},
            )
    return objective


def _jumps(problem: Problem, axis: int) -> Callable[[Jet, PointSet, Jet | None], dict[str, Tensor]]:
    """Make the function of a term: the jumps of values and slopes, by name."""
    curved = derived(problem, axis)[1]

    def jumps(jet: Jet, at: PointSet, above: Jet | None) -> dict[str, Tensor]:
        assert above is not None
        values = {f"value {o}": jet.value[:, o] - above.value[:, o] for o in range(problem.outputs)}
        slopes = {f"slope {o}": jet.gradient[:, o, axis] - above.gradient[:, o, axis] for o in curved}
        return {**values, **slopes}

    return jumps
