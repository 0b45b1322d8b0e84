"""Zernike polynomials of the disc and the annulus: three ways to number them, one stable recurrence to evaluate them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64
from numpy.typing import NDArray

from cpikan.errors import InputError, check_name

Mode = tuple[int, int]  # (n, m): radial order, azimuthal frequency; m >= 0 is cos(m theta), m < 0 is sin(|m| theta)
Normalisation = Literal["rms", "peak"]
FloatArray = NDArray[np.float64]

MAX_ORDER = 30


def _checked(mode: Mode) -> Mode:
    n, m = mode
    if n < abs(m) or (n - m) % 2:
        raise InputError(f"there is no Zernike polynomial n = {n}, m = {m}: n - |m| must be even and not negative")
    if n > MAX_ORDER:
        raise InputError(f"Zernike order {n} is too high: at most {MAX_ORDER} is supported")
    return n, m


def _checked_index(index: int, first: int, name: str) -> int:
    if index < first:
        raise InputError(f"{name} index {index} does not exist: {name} indices start at {first}")
    return index


def noll_mode(index: int) -> Mode:
    """Find (n, m) of the Noll index, from 1; even indices are cosines (Noll, J. Opt. Soc. Am. 66, 207 (1976))."""
    _checked_index(index, 1, "Noll")
    n = (math.isqrt(8 * index - 7) - 1) // 2
    rest = index - n * (n + 1) // 2  # 1 .. n + 1 within the order
    frequency = 2 * (rest // 2) if n % 2 == 0 else 2 * ((rest - 1) // 2) + 1
    return n, frequency if index % 2 == 0 else -frequency


def noll_index(mode: Mode) -> int:
    """Compute the Noll index of (n, m)."""
    n, m = _checked(mode)
    cosine_first = n % 4 in (0, 1)
    plus = 0 if (m > 0 and cosine_first) or (m < 0 and not cosine_first) else 1
    return n * (n + 1) // 2 + abs(m) + plus


def fringe_mode(index: int) -> Mode:
    """Find (n, m) of the fringe index, from 1: ordered by n + |m|, then by falling |m|, cosine before sine.

    This is the set of Wyant and Creath (Applied Optics and Optical Engineering XI, 1992), there counted from 0. Index 37
    goes on with (6, 6); programs that end their set there often put (12, 0) in its place, which is index 49 here.
    """
    _checked_index(index, 1, "fringe")
    group = math.isqrt(index - 1)  # (n + |m|) / 2
    back = (group + 1) ** 2 - index  # 2 |m| for a cosine, 2 |m| - 1 for a sine
    frequency = (back + 1) // 2
    return 2 * group - frequency, -frequency if back % 2 else frequency


def fringe_index(mode: Mode) -> int:
    """Compute the fringe index of (n, m)."""
    n, m = _checked(mode)
    return (1 + (n + abs(m)) // 2) ** 2 - 2 * abs(m) + (1 if m < 0 else 0)


def ansi_mode(index: int) -> Mode:
    """Find (n, m) of the ANSI (OSA) index, from 0: by n, then by rising m (ANSI Z80.28)."""
    _checked_index(index, 0, "ANSI")
    n = (math.isqrt(8 * index + 1) - 1) // 2
    return n, 2 * index - n * (n + 2)


def ansi_index(mode: Mode) -> int:
    """Compute the ANSI (OSA) index of (n, m)."""
    n, m = _checked(mode)
    return (n * (n + 2) + m) // 2


@dataclass(frozen=True)
class Numbering:
    """One convention of single indices: the first of them, and the way there and back."""

    first: int
    mode: Callable[[int], Mode]
    index: Callable[[Mode], int]


NUMBERINGS = {
    "noll": Numbering(1, noll_mode, noll_index),
    "fringe": Numbering(1, fringe_mode, fringe_index),
    "ansi": Numbering(0, ansi_mode, ansi_index),
}


def modes_up_to(numbering: str, last: int) -> tuple[Mode, ...]:
    """List all modes from the first index to ``last``, in the order of ``noll``, ``fringe`` or ``ansi``.

    Raises InputError for another convention, an index below the first, or an order above 30.
    """
    check_name("Zernike numbering", numbering, NUMBERINGS)
    convention = NUMBERINGS[numbering]
    _checked_index(last, convention.first, numbering)
    if last > 10_000:  # far beyond any allowed order: do not list them first
        raise InputError(f"{numbering} index {last} is too high: radial orders up to {MAX_ORDER} are supported")
    return tuple(_checked(convention.mode(index)) for index in range(convention.first, last + 1))


@dataclass(frozen=True)
class ZernikeBasis:
    """Zernike polynomials ``modes`` on the annulus ``obscuration`` <= r <= 1, the disc when it is 0.

    They are orthogonal over that area with equal weight: circle polynomials (Noll 1976), annular polynomials (Mahajan,
    J. Opt. Soc. Am. 71, 75 (1981)). ``normalisation`` "rms" makes the mean square over the area 1, so that a coefficient
    is an RMS; "peak" makes the radial part 1 at r = 1, as the fringe set has it. The radial part is r^|m| times
    polynomials in r^2 that are orthogonal with weight r^(2|m|); their three-term recurrence comes from the discretised
    Stieltjes procedure (Gautschi 2004, section 2.2.3), exact here because the quadrature is. No power of r^2 is ever
    summed: order 30 keeps 1e-12. Raises InputError for a mode that does not exist or an obscuration outside [0, 1).
    """

    modes: tuple[Mode, ...]
    obscuration: float = 0.0
    normalisation: Normalisation = "rms"

    def __post_init__(self) -> None:
        for mode in self.modes:
            _checked(mode)
        if not 0 <= self.obscuration < 1:
            raise InputError(f"obscuration {self.obscuration} is not a ratio of radii: give 0 (a disc) to below 1")
        check_name("normalisation", self.normalisation, ("rms", "peak"))

    def values(self, y: Float[np.ndarray, ...], x: Float[np.ndarray, ...]) -> Float64[np.ndarray, "modes ..."]:
        """Evaluate modes at coordinates in units of the outer radius, (modes, *points) float64; theta = atan2(y, x).

        Outside the area the polynomials go on, and grow with their order.
        """
        y, x = np.broadcast_arrays(np.asarray(y, np.float64), np.asarray(x, np.float64))
        out = np.empty((len(self.modes), *x.shape))
        inner = self.obscuration**2
        # r^2 mapped to [-1, 1], where the recurrence runs
        t = (2 * (x * x + y * y) - (1 + inner)) / (1 - inner)
        cosine, sine = np.ones_like(x), np.zeros_like(x)  # r^m cos, r^m sin: powers of x + iy, no angle needed
        for m in range(max(self._families, default=-1) + 1):
            if m:
                cosine, sine = x * cosine - y * sine, x * sine + y * cosine
            for row, polynomial in self._family_values(m, t):
                np.multiply(polynomial, sine if self.modes[row][1] < 0 else cosine, out=out[row])
        return out

    def _family_values(self, m: int, t: FloatArray) -> list[tuple[int, FloatArray]]:
        """Evaluate the radial factors, without r^m, of the rows of azimuthal frequency m."""
        if m not in self._families:
            return []
        family = self._families[m]
        previous, current = np.zeros_like(t), np.full_like(t, family.start)
        found = []
        for k in range(len(family.centre) + 1):
            if k:
                step = (t - family.centre[k - 1]) * current
                if k > 1:
                    step -= family.width[k - 2] * previous
                previous, current = current, step / family.width[k - 1]
            found += [(row, current * scale) for row, scale in family.rows.get(k, ())]
        return found

    @cached_property
    def _families(self) -> dict[int, _Family]:
        return {m: self._family(m) for m in {abs(m) for _, m in self.modes}}

    def _family(self, m: int) -> _Family:
        degrees = {row: (n - m) // 2 for row, (n, k) in enumerate(self.modes) if abs(k) == m}
        centre, width, start, edge = _recurrence(m, max(degrees.values()), self.obscuration)
        rows: dict[int, list[tuple[int, float]]] = {}
        for row, degree in degrees.items():
            rows.setdefault(degree, []).append((row, 1.0 if self.normalisation == "rms" else 1 / edge[degree]))
        return _Family(centre, width, start, rows)


@dataclass(frozen=True)
class _Family:
    """Recurrence of one azimuthal frequency: width[k] p[k+1] = (t - centre[k]) p[k] - width[k-1] p[k-1], p[0] = start.

    ``rows`` gives for each degree the rows of the output it fills, with a factor.
    """

    centre: Sequence[float]
    width: Sequence[float]
    start: float
    rows: dict[int, list[tuple[int, float]]]


def _recurrence(m: int, degree: int, obscuration: float) -> tuple[list[float], list[float], float, list[float]]:
    """Compute centres and widths of the recurrence up to a degree, its starting constant, and the values at r = 1."""
    # degree 2 (degree) + 1 in t times t^m: 2 nodes - 1 must reach it
    nodes, weights = np.polynomial.legendre.leggauss(degree + m // 2 + 2)
    inner = obscuration**2
    radius2 = ((1 + inner) + (1 - inner) * nodes) / 2
    # the mean over the area: half of dt for r dr, and a half for the mean of cos^2
    weights = weights * radius2**m / (4 if m else 2)
    start = 1 / math.sqrt(float(weights.sum()))
    previous, current, width_before = np.zeros_like(nodes), np.full_like(nodes, start), 0.0
    at_edge = [start]
    centre: list[float] = []
    width: list[float] = []
    edge_before = 0.0
    for _ in range(degree):
        middle = float(weights @ (nodes * current**2))
        step = (nodes - middle) * current - width_before * previous
        size = math.sqrt(float(weights @ step**2))
        edge_before, edge = at_edge[-1], ((1 - middle) * at_edge[-1] - width_before * edge_before) / size
        previous, current, width_before = current, step / size, size
        centre.append(middle)
        width.append(size)
        at_edge.append(edge)
    return centre, width, start, at_edge
