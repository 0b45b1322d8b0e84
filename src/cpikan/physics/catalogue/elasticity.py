"""Beam and plate: fourth order, as two equations of second order for the deflection u and its curvature m."""

from __future__ import annotations

import cmath
import math

import torch
from torch import Tensor

from cpikan.fields.protocol import Jet
from cpikan.physics.problem import Problem, dirichlet, neumann
from cpikan.physics.regions import box


def beam() -> Problem:
    """Pose the Euler-Bernoulli beam clamped at both ends: u'' = m, m'' = q, u = exp(x) (1 - cos 2 pi x) on [0, 1]."""
    rate = complex(1, 2 * math.pi)

    def derivative(x: Tensor, order: int) -> Tensor:
        size, turn = cmath.polar(rate**order)
        wave = size * torch.cos(2 * math.pi * x[..., 0] + turn)
        return torch.exp(x[..., 0]) * (1 - wave)

    def exact(x: Tensor) -> Tensor:
        return torch.stack([derivative(x, 0), derivative(x, 2)], dim=-1)

    def residual(u: Jet, x: Tensor) -> dict[str, Tensor]:
        return {
            "curvature": u.second[..., 0, 0] - u.value[..., 1],
            "load": u.second[..., 1, 0] - derivative(x, 4),
        }

    conditions = [dirichlet(0.0), neumann(0.0, name="clamped")]
    summary = "u'''' = q on [0, 1] as u'' = m, m'' = q, clamped; u = exp(x) (1 - cos 2 pi x)"
    return Problem("beam", box([0], [1]), residual, conditions, exact, "exact formula", summary, outputs=2)


def plate() -> Problem:
    """Pose a simply supported plate: Laplacian u = m, Laplacian m = q, u = sin(pi x) sin(2 pi y) on the unit square."""
    square = 5 * math.pi**2

    def deflection(x: Tensor) -> Tensor:
        return torch.sin(math.pi * x[..., 0]) * torch.sin(2 * math.pi * x[..., 1])

    def exact(x: Tensor) -> Tensor:
        return torch.stack([deflection(x), -square * deflection(x)], dim=-1)

    def residual(u: Jet, x: Tensor) -> dict[str, Tensor]:
        laplacian = u.second.sum(-1)
        return {
            "curvature": laplacian[..., 0] - u.value[..., 1],
            "load": laplacian[..., 1] - square**2 * deflection(x),
        }

    conditions = [dirichlet(0.0), dirichlet(0.0, output=1, name="no moment")]
    summary = "biharmonic u = q on [0, 1]^2, simply supported, in mixed form; u = sin(pi x) sin(2 pi y)"
    return Problem("plate", box([0, 0], [1, 1]), residual, conditions, exact, "exact formula", summary, outputs=2)


PROBLEMS = {"beam": beam, "plate": plate}
