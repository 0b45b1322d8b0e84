"""LineSeries: a function of one coordinate as Chebyshev series on intervals, halved until each of them converges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_MODES = 16
_NARROWEST = 2.0**-13  # of the whole line
_ROUNDING, _STUCK = 1e-9, 0.3  # a tail so small that hardly falls when its interval is halved is rounding
Values = Callable[[np.ndarray], np.ndarray]  # of coordinates (n,), (n, outputs)


@dataclass(frozen=True)
class LineSeries:
    """``knots`` (K + 1,) of the intervals and coefficients (K, modes, outputs) on each."""

    knots: np.ndarray
    coefficients: np.ndarray

    def derivatives(self, order: int, samples: int) -> np.ndarray:
        """Evaluate a derivative at even places of every interval, ends included, (K, samples, outputs)."""
        unit = np.linspace(-1, 1, samples)
        table = np.polynomial.chebyshev.chebder(self.coefficients, order, axis=1) if order else self.coefficients
        basis = np.polynomial.chebyshev.chebvander(unit, table.shape[1] - 1)
        found = np.einsum("sm,kmo->kso", basis, table)
        return np.asarray(found * (2 / np.diff(self.knots))[:, None, None] ** order)

    def places(self, samples: int) -> np.ndarray:
        """Give the coordinates of `derivatives`, (K, samples)."""
        share = np.linspace(0, 1, samples)
        return self.knots[:-1, None] + share * np.diff(self.knots)[:, None]


def nodes(modes: int) -> np.ndarray:
    """Give the roots of T_modes, (modes,) on [-1, 1]."""
    return np.asarray(np.cos(np.pi * (np.arange(modes) + 0.5) / modes))


def from_nodes(modes: int) -> np.ndarray:
    """Give the matrix that turns values at `nodes` into the coefficients of the interpolating series, (modes, modes)."""
    basis = np.polynomial.chebyshev.chebvander(nodes(modes), modes - 1)
    return np.asarray(basis.T * np.where(np.arange(modes) == 0, 1, 2)[:, None] / modes)


def line_series(values: Values, low: float, high: float, tolerance: float) -> LineSeries:
    """Interpolate values on intervals until the last two coefficients are below ``tolerance`` times the largest value.

    An interval is not halved below the 8192nd of the line, nor where halving it has shown that the rest is rounding.
    """
    matrix, unit = from_nodes(_MODES), nodes(_MODES)

    def fitted(a: float, b: float) -> np.ndarray:
        return np.asarray(matrix @ values((a + b) / 2 + (b - a) / 2 * unit))

    def tail(table: np.ndarray) -> np.ndarray:
        return np.asarray(np.abs(table[-2:]).max(axis=0))

    whole = fitted(low, high)
    size = np.maximum(np.abs(values(np.linspace(low, high, 257))).max(axis=0), 1e-300)
    todo, done = [(low, high, whole, np.full(whole.shape[1], np.inf))], []
    while todo:
        a, b, table, before = todo.pop()
        left = tail(table) / size
        rough = (left > tolerance) & ~((left < _ROUNDING) & (left > _STUCK * before))
        if rough.any() and b - a > _NARROWEST * (high - low):
            middle = (a + b) / 2
            todo += [(p, q, fitted(p, q), left) for p, q in ((a, middle), (middle, b))]
        else:
            done.append((a, b, table))
    done.sort(key=lambda one: one[0])
    knots = np.array([one[0] for one in done] + [high])
    return LineSeries(knots, np.stack([one[2] for one in done]))
