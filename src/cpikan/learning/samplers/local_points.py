"""LocalPoints: points that stay, more or fewer of them in some subdomains, whose residuals may weigh more or less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from cpikan.learning.local import Local
from cpikan.learning.methods.method import State
from cpikan.learning.objective import PointSet
from cpikan.learning.samplers.points import Points, interior_points
from cpikan.partition import Partition
from cpikan.physics.problem import Problem


@dataclass(frozen=True)
class LocalPoints(Points):
    """Points by a rule, of which every subdomain of a partition has its share times that of its ``local``, by number.

    Residuals of the equation weigh by the root of the volume that a point stands for, of mean square 1 over points, so that
    more points do not weigh more; then by their subdomain's own weight.
    """

    partition: Partition[float] = field(kw_only=True)
    local: Mapping[int, Local] = field(kw_only=True)

    def init(self, problem: Problem) -> tuple[Mapping[str, PointSet], State]:
        """Draw the points of all terms, those of the equation from as many as the densest subdomain asks for."""
        sets, state = super().init(problem)
        table = np.array([[own.points, own.weight] for own in map(self._own, range(len(self.partition)))])
        densest = float(table[:, 0].max())
        points = interior_points(problem, self.sized(round(densest * self.interior)))
        owner = self._owners(points)
        kept = []
        for number in np.unique(owner):
            mine = np.flatnonzero(owner == number)
            count = max(1, round(len(mine) * table[number, 0] / densest))
            kept.append(mine[np.linspace(0, len(mine) - 1, count).round().astype(int)])
        chosen = np.sort(np.concatenate(kept))
        share, weight = table[owner[chosen]].T
        even = share**-0.5
        weighed = torch.from_numpy(weight * even / np.sqrt(np.mean(even**2)))
        return {**sets, "equation": PointSet(torch.from_numpy(points[chosen]).clone(), weight=weighed)}, state

    def held_out_sampler(self) -> LocalPoints:
        """Give held-out points of the same density: random, from another seed."""
        plain = super().held_out_sampler()
        rule = (plain.interior, plain.boundary, plain.rule, plain.seed, True)
        return LocalPoints(*rule, partition=self.partition, local=self.local)

    def _own(self, number: int) -> Local:
        return self.local.get(number, Local())

    def _owners(self, points: np.ndarray) -> np.ndarray:
        """Find the subdomain whose core holds each point (n, d)."""
        places = [np.searchsorted(axis.cuts, points[:, d], side="right") for d, axis in enumerate(self.partition.axes)]
        return np.asarray(np.ravel_multi_index(tuple(places), self.partition.counts))
