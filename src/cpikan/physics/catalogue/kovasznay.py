"""Kovasznay's flow behind a grid: the steady Navier-Stokes equations at Reynolds number 40."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cpikan.errors import InputError
from cpikan.fields.protocol import Jet
from cpikan.physics.problem import Problem, dirichlet
from cpikan.physics.regions import box


def kovasznay(*, reynolds: float = 40.0) -> Problem:
    """Pose the flow (u, v, p) on [-0.5, 1] x [-0.5, 1.5]; velocities are given on the walls, pressure at the outlet.

    Raises InputError for a Reynolds number that is not positive.
    """
    if reynolds <= 0:
        raise InputError(f"kovasznay at Reynolds number {reynolds:g}: give more than 0")
    decay = reynolds / 2 - math.sqrt(reynolds**2 / 4 + 4 * math.pi**2)

    def exact(x: Tensor) -> Tensor:
        fall, turn = torch.exp(decay * x[..., 0]), 2 * math.pi * x[..., 1]
        across = decay / (2 * math.pi) * fall * torch.sin(turn)
        return torch.stack([1 - fall * torch.cos(turn), across, 0.5 * (1 - fall * fall)], dim=-1)

    def residual(f: Jet, x: Tensor) -> dict[str, Tensor]:
        u, v = f.value[..., 0], f.value[..., 1]
        viscous = f.second.sum(-1) / reynolds
        carried = u.unsqueeze(-1) * f.gradient[..., 0] + v.unsqueeze(-1) * f.gradient[..., 1]
        return {
            "momentum x": carried[..., 0] + f.gradient[..., 2, 0] - viscous[..., 0],
            "momentum y": carried[..., 1] + f.gradient[..., 2, 1] - viscous[..., 1],
            "continuity": f.gradient[..., 0, 0] + f.gradient[..., 1, 1],
        }

    conditions = [
        dirichlet(lambda x: exact(x)[..., 0], name="u"),
        dirichlet(lambda x: exact(x)[..., 1], output=1, name="v"),
        dirichlet(lambda x: exact(x)[..., 2], ["x=max"], output=2, name="pressure"),
    ]
    region = box([-0.5, -0.5], [1, 1.5])
    summary = f"steady Navier-Stokes at Re {reynolds:g} on [-0.5, 1] x [-0.5, 1.5] (Kovasznay 1948); outputs u, v, p"
    return Problem("kovasznay", region, residual, conditions, exact, "exact formula", summary, outputs=3)


PROBLEMS = {"kovasznay": kovasznay}
