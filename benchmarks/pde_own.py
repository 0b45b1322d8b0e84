"""Forty problems outside the catalogue by the default recipe: writes results/pde_own.csv.

    python benchmarks/pde_own.py [PROBLEM ...] [--seconds 60] [--seeds 1] [-o FILE]

Eight classes: systems of ordinary differential equations, long times, layers, coefficients that jump, inverse problems,
complex-valued ones, third and fourth order, three axes. Each has a reference of its own: a closed form, a manufactured
solution, or SciPy (DOP853 or Radau to 1e-12). The limit is in processor seconds, so that a machine with other work gives
the same table. For an inverse problem the error is the larger of the field's and the coefficients'; ``solved`` says that it
is below 1e-4.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import csv
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cpikan.learning.solver import SolveSettings, solve
from cpikan.physics.problem import (
    Condition,
    Problem,
    Unknown,
    dirichlet,
    initial,
    initial_rate,
    interface,
    measured,
    neumann,
    periodic,
)
from cpikan.physics.regions import box

RESULTS = Path(__file__).parent / "results" / "pde_own.csv"
COLUMNS = (
    *(
        "class",
        "problem",
        "seed",
        "error",
        "solved",
        "relative_l2",
        "max_error",
        "coefficient_error",
        "heldout_residual",
    ),
    *("trust", "cpu_seconds", "stop_reason", "parameters"),
)
SOLVED = 1e-4
PI = math.pi
sin, cos, exp = torch.sin, torch.cos, torch.exp


# --- systems of ordinary differential equations


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


def _robertson(t: Any, y: Any) -> list[Any]:
    one, two, three = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
    return [two - one, one - two - three, three]


SYSTEMS = {
    "sir": lambda n: system(
        n, lambda t, y: [-0.5 * y[0] * y[1], 0.5 * y[0] * y[1] - y[1] / 5, y[1] / 5], [0.99, 0.01, 0], 80
    ),
    "predators": lambda n: system(n, lambda t, y: [y[0] - y[0] * y[1], 0.8 * (y[0] * y[1] - y[1])], [2.0, 0.7], 30),
    "lorenz": lambda n: system(n, _lorenz, [1.0, 1.0, 1.0], 1),
    "kepler": lambda n: system(n, _kepler, [0.5, 0.0, 0.0, 3**0.5], 4 * PI),
    "robertson": lambda n: system(n, _robertson, [1.0, 0.0, 0.0], 40, "Radau"),
    "brusselator": lambda n: system(
        n, lambda t, y: [1 + y[0] ** 2 * y[1] - 4 * y[0], 3 * y[0] - y[0] ** 2 * y[1]], [1.5, 3.0], 15
    ),
}


# --- long times


def spring(name: str) -> Problem:
    """Pose y'' + y = 0 as two equations of first order to t = 100."""
    return system(name, lambda t, y: [y[1], -y[0]], [1.0, 0.0], 100)


def resonator(name: str) -> Problem:
    """Pose y'' + y / 10 + 4 y = cos t as one equation of second order to t = 80: closed form."""
    damp, free = 0.05, (4 - 0.05**2) ** 0.5
    a, b = 3 / (9 + 0.01), 0.1 / (9 + 0.01)

    def exact(x: Tensor) -> Tensor:
        t = x[..., 0]
        decay = exp(-damp * t) * ((1 - a) * cos(free * t) + (damp * (1 - a) - b) / free * sin(free * t))
        return a * cos(t) + b * sin(t) + decay

    def residual(u: Any, x: Tensor) -> Tensor:
        return u.second[..., 0, 0] + 0.1 * u.gradient[..., 0, 0] + 4 * u.value[..., 0] - cos(x[..., 0])

    return Problem(name, box([0], [80], ["t"]), residual, [initial(1.0), initial_rate(0.0)], exact)


def string(name: str) -> Problem:
    """Pose u_tt = u_xx for 5 periods, two modes."""

    def exact(x: Tensor) -> Tensor:
        s, t = PI * x[..., 0], PI * x[..., 1]
        return sin(s) * cos(t) + 0.3 * sin(3 * s) * cos(3 * t)

    def residual(u: Any, x: Tensor) -> Tensor:
        return u.second[..., 0, 1] - u.second[..., 0, 0]

    return Problem(
        name, box([0, 0], [1, 10], ["x", "t"]), residual, [initial(exact), initial_rate(0.0), dirichlet(0.0)], exact
    )


def carried(name: str) -> Problem:
    """Pose u_t + 2 u_x = 0 on a ring for 5 rounds."""
    region = box([0, 0], [2 * PI, 5 * PI], ["x", "t"])

    def exact(x: Tensor) -> Tensor:
        return exp(sin(x[..., 0] - 2 * x[..., 1]))

    def residual(u: Any, x: Tensor) -> Tensor:
        return u.gradient[..., 0, 1] + 2 * u.gradient[..., 0, 0]

    return Problem(name, region, residual, [initial(exact), *periodic(region, slope=False)], exact, second="none")


LONG = {
    "spring": spring,
    "pendulum": lambda n: system(
        n, lambda t, y: [y[1], -(torch.sin(y[0]) if isinstance(y[0], Tensor) else math.sin(y[0]))], [2.0, 0.0], 60
    ),
    "resonator": resonator,
    "string": string,
    "carried": carried,
}


# --- layers


def outflow(name: str) -> Problem:
    """Pose -e u'' + u' = 1, zero at both ends, e = 1e-3: a layer at x = 1."""
    e = 1e-3

    def exact(x: Tensor) -> Tensor:
        return x[..., 0] - (exp((x[..., 0] - 1) / e) - math.exp(-1 / e)) / (1 - math.exp(-1 / e))

    return Problem(
        name, box([0], [1]), lambda u, x: u.gradient[..., 0, 0] - e * u.second[..., 0, 0] - 1, [dirichlet(0.0)], exact
    )


def two_layers(name: str) -> Problem:
    """Pose -e u'' + u = 1 + x, zero at both ends, e = 1e-6."""
    w = 1e-3

    def exact(x: Tensor) -> Tensor:
        t = x[..., 0]
        return 1 + t - exp(-t / w) - 2 * exp((t - 1) / w)

    return Problem(
        name,
        box([0], [1]),
        lambda u, x: u.value[..., 0] - w * w * u.second[..., 0, 0] - 1 - x[..., 0],
        [dirichlet(0.0)],
        exact,
    )


def inner_layer(name: str) -> Problem:
    """Pose u'' = 2 k^2 u (u^2 - 1), a front at x = 0.3 with k = 40 given at both ends."""
    k = 40.0

    def exact(x: Tensor) -> Tensor:
        return torch.tanh(k * (x[..., 0] - 0.3))

    def residual(u: Any, x: Tensor) -> Tensor:
        v = u.value[..., 0]
        front = exact(x)
        return (u.second[..., 0, 0] - 2 * k * k * v * (v * v - 1)) / k**2 + 0.1 * (v - front)

    return Problem(name, box([-1], [1]), residual, [dirichlet(exact)], exact)


def wall_layer(name: str) -> Problem:
    """Pose -e (u_xx + u_yy) + u = f on a square with u = (1 - exp(-x / sqrt e)) sin(pi y) / 1, e = 1e-4."""
    e = 1e-4
    w = e**0.5

    def exact(x: Tensor) -> Tensor:
        return (1 - exp(-x[..., 0] / w)) * sin(PI * x[..., 1])

    def residual(u: Any, x: Tensor) -> Tensor:
        load = (1 + e * PI**2 * (1 - exp(-x[..., 0] / w))) * sin(PI * x[..., 1])
        return u.value[..., 0] - e * u.second[..., 0, :].sum(-1) - load

    return Problem(name, box([0, 0], [1, 1]), residual, [dirichlet(exact)], exact)


def shock(name: str) -> Problem:
    """Pose u_t + u u_x = v u_xx, a travelling wave with v = 0.01."""
    v = 0.01

    def exact(x: Tensor) -> Tensor:
        return 0.5 - 0.5 * torch.tanh((x[..., 0] - 0.5 * x[..., 1]) / (4 * v))

    def residual(u: Any, x: Tensor) -> Tensor:
        return u.gradient[..., 0, 1] + u.value[..., 0] * u.gradient[..., 0, 0] - v * u.second[..., 0, 0]

    return Problem(name, box([-1, 0], [1, 1], ["x", "t"]), residual, [initial(exact), dirichlet(exact)], exact)


LAYERS = {
    "outflow": outflow,
    "two-layers": two_layers,
    "inner-layer": inner_layer,
    "wall-layer": wall_layer,
    "shock": shock,
}


# --- coefficients that jump


def conductors(name: str) -> Problem:
    """Pose (k u')' = 0 with k = 3 below 0.35 and 0.2 above."""
    low, high, at = 3.0, 0.2, 0.35
    region = box([0], [1], breaks={"x": [at]})
    flux = 1.0 / (at / low + (1 - at) / high)

    def exact(x: Tensor) -> Tensor:
        return torch.where(x[..., 0] < at, flux / low * x[..., 0], 1 - flux / high * (1 - x[..., 0]))

    ends = [dirichlet(0.0, ["x=min"]), dirichlet(1.0, ["x=max"])]
    return Problem(
        name, region, lambda u, x: u.second[..., 0, 0], [*ends, *interface(region, "x", at, (low, high))], exact
    )


def two_waves(name: str) -> Problem:
    """Pose u'' + k^2 u = 0 with k = 5 below 1 and 20 above."""
    region = box([0], [2], breaks={"x": [1.0]})

    def exact(x: Tensor) -> Tensor:
        t = x[..., 0]
        beyond = math.sin(5) * cos(20 * (t - 1)) + math.cos(5) / 4 * sin(20 * (t - 1))
        return torch.where(t < 1, sin(5 * t), beyond)

    def residual(u: Any, x: Tensor) -> Tensor:
        return u.second[..., 0, 0] + torch.where(x[..., 0] < 1, 25.0, 400.0) * u.value[..., 0]

    return Problem(name, region, residual, [dirichlet(exact), *interface(region, "x", 1.0)], exact)


def plates(name: str) -> Problem:
    """Pose k (u_xx + u_yy) = 0 with k = 1 below x = 0.5 and 10 above."""
    region = box([0, 0], [1, 1], breaks={"x": [0.5]})
    s, c = math.sinh(PI / 2), math.cosh(PI / 2)

    def exact(x: Tensor) -> Tensor:
        away = PI * (x[..., 0] - 0.5)
        beyond = s * torch.cosh(away) + c / 10 * torch.sinh(away)
        return torch.where(away < 0, torch.sinh(away + PI / 2), beyond) * sin(PI * x[..., 1])

    conditions = [dirichlet(exact), *interface(region, "x", 0.5, (1.0, 10.0))]
    return Problem(name, region, lambda u, x: u.second[..., 0, :].sum(-1), conditions, exact)


def bars(name: str) -> Problem:
    """Pose u_t = k u_xx with k = 1 below 0.5 and 4 above: the slowest mode by SciPy's root finder."""
    from scipy.optimize import brentq

    def mismatch(m: float) -> float:
        return m * math.cos(m / 2) * math.sin(m / 4) + 2 * m * math.cos(m / 4) * math.sin(m / 2)

    m = brentq(mismatch, 3.0, 6.0, xtol=1e-14)
    share = math.sin(m / 2) / math.sin(m / 4)
    region = box([0, 0], [1, 0.2], ["x", "t"], breaks={"x": [0.5]})

    def exact(x: Tensor) -> Tensor:
        t = x[..., 0]
        return torch.where(t < 0.5, sin(m * t), share * sin(m / 2 * (1 - t))) * exp(-m * m * x[..., 1])

    def residual(u: Any, x: Tensor) -> Tensor:
        return u.gradient[..., 0, 1] - torch.where(x[..., 0] < 0.5, 1.0, 4.0) * u.second[..., 0, 0]

    conditions = [initial(exact), dirichlet(0.0), *interface(region, "x", 0.5, (1.0, 4.0))]
    return Problem(name, region, residual, conditions, exact)


def mixed_form(name: str) -> Problem:
    """Pose v = k u', v' = -6 x with k = 1, 4 and 0.5 on thirds of [0, 3]: two equations of first order, no interface said."""
    region = box([0], [3], breaks={"x": [1.0, 2.0]})

    def coefficient(t: Tensor) -> Tensor:
        return torch.where(t < 1, 1.0, torch.where(t < 2, 4.0, 0.5))

    def potential(t: Tensor, c: float) -> Tensor:
        """u of v = c - 3 t^2, from u(0) = 0."""

        def part(a: Any) -> Any:
            return c * a - a**3

        first, second = torch.clamp(t, max=1.0), torch.clamp(t, 1.0, 2.0)
        third = torch.clamp(t, min=2.0)
        return part(first) + (part(second) - part(1.0)) / 4 + (part(third) - part(2.0)) / 0.5

    one, zero = (float(potential(torch.tensor(3.0, dtype=torch.float64), c)) for c in (1.0, 0.0))
    c = (1 - zero) / (one - zero)

    def exact(x: Tensor) -> Tensor:
        return torch.stack([potential(x[..., 0], c), c - 3 * x[..., 0] ** 2], dim=-1)

    def residual(u: Any, x: Tensor) -> dict[str, Tensor]:
        flux = u.value[..., 1] - coefficient(x[..., 0]) * u.gradient[..., 0, 0]
        return {"flux": flux, "balance": u.gradient[..., 1, 0] + 6 * x[..., 0]}

    ends = [dirichlet(0.0, ["x=min"]), dirichlet(1.0, ["x=max"])]
    return Problem(name, region, residual, ends, exact, outputs=2, second="none")


JUMPS = {"conductors": conductors, "two-waves": two_waves, "plates": plates, "bars": bars, "mixed-form": mixed_form}


# --- inverse problems


def spread(lower: list[float], upper: list[float], count: int, seed: int) -> Tensor:
    """Draw points in a box."""
    unit = torch.rand(count, len(lower), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    low, high = (torch.tensor(v, dtype=torch.float64) for v in (lower, upper))
    return low + (high - low) * unit


def drift(name: str) -> Problem:
    """Ask for a, b and c of u_t = a u_xx + b u_x + c u, all as outputs, from 400 values of two modes."""
    a, b, c = 0.25, -0.6, 0.9
    k = b / (2 * a)

    def mode(n: int, x: Tensor) -> Tensor:
        rate = c - b * b / (4 * a) - a * n * n * PI**2
        return exp(-k * x[..., 0]) * sin(n * PI * x[..., 0]) * exp(rate * x[..., 1])

    def truth(x: Tensor) -> Tensor:
        return mode(1, x) + 0.7 * mode(2, x)

    def residual(u: Any, x: Tensor) -> Tensor:
        right = u.value[..., 1] * u.second[..., 0, 0] + u.value[..., 2] * u.gradient[..., 0, 0]
        return u.gradient[..., 0, 1] - right - u.value[..., 3] * u.value[..., 0]

    points = spread([0, 0], [1, 1], 400, 1)
    constants = {1: a, 2: b, 3: c}

    def exact(x: Tensor) -> Tensor:
        return torch.stack([truth(x), *(torch.full_like(x[..., 0], v) for v in (a, b, c))], dim=-1)

    region = box([0, 0], [1, 1], ["x", "t"])
    return Problem(name, region, residual, [measured(points, truth(points))], exact, outputs=4, constants=constants)


def tone(name: str) -> Problem:
    """Ask for the eigenvalue of -u'' = m u on [0, 1.5], zero at the ends, with slope 1 at the first."""

    def exact(x: Tensor) -> Tensor:
        return 1.5 / PI * sin(PI * x[..., 0] / 1.5)

    def residual(u: Any, x: Tensor, unknown: Any) -> Tensor:
        return u.second[..., 0, 0] + unknown["m"] * u.value[..., 0]

    conditions = [dirichlet(0.0), Condition("slope", lambda j, s: j.gradient[..., 0, 0] - 1, ("x=min",))]
    truth = (PI / 1.5) ** 2
    return Problem(name, box([0], [1.5]), residual, conditions, exact, unknowns=[Unknown("m", 3.0, truth)])


def growth(name: str) -> Problem:
    """Ask for rate and capacity of y' = r y (1 - y / c) from 30 values to t = 8."""
    r, c = 1.3, 2.5

    def exact(x: Tensor) -> Tensor:
        return c / (1 + (c / 0.2 - 1) * exp(-r * x[..., 0]))

    def residual(u: Any, x: Tensor, unknown: Any) -> Tensor:
        y = u.value[..., 0]
        return u.gradient[..., 0, 0] - unknown["r"] * y * (1 - unknown["s"] * y)

    points = spread([0], [8], 30, 2)
    unknowns = [Unknown("r", 1.0, r), Unknown("s", 0.5, 1 / c)]
    return Problem(name, box([0], [8], ["t"]), residual, [measured(points, exact(points))], exact, unknowns=unknowns)


def coefficient_of_x(name: str) -> Problem:
    """Ask for a(x) of (a u')' = f, a = 1 + x^2 / 2, from values of u = sin 2 x and a at the left end."""

    def exact(x: Tensor) -> Tensor:
        return torch.stack([sin(2 * x[..., 0]), 1 + x[..., 0] ** 2 / 2], dim=-1)

    def residual(u: Any, x: Tensor) -> Tensor:
        t = x[..., 0]
        load = 2 * t * cos(2 * t) - 4 * (1 + t * t / 2) * sin(2 * t)
        return u.gradient[..., 1, 0] * u.gradient[..., 0, 0] + u.value[..., 1] * u.second[..., 0, 0] - load

    points = torch.linspace(0, 2, 60, dtype=torch.float64)[:, None]
    data = [measured(points, sin(2 * points[:, 0])), dirichlet(1.0, ["x=min"], output=1)]
    return Problem(name, box([0], [2]), residual, data, exact, outputs=2)


def decay(name: str) -> Problem:
    """Ask for D and k of u_t = D u_xx - k u, as unknowns, from 200 values."""
    d, k = 0.15, 0.8

    def exact(x: Tensor) -> Tensor:
        parts = [sin(n * PI * x[..., 0]) * exp(-(d * (n * PI) ** 2 + k) * x[..., 1]) / n for n in (1, 2)]
        return parts[0] + parts[1]

    def residual(u: Any, x: Tensor, unknown: Any) -> Tensor:
        return u.gradient[..., 0, 1] - unknown["D"] * u.second[..., 0, 0] + unknown["k"] * u.value[..., 0]

    points = spread([0, 0], [1, 1], 200, 3)
    unknowns = [Unknown("D", 1.0, d), Unknown("k", 0.0, k)]
    region = box([0, 0], [1, 1], ["x", "t"])
    return Problem(name, region, residual, [measured(points, exact(points))], exact, unknowns=unknowns)


INVERSE = {"drift": drift, "tone": tone, "growth": growth, "coefficient-of-x": coefficient_of_x, "decay": decay}


# --- complex-valued problems, as two real outputs


def evolving(name: str, region: Any, residual: Any, exact: Any, more: list[Condition]) -> Problem:
    """Two outputs that start from the exact solution."""

    def begin(output: int) -> Condition:
        return initial(
            lambda x: exact(torch.cat([x[..., :-1], torch.zeros_like(x[..., -1:])], -1))[..., output], output=output
        )

    return Problem(name, region, residual, [begin(0), begin(1), *more], exact, outputs=2)


def complex_pair(size: Tensor, phase: Tensor) -> Tensor:
    """Write size * exp(i phase) as two numbers."""
    return torch.stack([size * cos(phase), size * sin(phase)], dim=-1)


def ring(name: str) -> Problem:
    """Pose i u_t + u_xx = 0 on a ring, two waves."""
    region = box([-PI, 0], [PI, 1], ["x", "t"])

    def exact(x: Tensor) -> Tensor:
        s, t = x[..., 0], x[..., 1]
        return complex_pair(torch.ones_like(s), 2 * s - 4 * t) + 0.5 * complex_pair(torch.ones_like(s), -3 * s - 9 * t)

    def residual(u: Any, x: Tensor) -> dict[str, Tensor]:
        return {"re": u.second[..., 0, 0] - u.gradient[..., 1, 1], "im": u.second[..., 1, 0] + u.gradient[..., 0, 1]}

    return evolving(name, region, residual, exact, periodic(region))


def soliton(name: str) -> Problem:
    """Pose i u_t + u_xx / 2 + |u|^2 u = 0, one soliton of speed 1."""
    region = box([-10, 0], [10, 2], ["x", "t"])

    def exact(x: Tensor) -> Tensor:
        s, t = x[..., 0], x[..., 1]
        return complex_pair(1 / torch.cosh(s - t + 1), s)

    def residual(u: Any, x: Tensor) -> dict[str, Tensor]:
        a, b = u.value[..., 0], u.value[..., 1]
        square = a * a + b * b
        re = u.second[..., 0, 0] / 2 - u.gradient[..., 1, 1] + square * a
        return {"re": re, "im": u.second[..., 1, 0] / 2 + u.gradient[..., 0, 1] + square * b}

    walls = [dirichlet(lambda x, o=o: exact(x)[..., o], output=o, name=f"wall {o}") for o in (0, 1)]
    return evolving(name, region, residual, exact, walls)


def well(name: str) -> Problem:
    """Pose i u_t = -u_xx / 2 + x^2 u / 2, a coherent state that swings."""
    region = box([-7, 0], [7, 2], ["x", "t"])

    def exact(x: Tensor) -> Tensor:
        s, t = x[..., 0], x[..., 1]
        size = exp(-((s - 1.5 * cos(t)) ** 2) / 2)
        return complex_pair(size, -t / 2 - 1.5 * s * sin(t) + 1.5**2 / 4 * sin(2 * t))

    def residual(u: Any, x: Tensor) -> dict[str, Tensor]:
        hill = x[..., 0] ** 2 / 2
        re = u.second[..., 0, 0] / 2 - u.gradient[..., 1, 1] - hill * u.value[..., 0]
        return {"re": re, "im": u.second[..., 1, 0] / 2 + u.gradient[..., 0, 1] - hill * u.value[..., 1]}

    return evolving(name, region, residual, exact, [dirichlet(0.0), dirichlet(0.0, output=1, name="wall 1")])


def lossy(name: str) -> Problem:
    """Pose u'' + (30 + 2 i)^2 u = 0 on [0, 1], u = exp(i (30 + 2 i) x) given at both ends."""

    def exact(x: Tensor) -> Tensor:
        return complex_pair(exp(-2 * x[..., 0]), 30 * x[..., 0])

    def residual(u: Any, x: Tensor) -> dict[str, Tensor]:
        a, b = u.value[..., 0], u.value[..., 1]
        return {"re": u.second[..., 0, 0] + 896 * a - 120 * b, "im": u.second[..., 1, 0] + 896 * b + 120 * a}

    ends = [dirichlet(lambda x, o=o: exact(x)[..., o], output=o, name=f"end {o}") for o in (0, 1)]
    return Problem(name, box([0], [1]), residual, ends, exact, outputs=2)


def landau(name: str) -> Problem:
    """Pose u_t = u + (1 + i) u_xx - (1 - i) |u|^2 u on a ring: a plane wave of wave number 1 / 2."""
    q = 0.5
    size2 = 1 - q * q
    w = q * q - size2
    region = box([0, 0], [4 * PI, 4], ["x", "t"])

    def exact(x: Tensor) -> Tensor:
        return complex_pair(torch.full_like(x[..., 0], size2**0.5), q * x[..., 0] - w * x[..., 1])

    def residual(u: Any, x: Tensor) -> dict[str, Tensor]:
        a, b = u.value[..., 0], u.value[..., 1]
        axx, bxx, square = u.second[..., 0, 0], u.second[..., 1, 0], a * a + b * b
        re = u.gradient[..., 0, 1] - a - axx + bxx + square * (a + b)
        return {"re": re, "im": u.gradient[..., 1, 1] - b - bxx - axx + square * (b - a)}

    return evolving(name, region, residual, exact, periodic(region))


COMPLEX = {"ring": ring, "soliton": soliton, "well": well, "lossy": lossy, "landau": landau}


# --- third and fourth order, by further outputs


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


ORDERS = {"blasius": blasius, "kdv": kdv, "bar": bar, "foundation": foundation, "clamped": clamped}


# --- three axes


def cube(name: str) -> Problem:
    """Pose -Laplacian u + u^3 = f on a cube, u = exp(x) sin(pi y) cos(z)."""

    def exact(x: Tensor) -> Tensor:
        return exp(x[..., 0]) * sin(PI * x[..., 1]) * cos(x[..., 2])

    def residual(u: Any, x: Tensor) -> Tensor:
        v = exact(x)
        return u.value[..., 0] ** 3 - u.second[..., 0, :].sum(-1) - (PI**2 * v + v**3)

    return Problem(name, box([0, 0, 0], [1, 1, 1]), residual, [dirichlet(exact)], exact)


def room(name: str) -> Problem:
    """Pose Laplacian u + 30 u = 0 in a box, a wave across it."""
    k = torch.tensor([3.0, 2.0, 17**0.5], dtype=torch.float64)

    def exact(x: Tensor) -> Tensor:
        return sin(x @ k + 0.3)

    return Problem(
        name,
        box([0, 0, 0], [1, 0.8, 0.6]),
        lambda u, x: u.second[..., 0, :].sum(-1) + 30 * u.value[..., 0],
        [dirichlet(exact)],
        exact,
    )


def hot_plate(name: str) -> Problem:
    """Pose u_t = (u_xx + u_yy) / 50 on a square to t = 5, two modes."""

    def exact(x: Tensor) -> Tensor:
        s, t = PI * x[..., 0], PI * x[..., 1]
        one = sin(s) * sin(t) * exp(-2 * PI**2 / 50 * x[..., 2])
        return one + 0.5 * sin(2 * s) * sin(t) * exp(-5 * PI**2 / 50 * x[..., 2])

    def residual(u: Any, x: Tensor) -> Tensor:
        return u.gradient[..., 0, 2] - (u.second[..., 0, 0] + u.second[..., 0, 1]) / 50

    return Problem(name, box([0, 0, 0], [1, 1, 5], ["x", "y", "t"]), residual, [initial(exact), dirichlet(0.0)], exact)


def drum(name: str) -> Problem:
    """Pose u_tt = u_xx + u_yy on a square to t = 2, one mode."""
    rate = PI * 2**0.5

    def exact(x: Tensor) -> Tensor:
        return sin(PI * x[..., 0]) * sin(PI * x[..., 1]) * cos(rate * x[..., 2])

    def residual(u: Any, x: Tensor) -> Tensor:
        return u.second[..., 0, 2] - u.second[..., 0, 0] - u.second[..., 0, 1]

    conditions = [initial(exact), initial_rate(0.0), dirichlet(0.0)]
    return Problem(name, box([0, 0, 0], [1, 1, 2], ["x", "y", "t"]), residual, conditions, exact)


SPACE = {"cube": cube, "room": room, "hot-plate": hot_plate, "drum": drum}

CLASSES: dict[str, dict[str, Callable[[str], Problem]]] = {
    "ODE systems": SYSTEMS,
    "long times": LONG,
    "layers": LAYERS,
    "jumps": JUMPS,
    "inverse": INVERSE,
    "complex-valued": COMPLEX,
    "third and fourth order": ORDERS,
    "three axes": SPACE,
}


def run(kind: str, problem: Problem, seed: int, seconds: float) -> dict[str, Any]:
    """Solve a problem; gives a row of the table."""
    began = time.process_time()
    found = solve(problem, seed=seed, settings=SolveSettings(seconds=seconds, clock="processor"))
    took, m = time.process_time() - began, found.summary()
    pairs = zip(m.get("coefficients", ()), m.get("coefficients_true", ()), strict=True)
    off = max((abs(one / truth - 1) for one, truth in pairs), default=0.0)
    error = max(m["relative_l2"], off)
    row = {
        "class": kind,
        "problem": problem.name,
        "seed": seed,
        "error": error,
        "solved": error <= SOLVED,
        "cpu_seconds": took,
    }
    row |= {"coefficient_error": off or None, **{key: m.get(key) for key in COLUMNS if key not in row and key in m}}
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in row.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*")
    parser.add_argument("--seconds", type=float, default=60.0, help="processor seconds for each (60)")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    rows = []
    for kind, problems in CLASSES.items():
        for name, make in problems.items():
            for seed in range(given.seeds if not given.problems or name in given.problems else 0):
                row = run(kind, make(name), seed, given.seconds)
                rows.append(row)
                print(
                    *(f"{key} {row.get(key)}" for key in ("problem", "error", "trust", "cpu_seconds", "stop_reason")),
                    flush=True,
                )
    if not given.problems:
        with open(given.output, "w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    print(f"{sum(row['solved'] for row in rows)} of {len(rows)} solved to {SOLVED}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
