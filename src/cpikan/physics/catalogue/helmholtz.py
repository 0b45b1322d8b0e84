"""Helmholtz: Laplacian u + kappa^2 u = f with Dirichlet data."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from cpikan.errors import InputError
from cpikan.fields.protocol import Jet
from cpikan.physics.problem import Problem, dirichlet
from cpikan.physics.regions import box

_WAVE = 4 * math.pi


def helmholtz_1d(name: str, kappa: float, upper: float, k: float = _WAVE) -> Problem:
    """Pose u'' + kappa^2 u = f on [-1, upper] with u = sin(k x), k = 4 pi.

    With kappa = k = 4 pi the interval must not be [-1, 1]: there f = 0, the data are zero, and u = 0 solves it as well.
    """

    def exact(x: Tensor) -> Tensor:
        return torch.sin(k * x[..., 0])

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.second[..., 0, 0] + kappa**2 * u.value[..., 0] - (kappa**2 - k**2) * exact(x)

    summary = f"u'' + kappa^2 u = f, kappa = {kappa:.4g}, on [-1, {upper:g}]; u = sin({k / math.pi:g} pi x)"
    return Problem(name, box([-1], [upper]), residual, [dirichlet(exact)], exact, "exact formula", summary)


def waves_1d(*, k: float = _WAVE, upper: float = 1.06) -> Problem:
    """Pose u'' + k^2 u = 0 on [-1, upper] with u = sin(k x): the equation's wave number is the solution's."""
    return helmholtz_1d("helmholtz-1d-k4pi", k, upper, k)


def helmholtz_2d(name: str, a: float, b: float) -> Problem:
    """Pose Laplacian u + u = f on [-1, 1]^2, u = sin(a pi x) sin(b pi y) (Wang, Teng and Perdikaris 2021).

    Raises InputError where u is not zero on the walls: for numbers that are not whole.
    """
    if a % 1 or b % 1:
        raise InputError(f"{a:g} and {b:g} half waves of {name}: give whole numbers, so that u is zero on the walls")
    rate = math.pi * torch.tensor([a, b], dtype=torch.float64)

    def exact(x: Tensor) -> Tensor:
        return torch.sin(rate * x).prod(dim=-1)

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.second[..., 0, :].sum(-1) + u.value[..., 0] - (1 - rate.square().sum()) * exact(x)

    summary = f"Laplacian u + u = f on [-1, 1]^2; u = sin({a:g} pi x) sin({b:g} pi y)"
    return Problem(name, box([-1, -1], [1, 1]), residual, [dirichlet(0.0)], exact, "exact formula", summary)


PROBLEMS = {
    "helmholtz-1d": partial(helmholtz_1d, "helmholtz-1d", kappa=1.0, upper=1.0),
    "helmholtz-1d-k4pi": waves_1d,
    "helmholtz-2d-1-4": partial(helmholtz_2d, "helmholtz-2d-1-4", a=1, b=4),
    "helmholtz-2d-6-6": partial(helmholtz_2d, "helmholtz-2d-6-6", a=6, b=6),
}
