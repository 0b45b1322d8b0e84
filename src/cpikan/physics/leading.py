"""Leading coefficients: the factors of the second derivatives in the residuals of a problem, functions of the point alone."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cpikan.errors import InputError
from cpikan.fields.protocol import Jet
from cpikan.physics.problem import Problem

_SAMPLES, _SAME = 24, 1e-8


class Leading(NamedTuple):
    """Factors a (B, equations, outputs, d) of the unmixed second derivatives, with a_x_i and a_x_i x_i along the same axis."""

    value: Tensor
    slope: Tensor
    bend: Tensor


def bare(jet: Jet, problem: Problem) -> Jet:
    """Take the second derivatives off a jet: zeros of the shape that the problem's residuals expect."""
    axes = {"axes": (problem.dimension,), "laplacian": ()}.get(problem.second, (0,))
    return jet._replace(second=jet.value.new_zeros(*jet.value.shape, *axes))


def leading(problem: Problem, x: Tensor, jet: Jet | None = None) -> Leading:
    """Evaluate the factors at points (B, d), about a jet (u = 0); with two derivatives by the point.

    Those of a problem that ``check_leading`` lets pass depend on the point alone.
    """
    with torch.enable_grad():
        points = x.detach().clone().requires_grad_()
        full = bare(drawn_jet(problem, x, None) if jet is None else jet, problem)
        second = full.second.clone().requires_grad_()
        found = problem.interior(full._replace(second=second), points).values()
        parts = [_along_axes(_by(value, second), problem) for value in found]
        value = torch.stack([part[:, : problem.outputs] for part in parts], dim=1)
        slope = _own_slopes(value, points)
        bend = _own_slopes(slope, points)
    return Leading(value.detach(), slope.detach(), bend.detach())


def check_leading(problem: Problem, what: str) -> None:
    """Raise InputError where second derivatives are mixed, or their factors depend on more than the point.

    Tried on jets drawn at random at points of the region; ``what`` is to be said of the problem.
    """
    if problem.second == "full":
        raise InputError(
            f"{what} of {problem.name}: its residual may take mixed derivatives (second='full'), give 'axes'"
        )
    x = sample_points(problem)
    first, other = (leading(problem, x, drawn_jet(problem, x, seed)).value for seed in (1, 2))
    jet = drawn_jet(problem, x, 3)
    straight = problem.interior(jet, x)
    rest = problem.interior(bare(jet, problem), x)
    share = 1 / problem.dimension if problem.second == "laplacian" else 1.0  # its factors stand at every axis
    second = share * _along_axes(jet.second, problem)[:, : problem.outputs]
    linear = torch.einsum("bqoi,boi->qb", first, second)
    for (name, value), left, more in zip(straight.items(), rest.values(), linear, strict=True):
        size = 1 + value.abs().amax()
        if not bool(((value - left - more).abs() <= _SAME * size).all()) or not torch.allclose(
            first, other, rtol=_SAME
        ):
            raise InputError(
                f"{what} of {problem.name}: the factors of the second derivatives in {name!r} depend on the solution, write "
                "it with factors of x alone, or use --loss-mode strong"
            )


def sample_points(problem: Problem) -> Tensor:
    """Draw points (n, d) of the region at which a formula is tried."""
    unit = torch.rand(_SAMPLES, problem.dimension, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return torch.from_numpy(problem.region.inside(unit.numpy(), clustered=False))


def drawn_jet(problem: Problem, x: Tensor, seed: int | None) -> Jet:
    """Draw a jet at points (B, d), with the unknowns as further outputs, by chance; None: zeros."""
    outputs, d = problem.outputs + len(problem.unknowns), problem.dimension
    second = {"axes": (d,), "laplacian": (), "full": (d, d), "none": (0,)}[problem.second]
    if seed is None:
        return Jet(*(x.new_zeros(len(x), outputs, *tail) for tail in ((), (d,), second)))
    generator = torch.Generator().manual_seed(seed)
    return Jet(*(torch.randn(len(x), outputs, *t, generator=generator, dtype=x.dtype) for t in ((), (d,), second)))


def _by(value: Tensor, leaf: Tensor) -> Tensor:
    """Differentiate values (B,) by a leaf of their points, zeros where they do not depend on it; goes on by the points."""
    if not value.requires_grad or not leaf.numel():
        return torch.zeros_like(leaf)
    (found,) = torch.autograd.grad(value.sum(), leaf, create_graph=True, allow_unused=True)
    return torch.zeros_like(leaf) if found is None else found


def _along_axes(second: Tensor, problem: Problem) -> Tensor:
    """Lay factors of second derivatives out along the axes (B, outputs, d); a Laplacian's are all the same."""
    if problem.second == "laplacian":
        return second[..., None].expand(*second.shape, problem.dimension)
    return second if second.shape[-1] else second.new_zeros(*second.shape[:-1], problem.dimension)


def _own_slopes(factors: Tensor, points: Tensor) -> Tensor:
    """Differentiate factors (B, q, o, d), each along the axis that it belongs to."""
    found = torch.zeros_like(factors)
    for equation in range(factors.shape[1]):
        for output in range(factors.shape[2]):
            for axis in range(factors.shape[3]):
                one = factors[:, equation, output, axis]
                if one.requires_grad:
                    slope = torch.autograd.grad(one.sum(), points, create_graph=True, allow_unused=True)[0]
                    if slope is not None:
                        found[:, equation, output, axis] = slope[:, axis]
    return found
