"""Inverse problems: coefficients asked for, from values."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from cpikan.physics.problem import Condition, Problem, Unknown, dirichlet, measured
from cpikan.physics.regions import box

PI = math.pi
sin, cos, exp = torch.sin, torch.cos, torch.exp


def spread(lower: list[float], upper: list[float], count: int, seed: int) -> Tensor:
    """Draw points in a box."""
    unit = torch.rand(count, len(lower), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    low, high = (torch.tensor(v, dtype=torch.float64) for v in (lower, upper))
    return low + (high - low) * unit


def drift(name: str) -> Problem:
    """Ask for a, b and c of u_t = a u_xx + b u_x + c u, all as outputs, from 400 values of two modes."""
    a, b, c = 0.25, -0.6, 0.9
    k = b / (2 * a)

    def mode(n: int, x: Tensor) -> Tensor:
        rate = c - b * b / (4 * a) - a * n * n * PI**2
        return exp(-k * x[..., 0]) * sin(n * PI * x[..., 0]) * exp(rate * x[..., 1])

    def truth(x: Tensor) -> Tensor:
        return mode(1, x) + 0.7 * mode(2, x)

    def residual(u: Any, x: Tensor) -> Tensor:
        right = u.value[..., 1] * u.second[..., 0, 0] + u.value[..., 2] * u.gradient[..., 0, 0]
        return u.gradient[..., 0, 1] - right - u.value[..., 3] * u.value[..., 0]

    points = spread([0, 0], [1, 1], 400, 1)
    constants = {1: a, 2: b, 3: c}

    def exact(x: Tensor) -> Tensor:
        return torch.stack([truth(x), *(torch.full_like(x[..., 0], v) for v in (a, b, c))], dim=-1)

    region = box([0, 0], [1, 1], ["x", "t"])
    return Problem(name, region, residual, [measured(points, truth(points))], exact, outputs=4, constants=constants)


def tone(name: str) -> Problem:
    """Ask for the eigenvalue of -u'' = m u on [0, 1.5], zero at the ends, with slope 1 at the first."""

    def exact(x: Tensor) -> Tensor:
        return 1.5 / PI * sin(PI * x[..., 0] / 1.5)

    def residual(u: Any, x: Tensor, unknown: Any) -> Tensor:
        return u.second[..., 0, 0] + unknown["m"] * u.value[..., 0]

    conditions = [dirichlet(0.0), Condition("slope", lambda j, s: j.gradient[..., 0, 0] - 1, ("x=min",))]
    truth = (PI / 1.5) ** 2
    return Problem(name, box([0], [1.5]), residual, conditions, exact, unknowns=[Unknown("m", 3.0, truth)])


def growth(name: str) -> Problem:
    """Ask for rate and capacity of y' = r y (1 - y / c) from 30 values to t = 8."""
    r, c = 1.3, 2.5

    def exact(x: Tensor) -> Tensor:
        return c / (1 + (c / 0.2 - 1) * exp(-r * x[..., 0]))

    def residual(u: Any, x: Tensor, unknown: Any) -> Tensor:
        y = u.value[..., 0]
        return u.gradient[..., 0, 0] - unknown["r"] * y * (1 - unknown["s"] * y)

    points = spread([0], [8], 30, 2)
    unknowns = [Unknown("r", 1.0, r), Unknown("s", 0.5, 1 / c)]
    return Problem(name, box([0], [8], ["t"]), residual, [measured(points, exact(points))], exact, unknowns=unknowns)


def coefficient_of_x(name: str) -> Problem:
    """Ask for a(x) of (a u')' = f, a = 1 + x^2 / 2, from values of u = sin 2 x and a at the left end."""

    def exact(x: Tensor) -> Tensor:
        return torch.stack([sin(2 * x[..., 0]), 1 + x[..., 0] ** 2 / 2], dim=-1)

    def residual(u: Any, x: Tensor) -> Tensor:
        t = x[..., 0]
        load = 2 * t * cos(2 * t) - 4 * (1 + t * t / 2) * sin(2 * t)
        return u.gradient[..., 1, 0] * u.gradient[..., 0, 0] + u.value[..., 1] * u.second[..., 0, 0] - load

    points = torch.linspace(0, 2, 60, dtype=torch.float64)[:, None]
    data = [measured(points, sin(2 * points[:, 0])), dirichlet(1.0, ["x=min"], output=1)]
    return Problem(name, box([0], [2]), residual, data, exact, outputs=2)


def decay(name: str) -> Problem:
    """Ask for D and k of u_t = D u_xx - k u, as unknowns, from 200 values."""
    d, k = 0.15, 0.8

    def exact(x: Tensor) -> Tensor:
        parts = [sin(n * PI * x[..., 0]) * exp(-(d * (n * PI) ** 2 + k) * x[..., 1]) / n for n in (1, 2)]
        return parts[0] + parts[1]

    def residual(u: Any, x: Tensor, unknown: Any) -> Tensor:
        return u.gradient[..., 0, 1] - unknown["D"] * u.second[..., 0, 0] + unknown["k"] * u.value[..., 0]

    points = spread([0, 0], [1, 1], 200, 3)
    unknowns = [Unknown("D", 1.0, d), Unknown("k", 0.0, k)]
    region = box([0, 0], [1, 1], ["x", "t"])
    return Problem(name, region, residual, [measured(points, exact(points))], exact, unknowns=unknowns)


PROBLEMS = {"drift": drift, "tone": tone, "growth": growth, "coefficient-of-x": coefficient_of_x, "decay": decay}
