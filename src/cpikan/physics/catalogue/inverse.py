"""Inverse problems: a coefficient is unknown, and values of the solution were measured, clean or with noise.

The coefficient is another output of the field whose gradient must vanish, so nothing else changes for the solver. Fisher's
wave comes with its start and its ends: 400 values with 5 % noise alone would leave k 1.6 % open (Cramer-Rao bound,
benchmarks/inverse_bounds.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cpikan.fields.protocol import Jet
from cpikan.physics.catalogue.reaction import fisher_wave
from cpikan.physics.problem import Condition, Problem, dirichlet, initial, measured
from cpikan.physics.regions import Box, box

_SAMPLES = 400
_NOISY = 0.3  # weight of data that no solution fits


def diffusion_inverse(name: str, noise: float) -> Problem:
    """Ask for D of u_t = D u_xx on [-1, 1] x [0, 1]; D = 0.1, u = sin(pi x) exp(-D pi^2 t)."""

    def truth(x: Tensor) -> Tensor:
        return torch.sin(math.pi * x[..., 0]) * torch.exp(-0.1 * math.pi**2 * x[..., 1])

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.gradient[..., 0, 1] - u.value[..., 1] * u.second[..., 0, 0]

    region = box([-1, 0], [1, 1], ["x", "t"])
    return _problem(name, noise, _Equation(region, residual, truth, 0.1, "D of u_t = D u_xx, D = 0.1"))


def reaction_inverse(name: str, noise: float) -> Problem:
    """Ask for k of u_t = u_xx + k u (1 - u) on [-5, 10] x [0, 3]; k = 1, Fisher's wave, with known start and ends."""

    def residual(u: Jet, x: Tensor) -> Tensor:
        value = u.value[..., 0]
        return u.gradient[..., 0, 1] - u.second[..., 0, 0] - u.value[..., 1] * value * (1 - value)

    region = box([-5, 0], [10, 3], ["x", "t"])
    known = (initial(fisher_wave), dirichlet(fisher_wave))
    return _problem(
        name, noise, _Equation(region, residual, fisher_wave, 1.0, "k of u_t = u_xx + k u (1 - u), k = 1", known)
    )


def helmholtz_inverse(name: str, noise: float) -> Problem:
    """Ask for kappa^2 of Laplacian u + kappa^2 u = 0 on the unit square; u = sin(3 x + 4 y), kappa = 5."""

    def truth(x: Tensor) -> Tensor:
        return torch.sin(3 * x[..., 0] + 4 * x[..., 1])

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.second[..., 0, :].sum(-1) + u.value[..., 1] * u.value[..., 0]

    region = box([0, 0], [1, 1])
    return _problem(
        name, noise, _Equation(region, residual, truth, 25.0, "kappa^2 of Laplacian u + kappa^2 u = 0, kappa = 5")
    )


class _Equation(NamedTuple):
    """An equation with an unknown coefficient, its solution, and the conditions that are known."""

    region: Box
    residual: Callable[[Jet, Tensor], Tensor]
    truth: Callable[[Tensor], Tensor]
    coefficient: float
    what: str
    known: Sequence[Condition] = ()


def _problem(name: str, noise: float, equation: _Equation) -> Problem:
    """Make an inverse problem from values at random points with noise relative to their RMS; seeds are fixed."""
    region, residual, truth, coefficient, what, known = equation
    random = np.random.default_rng(5)
    points = torch.from_numpy(region.inside(random.random((_SAMPLES, 2)), clustered=False))
    clean = truth(points)
    values = clean + noise * float(clean.square().mean().sqrt()) * torch.from_numpy(random.standard_normal(_SAMPLES))

    def exact(x: Tensor) -> Tensor:
        return torch.stack([truth(x), torch.full_like(x[..., 0], coefficient)], dim=-1)

    return Problem(
        name,
        region,
        residual,
        [*known, measured(points, values, weight=_NOISY if noise else 1.0)],
        exact,
        "exact formula",
        f"{what}, from {_SAMPLES} values with {noise:.0%} noise",
        outputs=2,
        constants={1: coefficient},
    )


_KINDS = {
    "diffusion-inverse": diffusion_inverse,
    "reaction-diffusion-inverse": reaction_inverse,
    "helmholtz-inverse": helmholtz_inverse,
}
PROBLEMS = {
    name + suffix: partial(make, name + suffix, noise)
    for name, make in _KINDS.items()
    for suffix, noise in (("", 0.0), ("-noise1", 0.01), ("-noise5", 0.05))
}
