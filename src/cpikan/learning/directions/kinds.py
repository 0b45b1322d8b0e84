"""Kinds of directions by name."""

from __future__ import annotations

from collections.abc import Mapping

from cpikan.errors import unknown_name
from cpikan.learning.directions.conflict_free import ConFIG, MomentumConFIG
from cpikan.learning.directions.direction import SUM, Direction
from cpikan.learning.directions.dual_cone import DualCone
from cpikan.learning.directions.gradient_surgery import PCGrad

DIRECTIONS: Mapping[str, Direction] = {
    "sum": SUM,
    "config": ConFIG(),
    "m-config": MomentumConFIG(),
    "dcgd": DualCone(),
    "dcgd-projection": DualCone("projection"),
    "dcgd-average": DualCone("average"),
    "pcgrad": PCGrad(),
}


def direction_named(name: str) -> Direction:
    """Look up a direction; raises InputError for an unknown name, suggesting the nearest."""
    if name not in DIRECTIONS:
        raise unknown_name("direction", name, DIRECTIONS)
    return DIRECTIONS[name]
