"""A pool of candidates for points, drawn evenly, with the residuals of a field there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from cpikan.learning.objective import PointSet, make_terms
from cpikan.learning.samplers.draw import Array
from cpikan.physics.problem import Problem

_CHUNK = 4096  # points evaluated at once


@dataclass(frozen=True)
class ResidualPool:
    """Candidates (n, d), drawn evenly in volume, beside the points at present, and the residuals there once asked for."""

    problem: Problem
    field: nn.Module
    present: Tensor
    candidates: Tensor

    @cached_property
    def residuals(self) -> Array:
        """Evaluate the residuals of the candidates, (n,)."""
        return residual_sizes(self.problem, self.field, self.candidates)

    @cached_property
    def present_residuals(self) -> Array:
        """Evaluate the residuals of the points at present."""
        return residual_sizes(self.problem, self.field, self.present)


def even_candidates(problem: Problem, count: int, random: np.random.Generator) -> Tensor:
    """Draw points (count, d) inside the region, evenly in volume."""
    unit = random.random((count, problem.dimension))
    return torch.from_numpy(problem.region.inside(unit, clustered=False)).clone()


@torch.no_grad()
def residual_sizes(problem: Problem, field: nn.Module, points: Tensor) -> Array:
    """Compute the root of the summed squares of the equation's residuals at points, (n,); 0 where one is not finite.

    The equation is the strong one, of a problem with an energy too.
    """
    equation = make_terms(problem, fitted=False)[0]
    parts = [torch.stack(equation.at(field, PointSet(part))) for part in points.split(_CHUNK)]
    found: Array = torch.cat(parts, dim=1).square().sum(dim=0).sqrt().numpy()
    return np.where(np.isfinite(found), found, 0.0)
