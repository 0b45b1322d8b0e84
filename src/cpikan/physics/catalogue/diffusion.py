"""Diffusion u_t = D u_xx as the authors of Scaled-cPIKAN set it, and the same problem a hundred times as wide."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from cpikan.fields.protocol import Jet
from cpikan.physics.problem import Problem, dirichlet, initial
from cpikan.physics.regions import box


def diffusion(name: str, half: float, diffusivity: float, end: float = 1.0) -> Problem:
    """Pose diffusion from u(x, 0) = sin(6 pi x / half) on [-half, half], zero at both ends, for t from 0 to end.

    half = 6 and D = 0.1 are those of Mostajeran and Faroughi's code; half = 600 and D = 1000 are equal to them in scaled
    coordinates.
    """
    rate = 6 * math.pi / half

    def exact(x: Tensor) -> Tensor:
        return torch.sin(rate * x[..., 0]) * torch.exp(-diffusivity * rate**2 * x[..., 1])

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.gradient[..., 0, 1] - diffusivity * u.second[..., 0, 0]

    region = box([-half, 0], [half, end], ["x", "t"])
    summary = (
        f"u_t = {diffusivity:g} u_xx on [-{half:g}, {half:g}] x [0, {end:g}], u(x, 0) = sin({rate / math.pi:g} pi x)"
    )
    return Problem(name, region, residual, [dirichlet(0.0), initial(exact)], exact, "exact formula", summary)


PROBLEMS = {
    "diffusion": partial(diffusion, "diffusion", half=6.0, diffusivity=0.1),
    "diffusion-600": partial(diffusion, "diffusion-600", half=600.0, diffusivity=1000.0),
}
