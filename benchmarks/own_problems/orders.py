"""Equations of third and fourth order, by further outputs."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from cpikan.physics.problem import Problem, dirichlet, initial, initial_rate, neumann
from cpikan.physics.regions import box

PI = math.pi
sin, cos = torch.sin, torch.cos


def blasius(name: str) -> Problem:
    """Pose f''' + f f'' / 2 = 0, f = f' = 0 at the wall and f' = 1 far out at 10, against shooting by DOP853."""
    from scipy.integrate import solve_ivp
    from scipy.optimize import brentq

    def shot(bend: float, dense: bool = False) -> Any:
        return solve_ivp(
            lambda t, y: [y[1], y[2], -y[0] * y[2] / 2],
            (0, 10),
            [0, 0, bend],
            "DOP853",
            rtol=1e-12,
            atol=1e-14,
            dense_output=dense,
        )

    bend = brentq(lambda b: shot(b).y[1, -1] - 1, 0.2, 0.5, xtol=1e-14)
    found = shot(bend, True)

    def exact(x: Tensor) -> Tensor:
        return torch.from_numpy(found.sol(x[..., 0].numpy().ravel())[:2].T.copy())

    def residual(u: Any, x: Tensor) -> dict[str, Tensor]:
        return {
            "slope": u.gradient[..., 0, 0] - u.value[..., 1],
            "momentum": u.second[..., 1, 0] + u.value[..., 0] * u.gradient[..., 1, 0] / 2,
        }

    conditions = [
        dirichlet(0.0, ["x=min"], name="wall"),
        dirichlet(0.0, ["x=min"], output=1, name="no slip"),
        dirichlet(1.0, ["x=max"], output=1, name="far"),
    ]
    return Problem(name, box([0], [10]), residual, conditions, exact, outputs=2)


def kdv(name: str) -> Problem:
    """Pose u_t + 6 u u_x + u_xxx = 0 as w = u_xx: one soliton of speed 4."""

    def shape(x: Tensor) -> Tensor:
        return 2 / torch.cosh(x[..., 0] - 4 * x[..., 1] + 2) ** 2

    def exact(x: Tensor) -> Tensor:
        v = shape(x)
        return torch.stack([v, 4 * v - 3 * v * v], dim=-1)

    def residual(u: Any, x: Tensor) -> dict[str, Tensor]:
        move = u.gradient[..., 0, 1] + 6 * u.value[..., 0] * u.gradient[..., 0, 0] + u.gradient[..., 1, 0]
        return {"move": move, "bend": u.value[..., 1] - u.second[..., 0, 0]}

    def slope(x: Tensor) -> Tensor:
        return -2 * shape(x) * torch.tanh(x[..., 0] - 4 * x[..., 1] + 2)

    conditions = [initial(shape), dirichlet(shape), neumann(slope, ["x=max"])]
    return Problem(name, box([-9, 0], [9, 1], ["x", "t"]), residual, conditions, exact, outputs=2)


def bar(name: str) -> Problem:
    """Pose u_tt + u_xxxx = 0 as w = u_xx, hinged at both ends: two modes."""

    def exact(x: Tensor) -> Tensor:
        s, t = PI * x[..., 0], PI**2 * x[..., 1]
        one, two = sin(s) * cos(t), 0.3 * sin(2 * s) * cos(4 * t)
        return torch.stack([one + two, -(PI**2) * (one + 4 * two)], dim=-1)

    def residual(u: Any, x: Tensor) -> dict[str, Tensor]:
        return {"move": u.second[..., 0, 1] + u.second[..., 1, 0], "bend": u.value[..., 1] - u.second[..., 0, 0]}

    conditions = [
        initial(lambda x: exact(x)[..., 0]),
        initial_rate(0.0),
        dirichlet(0.0),
        dirichlet(0.0, output=1, name="hinge"),
    ]
    return Problem(name, box([0, 0], [1, 1], ["x", "t"]), residual, conditions, exact, outputs=2)


def foundation(name: str) -> Problem:
    """Pose u'''' + 4 k^4 u = 4 k^4 as w = u'', clamped at both ends of [0, 1], k = 8: closed form by a linear system."""
    import numpy as np

    k = 8.0

    def parts(t: Any) -> list[Any]:
        grow, fall = np.exp(k * (t - 1)), np.exp(-k * t)
        c, s = np.cos(k * t), np.sin(k * t)
        return [grow * c, grow * s, fall * c, fall * s]

    def slopes(t: Any) -> list[Any]:
        a, b, c, d = parts(t)
        return [k * (a - b), k * (b + a), k * (-c - d), k * (-d + c)]

    matrix = np.array([parts(0.0), parts(1.0), slopes(0.0), slopes(1.0)])
    share = np.linalg.solve(matrix, [-1.0, -1.0, 0.0, 0.0])

    def exact(x: Tensor) -> Tensor:
        a, b, c, d = parts(x[..., 0].numpy())
        bend = [-2 * k * k * b, 2 * k * k * a, 2 * k * k * d, -2 * k * k * c]
        value = 1 + sum(s * p for s, p in zip(share, (a, b, c, d), strict=True))
        return torch.from_numpy(np.stack([value, sum(s * p for s, p in zip(share, bend, strict=True))], axis=-1))

    def residual(u: Any, x: Tensor) -> dict[str, Tensor]:
        force = u.second[..., 1, 0] / (4 * k**4) + u.value[..., 0] - 1
        return {"force": force, "bend": (u.value[..., 1] - u.second[..., 0, 0]) / (4 * k * k)}

    return Problem(name, box([0], [1]), residual, [dirichlet(0.0), neumann(0.0)], exact, outputs=2)


def clamped(name: str) -> Problem:
    """Pose the biharmonic equation on a square as w = Laplacian u, clamped: u = (x (1 - x))^2 sin^2(pi y)."""

    def exact(x: Tensor) -> Tensor:
        s, t = x[..., 0], x[..., 1]
        p, q = (s * (1 - s)) ** 2, sin(PI * t) ** 2
        p2, q2 = 2 - 12 * s + 12 * s * s, 2 * PI**2 * cos(2 * PI * t)
        return torch.stack([p * q, p2 * q + p * q2], dim=-1)

    def load(x: Tensor) -> Tensor:
        s, t = x[..., 0], x[..., 1]
        p, q = (s * (1 - s)) ** 2, sin(PI * t) ** 2
        p2, q2 = 2 - 12 * s + 12 * s * s, 2 * PI**2 * cos(2 * PI * t)
        return 24 * q + 2 * p2 * q2 - p * 8 * PI**4 * cos(2 * PI * t)

    def residual(u: Any, x: Tensor) -> dict[str, Tensor]:
        return {"force": u.second[..., 1, :].sum(-1) - load(x), "bend": u.second[..., 0, :].sum(-1) - u.value[..., 1]}

    return Problem(name, box([0, 0], [1, 1]), residual, [dirichlet(0.0), neumann(0.0)], exact, outputs=2)


PROBLEMS = {"blasius": blasius, "kdv": kdv, "bar": bar, "foundation": foundation, "clamped": clamped}
