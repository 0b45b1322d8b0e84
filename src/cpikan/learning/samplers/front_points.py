"""FrontPoints: points that stay, as dense in every front as in the rest of a box."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from cpikan.fields.front_ckan import Front
from cpikan.learning.methods.method import State
from cpikan.learning.objective import PointSet
from cpikan.learning.samplers.points import Points
from cpikan.physics.problem import Problem
from cpikan.physics.regions import Box

_EVEN, _DECADES, _TICKS = 2001, 12.0, 400  # places where the map is tabulated: even ones, and about each front


@dataclass(frozen=True)
class FrontPoints(Points):
    """Points by a rule in the mean of the plain coordinate and the stretched ones of all fronts of an axis.

    Along an axis with n fronts every n + 1st point is placed as without, the others as evenly in each stretched coordinate.
    Residuals of the equation weigh by the volume of their points: sums stay what they are without fronts, on average.
    Along the axes of ``even`` the cosine pi x^ stands for the scaled coordinate x^, as in an `EvenEmbedding`: the points are in
    the upper half of the axis, and fronts are places of the cosine.
    """

    fronts: tuple[Front, ...] = ()
    even: tuple[int, ...] = ()

    def init(self, problem: Problem) -> tuple[Mapping[str, PointSet], State]:
        """Draw the points of all terms, and move them; those at an end of an axis stay there."""
        sets, state = super().init(problem)
        region = problem.region
        assert isinstance(region, Box)

        def moved(points: torch.Tensor) -> torch.Tensor:
            found = points.clone()
            for axis in self._axes():
                low, high = region.lower[axis], region.upper[axis]
                place = 2 * (points[:, axis].numpy() - low) / (high - low) - 1
                if axis in self.even and self.rule != "chebyshev":
                    place = -np.cos(np.pi * (place + 1) / 2)  # even in x is clustered in the cosine
                away = _inverse(place, [front for front in self.fronts if front.axis == axis])
                if axis in self.even:
                    away = np.arccos(np.clip(away, -1, 1)) / np.pi
                inside = torch.from_numpy(np.abs(place) < 1)
                found[inside, axis] = torch.from_numpy(low + (high - low) * (away + 1) / 2)[inside]
            return found

        found = {name: _moved(at, moved) for name, at in sets.items()}
        equation = found["equation"]
        return {**found, "equation": equation._replace(weight=self._volumes(region, equation.points))}, state

    def _volumes(self, region: Box, points: torch.Tensor) -> torch.Tensor:
        """Weigh points (n, d) by the root of the volume that each stands for, of mean square 1."""
        density = torch.ones_like(points[:, 0])
        for axis in self._axes():
            low, high = region.lower[axis], region.upper[axis]
            place = 2 * (points[:, axis] - low) / (high - low) - 1
            if axis in self.even:
                place = torch.cos(torch.pi * place)
            slopes = [front.stretched(place)[1] for front in self.fronts if front.axis == axis]
            density = density * torch.stack([torch.ones_like(place), *slopes]).mean(dim=0)
        weight = density.rsqrt()
        return weight / weight.square().mean().sqrt()

    def held_out_sampler(self) -> FrontPoints:
        """Give held-out points of the same density: random, from another seed."""
        plain = super().held_out_sampler()
        return FrontPoints(plain.interior, plain.boundary, plain.rule, plain.seed, True, self.fronts, self.even)

    def _axes(self) -> list[int]:
        """List the axes along which points are moved."""
        return sorted({*(front.axis for front in self.fronts), *self.even})


def _moved(at: PointSet, moved: Callable[[torch.Tensor], torch.Tensor]) -> PointSet:
    return at._replace(points=moved(at.points), partner=None if at.partner is None else moved(at.partner))


def _inverse(place: np.ndarray, fronts: list[Front]) -> np.ndarray:
    """Find the scaled coordinates whose mean stretched coordinate is ``place`` (n,), by a table."""
    if not fronts:
        return place
    away = np.sinh(np.linspace(-_DECADES, _DECADES, _TICKS))
    ticks = [np.linspace(-1, 1, _EVEN), *(front.centre + front.width * away for front in fronts)]
    x = np.unique(np.clip(np.concatenate(ticks), -1, 1))
    stretched = [front.stretched(torch.from_numpy(x))[0].numpy() for front in fronts]
    return np.asarray(np.interp(place, np.mean([x, *stretched], axis=0), x))
