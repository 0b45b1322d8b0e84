"""The equations of the comparison written in JAX, and their check against those of the catalogue."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

Equation = Callable[[Any, Any, Any, Any], list[Any]]  # value (n, o), gradient and second (n, o, d), x (n, d); residuals


def _helmholtz_1d(kappa: float, k: float = 4 * math.pi) -> Equation:
    return lambda u, g, h, x: [h[:, 0, 0] + kappa**2 * u[:, 0] - (kappa**2 - k**2) * jnp.sin(k * x[:, 0])]


def _helmholtz_2d(a: int, b: int) -> Equation:
    def equation(u: Any, g: Any, h: Any, x: Any) -> list[Any]:
        wave = jnp.sin(a * math.pi * x[:, 0]) * jnp.sin(b * math.pi * x[:, 1])
        return [h[:, 0].sum(-1) + u[:, 0] - (1 - math.pi**2 * (a * a + b * b)) * wave]

    return equation


def _poisson_2d(u: Any, g: Any, h: Any, x: Any) -> list[Any]:
    return [h[:, 0].sum(-1) + 2 * math.pi**2 * jnp.sin(math.pi * x).prod(-1)]


def _poisson_3d_mixed(u: Any, g: Any, h: Any, x: Any) -> list[Any]:
    wave = jnp.cos(3 * x[:, 0] * x[:, 1] + 2 * x[:, 2])
    return [h[:, 0].sum(-1) + (9 * (x[:, 0] ** 2 + x[:, 1] ** 2) + 4) * wave]


def _burgers(u: Any, g: Any, h: Any, x: Any) -> list[Any]:
    return [g[:, 0, 1] + u[:, 0] * g[:, 0, 0] - 0.01 / math.pi * h[:, 0, 0]]


def _allen_cahn(u: Any, g: Any, h: Any, x: Any) -> list[Any]:
    return [g[:, 0, 1] - 1e-4 * h[:, 0, 0] - 5 * (u[:, 0] - u[:, 0] ** 3)]


def _kovasznay(u: Any, g: Any, h: Any, x: Any) -> list[Any]:
    carried = [u[:, 0] * g[:, o, 0] + u[:, 1] * g[:, o, 1] + g[:, 2, o] - h[:, o].sum(-1) / 40 for o in (0, 1)]
    return [*carried, g[:, 0, 0] + g[:, 1, 1]]


def _kdv(u: Any, g: Any, h: Any, x: Any) -> list[Any]:
    return [g[:, 0, 1] + 6 * u[:, 0] * g[:, 0, 0] + g[:, 1, 0], u[:, 1] - h[:, 0, 0]]


def _reaction_diffusion(u: Any, g: Any, h: Any, x: Any) -> list[Any]:
    return [g[:, 0, 1] - h[:, 0, 0] - u[:, 0] * (1 - u[:, 0])]


def _helmholtz_inverse(u: Any, g: Any, h: Any, x: Any) -> list[Any]:
    return [h[:, 0].sum(-1) + u[:, 1] * u[:, 0]]


EQUATIONS: dict[str, Equation] = {
    "helmholtz-1d": _helmholtz_1d(1.0),
    "helmholtz-1d-k4pi": _helmholtz_1d(4 * math.pi),
    "helmholtz-2d-1-4": _helmholtz_2d(1, 4),
    "helmholtz-2d-6-6": _helmholtz_2d(6, 6),
    "poisson-2d": _poisson_2d,
    "poisson-3d-mixed": _poisson_3d_mixed,
    "burgers": _burgers,
    "allen-cahn": _allen_cahn,
    "kovasznay": _kovasznay,
    "kdv": _kdv,
    "reaction-diffusion": _reaction_diffusion,
    "helmholtz-inverse-noise1": _helmholtz_inverse,
}


def check(name: str) -> float:
    """Compare an equation with the catalogue's on random jets: the largest difference, relative to the largest residual."""
    import torch

    from cpikan.fields.protocol import Jet
    from peers.problems import problem_named

    one, random = problem_named(name), np.random.default_rng(0)
    shape = (50, one.outputs, one.dimension)
    parts = [random.standard_normal(s) for s in (shape[:2], shape, shape)]
    x = one.region.inside(random.random((50, one.dimension)), clustered=False)
    mine = EQUATIONS[name](*(jnp.asarray(part) for part in (*parts, x)))
    found = one.residuals(Jet(*map(torch.from_numpy, parts)), torch.from_numpy(x))
    theirs = list(found.values()) if isinstance(found, dict) else [found]
    pairs = zip(mine, theirs, strict=True)
    return max(float(np.abs(np.asarray(a) - b.numpy()).max() / b.abs().max()) for a, b in pairs)
