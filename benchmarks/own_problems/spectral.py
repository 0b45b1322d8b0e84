"""References on a ring: Fourier series by exponential Runge-Kutta steps, whose linear part is exact."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cpikan.learning.strategies.line_series import from_nodes, nodes

_MODES, _STEPS, _SLICES, _DEGREE = 512, 12, 40, 14
_CONTOUR = 32
Values = Callable[[np.ndarray], np.ndarray]


def ring_solution(
    symbol: Values,
    nonlinear: Callable[[np.ndarray, Values], np.ndarray],
    start: Values,
    length: float,
    end: float,
    bends: tuple[int, ...] = (),
) -> Values:
    """Solve u_t = L u + N(u) on [0, length] to ``end``, by Fourier modes in space and ETDRK4 in time.

    ``symbol`` gives L (outputs, k) for wave numbers k, ``nonlinear`` N of values (outputs, n) and of a function that
    differentiates by x. Times in between are those of Chebyshev series on slices, from steps that end at their nodes.
    ``bends`` names outputs whose second derivatives are appended. Gives a function of (n, 2) points x, t to (n, outputs).
    Kassam and Trefethen, SIAM J. Sci. Comput. 26, 1214 (2005).
    """
    x = np.arange(_MODES) * length / _MODES
    k = 2 * np.pi / length * np.fft.fftfreq(_MODES, 1 / _MODES)
    linear = symbol(k)
    keep = np.abs(np.fft.fftfreq(_MODES, 1 / _MODES)) <= _MODES / 3

    def slopes(values: np.ndarray) -> np.ndarray:
        return np.fft.ifft(1j * k * np.fft.fft(values)).real

    def rate(hat: np.ndarray) -> np.ndarray:
        return keep * np.fft.fft(nonlinear(np.fft.ifft(hat).real, slopes))

    share = np.append(np.sort((nodes(_DEGREE) + 1) / 2), 1.0)
    coefficients = {gap: _phi(linear, gap * end / _SLICES / _STEPS) for gap in np.diff(share, prepend=0.0)}
    hat, series = np.fft.fft(start(x)), []
    for _ in range(_SLICES):
        found = []
        for gap in np.diff(share, prepend=0.0):
            for _ in range(_STEPS):
                hat = _step(hat, rate, gap * end / _SLICES / _STEPS, coefficients[gap])
            found.append(hat)
        at_nodes = np.stack(found[:-1])[np.argsort(np.argsort(nodes(_DEGREE)))]
        series.append(np.tensordot(from_nodes(_DEGREE), at_nodes, 1))
    return _evaluated(np.stack(series), k, end, bends)


def _evaluated(series: np.ndarray, k: np.ndarray, end: float, bends: tuple[int, ...]) -> Values:
    """Make the function of points of Chebyshev coefficients (slices, degree, outputs, modes)."""
    used = np.abs(series).max(axis=(0, 1, 2)) > 1e-15 * np.abs(series).max()
    series, k = series[..., used] / len(k), k[used]
    series = np.concatenate([series, *(-(k**2) * series[:, :, o : o + 1] for o in bends)], axis=2)

    def solution(points: np.ndarray) -> np.ndarray:
        out = np.empty((len(points), series.shape[2]))
        for part in np.array_split(np.arange(len(points)), max(1, len(points) // 2000)):
            place = points[part, 1] / end * len(series)
            number = np.clip(place.astype(int), 0, len(series) - 1)
            basis = np.polynomial.chebyshev.chebvander(2 * (place - number) - 1, series.shape[1] - 1)
            wave = np.exp(1j * points[part, 0][:, None] * k)
            for one in np.unique(number):
                mine = number == one
                hat = np.tensordot(basis[mine], series[one], 1)
                out[part[mine]] = np.einsum("nom,nm->no", hat, wave[mine]).real
        return out

    return solution


def _phi(linear: np.ndarray, step: float) -> tuple[np.ndarray, ...]:
    """Compute the weights of a step by means over a circle, where their formulas lose no digits."""
    circle = np.exp(1j * np.pi * (np.arange(_CONTOUR) + 0.5) / _CONTOUR)
    z = step * linear[..., None] + circle
    e = np.exp(z)
    parts = (
        *((np.exp(z / 2) - 1) / z, (-4 - z + e * (4 - 3 * z + z**2)) / z**3),
        *((2 + z + e * (z - 2)) / z**3, (-4 - 3 * z - z**2 + e * (4 - z)) / z**3),
    )
    return np.exp(step * linear), np.exp(step * linear / 2), *(step * part.mean(axis=-1).real for part in parts)


def _step(hat: np.ndarray, rate: Values, step: float, weights: tuple[np.ndarray, ...]) -> np.ndarray:
    whole, half, q, first, middle, last = weights
    at_start = rate(hat)
    a = half * hat + q * at_start
    at_a = rate(a)
    at_b = rate(half * hat + q * at_a)
    at_c = rate(half * a + q * (2 * at_b - at_start))
    return np.asarray(whole * hat + first * at_start + 2 * middle * (at_a + at_b) + last * at_c)
