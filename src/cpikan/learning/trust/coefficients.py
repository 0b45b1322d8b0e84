"""Coefficients: standard errors of what an inverse problem asks for, and the direction that the data leave open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cpikan.learning.trust.linearised import Linearised, fixed_outputs
from cpikan.physics.problem import Problem

_UNIQUE = 1e8  # as for the field: a direction that the residuals notice less is open
_KNOWN = 1e-2  # relative: two standard errors beyond this leave a coefficient open
_NATURAL = 1e-2  # of what a coefficient would be that alone made all residuals: its unit where it is nearly zero
_DAMPING = 1e-13
_UNSEEN = "the data leave coefficients open: equation, conditions and values are met as well by others along"


@dataclass(frozen=True)
class Coefficients:
    """Standard errors in the order of ``Solution.metrics["coefficients"]``, and what is open, in words; "" if nothing is."""

    standard_errors: tuple[float, ...]
    open: str


def coefficients(problem: Problem, field: Any, system: Linearised) -> Coefficients:
    """Compute the covariance of the coefficients with the field eliminated (Gauss-Newton), and what it leaves open.

    Every term's residuals stand for independent errors of their own mean square, passed on by the least squares that the
    weights define: cov = sum over terms of s^2 G G', with G the rows of the pseudo-inverse that give the coefficients.
    """
    fixed = fixed_outputs(problem, field)
    order = [
        fixed.index(o) for o in (*problem.constants, *range(problem.outputs, problem.outputs + len(problem.unknowns)))
    ]
    unknown = torch.tensor([int(o) in fixed for o in system.outputs])
    rows = _projected(system.jacobian[:, ~unknown], system.jacobian[:, unknown])[:, order]
    length = system.jacobian[:, unknown][:, order].norm(dim=0)
    unit = torch.maximum(
        _values(problem, field, fixed)[order].abs(), _NATURAL * system.scale / length.clamp_min(1e-300)
    )
    left, size, right = torch.linalg.svd(rows * unit, full_matrices=False)
    passed = (right.mT / size.clamp_min(1e-300)) @ left.mT  # (k, R), in units
    covariance = torch.zeros_like(right)
    for name, part in system.rows.items():
        if part.stop > part.start:
            square = system.residuals[part].square().mean() * system.shares[name]
            covariance += square * passed[:, part] @ passed[:, part].mT
    names = [f"output {o}" for o in problem.constants] + [one.name for one in problem.unknowns]
    unseen = float(size[-1]) * _UNIQUE < system.scale
    weakest, told = (right[-1], _UNSEEN) if unseen else _widest(covariance)
    text = f"{told} {_direction(names, weakest * unit)}" if told else ""
    return Coefficients(tuple((covariance.diagonal().sqrt() * unit).tolist()), text)


def _widest(covariance: Tensor) -> tuple[Tensor, str]:
    """Find the direction of the largest relative error, and say so where that is large."""
    spread, directions = torch.linalg.eigh(covariance)
    two = 2 * float(spread[-1].clamp_min(0.0).sqrt())
    return directions[
        :, -1
    ], f"the data know the coefficients to +-{100 * two:.2g} % alone along" if two > _KNOWN else ""


def _projected(nuisance: Tensor, columns: Tensor) -> Tensor:
    """Take from the columns (R, k) what the nuisance columns (R, C) can make, twice against rounding."""
    length = nuisance.norm(dim=0)
    scaled = nuisance / torch.where(length > 0, length, torch.ones_like(length))
    below = _DAMPING * torch.eye(scaled.shape[1], dtype=scaled.dtype)
    basis = torch.linalg.qr(torch.cat([scaled, below]))[0][: len(scaled)]
    for _ in range(2):
        columns = columns - basis @ (basis.mT @ columns)
    return columns


def _values(problem: Problem, field: Any, fixed: list[int]) -> Tensor:
    with torch.no_grad():
        middle = torch.tensor([problem.region.lower, problem.region.upper], dtype=torch.float64).mean(dim=0)
        found: Tensor = field.jet(middle[None], "none").value[0, fixed]
    return found


def _direction(names: list[str], weakest: Tensor) -> str:
    """Write a direction as changes of the coefficients, the largest as 1."""
    shares = (weakest / weakest[weakest.abs().argmax()]).tolist()
    return ", ".join(f"{name} by {share:.2g}" for name, share in zip(names, shares, strict=True) if abs(share) > 1e-3)
