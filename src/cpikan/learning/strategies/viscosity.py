"""Viscosity: a nonlinear steady problem reached from one with stronger second derivatives, which are weakened step by step.

A front that its equation hardly holds in place, or a layer, is no place where Gauss-Newton gets to from a smooth start; with
second derivatives large enough the solution is smooth, and every step begins near the next (artificial viscosity and
continuation: Allgower and Georg, Numerical Continuation Methods, 1990).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from cpikan.fields.protocol import Jet
from cpikan.learning.runner import Runner
from cpikan.learning.strategies.slab import Place
from cpikan.learning.strategies.slabs import lifted
from cpikan.learning.strategies.steady import Refined, onward, refined
from cpikan.physics.problem import Problem

_STRONGER, _STRONGEST = 8.0, 8.0**6
_LEAST = 1.1  # factor of a step below which the way is taken to have ended


def viscous(problem: Problem, factor: float) -> Problem:
    """Pose the same problem with all second derivatives of its equation multiplied by a factor."""

    def residuals(jet: Jet, x: Tensor, *unknown: Mapping[str, Tensor]) -> Any:
        return problem.residuals(jet._replace(second=factor * jet.second), x, *unknown)

    return replace(problem, residuals=residuals, exact=None, energy=None)


def from_viscous(run: Runner, place: Place, tolerance: float) -> Refined | None:
    """Solve at a place by way of larger second derivatives; None where that leads nowhere, or time is up.

    The factor grows until Gauss-Newton meets the problem from a lifted start, and falls from there; a step that is not met is
    taken anew, half as long by its logarithm.
    """
    factor, found = _STRONGER, None
    while found is None and factor <= _STRONGEST and run.left_s > 0:
        start = lifted(replace(place, problem=viscous(place.problem, factor)), tolerance)
        tried = refined(run, start, tolerance)
        found = tried if tried.met else None
        factor = factor if tried.met else factor * _STRONGER
    step = _STRONGER
    while found is not None and factor > 1:
        if run.left_s <= 0 or step < _LEAST:
            return None
        next_factor = max(1.0, factor / step)
        posed = place.problem if next_factor == 1 else viscous(place.problem, next_factor)
        tried = refined(run, onward(found.slab, replace(found.slab.place, problem=posed)), tolerance)
        if tried.met:
            found, factor = tried, next_factor
        else:
            step = step**0.5
    return found
