"""What plain Chebyshev collocation reaches on the same problem, measured as the network is."""

from __future__ import annotations

from typing import Any

import numpy as np

from cpikan.learning.solver import SIDES, errors, test_points
from cpikan.physics.collocation import collocate, unknowns
from cpikan.physics.problem import Problem


def collocation_baseline(problem: Problem, nodes: int | None = None) -> dict[str, Any] | None:
    """Compute relative_l2, max_error and unknowns; None where collocation does not apply or does not converge."""
    if problem.exact is None:
        return None
    found = collocate(problem, nodes)
    if found is None:
        return None
    ticks = tuple(
        np.linspace(low, high, SIDES[problem.dimension])
        for low, high in zip(problem.region.lower, problem.region.upper, strict=True)
    )
    relative, largest = errors(problem, found(ticks), test_points(problem))
    return {"relative_l2": relative, "max_error": largest, "unknowns": unknowns(found)}
