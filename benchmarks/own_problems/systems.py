"""Systems of ordinary differential equations, against SciPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cpikan.physics.problem import Problem, initial
from cpikan.physics.regions import box

PI = math.pi


def system(
    name: str, slopes: Callable[..., list[Any]], start: list[float], end: float, method: str = "DOP853"
) -> Problem:
    """y' = slopes(t, y) against SciPy."""
    from scipy.integrate import solve_ivp

    settings = {"rtol": 1e-12, "atol": 1e-14} if method == "DOP853" else {"rtol": 1e-11, "atol": 1e-14}
    found = solve_ivp(slopes, (0, end), start, method, dense_output=True, **settings)
    count = len(start)

    def exact(x: Tensor) -> Tensor:
        return torch.from_numpy(found.sol(x[..., 0].numpy().ravel()).T.copy()).reshape(*x.shape[:-1], count)

    def residual(u: Any, x: Tensor) -> dict[str, Tensor]:
        right = slopes(x[..., 0], [u.value[..., o] for o in range(count)])
        return {f"y{o}": u.gradient[..., o, 0] - right[o] for o in range(count)}

    conditions = [initial(value, output=o) for o, value in enumerate(start)]
    return Problem(name, box([0], [end], ["t"]), residual, conditions, exact, outputs=count, second="none")


def _kepler(t: Any, y: Any) -> list[Any]:
    cubed = (y[0] ** 2 + y[1] ** 2) ** 1.5
    return [y[2], y[3], -y[0] / cubed, -y[1] / cubed]


def _lorenz(t: Any, y: Any) -> list[Any]:
    return [10 * (y[1] - y[0]), y[0] * (28 - y[2]) - y[1], y[0] * y[1] - 8 / 3 * y[2]]


def lorenz(name: str, end: float) -> Problem:
    """Pose Lorenz's system from (1, 1, 1)."""
    return system(name, _lorenz, [1.0, 1.0, 1.0], end)


def sir(name: str, end: float) -> Problem:
    """Pose an epidemic: susceptible, infected, recovered."""

    def slopes(t: Any, y: Any) -> list[Any]:
        return [-0.5 * y[0] * y[1], 0.5 * y[0] * y[1] - y[1] / 5, y[1] / 5]

    return system(name, slopes, [0.99, 0.01, 0], end)


def _robertson(t: Any, y: Any) -> list[Any]:
    one, two, three = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
    return [two - one, one - two - three, three]


PROBLEMS = {
    "sir": lambda n: sir(n, 80),
    "predators": lambda n: system(n, lambda t, y: [y[0] - y[0] * y[1], 0.8 * (y[0] * y[1] - y[1])], [2.0, 0.7], 30),
    "lorenz": lambda n: lorenz(n, 1),
    "kepler": lambda n: system(n, _kepler, [0.5, 0.0, 0.0, 3**0.5], 4 * PI),
    "robertson": lambda n: system(n, _robertson, [1.0, 0.0, 0.0], 40, "Radau"),
    "brusselator": lambda n: system(
        n, lambda t, y: [1 + y[0] ** 2 * y[1] - 4 * y[0], 3 * y[0] - y[0] ** 2 * y[1]], [1.5, 3.0], 15
    ),
}
