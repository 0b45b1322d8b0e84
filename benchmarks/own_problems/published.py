"""Nine problems on which deep physics-informed KANs were published (Rigas et al., CMAME 452, 118761, 2026).

Equations, domains and starts are theirs, with these differences. Sine-Gordon has a start of its rate (zero), without which
it has many solutions, and a reference of its own, since sin(pi x) cos(pi t) does not solve it. Navier-Stokes is posed in
velocities and pressure, which fixes the mean velocity that vorticity and continuity leave free, and starts from a field of the
same kind and size, as theirs is drawn by another package. Third derivatives are written by a further output. Of their three
Poisson problems it is the one with most waves. References are closed forms, or Fourier series to 1e-10 (`refined` tells how
far others are off).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cpikan.fields.protocol import Jet
from cpikan.physics.catalogue import problem
from cpikan.physics.problem import Problem, dirichlet, initial, initial_rate, periodic
from cpikan.physics.regions import box
from own_problems.nine import on_a_ring
from own_problems.spectral import Resolution, Values, ring_solution, ring_waves
from own_problems.torus import END, SIDE, VISCOSITY, torus_flow, torus_start

PI = math.pi
_DISPERSION = 0.022**2  # of Zabusky and Kruskal, Phys. Rev. Lett. 15, 240 (1965)
_SPEED = 20.0
_FINE = Resolution(448, 40, 14, 40)


def kdv_reference(resolution: Resolution = _FINE) -> Values:
    """Compute u of u_t + u u_x + 0.022^2 u_xxx = 0 from cos(pi x), on [0, 2] for [-1, 1]."""

    def transport(values: np.ndarray, slopes: Values) -> np.ndarray:
        return -slopes(values**2 / 2)

    def start(x: np.ndarray) -> np.ndarray:
        return np.cos(PI * (x - 1))[None]

    return ring_solution(lambda k: (1j * _DISPERSION * k**3)[None], transport, start, 2.0, 1.0, (), resolution)


def kdv(name: str) -> Problem:
    """Pose it with w = 0.022^2 u_xx as a second output, which is not judged."""

    def residual(u: Jet, x: Tensor) -> dict[str, Tensor]:
        move = u.gradient[..., 0, 1] + u.value[..., 0] * u.gradient[..., 0, 0] + u.gradient[..., 1, 0]
        return {"move": move, "bend": u.value[..., 1] - _DISPERSION * u.second[..., 0, 0]}

    starts = [lambda x: torch.cos(PI * x[..., 0]), None]
    return on_a_ring(name, 2.0, 1.0, residual, kdv_reference(), starts, -1.0)


def sine_gordon_reference(modes: int = 64, degree: int = 40) -> Values:
    """Compute u of u_tt = u_xx - sin u from sin(pi x) at rest, odd on a ring of 2."""
    k = PI * np.fft.fftfreq(modes, 1 / modes)

    def slope(t: float, y: np.ndarray) -> np.ndarray:
        u, rate = y.reshape(2, modes)
        return np.concatenate([rate, np.fft.ifft(-(k**2) * np.fft.fft(u)).real - np.sin(u)])

    return ring_waves(slope, lambda x: np.stack([np.sin(PI * x), 0 * x]), 2.0, 1.0, modes, degree)


def sine_gordon(name: str) -> Problem:
    """Pose it on [0, 1], zero at both ends."""
    found = sine_gordon_reference()

    def exact(x: Tensor) -> Tensor:
        return torch.from_numpy(found(x.reshape(-1, 2).numpy())[:, 0].copy()).reshape(x.shape[:-1])

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.second[..., 0, 1] - u.second[..., 0, 0] + torch.sin(u.value[..., 0])

    conditions = [initial(lambda x: torch.sin(PI * x[..., 0])), initial_rate(0.0), dirichlet(0.0)]
    return Problem(name, box([0, 0], [1, 1], ["x", "t"]), residual, conditions, exact)


def advection(name: str) -> Problem:
    """Pose u_t + 20 u_x = 0 on a ring of 2 pi from sin x."""

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.gradient[..., 0, 1] + _SPEED * u.gradient[..., 0, 0]

    def found(x: np.ndarray) -> np.ndarray:
        return np.sin(x[:, :1] - _SPEED * x[:, 1:])

    return on_a_ring(name, 2 * PI, 1.0, residual, found, [lambda x: torch.sin(x[..., 0])])


def poisson(name: str) -> Problem:
    """Pose Laplacian u = f on [-1, 1]^2 with u = sin(4 pi x) sin(4 pi y)."""

    def exact(x: Tensor) -> Tensor:
        return torch.sin(4 * PI * x).prod(dim=-1)

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.second[..., 0, :].sum(-1) + 32 * PI**2 * exact(x)

    return Problem(name, box([-1, -1], [1, 1]), residual, [dirichlet(0.0)], exact)


def heat(name: str) -> Problem:
    """Pose u_t = u_xx / (500 pi)^2 + u_yy / pi^2 on the unit square from sin(20 pi x) sin(pi y), zero on the walls."""

    def start(x: Tensor) -> Tensor:
        return torch.sin(20 * PI * x[..., 0]) * torch.sin(PI * x[..., 1])

    def exact(x: Tensor) -> Tensor:
        return start(x) * torch.exp(-626 / 625 * x[..., 2])

    def residual(u: Jet, x: Tensor) -> Tensor:
        return u.gradient[..., 0, 2] - u.second[..., 0, 0] / (500 * PI) ** 2 - u.second[..., 0, 1] / PI**2

    region = box([0, 0, 0], [1, 1, 1], ["x", "y", "t"])
    return Problem(name, region, residual, [initial(start), dirichlet(0.0)], exact)


def navier_stokes(name: str) -> Problem:
    """Pose the flow (u, v, p) of viscosity 1/100 on a torus of 2 pi to t = 0.1; velocities are judged."""
    region, found = box([0, 0, 0], [SIDE, SIDE, END], ["x", "y", "t"]), torus_flow()

    def exact(x: Tensor) -> Tensor:
        return torch.from_numpy(found(x.reshape(-1, 3).numpy())).reshape(*x.shape[:-1], 2)

    def residual(f: Jet, x: Tensor) -> dict[str, Tensor]:
        u, v = f.value[..., 0], f.value[..., 1]
        along = {
            name: f.gradient[..., o, 2]
            + u * f.gradient[..., o, 0]
            + v * f.gradient[..., o, 1]
            + f.gradient[..., 2, o]
            - VISCOSITY * f.second[..., o, :2].sum(-1)
            for o, name in enumerate(("momentum x", "momentum y"))
        }
        return {**along, "continuity": f.gradient[..., 0, 0] + f.gradient[..., 1, 1]}

    def start(output: int) -> Callable[[Tensor], Tensor]:
        return lambda x: torus_start(x[..., :2])[..., output]

    conditions: list[Any] = [initial(start(output), output=output) for output in (0, 1)]
    for axis in ("x", "y"):
        conditions += periodic(region, axis)
    return Problem(name, region, residual, conditions, exact, outputs=3)


def refined() -> dict[str, float]:
    """Compare the computed references with finer ones: the largest difference, relative to the largest value."""
    random = np.random.default_rng(0).random((2000, 3))
    pairs = {
        "kdv": (kdv_reference(), kdv_reference(Resolution(512, 40, 16, 60)), random[:, :2] * [2, 1]),
        "sine-gordon": (sine_gordon_reference(), sine_gordon_reference(96, 52), random[:, :2]),
        "navier-stokes": (torus_flow(), torus_flow(128, 18, 28), random * [SIDE, SIDE, END]),
    }
    return {name: float(np.abs(a(x) - b(x)).max() / np.abs(b(x)).max()) for name, (a, b, x) in pairs.items()}


PROBLEMS: dict[str, Callable[[str], Problem]] = {
    "allen-cahn": problem,
    "burgers": problem,
    "kdv-cosine": kdv,
    "sine-gordon": sine_gordon,
    "advection-20": advection,
    "helmholtz-2d-1-4": problem,
    "poisson-2d-4-4": poisson,
    "heat-two-scales": heat,
    "navier-stokes-torus": navier_stokes,
}
