"""Complex-valued problems, as two real outputs."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from cpikan.physics.problem import Condition, Problem, dirichlet, initial, periodic
from cpikan.physics.regions import box

PI = math.pi
sin, cos, exp = torch.sin, torch.cos, torch.exp


def evolving(name: str, region: Any, residual: Any, exact: Any, more: list[Condition]) -> Problem:
    """Two outputs that start from the exact solution."""

    def begin(output: int) -> Condition:
        return initial(
            lambda x: exact(torch.cat([x[..., :-1], torch.zeros_like(x[..., -1:])], -1))[..., output], output=output
        )

    return Problem(name, region, residual, [begin(0), begin(1), *more], exact, outputs=2)


def complex_pair(size: Tensor, phase: Tensor) -> Tensor:
    """Write size * exp(i phase) as two numbers."""
    return torch.stack([size * cos(phase), size * sin(phase)], dim=-1)


def ring(name: str) -> Problem:
    """Pose i u_t + u_xx = 0 on a ring, two waves."""
    region = box([-PI, 0], [PI, 1], ["x", "t"])

    def exact(x: Tensor) -> Tensor:
        s, t = x[..., 0], x[..., 1]
        return complex_pair(torch.ones_like(s), 2 * s - 4 * t) + 0.5 * complex_pair(torch.ones_like(s), -3 * s - 9 * t)

    def residual(u: Any, x: Tensor) -> dict[str, Tensor]:
        return {"re": u.second[..., 0, 0] - u.gradient[..., 1, 1], "im": u.second[..., 1, 0] + u.gradient[..., 0, 1]}

    return evolving(name, region, residual, exact, periodic(region))


def soliton(name: str) -> Problem:
    """Pose i u_t + u_xx / 2 + |u|^2 u = 0, one soliton of speed 1."""
    region = box([-10, 0], [10, 2], ["x", "t"])

    def exact(x: Tensor) -> Tensor:
        s, t = x[..., 0], x[..., 1]
        return complex_pair(1 / torch.cosh(s - t + 1), s)

    def residual(u: Any, x: Tensor) -> dict[str, Tensor]:
        a, b = u.value[..., 0], u.value[..., 1]
        square = a * a + b * b
        re = u.second[..., 0, 0] / 2 - u.gradient[..., 1, 1] + square * a
        return {"re": re, "im": u.second[..., 1, 0] / 2 + u.gradient[..., 0, 1] + square * b}

    walls = [dirichlet(lambda x, o=o: exact(x)[..., o], output=o, name=f"wall {o}") for o in (0, 1)]
    return evolving(name, region, residual, exact, walls)


def well(name: str) -> Problem:
    """Pose i u_t = -u_xx / 2 + x^2 u / 2, a coherent state that swings."""
    region = box([-7, 0], [7, 2], ["x", "t"])

    def exact(x: Tensor) -> Tensor:
        s, t = x[..., 0], x[..., 1]
        size = exp(-((s - 1.5 * cos(t)) ** 2) / 2)
        return complex_pair(size, -t / 2 - 1.5 * s * sin(t) + 1.5**2 / 4 * sin(2 * t))

    def residual(u: Any, x: Tensor) -> dict[str, Tensor]:
        hill = x[..., 0] ** 2 / 2
        re = u.second[..., 0, 0] / 2 - u.gradient[..., 1, 1] - hill * u.value[..., 0]
        return {"re": re, "im": u.second[..., 1, 0] / 2 + u.gradient[..., 0, 1] - hill * u.value[..., 1]}

    return evolving(name, region, residual, exact, [dirichlet(0.0), dirichlet(0.0, output=1, name="wall 1")])


def lossy(name: str) -> Problem:
    """Pose u'' + (30 + 2 i)^2 u = 0 on [0, 1], u = exp(i (30 + 2 i) x) given at both ends."""

    def exact(x: Tensor) -> Tensor:
        return complex_pair(exp(-2 * x[..., 0]), 30 * x[..., 0])

    def residual(u: Any, x: Tensor) -> dict[str, Tensor]:
        a, b = u.value[..., 0], u.value[..., 1]
        return {"re": u.second[..., 0, 0] + 896 * a - 120 * b, "im": u.second[..., 1, 0] + 896 * b + 120 * a}

    ends = [dirichlet(lambda x, o=o: exact(x)[..., o], output=o, name=f"end {o}") for o in (0, 1)]
    return Problem(name, box([0], [1]), residual, ends, exact, outputs=2)


def landau(name: str) -> Problem:
    """Pose u_t = u + (1 + i) u_xx - (1 - i) |u|^2 u on a ring: a plane wave of wave number 1 / 2."""
    q = 0.5
    size2 = 1 - q * q
    w = q * q - size2
    region = box([0, 0], [4 * PI, 4], ["x", "t"])

    def exact(x: Tensor) -> Tensor:
        return complex_pair(torch.full_like(x[..., 0], size2**0.5), q * x[..., 0] - w * x[..., 1])

    def residual(u: Any, x: Tensor) -> dict[str, Tensor]:
        a, b = u.value[..., 0], u.value[..., 1]
        axx, bxx, square = u.second[..., 0, 0], u.second[..., 1, 0], a * a + b * b
        re = u.gradient[..., 0, 1] - a - axx + bxx + square * (a + b)
        return {"re": re, "im": u.gradient[..., 1, 1] - b - bxx - axx + square * (b - a)}

    return evolving(name, region, residual, exact, periodic(region))


PROBLEMS = {"ring": ring, "soliton": soliton, "well": well, "lossy": lossy, "landau": landau}
