"""Bound: a condition read as a u + b du/dn = data of one output, which a form of the solution can hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cpikan.fields.protocol import Jet
from cpikan.physics.problem import Condition, Problem, Side

_SAMPLE = 6  # points per part where a condition is tried
_SAME = 1e-10
_STEP = 1e-4  # of the region, for differences of the data
_ABOUT, _ROUNDED = 0.1, 1e-9  # how far these may be off


@dataclass(frozen=True)
class Bound:
    """A condition on the value of an output, or on its slope: du/dn + c u = h, c = 0 for Neumann's."""

    condition: Condition
    name: str
    output: int
    outputs: int
    slope: bool

    def value(self, x: Tensor, normals: Tensor) -> Tensor:
        """Evaluate the value that the output has to have, (B,)."""
        zero, a, _ = self._parts(x, normals)
        return -zero / a

    def flux(self, x: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate h and c, (B,) each."""
        zero, a, b = self._parts(x, normals)
        return -zero / b, a / b

    def _parts(self, x: Tensor, normals: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluate the residual of u = 0, and the factors of the value and of the slope, (B,)."""
        zero = self._residual(x, normals, 0.0, 0.0)
        return zero, self._residual(x, normals, 1.0, 0.0) - zero, self._residual(x, normals, 0.0, 1.0) - zero

    def _residual(self, x: Tensor, normals: Tensor, value: float, slope: float) -> Tensor:
        one = torch.zeros(self.outputs, dtype=x.dtype)
        one[self.output] = 1.0
        values = value * one.expand(len(x), -1)
        jet = Jet(values, slope * one[:, None] * normals[:, None, :], x.new_zeros(len(x), self.outputs, 0))
        return self.condition.residual(jet, Side(x, normals)) + x.new_zeros(len(x))


def bound(problem: Problem, condition: Condition, name: str) -> Bound | None:
    """Read a condition on walls, by its slopes at jets drawn at random; None where it is none on one value or normal slope."""
    if condition.at is not None or condition.period is not None:
        return None
    points, normals = side_points(problem, condition, _SAMPLE)
    generator = torch.Generator().manual_seed(3)
    tries = [_tried(problem, condition, points, normals, generator) for _ in range(2)]
    if any(one is None for one in tries):
        return None
    (r, by_value, by_slope), (again, value_again, slope_again) = tries  # type: ignore[misc]
    if not (torch.allclose(by_value, value_again) and torch.allclose(by_slope, slope_again)):
        return None
    if not torch.allclose(r, again, rtol=_SAME, atol=_SAME):  # what is left of the residual without its linear part
        return None
    along = (by_slope * normals[:, None, :]).sum(-1)
    across = by_slope - along[..., None] * normals[:, None, :]
    size = max(float(by_value.abs().max()), float(along.abs().max()))
    seen = (by_value.abs() + along.abs() > _SAME * size).any(dim=0)
    if size == 0.0 or int(seen.sum()) != 1 or float(across.abs().max()) > _SAME * size:
        return None
    output = int(seen.int().argmax())
    slope = bool((along.abs() > _SAME * size).any())
    leading = (along if slope else by_value)[:, output].abs()
    if not float(leading.min()) > 1e-3 * size:
        return None
    return Bound(condition, name, output, problem.outputs, slope)


def has_slopes(problem: Problem, found: Bound) -> bool:
    """Tell whether the data of a condition have slopes that torch can compute, as a lift of these data needs.

    Those by NumPy raise, and those that leave torch on the way have slopes of zero where differences are not.
    """
    points, normals = side_points(problem, found.condition, _SAMPLE)

    def data(x: Tensor) -> Tensor:
        return torch.stack(found.flux(x, normals) if found.slope else (found.value(x, normals),), dim=-1)

    generator = torch.Generator().manual_seed(11)
    along = torch.randn(points.shape, generator=generator, dtype=torch.float64)
    along = along - (along * normals).sum(-1, keepdim=True) * normals  # data are asked for on the wall alone
    step = _STEP * along * (points.amax(dim=0) - points.amin(dim=0))
    try:
        value, pull = torch.func.vjp(data, points)[:2]
    except RuntimeError:
        return False
    parts = torch.eye(value.shape[-1], dtype=value.dtype)
    slope = torch.stack([(pull(one.expand_as(value))[0] * step).sum(-1) for one in parts], dim=-1)
    differences = (data(points + step) - data(points - step)) / 2
    return bool(((slope - differences).abs() <= _ABOUT * (slope.abs() + differences.abs()) + _ROUNDED).all())


def side_points(problem: Problem, condition: Condition, count: int) -> tuple[Tensor, Tensor]:
    """Place points and normals on the parts of a condition, (parts count, d) each."""
    parts = problem.region.walls if condition.on is None else condition.on
    unit = np.random.default_rng(7).random((count, problem.dimension - 1))
    pairs = [problem.region.on(part, unit, False) for part in parts]
    points, normals = (torch.from_numpy(np.concatenate(side)) for side in zip(*pairs, strict=True))
    return points, normals


def _tried(
    problem: Problem, condition: Condition, points: Tensor, normals: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Give the residual without its linear part (B,), and its derivatives by values and gradients."""

    def leaf(*tail: int) -> Tensor:
        drawn = torch.randn(len(points), problem.outputs, *tail, generator=generator, dtype=torch.float64)
        return drawn.requires_grad_()

    value, gradient = leaf(), leaf(problem.dimension)
    jet = Jet(value, gradient, points.new_zeros(len(points), problem.outputs, 0))
    with torch.enable_grad():
        try:
            found = condition.residual(jet, Side(points, normals))
        except (IndexError, RuntimeError):  # second derivatives are asked for
            return None
        if found.shape != points.shape[:1] or not found.requires_grad:
            return None
        by = torch.autograd.grad(found.sum(), [value, gradient], allow_unused=True, materialize_grads=True)
    with torch.no_grad():
        rest = found - (by[0] * value).sum(-1) - (by[1] * gradient).sum((-1, -2))
    return rest.detach(), by[0], by[1]
