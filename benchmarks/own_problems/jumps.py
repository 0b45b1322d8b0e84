"""Coefficients that jump."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from cpikan.physics.problem import Problem, dirichlet, initial, interface
from cpikan.physics.regions import box

PI = math.pi
sin, cos, exp = torch.sin, torch.cos, torch.exp


def conductors(name: str) -> Problem:
    """Pose (k u')' = 0 with k = 3 below 0.35 and 0.2 above."""
    low, high, at = 3.0, 0.2, 0.35
    region = box([0], [1], breaks={"x": [at]})
    flux = 1.0 / (at / low + (1 - at) / high)

    def exact(x: Tensor) -> Tensor:
        return torch.where(x[..., 0] < at, flux / low * x[..., 0], 1 - flux / high * (1 - x[..., 0]))

    ends = [dirichlet(0.0, ["x=min"]), dirichlet(1.0, ["x=max"])]
    return Problem(
        name, region, lambda u, x: u.second[..., 0, 0], [*ends, *interface(region, "x", at, (low, high))], exact
    )


def two_waves(name: str) -> Problem:
    """Pose u'' + k^2 u = 0 with k = 5 below 1 and 20 above."""
    region = box([0], [2], breaks={"x": [1.0]})

    def exact(x: Tensor) -> Tensor:
        t = x[..., 0]
        beyond = math.sin(5) * cos(20 * (t - 1)) + math.cos(5) / 4 * sin(20 * (t - 1))
        return torch.where(t < 1, sin(5 * t), beyond)

    def residual(u: Any, x: Tensor) -> Tensor:
        return u.second[..., 0, 0] + torch.where(x[..., 0] < 1, 25.0, 400.0) * u.value[..., 0]

    return Problem(name, region, residual, [dirichlet(exact), *interface(region, "x", 1.0)], exact)


def plates(name: str) -> Problem:
    """Pose k (u_xx + u_yy) = 0 with k = 1 below x = 0.5 and 10 above."""
    region = box([0, 0], [1, 1], breaks={"x": [0.5]})
    s, c = math.sinh(PI / 2), math.cosh(PI / 2)

    def exact(x: Tensor) -> Tensor:
        away = PI * (x[..., 0] - 0.5)
        beyond = s * torch.cosh(away) + c / 10 * torch.sinh(away)
        return torch.where(away < 0, torch.sinh(away + PI / 2), beyond) * sin(PI * x[..., 1])

    conditions = [dirichlet(exact), *interface(region, "x", 0.5, (1.0, 10.0))]
    return Problem(name, region, lambda u, x: u.second[..., 0, :].sum(-1), conditions, exact)


def bars(name: str) -> Problem:
    """Pose u_t = k u_xx with k = 1 below 0.5 and 4 above: the slowest mode by SciPy's root finder."""
    from scipy.optimize import brentq

    def mismatch(m: float) -> float:
        return m * math.cos(m / 2) * math.sin(m / 4) + 2 * m * math.cos(m / 4) * math.sin(m / 2)

    m = brentq(mismatch, 3.0, 6.0, xtol=1e-14)
    share = math.sin(m / 2) / math.sin(m / 4)
    region = box([0, 0], [1, 0.2], ["x", "t"], breaks={"x": [0.5]})

    def exact(x: Tensor) -> Tensor:
        t = x[..., 0]
        return torch.where(t < 0.5, sin(m * t), share * sin(m / 2 * (1 - t))) * exp(-m * m * x[..., 1])

    def residual(u: Any, x: Tensor) -> Tensor:
        return u.gradient[..., 0, 1] - torch.where(x[..., 0] < 0.5, 1.0, 4.0) * u.second[..., 0, 0]

    conditions = [initial(exact), dirichlet(0.0), *interface(region, "x", 0.5, (1.0, 4.0))]
    return Problem(name, region, residual, conditions, exact)


def mixed_form(name: str) -> Problem:
    """Pose v = k u', v' = -6 x with k = 1, 4 and 0.5 on thirds of [0, 3]: two equations of first order, no interface said."""
    region = box([0], [3], breaks={"x": [1.0, 2.0]})

    def coefficient(t: Tensor) -> Tensor:
        return torch.where(t < 1, 1.0, torch.where(t < 2, 4.0, 0.5))

    def potential(t: Tensor, c: float) -> Tensor:
        """u of v = c - 3 t^2, from u(0) = 0."""

        def part(a: Any) -> Any:
            return c * a - a**3

        first, second = torch.clamp(t, max=1.0), torch.clamp(t, 1.0, 2.0)
        third = torch.clamp(t, min=2.0)
        return part(first) + (part(second) - part(1.0)) / 4 + (part(third) - part(2.0)) / 0.5

    one, zero = (float(potential(torch.tensor(3.0, dtype=torch.float64), c)) for c in (1.0, 0.0))
    c = (1 - zero) / (one - zero)

    def exact(x: Tensor) -> Tensor:
        return torch.stack([potential(x[..., 0], c), c - 3 * x[..., 0] ** 2], dim=-1)

    def residual(u: Any, x: Tensor) -> dict[str, Tensor]:
        flux = u.value[..., 1] - coefficient(x[..., 0]) * u.gradient[..., 0, 0]
        return {"flux": flux, "balance": u.gradient[..., 1, 0] + 6 * x[..., 0]}

    ends = [dirichlet(0.0, ["x=min"]), dirichlet(1.0, ["x=max"])]
    return Problem(name, region, residual, ends, exact, outputs=2, second="none")


PROBLEMS = {"conductors": conductors, "two-waves": two_waves, "plates": plates, "bars": bars, "mixed-form": mixed_form}
