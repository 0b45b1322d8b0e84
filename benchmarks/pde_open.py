"""Problems that have no single solution, or leave a coefficient open: what a solver must not call converged.

``PROBLEMS`` maps names to makers. The function given as exact is one of many solutions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cpikan.fields.protocol import Jet
from cpikan.physics.problem import Problem, Unknown, dirichlet, initial, measured, neumann
from cpikan.physics.regions import box

_SQUARE = box([0, 0], [1, 1])
_STRIP = box([0, 0], [1, 1], ["x", "t"])
_STANDING = 3 * math.pi


def no_inflow() -> Problem:
    """Transport to the right without a value at the left end."""

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.gradient[..., 0, 1] + u.gradient[..., 0, 0]

    def bump(x: Tensor) -> Tensor:
        return torch.exp(-20 * (x[..., 0] - x[..., 1] - 0.3) ** 2)

    return Problem("no-inflow", _STRIP, residual, [initial(bump)], exact=bump, second="none")


def slopes_alone() -> Problem:
    """Poisson's equation with slopes on all walls: a constant is open."""

    def truth(x: Tensor) -> Tensor:
        return torch.cos(math.pi * x[..., 0]) * torch.cos(math.pi * x[..., 1]) + 1

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.second[..., 0, :].sum(-1) + 2 * math.pi**2 * (truth(x) - 1)

    return Problem("slopes-alone", _SQUARE, residual, [neumann(0.0)], exact=truth)


def no_rate() -> Problem:
    """The wave equation without a rate at the start."""

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.second[..., 0, 1] - u.second[..., 0, 0]

    def truth(x: Tensor) -> Tensor:
        return torch.sin(_STANDING * x[..., 0]) * torch.cos(_STANDING * x[..., 1])

    start = initial(lambda x: torch.sin(_STANDING * x[..., 0]))
    return Problem("no-rate", _STRIP, residual, [start, dirichlet(0.0)], exact=truth)


def no_pressure() -> Problem:
    """Stokes flow with velocities on all walls: the level of the pressure is open."""

    def residual(u: Jet, x: Tensor) -> dict[str, Tensor]:
        flow = u.gradient[..., 0, 0] + u.gradient[..., 1, 1]
        push = [-u.second[..., o, :].sum(-1) + u.gradient[..., 2, o] for o in (0, 1)]
        return {"x": push[0] - 2, "y": push[1] - torch.cos(x[..., 1]), "mass": flow}

    def along(x: Tensor) -> Tensor:
        return x[..., 1] * (1 - x[..., 1])

    def truth(x: Tensor) -> Tensor:
        return torch.stack([along(x), 0 * x[..., 0], torch.sin(x[..., 1]) + 1], dim=-1)

    walls = [dirichlet(along, output=0), dirichlet(0.0, output=1)]
    return Problem("no-pressure", _SQUARE, residual, walls, exact=truth, outputs=3)


def eigenvalue() -> Problem:
    """An eigenvalue problem without a size: u = 0 does for every eigenvalue."""

    def residual(u: Jet, x: Tensor, k: dict[str, Tensor]) -> Tensor:
        return u.second[..., 0, 0] + k["k"] * u.value[..., 0]

    unknown = [Unknown("k", 5.0, math.pi**2)]
    return Problem(
        "eigenvalue",
        box([0], [1]),
        residual,
        [dirichlet(0.0)],
        lambda x: torch.sin(math.pi * x[..., 0]),
        unknowns=unknown,
    )


def resonance() -> Problem:
    """A string driven beside a resonance that its walls do not damp."""

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.second[..., 0, 0] + 4 * u.value[..., 0] - 3 * torch.sin(x[..., 0])

    def truth(x: Tensor) -> Tensor:
        return torch.sin(x[..., 0]) + torch.sin(2 * x[..., 0])

    return Problem("resonance", box([0], [math.pi]), residual, [dirichlet(0.0)], exact=truth)


def one_mode() -> Problem:
    """u_t = a u_xx + b u_x + c u from one mode: only two relations between a, b and c are known."""
    a, b, c = 0.25, 0.6, -1.1
    k = b / (2 * a)

    def truth(x: Tensor) -> Tensor:
        decay = c - b * b / (4 * a) - a * math.pi**2
        return torch.exp(-k * x[..., 0]) * torch.sin(math.pi * x[..., 0]) * torch.exp(decay * x[..., 1])

    def residual(u: Jet, x: Tensor, unknown: dict[str, Tensor]) -> Tensor:
        parts = (
            unknown["a"] * u.second[..., 0, 0] + unknown["b"] * u.gradient[..., 0, 0] + unknown["c"] * u.value[..., 0]
        )
        return u.gradient[..., 0, 1] - parts

    points = torch.from_numpy(np.random.default_rng(11).random((300, 2)))
    unknowns = [Unknown("a", 0.1, a), Unknown("b", 0.1, b), Unknown("c", 0.1, c)]
    return Problem("one-mode", _STRIP, residual, [measured(points, truth(points))], truth, unknowns=unknowns)


def idle_coefficient() -> Problem:
    """A coefficient that multiplies what vanishes."""

    def truth(x: Tensor) -> Tensor:
        return 1 + 2 * x[..., 0]

    def residual(u: Jet, x: Tensor, unknown: dict[str, Tensor]) -> Tensor:
        return u.gradient[..., 0, 0] - 2 + unknown["a"] * u.second[..., 0, 0] ** 2

    points = torch.linspace(0.05, 0.95, 40, dtype=torch.float64)[:, None]
    return Problem(
        "idle-coefficient",
        box([0], [1]),
        residual,
        [measured(points, truth(points))],
        truth,
        unknowns=[Unknown("a", 1.0, 1.7)],
    )


def pushed_front() -> Problem:
    """A front that the load pushes away: beside that at 0.3 there is one at the wall, to which the residual is as small."""
    k = 40.0

    def truth(x: Tensor) -> Tensor:
        return torch.tanh(k * (x[..., 0] - 0.3))

    def residual(u: Jet, x: Tensor) -> Tensor:
        v = u.value[..., 0]
        return u.second[..., 0, 0] / k**2 - 2 * v * (v * v - 1) + 0.1 * (v - truth(x))

    return Problem("pushed-front", box([-1], [1]), residual, [dirichlet(truth)], truth)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    make().name: make
    for make in (
        *(
            no_inflow,
            slopes_alone,
            no_rate,
            no_pressure,
            eigenvalue,
            resonance,
            one_mode,
            idle_coefficient,
            pushed_front,
        ),
    )
}
