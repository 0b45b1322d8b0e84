"""A problem as other packages want it: residuals of plain arrays, and conditions as affine functions of the jet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cpikan.fields.protocol import Jet
from cpikan.learning.samplers.points import Points, boundary_points
from cpikan.physics.problem import Condition, Problem, Side
from peers.problems import BOUNDARY, varying


@dataclass(frozen=True)
class Affine:
    """A condition at points: constant + value * values + slope . gradients, summed over two places where it is periodic.

    ``points`` (places, n, d), ``constant`` (n,), ``value`` (places, n, outputs), ``slope`` (places, n, outputs, d).
    """

    name: str
    points: Tensor
    constant: Tensor
    value: Tensor
    slope: Tensor

    @property
    def flat(self) -> Tensor:
        """Return the points of all places one after the other, (places * n, d)."""
        return self.points.flatten(0, 1)

    @property
    def sloped(self) -> bool:
        """Tell whether gradients are needed."""
        return bool(self.slope.any())

    def missed(self, value: Tensor, gradient: Tensor | None) -> Tensor:
        """Evaluate the residual (n,) of values (places * n, outputs) and gradients (places * n, outputs, d)."""
        total = (self.value.to(value) * value.reshape(self.value.shape)).sum(dim=(0, 2))
        if gradient is not None:
            total = total + (self.slope.to(value) * gradient.reshape(self.slope.shape)).sum(dim=(0, 2, 3))
        return total + self.constant.to(value)


def conditions(problem: Problem, seed: int) -> list[Affine]:
    """Read the conditions of a problem, on random points, off its own residuals; weights are factors of them."""
    return [_affine(problem, condition, seed) for condition in problem.conditions]


def _affine(problem: Problem, condition: Condition, seed: int) -> Affine:
    """Find constant and coefficients of a residual: its value and its derivatives where the jet is zero.

    Measured data are all taken. Raises ValueError for a residual that is not affine.
    """
    if condition.at is not None:
        place, normals = condition.at.double(), torch.zeros_like(condition.at.double())
    else:
        found = boundary_points(problem, condition, Points(1, BOUNDARY[problem.dimension], "random", seed))
        place, normals = (torch.from_numpy(part) for part in found)
    places = [place]
    if condition.period is not None:
        places.append(place.clone())
        axis = problem.region.axes.index(condition.period)  # type: ignore[attr-defined]
        places[1][:, axis] = problem.region.upper[axis]
    shape = (len(place), problem.outputs, problem.dimension)
    jets = [_leaf(shape) for _ in places]
    residual = condition.residual(jets[0], Side(place, normals, jets[-1], condition.data))
    parts = [part for jet in jets for part in (jet.value, jet.gradient)]
    slopes = torch.autograd.grad(residual.sum(), parts, materialize_grads=True)
    keep = varying(problem)
    one = Affine(
        condition.name,
        torch.stack(places),
        condition.weight * residual.detach(),
        condition.weight * torch.stack(slopes[0::2])[:, :, keep],
        condition.weight * torch.stack(slopes[1::2])[:, :, keep],
    )
    tried = [Jet(torch.ones_like(jet.value), torch.ones_like(jet.gradient), jet.second) for jet in jets]
    again = condition.weight * condition.residual(tried[0], Side(place, normals, tried[-1], condition.data))
    if not torch.allclose(one.missed(*(torch.cat([jet[n][:, keep] for jet in tried]) for n in (0, 1))), again):
        raise ValueError(f"condition {condition.name} of {problem.name} is not affine")
    return one


def _leaf(shape: tuple[int, int, int]) -> Jet:
    return Jet(*(torch.zeros(s, dtype=torch.float64, requires_grad=True) for s in (shape[:2], shape, shape)))


def residuals(problem: Problem, jet: Jet, x: Tensor, coefficients: Sequence[Tensor] = ()) -> Tensor:
    """Evaluate the equations (..., k) of a jet of the varying outputs, and of numbers for the others."""
    found = problem.residuals(with_coefficients(problem, jet, coefficients), x)
    named = found if isinstance(found, dict) else {"equation": found}
    return torch.stack(list(named.values()), dim=-1)


def with_coefficients(problem: Problem, jet: Jet, coefficients: Sequence[Tensor]) -> Jet:
    """Put unknown coefficients into a jet as outputs whose derivatives vanish."""
    if not problem.constants:
        return jet
    keep, found = varying(problem), []
    for part, constant in zip(jet, (True, False, False), strict=True):
        numbers = iter(coefficients)
        columns = [
            part.select(jet.value.ndim - 1, keep.index(o))
            if o in keep
            else torch.zeros_like(part.select(jet.value.ndim - 1, 0)) + (next(numbers) if constant else 0)
            for o in range(problem.outputs)
        ]
        found.append(torch.stack(columns, dim=jet.value.ndim - 1))
    return Jet(*found)


def equations(problem: Problem) -> int:
    """Count the equations."""
    found = problem.residuals(_leaf((1, problem.outputs, problem.dimension)), torch.tensor([problem.region.lower]))
    return len(found) if isinstance(found, dict) else 1
