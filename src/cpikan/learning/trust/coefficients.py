"""Coefficients: standard errors of what an inverse problem asks for, and the direction that the data leave open."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cpikan.learning.panel import Panel
from cpikan.learning.trust.linearised import Factored, Linearised, fixed_outputs
from cpikan.physics.problem import Problem

_UNIQUE = 1e8  # as for the field: a direction that the residuals notice less is open
_KNOWN = 1e-2  # relative: two standard errors beyond this leave a coefficient open
_NATURAL = 1e-2  # of what a coefficient would be that alone made all residuals: its unit where it is nearly zero
_UNSEEN = "equation, conditions and values are met as well when coefficients move together:"


@dataclass(frozen=True)
class Coefficients:
    """Standard errors in the order of ``Solution.metrics["coefficients"]``, None where nothing tells of a coefficient, and
    what is open, in words; "" if nothing is."""

    standard_errors: tuple[float | None, ...]
    open: str


def coefficients(problem: Problem, field: Any, system: Linearised, factors: Factored) -> Coefficients:
    """Compute the covariance of the coefficients with the field eliminated (Gauss-Newton), and what it leaves open.

    Every term's residuals stand for independent errors of their own mean square, of those that corrections have to do with,
    passed on by the least squares that the weights define: cov = sum over terms of s^2 G G', with G the rows of the
    pseudo-inverse that give the coefficients.
    """
    fixed = fixed_outputs(problem, field)
    order = [
        fixed.index(o) for o in (*problem.constants, *range(problem.outputs, problem.outputs + len(problem.unknowns)))
    ]
    count = len(fixed)
    rows = _projected(system.jacobian, factors, count)[:, order]
    length = factors.length[-count:][order]
    unit = _units(problem, _values(problem, field, fixed)[order], system.scale / length)
    size, right = _singular(rows * unit, system.panel)
    length = size.clamp_min(1e-300)
    passed = (right.mT / length) @ ((right @ (rows * unit).mT) / length[:, None])  # (k, R), in units
    covariance = torch.zeros_like(right)
    for name, part in system.rows.items():
        mine = system.residuals[part][system.jacobian[part].any(dim=1)]
        sums = torch.stack([mine.square().sum(), mine.new_tensor(float(len(mine)))])
        square, count = system.panel.total(sums).tolist()
        if count:
            share = square / count * system.shares[name]
            covariance += share * system.panel.total(passed[:, part] @ passed[:, part].mT)
    names = [f"output {o}" for o in problem.constants] + [one.name for one in problem.unknowns]
    unseen = float(size[-1]) * _UNIQUE < system.scale
    weakest, told = (right[-1], _UNSEEN) if unseen else _widest(covariance)
    text = f"{told} {_direction(names, weakest * unit)}" if told else ""
    untold = (right[size == 0] != 0).any(dim=0)
    errors = torch.where(untold, torch.inf, covariance.diagonal().sqrt() * unit).tolist()
    return Coefficients(tuple(error if math.isfinite(error) else None for error in errors), text)


def _singular(rows: Tensor, panel: Panel) -> tuple[Tensor, Tensor]:
    """Compute singular values (k,) and right vectors (k, k) of the rows (R, k) of all processes."""
    _, size, right = torch.linalg.svd(rows if panel.alone else panel.triangle(rows), full_matrices=False)
    return size, right


def _units(problem: Problem, values: Tensor, alone: Tensor) -> Tensor:
    """Give the sizes (k,) that errors of coefficients are measured by: their own, or where they begin.

    One that is nearly zero is measured by a share of what it would be if it made all residuals (``alone``); not one that
    is, or began, far from zero and still makes none of them, nor one that never left zero.
    """
    starts = values.new_tensor([0.0] * len(problem.constants) + [one.start for one in problem.unknowns])
    own = torch.maximum(values.abs(), starts.abs())
    idle = ((starts != 0) | (values == 0)) & (own * _UNIQUE < alone)
    return torch.where(idle, own, torch.maximum(own, _NATURAL * alone))


def _widest(covariance: Tensor) -> tuple[Tensor, str]:
    """Find the direction of the largest relative error, and say so where that is large."""
    spread, directions = torch.linalg.eigh(covariance)
    two = 2 * float(spread[-1].clamp_min(0.0).sqrt())
    return directions[:, -1], f"the data leave coefficients open to +-{100 * two:.2g} % along" if two > _KNOWN else ""


def _projected(jacobian: Tensor, factors: Factored, count: int) -> Tensor:
    """Take from the last ``count`` columns (R, count) what the others can make."""
    triangle, order, length = factors.triangle, factors.order, factors.length
    made = torch.linalg.solve_triangular(triangle[:-count, :-count], triangle[:-count, -count:], upper=True)
    scaled = jacobian[:, order] / length
    return (scaled[:, -count:] - scaled[:, :-count] @ made) * length[-count:]


def _values(problem: Problem, field: Any, fixed: list[int]) -> Tensor:
    with torch.no_grad():
        middle = torch.tensor([problem.region.lower, problem.region.upper], dtype=torch.float64).mean(dim=0)
        found: Tensor = field.jet(middle[None], "none").value[0, fixed]
    return found


def _direction(names: list[str], weakest: Tensor) -> str:
    """Write a direction as changes of the coefficients, the largest as 1."""
    shares = (weakest / weakest[weakest.abs().argmax()]).tolist()
    return ", ".join(f"{name} by {share:.2g}" for name, share in zip(names, shares, strict=True) if abs(share) > 1e-3)
