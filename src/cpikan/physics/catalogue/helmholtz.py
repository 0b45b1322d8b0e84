"""Helmholtz: Laplacian u + kappa^2 u = f with Dirichlet data."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from cpikan.fields.protocol import Jet
from cpikan.physics.problem import Problem, dirichlet
from cpikan.physics.regions import box

_WAVE = 4 * math.pi


def helmholtz_1d(name: str, kappa: float, upper: float) -> Problem:
    """Pose u'' + kappa^2 u = f on [-1, upper] with u = sin(4 pi x).

    With kappa = 4 pi the interval must not be [-1, 1]: there f = 0, the data are zero, and u = 0 solves it as well.
    """

    def exact(x: Tensor) -> Tensor:
        return torch.sin(_WAVE * x[..., 0])

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.second[..., 0, 0] + kappa**2 * u.value[..., 0] - (kappa**2 - _WAVE**2) * exact(x)

    summary = f"u'' + kappa^2 u = f, kappa = {kappa:.4g}, on [-1, {upper:g}]; u = sin(4 pi x)"
    return Problem(name, box([-1], [upper]), residual, [dirichlet(exact)], exact, "exact formula", summary)


def helmholtz_2d(name: str, first: int, second: int) -> Problem:
    """Pose Laplacian u + u = f on [-1, 1]^2, u = sin(a pi x) sin(b pi y) (Wang, Teng and Perdikaris 2021)."""
    rate = math.pi * torch.tensor([first, second], dtype=torch.float64)

    def exact(x: Tensor) -> Tensor:
        return torch.sin(rate * x).prod(dim=-1)

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.second[..., 0, :].sum(-1) + u.value[..., 0] - (1 - rate.square().sum()) * exact(x)

    summary = f"Laplacian u + u = f on [-1, 1]^2; u = sin({first} pi x) sin({second} pi y)"
    return Problem(name, box([-1, -1], [1, 1]), residual, [dirichlet(0.0)], exact, "exact formula", summary)


PROBLEMS = {
    "helmholtz-1d": partial(helmholtz_1d, "helmholtz-1d", 1.0, 1.0),
    "helmholtz-1d-k4pi": partial(helmholtz_1d, "helmholtz-1d-k4pi", _WAVE, 1.06),
    "helmholtz-2d-1-4": partial(helmholtz_2d, "helmholtz-2d-1-4", 1, 4),
    "helmholtz-2d-6-6": partial(helmholtz_2d, "helmholtz-2d-6-6", 6, 6),
}
