"""Wave equation and advection."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cpikan.fields.protocol import Jet
from cpikan.physics.problem import Problem, dirichlet, initial, initial_rate, periodic
from cpikan.physics.regions import box


def wave() -> Problem:
    """Pose u_tt = 4 u_xx on the unit square, two modes, at rest in the beginning (Wang, Yu and Perdikaris 2022)."""
    rate, size = math.pi * torch.tensor([1.0, 4.0], dtype=torch.float64), torch.tensor([1.0, 0.5], dtype=torch.float64)

    def exact(x: Tensor) -> Tensor:
        return (size * torch.sin(rate * x[..., :1]) * torch.cos(2 * rate * x[..., 1:])).sum(dim=-1)

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.second[..., 0, 1] - 4 * u.second[..., 0, 0]

    region = box([0, 0], [1, 1], ["x", "t"])
    conditions = [dirichlet(0.0), initial(exact), initial_rate(0.0)]
    summary = "u_tt = 4 u_xx on [0, 1]^2; u = sin(pi x) cos(2 pi t) + sin(4 pi x) cos(8 pi t) / 2"
    return Problem("wave", region, residual, conditions, exact, "exact formula", summary)


def advection(*, speed: float = 10.0, end: float = 1.0) -> Problem:
    """Pose u_t + speed u_x = 0, periodic on [0, 2 pi], u(x, 0) = sin x."""

    def exact(x: Tensor) -> Tensor:
        return torch.sin(x[..., 0] - speed * x[..., 1])

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.gradient[..., 0, 1] + speed * u.gradient[..., 0, 0]

    region = box([0, 0], [2 * math.pi, end], ["x", "t"])
    conditions = [initial(exact), *periodic(region, slope=False)]
    summary = f"u_t + {speed:g} u_x = 0, periodic on [0, 2 pi] x [0, {end:g}]; u = sin(x - {speed:g} t)"
    return Problem("advection", region, residual, conditions, exact, "exact formula", summary, second="none")


PROBLEMS = {"wave": wave, "advection": advection}
