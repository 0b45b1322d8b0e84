"""Evolutions over many periods, of ordinary and partial differential equations."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from cpikan.physics.problem import Problem, dirichlet, initial, initial_rate, periodic
from cpikan.physics.regions import box
from own_problems.systems import system

PI = math.pi
sin, cos, exp = torch.sin, torch.cos, torch.exp


def spring(name: str) -> Problem:
    """Pose y'' + y = 0 as two equations of first order to t = 100."""
    return system(name, lambda t, y: [y[1], -y[0]], [1.0, 0.0], 100)


def resonator(name: str) -> Problem:
    """Pose y'' + y / 10 + 4 y = cos t as one equation of second order to t = 80: closed form."""
    damp, free = 0.05, (4 - 0.05**2) ** 0.5
    a, b = 3 / (9 + 0.01), 0.1 / (9 + 0.01)

    def exact(x: Tensor) -> Tensor:
        t = x[..., 0]
        decay = exp(-damp * t) * ((1 - a) * cos(free * t) + (damp * (1 - a) - b) / free * sin(free * t))
        return a * cos(t) + b * sin(t) + decay

    def residual(u: Any, x: Tensor) -> Tensor:
        return u.second[..., 0, 0] + 0.1 * u.gradient[..., 0, 0] + 4 * u.value[..., 0] - cos(x[..., 0])

    return Problem(name, box([0], [80], ["t"]), residual, [initial(1.0), initial_rate(0.0)], exact)


def string(name: str) -> Problem:
    """Pose u_tt = u_xx for 5 periods, two modes."""

    def exact(x: Tensor) -> Tensor:
        s, t = PI * x[..., 0], PI * x[..., 1]
        return sin(s) * cos(t) + 0.3 * sin(3 * s) * cos(3 * t)

    def residual(u: Any, x: Tensor) -> Tensor:
        return u.second[..., 0, 1] - u.second[..., 0, 0]

    return Problem(
        name, box([0, 0], [1, 10], ["x", "t"]), residual, [initial(exact), initial_rate(0.0), dirichlet(0.0)], exact
    )


def carried(name: str) -> Problem:
    """Pose u_t + 2 u_x = 0 on a ring for 5 rounds."""
    region = box([0, 0], [2 * PI, 5 * PI], ["x", "t"])

    def exact(x: Tensor) -> Tensor:
        return exp(sin(x[..., 0] - 2 * x[..., 1]))

    def residual(u: Any, x: Tensor) -> Tensor:
        return u.gradient[..., 0, 1] + 2 * u.gradient[..., 0, 0]

    return Problem(name, region, residual, [initial(exact), *periodic(region, slope=False)], exact, second="none")


PROBLEMS = {
    "spring": spring,
    "pendulum": lambda n: system(
        n, lambda t, y: [y[1], -(torch.sin(y[0]) if isinstance(y[0], Tensor) else math.sin(y[0]))], [2.0, 0.0], 60
    ),
    "resonator": resonator,
    "string": string,
    "carried": carried,
}
