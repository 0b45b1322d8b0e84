"""Mini-batches: some of the points of an objective, drawn anew for every step."""

from __future__ import annotations

import math

import torch

from cpikan.errors import InputError
from cpikan.learning.objective import Objective


def mini_batch(objective: Objective, size: int | None, number: int) -> Objective:
    """Take ``size`` interior points, and as large a share of those of every other term, without replacement.

    Of a term whose residuals are sums over points all points stay.

    The cost is scaled so that its mean over batches is that of all points. Equal ``number`` give equal points, so that a
    resumed solve draws what it would have drawn. The objective itself for None, and where it has no more points.
    """
    if size is None:
        return objective
    inside = sum(len(objective.sets[term.name].points) for term in objective.terms if term.inside)
    if size >= inside:
        return objective
    generator, found = torch.Generator().manual_seed(number), objective
    for term in objective.terms:
        at = objective.sets[term.name]
        count = len(at.points)
        keep = math.ceil(size * count / inside)
        index = torch.randperm(count, generator=generator)[:keep]
        part = at.taken(index)
        if term.kind == "density" and part.weight is not None and part is not at:
            part = part._replace(weight=part.weight * (count / keep))
        found = found.replace_points(term.name, part)
    return found


def check_batch(size: int | None, name: str) -> None:
    """Raise InputError for a batch of less than one point."""
    if size is not None and size < 1:
        raise InputError(f"mini-batches of {size} points for {name}: give at least 1, or None for all points")
