"""Nine problems that papers on networks for equations often pose, with references to 1e-10 or closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cpikan.physics.catalogue.helmholtz import helmholtz_2d
from cpikan.physics.problem import Problem, initial, periodic
from cpikan.physics.regions import box
from own_problems import complex_valued, layers, orders
from own_problems.spectral import ring_solution
from own_problems.systems import lorenz, sir, system

Reference = Callable[[np.ndarray], np.ndarray]


def van_der_pol(name: str) -> Problem:
    """Pose y'' = 10 (1 - y^2) y' - y from (2, 0) to t = 20, one period of the relaxation oscillator."""
    return system(name, lambda t, y: [y[1], 10 * (1 - y[0] * y[0]) * y[1] - y[0]], [2.0, 0.0], 20)


def on_a_ring(
    name: str, length: float, end: float, residual: Any, found: Reference, starts: list[Any], lower: float = 0.0
) -> Problem:
    """Pose an evolution on a ring [lower, lower + length]; ``found`` (n, 2) -> (n, outputs) is its reference from 0 on.

    Outputs with a start of None are second derivatives of others, whose slopes are not periodic by themselves.
    """
    region = box([lower, 0], [lower + length, end], ["x", "t"])
    shift = np.array([lower, 0.0])

    def exact(x: Tensor) -> Tensor:
        return torch.from_numpy(found(x.reshape(-1, 2).numpy() - shift)).reshape(*x.shape[:-1], -1)

    conditions = [initial(start, output=o) for o, start in enumerate(starts) if start is not None]
    rings = [one for o in range(len(starts)) for one in periodic(region, output=o)]
    return Problem(name, region, residual, [*conditions, *rings], exact, outputs=len(starts))


def gray_scott(name: str) -> Problem:
    """Pose u_t = u_xx / 5e3 - u v^2 + 0.04 (1 - u), v_t = v_xx / 1e4 + u v^2 - 0.1 v on a ring of 2 to t = 20.

    A spot of v eats u (Pearson, Science 261, 189, 1993).
    """
    feed, kill, du, dv = 0.04, 0.06, 2e-4, 1e-4

    def spot(x: Any) -> Any:
        return np.exp(-20 * (1 - np.cos(math.pi * (x - 1)))) if isinstance(x, np.ndarray) else _spot(x)

    def _spot(x: Tensor) -> Tensor:
        return torch.exp(-20 * (1 - torch.cos(math.pi * (x - 1))))

    def reaction(values: np.ndarray, _slopes: Any) -> np.ndarray:
        u, v = values
        return np.stack([-u * v * v + feed * (1 - u), u * v * v - (feed + kill) * v])

    found = ring_solution(
        lambda k: np.stack([-du * k**2, -dv * k**2]),
        reaction,
        lambda x: np.stack([1 - spot(x) / 2, spot(x) / 4]),
        2.0,
        20.0,
    )

    def residual(u: Any, x: Tensor) -> dict[str, Tensor]:
        a, b = u.value[..., 0], u.value[..., 1]
        eaten = a * b * b
        return {
            "u": u.gradient[..., 0, 1] - du * u.second[..., 0, 0] + eaten - feed * (1 - a),
            "v": u.gradient[..., 1, 1] - dv * u.second[..., 1, 0] - eaten + (feed + kill) * b,
        }

    starts = [lambda x: 1 - _spot(x[..., 0]) / 2, lambda x: _spot(x[..., 0]) / 4]
    return on_a_ring(name, 2.0, 20.0, residual, found, starts)


def kuramoto_sivashinsky(name: str) -> Problem:
    """Pose u_t + u u_x + u_xx + u_xxxx = 0 as w = u_xx on a ring of 32 pi to t = 5 (Kassam and Trefethen 2005)."""
    length = 32 * math.pi

    def start(x: Any) -> Any:
        wave = x / 16
        cos, sin = (np.cos, np.sin) if isinstance(x, np.ndarray) else (torch.cos, torch.sin)
        return cos(wave) * (1 + sin(wave))

    def transport(values: np.ndarray, slopes: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        return -slopes(values**2 / 2)

    plain = ring_solution(lambda k: (k**2 - k**4)[None], transport, lambda x: start(x)[None], length, 5.0, bends=(0,))

    def residual(u: Any, x: Tensor) -> dict[str, Tensor]:
        move = u.gradient[..., 0, 1] + u.value[..., 0] * u.gradient[..., 0, 0] + u.value[..., 1] + u.second[..., 1, 0]
        return {"move": move, "bend": u.value[..., 1] - u.second[..., 0, 0]}

    return on_a_ring(name, length, 5.0, residual, plain, [lambda x: start(x[..., 0]), None])


PROBLEMS: dict[str, Callable[[str], Problem]] = {
    "kdv": orders.kdv,
    "nls-soliton": complex_valued.soliton,
    "gray-scott": gray_scott,
    "kuramoto-sivashinsky": kuramoto_sivashinsky,
    "lorenz-3": lambda name: lorenz(name, 3),
    "sir-60": lambda name: sir(name, 60),
    "van-der-pol": van_der_pol,
    "layer": layers.outflow,
    "helmholtz-2d-10-10": lambda name: helmholtz_2d(name, 10, 10),
}
