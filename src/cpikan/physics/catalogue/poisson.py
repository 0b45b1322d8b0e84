"""Poisson's equation on boxes: Laplacian u = f."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cpikan.fields.protocol import Jet
from cpikan.physics.problem import Problem, dirichlet, neumann
from cpikan.physics.regions import box


def poisson_1d() -> Problem:
    """Pose a problem of two scales: u = sin(pi x) + sin(8 pi x) / 10 on [0, 1]."""
    rate, size = math.pi * torch.tensor([1.0, 8.0], dtype=torch.float64), torch.tensor([1.0, 0.1], dtype=torch.float64)

    def exact(x: Tensor) -> Tensor:
        return (size * torch.sin(rate * x)).sum(dim=-1)

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.second[..., 0, 0] + (size * rate**2 * torch.sin(rate * x)).sum(dim=-1)

    summary = "u'' = f on [0, 1]; u = sin(pi x) + sin(8 pi x) / 10"
    return Problem("poisson-1d", box([0], [1]), residual, [dirichlet(0.0)], exact, "exact formula", summary)


def poisson_sines(name: str, dimension: int) -> Problem:
    """Make the Poisson problem on the unit cube that the product of sin(pi x) over the axes solves."""

    def exact(x: Tensor) -> Tensor:
        return torch.sin(math.pi * x).prod(dim=-1)

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.second[..., 0, :].sum(-1) + dimension * math.pi**2 * exact(x)

    region = box([0] * dimension, [1] * dimension)
    summary = f"Laplacian u = f on [0, 1]^{dimension}; u = product of sin(pi x) over the axes"
    return Problem(name, region, residual, [dirichlet(0.0)], exact, "exact formula", summary)


def poisson_3d_mixed() -> Problem:
    """Pose a problem that is not separable, with data of both kinds: u = cos(3 x y + 2 z), slopes at both ends of z."""

    def phase(x: Tensor) -> Tensor:
        return 3 * x[..., 0] * x[..., 1] + 2 * x[..., 2]

    def exact(x: Tensor) -> Tensor:
        return torch.cos(phase(x))

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.second[..., 0, :].sum(-1) + (9 * x[..., :2].square().sum(-1) + 4) * exact(x)

    def outward(x: Tensor) -> Tensor:  # -1 at z = 0, 1 at z = 1
        return -2 * torch.sin(phase(x)) * (2 * x[..., 2] - 1)

    conditions = [dirichlet(exact, ["x=min", "x=max", "y=min", "y=max"]), neumann(outward, ["z=min", "z=max"])]
    summary = "Laplacian u = f on [0, 1]^3, slopes given at the ends of z; u = cos(3 x y + 2 z), not separable"
    region = box([0, 0, 0], [1, 1, 1])
    return Problem("poisson-3d-mixed", region, residual, conditions, exact, "exact formula", summary)


PROBLEMS = {
    "poisson-1d": poisson_1d,
    "poisson-2d": lambda: poisson_sines("poisson-2d", 2),
    "poisson-3d": lambda: poisson_sines("poisson-3d", 3),
    "poisson-3d-mixed": poisson_3d_mixed,
}
