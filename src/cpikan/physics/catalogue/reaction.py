"""Reaction and diffusion: Fisher's travelling wave, and Allen-Cahn."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from cpikan.errors import InputError
from cpikan.fields.protocol import Jet
from cpikan.physics.problem import Problem, dirichlet, initial, periodic
from cpikan.physics.regions import box


def fisher_wave(x: Tensor) -> Tensor:
    """Evaluate the travelling wave of u_t = u_xx + u (1 - u) of speed 5 / sqrt 6 (Ablowitz and Zeppetella 1979)."""
    root = math.sqrt(6)
    return torch.sigmoid((5 / root * x[..., 1] - x[..., 0]) / root).square()


def reaction_diffusion(*, end: float = 3.0) -> Problem:
    """Pose u_t = u_xx + u (1 - u) on [-5, 10] x [0, end]."""

    def residual(u: Jet, x: Tensor) -> Tensor:
        value = u.value[..., 0]
        return u.gradient[..., 0, 1] - u.second[..., 0, 0] - value * (1 - value)

    region = box([-5, 0], [10, end], ["x", "t"])
    conditions = [dirichlet(fisher_wave), initial(fisher_wave)]
    summary = f"u_t = u_xx + u (1 - u) on [-5, 10] x [0, {end:g}]: Fisher's travelling wave"
    return Problem("reaction-diffusion", region, residual, conditions, fisher_wave, "exact formula", summary)


def allen_cahn(*, end: float = 1.0) -> Problem:
    """Pose u_t = 1e-4 u_xx + 5 (u - u^3), periodic on [-1, 1] x [0, end], u(x, 0) = x^2 cos(pi x).

    Raises InputError for an end after 1, to which the reference goes.
    """
    if end > 1:
        raise InputError(f"allen-cahn until t = {end:g}: give 1 at most, where its reference ends")

    def start(x: Tensor) -> Tensor:
        return x[..., 0] ** 2 * torch.cos(math.pi * x[..., 0])

    def residual(u: Jet, x: Tensor) -> Tensor:
        value = u.value[..., 0]
        return u.gradient[..., 0, 1] - 1e-4 * u.second[..., 0, 0] - 5 * (value - value**3)

    def exact(x: Tensor) -> Tensor:
        flat = x.reshape(-1, 2).numpy()
        return torch.from_numpy(allen_cahn_reference(flat)).reshape(x.shape[:-1])

    region = box([-1, 0], [1, end], ["x", "t"])
    conditions = [initial(start), *periodic(region)]
    summary = f"u_t = 1e-4 u_xx + 5 (u - u^3), periodic on [-1, 1] x [0, {end:g}]"
    reference = f"cosine collocation, {_MODES} modes, with SciPy's DOP853 in time"
    return Problem("allen-cahn", region, residual, conditions, exact, reference, summary)


# The start has a kink where the period closes (slope -2 becomes 2), rounded by diffusion over sqrt(1e-4 t): just after
# the beginning the sum is right to 4 / (pi^2 modes) there, and to 1e-9 once t > 0.005. At t = 0 the start itself is taken.
_MODES = 2048


@cache
def _allen_cahn_path() -> tuple[np.ndarray, np.ndarray]:
    """Compute cosine coefficients (times, modes) at Chebyshev's times on [0, 1]; the solution is even and periodic."""
    from scipy.fft import dct, idct
    from scipy.integrate import solve_ivp

    modes, times = _MODES, 0.5 * (1 - np.cos(np.pi * np.arange(97) / 96))
    x = (np.arange(modes) + 0.5) / modes
    rate = -1e-4 * (np.pi * np.arange(modes)) ** 2

    def slope(t: float, u: np.ndarray) -> np.ndarray:
        return np.asarray(idct(rate * dct(u)) + 5 * (u - u**3))

    found = solve_ivp(slope, (0, 1), x**2 * np.cos(np.pi * x), "DOP853", times, rtol=1e-12, atol=1e-13)
    return times, dct(found.y.T, axis=1) / modes


def allen_cahn_reference(points: np.ndarray) -> np.ndarray:
    """Evaluate the solution at points (n, 2) of x and t: interpolated at Chebyshev's times, summed over cosines."""
    from scipy.interpolate import BarycentricInterpolator

    times, coefficients = _allen_cahn_path()
    unique, place = np.unique(points[:, 1], return_inverse=True)
    at_times = BarycentricInterpolator(times, coefficients)(unique)
    at_times[:, 0] *= 0.5
    values = np.empty(len(points))
    for first in range(0, len(points), 4096):
        part = slice(first, first + 4096)
        waves = np.cos(np.pi * points[part, :1] * np.arange(_MODES))
        values[part] = (waves * at_times[place[part]]).sum(axis=1)
    x, started = points[:, 0], points[:, 1] == 0
    return np.where(started, x**2 * np.cos(np.pi * x), values)


PROBLEMS = {"reaction-diffusion": reaction_diffusion, "allen-cahn": allen_cahn}
