"""Levels: what the fields that a solve has left behind were like, at points that stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cpikan.learning.iterate import Iterate
from cpikan.learning.samplers.points import Points, interior_points
from cpikan.physics.problem import Problem

PROBES = Points(600, 0, "latin-hypercube", 40_009)
KEPT = 3  # levels: the last say how far the field still changes


@dataclass(frozen=True)
class Level:
    """Values (n, outputs) of a field at the probes, and its held-out residual relative to that of u = 0."""

    values: Tensor
    relative: float

    def state(self) -> dict[str, Any]:
        """Give plain data."""
        return {"values": self.values, "relative": self.relative}


def probes(problem: Problem) -> Tensor:
    """Place the points where levels are compared, (n, d), the same for every level of every solve."""
    return torch.from_numpy(interior_points(problem, PROBES))


def noted(levels: Sequence[Level], problem: Problem, iterate: Iterate) -> tuple[Level, ...]:
    """Add a level that a solve leaves behind; the last few are kept, each once."""
    with torch.no_grad():
        found = Level(iterate.field(probes(problem)), iterate.relative())
    others = [level for level in levels if not torch.equal(level.values, found.values)]
    return (*others, found)[-KEPT:]
