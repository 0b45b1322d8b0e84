"""Layers at walls and inside, and a travelling shock."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from cpikan.physics.problem import Problem, dirichlet, initial
from cpikan.physics.regions import box

PI = math.pi
sin, exp = torch.sin, torch.exp


def outflow(name: str) -> Problem:
    """Pose -e u'' + u' = 1, zero at both ends, e = 1e-3: a layer at x = 1."""
    e = 1e-3

    def exact(x: Tensor) -> Tensor:
        return x[..., 0] - (exp((x[..., 0] - 1) / e) - math.exp(-1 / e)) / (1 - math.exp(-1 / e))

    return Problem(
        name, box([0], [1]), lambda u, x: u.gradient[..., 0, 0] - e * u.second[..., 0, 0] - 1, [dirichlet(0.0)], exact
    )


def two_layers(name: str) -> Problem:
    """Pose -e u'' + u = 1 + x, zero at both ends, e = 1e-6."""
    w = 1e-3

    def exact(x: Tensor) -> Tensor:
        t = x[..., 0]
        return 1 + t - exp(-t / w) - 2 * exp((t - 1) / w)

    return Problem(
        name,
        box([0], [1]),
        lambda u, x: u.value[..., 0] - w * w * u.second[..., 0, 0] - 1 - x[..., 0],
        [dirichlet(0.0)],
        exact,
    )


def inner_layer(name: str) -> Problem:
    """Pose u'' / k^2 = 2 u (u^2 - 1) + (u - f) / 10, f = tanh(k (x - 0.3)), k = 40: a front that a weak load holds at 0.3.

    With the load's sign turned around it pushes fronts to the walls, and there are other solutions (`pde_open.pushed_front`).
    """
    k = 40.0

    def exact(x: Tensor) -> Tensor:
        return torch.tanh(k * (x[..., 0] - 0.3))

    def residual(u: Any, x: Tensor) -> Tensor:
        v = u.value[..., 0]
        return u.second[..., 0, 0] / k**2 - 2 * v * (v * v - 1) - 0.1 * (v - exact(x))

    return Problem(name, box([-1], [1]), residual, [dirichlet(exact)], exact)


def wall_layer(name: str) -> Problem:
    """Pose -e (u_xx + u_yy) + u = f on a square with u = (1 - exp(-x / sqrt e)) sin(pi y) / 1, e = 1e-4."""
    e = 1e-4
    w = e**0.5

    def exact(x: Tensor) -> Tensor:
        return (1 - exp(-x[..., 0] / w)) * sin(PI * x[..., 1])

    def residual(u: Any, x: Tensor) -> Tensor:
        load = (1 + e * PI**2 * (1 - exp(-x[..., 0] / w))) * sin(PI * x[..., 1])
        return u.value[..., 0] - e * u.second[..., 0, :].sum(-1) - load

    return Problem(name, box([0, 0], [1, 1]), residual, [dirichlet(exact)], exact)


def shock(name: str) -> Problem:
    """Pose u_t + u u_x = v u_xx, a travelling wave with v = 0.01."""
    v = 0.01

    def exact(x: Tensor) -> Tensor:
        return 0.5 - 0.5 * torch.tanh((x[..., 0] - 0.5 * x[..., 1]) / (4 * v))

    def residual(u: Any, x: Tensor) -> Tensor:
        return u.gradient[..., 0, 1] + u.value[..., 0] * u.gradient[..., 0, 0] - v * u.second[..., 0, 0]

    return Problem(name, box([-1, 0], [1, 1], ["x", "t"]), residual, [initial(exact), dirichlet(exact)], exact)


PROBLEMS = {
    "outflow": outflow,
    "two-layers": two_layers,
    "inner-layer": inner_layer,
    "wall-layer": wall_layer,
    "shock": shock,
}
