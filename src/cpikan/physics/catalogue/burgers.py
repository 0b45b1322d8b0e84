"""Burgers' equation with viscosity 0.01 / pi, against Cole and Hopf's integral."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from cpikan.errors import InputError
from cpikan.fields.protocol import Jet
from cpikan.physics.problem import Problem, dirichlet, initial
from cpikan.physics.regions import box

VISCOSITY = 0.01 / math.pi


def burgers(*, nu: float = VISCOSITY, end: float = 1.0) -> Problem:
    """Pose u_t + u u_x = nu u_xx on [-1, 1] x [0, end], u(x, 0) = -sin(pi x), zero at both ends.

    Raises InputError for a viscosity that is not positive.
    """
    if nu <= 0:
        raise InputError(f"burgers of viscosity {nu:g}: give more than 0")

    def start(x: Tensor) -> Tensor:
        return -torch.sin(math.pi * x[..., 0])

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.gradient[..., 0, 1] + u.value[..., 0] * u.gradient[..., 0, 0] - nu * u.second[..., 0, 0]

    def exact(x: Tensor) -> Tensor:
        return torch.from_numpy(cole_hopf(x.reshape(-1, 2).numpy(), nu)).reshape(x.shape[:-1])

    region = box([-1, 0], [1, end], ["x", "t"])
    viscosity = "0.01 / pi" if nu == VISCOSITY else f"{nu:g}"
    summary = f"u_t + u u_x = {viscosity} u_xx on [-1, 1] x [0, {end:g}], u(x, 0) = -sin(pi x)"
    conditions = [dirichlet(0.0), initial(start)]
    return Problem("burgers", region, residual, conditions, exact, "Cole-Hopf integral by quadrature", summary)


def cole_hopf(points: np.ndarray, nu: float = VISCOSITY) -> np.ndarray:
    """Compute the solution at points (n, 2) of x, t (Basdevant et al. 1986) by the trapezoidal rule on the whole line.

    u = -int sin(pi (x - s)) w ds / int w ds, w = exp(-cos(pi (x - s)) / (2 pi nu) - s^2 / (4 nu t)); the rule converges
    like exp(-c / step) for such integrands, and the largest exponent is taken off before exp.
    """
    grid = np.linspace(-14, 14, 1201)  # s in units of sqrt(4 nu t)
    values = np.empty(len(points))
    for first in range(0, len(points), 2048):
        x, t = points[first : first + 2048, :1], points[first : first + 2048, 1:]
        y = x - np.sqrt(4 * nu * t) * grid
        exponent = -np.cos(np.pi * y) / (2 * np.pi * nu) - grid**2
        weight = np.exp(exponent - exponent.max(axis=1, keepdims=True))
        values[first : first + 2048] = -(np.sin(np.pi * y) * weight).sum(axis=1) / weight.sum(axis=1)
    return values


PROBLEMS = {"burgers": burgers}
