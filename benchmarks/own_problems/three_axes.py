"""Problems with three axes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from cpikan.physics.problem import Problem, dirichlet, initial, initial_rate
from cpikan.physics.regions import box

PI = math.pi
sin, cos, exp = torch.sin, torch.cos, torch.exp


def cube(name: str) -> Problem:
    """Pose -Laplacian u + u^3 = f on a cube, u = exp(x) sin(pi y) cos(z)."""

    def exact(x: Tensor) -> Tensor:
        return exp(x[..., 0]) * sin(PI * x[..., 1]) * cos(x[..., 2])

    def residual(u: Any, x: Tensor) -> Tensor:
        v = exact(x)
        return u.value[..., 0] ** 3 - u.second[..., 0, :].sum(-1) - (PI**2 * v + v**3)

    return Problem(name, box([0, 0, 0], [1, 1, 1]), residual, [dirichlet(exact)], exact)


def room(name: str) -> Problem:
    """Pose Laplacian u + 30 u = 0 in a box, a wave across it."""
    k = torch.tensor([3.0, 2.0, 17**0.5], dtype=torch.float64)

    def exact(x: Tensor) -> Tensor:
        return sin(x @ k + 0.3)

    return Problem(
        name,
        box([0, 0, 0], [1, 0.8, 0.6]),
        lambda u, x: u.second[..., 0, :].sum(-1) + 30 * u.value[..., 0],
        [dirichlet(exact)],
        exact,
    )


def hot_plate(name: str) -> Problem:
    """Pose u_t = (u_xx + u_yy) / 50 on a square to t = 5, two modes."""

    def exact(x: Tensor) -> Tensor:
        s, t = PI * x[..., 0], PI * x[..., 1]
        one = sin(s) * sin(t) * exp(-2 * PI**2 / 50 * x[..., 2])
        return one + 0.5 * sin(2 * s) * sin(t) * exp(-5 * PI**2 / 50 * x[..., 2])

    def residual(u: Any, x: Tensor) -> Tensor:
        return u.gradient[..., 0, 2] - (u.second[..., 0, 0] + u.second[..., 0, 1]) / 50

    return Problem(name, box([0, 0, 0], [1, 1, 5], ["x", "y", "t"]), residual, [initial(exact), dirichlet(0.0)], exact)


def drum(name: str) -> Problem:
    """Pose u_tt = u_xx + u_yy on a square to t = 2, one mode."""
    rate = PI * 2**0.5

    def exact(x: Tensor) -> Tensor:
        return sin(PI * x[..., 0]) * sin(PI * x[..., 1]) * cos(rate * x[..., 2])

    def residual(u: Any, x: Tensor) -> Tensor:
        return u.second[..., 0, 2] - u.second[..., 0, 0] - u.second[..., 0, 1]

    conditions = [initial(exact), initial_rate(0.0), dirichlet(0.0)]
    return Problem(name, box([0, 0, 0], [1, 1, 2], ["x", "y", "t"]), residual, conditions, exact)


PROBLEMS = {"cube": cube, "room": room, "hot-plate": hot_plate, "drum": drum}
