"""Symmetry: along which axes the solution of a problem is even about the middle and has the box as its period."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cpikan.fields.protocol import Jet
from cpikan.physics.bound_condition import side_points
from cpikan.physics.evolution import parts_of
from cpikan.physics.leading import drawn_jet, sample_points
from cpikan.physics.problem import Condition, Problem, Side
from cpikan.physics.regions import Box

_SAME = 1e-10  # of the size of a residual
_TRIED = 8  # points of a condition


def even_axes(problem: Problem) -> tuple[int, ...]:
    """List the axes of a box along which data and equation stay what they are when mirrored, and whose ends ask no more
    than an even function with the box as its period gives.

    Tried at points and on jets drawn at random. Where the solution is one alone it is then even and periodic itself, for
    it and its mirror image solve the same problem.
    """
    region = problem.region
    if not isinstance(region, Box) or problem.unknowns or problem.constants or region.inner:
        return ()
    if problem.energy is not None or any(condition.at is not None for condition in problem.conditions):
        return ()
    return tuple(axis for axis in range(problem.dimension) if _is_even(problem, axis))


def ends_of(problem: Problem, condition: Condition, axes: Sequence[int]) -> bool:
    """Tell whether a condition is on ends of some axes of a box alone."""
    assert isinstance(problem.region, Box)
    names = [problem.region.axes[axis] for axis in axes]
    return all(part.split("=")[0] in names for part in parts_of(problem, condition))


@torch.no_grad()
def _is_even(problem: Problem, axis: int) -> bool:
    ends = [ends_of(problem, condition, [axis]) for condition in problem.conditions]
    if not any(ends):
        return False
    for condition, here in zip(problem.conditions, ends, strict=True):
        if not (_holds(problem, condition, axis) if here else _same_mirrored(problem, condition, axis)):
            return False
    x = sample_points(problem)
    jet = drawn_jet(problem, x, 1)
    straight, turned = problem.interior(jet, x), problem.interior(_mirrored_jet(jet, axis), _mirrored(problem, x, axis))
    return all(_close(straight[name].abs(), turned[name].abs()) for name in straight)


def _holds(problem: Problem, condition: Condition, axis: int) -> bool:
    """Tell whether a condition at the ends of an axis holds of all functions that are even and periodic along it."""
    x, normals = side_points(problem, condition, _TRIED)
    jet = drawn_jet(problem, x, 2)
    gradient = jet.gradient.clone()
    gradient[..., axis] = 0.0
    jet = jet._replace(gradient=gradient, second=jet.value.new_zeros(*jet.value.shape, 0))
    found = condition.residual(jet, Side(x, normals, jet if condition.period is not None else None))
    return _close(found, torch.zeros_like(found))


def _same_mirrored(problem: Problem, condition: Condition, axis: int) -> bool:
    """Tell whether a condition that is not at the ends of an axis stays what it is when mirrored along it."""
    if condition.period is not None:
        return True  # of another axis: a difference of values there, whatever the place along this one
    x, normals = side_points(problem, condition, _TRIED)
    jet = drawn_jet(problem, x, 3)
    jet = jet._replace(second=jet.value.new_zeros(*jet.value.shape, 0))
    straight = condition.residual(jet, Side(x, normals))
    turned = condition.residual(_mirrored_jet(jet, axis), Side(_mirrored(problem, x, axis), normals))
    return _close(straight.abs(), turned.abs())


def _mirrored(problem: Problem, x: Tensor, axis: int) -> Tensor:
    found = x.clone()
    found[:, axis] = problem.region.lower[axis] + problem.region.upper[axis] - x[:, axis]
    return found


def _mirrored_jet(jet: Jet, axis: int) -> Jet:
    """Give the jet of the mirrored function: derivatives of odd order along the axis change their sign."""
    sign = torch.ones(jet.gradient.shape[-1], dtype=jet.value.dtype)
    sign[axis] = -1.0
    full = jet.second.ndim == jet.value.ndim + 2
    return jet._replace(gradient=jet.gradient * sign, second=jet.second * sign[:, None] * sign if full else jet.second)


def _close(found: Tensor, wanted: Tensor) -> bool:
    return bool(((found - wanted).abs() <= _SAME * (1 + wanted.abs().max())).all())
