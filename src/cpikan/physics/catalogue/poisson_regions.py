"""Poisson's equation off the box: disc, L-shape, annulus."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cpikan.fields.protocol import Jet
from cpikan.physics.problem import Problem, dirichlet
from cpikan.physics.regions import Annulus, LShape, disc


def poisson_disc() -> Problem:
    """Pose u = (1 - r^2) sin(3 x + y) on the unit disc, zero on its edge."""

    def exact(x: Tensor) -> Tensor:
        return (1 - x.square().sum(-1)) * torch.sin(3 * x[..., 0] + x[..., 1])

    def residual(u: Jet, x: Tensor) -> Tensor:
        phase = 3 * x[..., 0] + x[..., 1]
        source = -10 * exact(x) - 4 * phase * torch.cos(phase) - 4 * torch.sin(phase)
        return u.second[..., 0, :].sum(-1) - source

    summary = "Laplacian u = f on the unit disc; u = (1 - r^2) sin(3 x + y)"
    return Problem("poisson-disc", disc(), residual, [dirichlet(0.0)], exact, "exact formula", summary)


def poisson_lshape() -> Problem:
    """Pose a harmonic u on the L: the corner's own singularity, r^(2/3) sin(2 theta / 3), plus a smooth part.

    Gradients are infinite in the corner: polynomials converge slowly, whatever their number.
    """

    def exact(x: Tensor) -> Tensor:
        radius = x.square().sum(-1).sqrt()
        turn = torch.remainder(torch.atan2(x[..., 1], x[..., 0]) - math.pi / 2, 2 * math.pi)
        corner = radius ** (2 / 3) * torch.sin(2 / 3 * turn.clamp(max=1.5 * math.pi))
        return torch.where(turn > 1.75 * math.pi, 0.0, corner) + torch.exp(x[..., 0]) * torch.sin(x[..., 1])

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.second[..., 0, :].sum(-1)

    summary = "Laplacian u = 0 on the L; u = r^(2/3) sin(2 theta / 3) + exp(x) sin(y), singular in the corner"
    return Problem("poisson-lshape", LShape(), residual, [dirichlet(exact)], exact, "exact formula", summary)


def poisson_annulus() -> Problem:
    """Pose a harmonic u between radii 1/2 and 1: u = log r + cos(2 theta) / r^2."""

    def exact(x: Tensor) -> Tensor:
        square = x.square().sum(-1)
        return 0.5 * torch.log(square) + (x[..., 0] ** 2 - x[..., 1] ** 2) / square**2

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.second[..., 0, :].sum(-1)

    summary = "Laplacian u = 0 between radii 1/2 and 1; u = log r + cos(2 theta) / r^2"
    region = Annulus(0.5, 1.0)
    return Problem("poisson-annulus", region, residual, [dirichlet(exact)], exact, "exact formula", summary)


PROBLEMS = {
    "poisson-disc": poisson_disc,
    "poisson-lshape": poisson_lshape,
    "poisson-annulus": poisson_annulus,
}
