"""Parity: which outputs of a problem are even or odd about the middle of a box, and forms of solutions that are so."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cpikan.fields.constrained import Ansatz, Function
from cpikan.fields.mapped import PointMap
from cpikan.fields.protocol import Jet
from cpikan.physics.bound_condition import side_points
from cpikan.physics.evolution import parts_of
from cpikan.physics.leading import drawn_jet, sample_points
from cpikan.physics.problem import Condition, Problem, Side
from cpikan.physics.regions import Box

_SAME = 1e-10  # of the size of a residual
_TRIED = 8  # points of a condition
_MOST = 4  # outputs: their signs are tried in all combinations
Signs = tuple[int, ...]  # of every output: 1 where it is even along an axis, -1 where it is odd


def parities(problem: Problem) -> dict[int, Signs]:
    """Find the axes of a box along which a solution mirrored about the middle solves the problem again, with their signs.

    Equation and conditions are tried at points and on jets drawn at random. Where the solution is one alone it is then even
    or odd itself, output by output. Axes of periods are left out, and so are coefficients that are asked for.
    """
    region = problem.region
    if not isinstance(region, Box) or region.inner or problem.unknowns or problem.constants or problem.outputs > _MOST:
        return {}
    if problem.energy is not None or any(condition.at is not None for condition in problem.conditions):
        return {}
    found = {}
    for axis, name in enumerate(region.axes):
        if any(condition.period == name for condition in problem.conditions):
            continue
        tried = itertools.product((1, -1), repeat=problem.outputs)
        signs = next((signs for signs in tried if _mirrors(problem, axis, signs)), None)
        if signs is not None:
            found[axis] = signs
    return found


def with_parity(problem: Problem, ansatz: Ansatz) -> Ansatz | None:
    """Let u = lift + distance v be even or odd as the solution is, whatever v is; None where it is neither.

    v is a network of 2 s^2 - 1 in place of s, the coordinate from -1 to 1 of such an axis, and so even: every smooth even
    function is a smooth function of the square. The distance gets a factor s for every axis along which its output is odd.
    """
    found = {axis: signs for axis, signs in parities(problem).items() if _lifts(problem, ansatz.lift, axis, signs)}
    if not found or ansatz.point_map is not None:
        return None
    low, high = (torch.tensor(v, dtype=torch.float64) for v in (problem.region.lower, problem.region.upper))
    mirrored = torch.tensor([axis in found for axis in range(problem.dimension)])
    odd = [[axis for axis in found if found[axis][output] < 0] for output in range(problem.outputs)]

    def scaled(x: Tensor) -> Tensor:
        return 2 * (x - low) / (high - low) - 1

    def folded(x: Tensor) -> Tensor:
        s = scaled(x)
        return torch.where(mirrored, 2 * s * s - 1, s)

    def distance(x: Tensor) -> Tensor:
        s = scaled(x)
        return ansatz.distance(x) * torch.stack([s[:, axes].prod(dim=-1) for axes in odd], dim=-1)

    ends = (-1.0,) * problem.dimension, (1.0,) * problem.dimension
    return Ansatz(ansatz.lift, distance, PointMap(folded, problem.dimension, *ends), parity=tuple(found.items()))


@torch.no_grad()
def _mirrors(problem: Problem, axis: int, signs: Signs) -> bool:
    if not all(_same(problem, condition, axis, signs) for condition in problem.conditions):
        return False
    x = sample_points(problem)
    jet = drawn_jet(problem, x, 1)
    straight = problem.interior(jet, x)
    turned = problem.interior(_mirrored_jet(jet, axis, signs), _mirrored(problem, x, axis))
    return all(_close(straight[name].abs(), turned[name].abs()) for name in straight)


def _same(problem: Problem, condition: Condition, axis: int, signs: Signs) -> bool:
    """Tell whether a condition is, mirrored, one of the problem again."""
    if condition.period is not None:
        return True  # of another axis: a difference of values there, whatever the place along this one
    x, normals = side_points(problem, condition, _TRIED)
    jet = drawn_jet(problem, x, 3)
    jet = jet._replace(second=jet.value.new_zeros(*jet.value.shape, 0))
    straight = condition.residual(jet, Side(x, normals))
    there, turned = _mirrored(problem, x, axis), _mirrored_jet(jet, axis, signs)
    facing = torch.where(torch.arange(x.shape[1]) == axis, -normals, normals)
    parts = _mirrored_parts(problem, condition, axis)
    others = [one for one in problem.conditions if one.period is None and set(parts_of(problem, one)) == parts]
    return any(_close(straight.abs(), other.residual(turned, Side(there, facing)).abs()) for other in others)


def _mirrored_parts(problem: Problem, condition: Condition, axis: int) -> set[str]:
    assert isinstance(problem.region, Box)
    low, high = (f"{problem.region.axes[axis]}={end}" for end in ("min", "max"))
    return {{low: high, high: low}.get(part, part) for part in parts_of(problem, condition)}


def _lifts(problem: Problem, lift: Function, axis: int, signs: Signs) -> bool:
    """Tell whether a lift is even or odd as the solution is."""
    unit = np.random.default_rng(6).random((_TRIED, problem.dimension))
    x = torch.from_numpy(problem.region.inside(unit, False))
    with torch.no_grad():
        return _close(lift(x), lift(_mirrored(problem, x, axis)) * torch.tensor(signs))


def _mirrored(problem: Problem, x: Tensor, axis: int) -> Tensor:
    found = x.clone()
    found[:, axis] = problem.region.lower[axis] + problem.region.upper[axis] - x[:, axis]
    return found


def _mirrored_jet(jet: Jet, axis: int, signs: Sequence[int]) -> Jet:
    """Give the jet of the mirrored functions: derivatives of odd order along the axis change their sign once more."""
    of = torch.tensor(signs, dtype=jet.value.dtype)
    turn = torch.ones(jet.gradient.shape[-1], dtype=jet.value.dtype)
    turn[axis] = -1.0
    full = jet.second.ndim == jet.value.ndim + 2
    bend = jet.second * turn[:, None] * turn if full else jet.second
    bend = bend * of.reshape(-1, *(1,) * (bend.ndim - jet.value.ndim))
    return Jet(jet.value * of, jet.gradient * turn * of[:, None], bend)


def _close(found: Tensor, wanted: Tensor) -> bool:
    return bool(((found - wanted).abs() <= _SAME * (1 + wanted.abs().max())).all())
