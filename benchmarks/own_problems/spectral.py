"""References on a ring: Fourier series by exponential Runge-Kutta steps, whose linear part is exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cpikan.learning.strategies.line_series import from_nodes, nodes

_CONTOUR = 32
Values = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Resolution:
    """``modes`` in space, ``slices`` of time with a Chebyshev series of ``degree`` each, ``steps`` between their nodes."""

    modes: int = 512
    slices: int = 40
    degree: int = 14
    steps: int = 12


USUAL = Resolution()


def ring_solution(
    symbol: Values,
    nonlinear: Callable[[np.ndarray, Values], np.ndarray],
    start: Values,
    length: float,
    end: float,
    bends: tuple[int, ...] = (),
    resolution: Resolution = USUAL,
) -> Values:
    """Solve u_t = L u + N(u) on [0, length] to ``end``, by Fourier modes in space and ETDRK4 in time.

    ``symbol`` gives L (outputs, k) for wave numbers k, ``nonlinear`` N of values (outputs, n) and of a function that
    differentiates by x. Times in between are those of Chebyshev series on slices, from steps that end at their nodes.
    ``bends`` names outputs whose second derivatives are appended. Gives a function of (n, 2) points x, t to (n, outputs).
    Kassam and Trefethen, SIAM J. Sci. Comput. 26, 1214 (2005).
    """
    modes = resolution.modes
    x = np.arange(modes) * length / modes
    number = np.fft.fftfreq(modes, 1 / modes)
    k = 2 * np.pi / length * number
    keep = np.abs(number) <= modes / 3

    def slopes(values: np.ndarray) -> np.ndarray:
        return np.fft.ifft(1j * k * np.fft.fft(values)).real

    def rate(hat: np.ndarray) -> np.ndarray:
        return keep * np.fft.fft(nonlinear(np.fft.ifft(hat).real, slopes))

    return evaluated(time_series(symbol(k), rate, np.fft.fft(start(x)), end, resolution), k, end, bends)


def time_series(linear: np.ndarray, rate: Values, hat: np.ndarray, end: float, resolution: Resolution) -> np.ndarray:
    """Step the amplitudes ``hat`` of modes to ``end``: Chebyshev coefficients (slices, degree, *modes)."""
    degree, slices, steps = resolution.degree, resolution.slices, resolution.steps
    share = np.append(np.sort((nodes(degree) + 1) / 2), 1.0)
    gaps = np.diff(share, prepend=0.0)
    weights = {gap: _phi(linear, gap * end / slices / steps) for gap in gaps}
    series = []
    for _ in range(slices):
        found = []
        for gap in gaps:
            for _ in range(steps):
                hat = _step(hat, rate, gap * end / slices / steps, weights[gap])
            found.append(hat)
        at_nodes = np.stack(found[:-1])[np.argsort(np.argsort(nodes(degree)))]
        series.append(np.tensordot(from_nodes(degree), at_nodes, 1))
    return np.stack(series)


def ring_waves(
    slope: Callable[[float, np.ndarray], np.ndarray], start: Values, length: float, end: float, modes: int, degree: int
) -> Values:
    """Solve y' = slope(t, y) for values of several outputs (outputs * modes,) at even points of a ring, by DOP853.

    For equations whose linear part is not diagonal. ``start`` gives (outputs, n). Gives a function as `ring_solution` does.
    """
    from scipy.integrate import solve_ivp

    x = np.arange(modes) * length / modes
    begin = start(x)
    order = np.argsort(nodes(degree))
    times = end * (nodes(degree)[order] + 1) / 2
    found = solve_ivp(slope, (0, end), begin.ravel(), "DOP853", times, rtol=1e-13, atol=1e-14)
    at_nodes = np.fft.fft(found.y.T.reshape(len(times), len(begin), modes))[np.argsort(order)]
    k = 2 * np.pi / length * np.fft.fftfreq(modes, 1 / modes)
    return evaluated(np.tensordot(from_nodes(degree), at_nodes, 1)[None], k, end, ())


def evaluated(series: np.ndarray, k: np.ndarray, end: float, bends: tuple[int, ...]) -> Values:
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
    real = not np.iscomplexobj(linear)
    part_of_turn = 1 if real else 2  # real arguments have conjugate values on the other half
    circle = np.exp(1j * np.pi * part_of_turn * (np.arange(_CONTOUR * part_of_turn) + 0.5) / (_CONTOUR * part_of_turn))
    z = step * linear[..., None] + circle
    e = np.exp(z)
    parts = (
        *((np.exp(z / 2) - 1) / z, (-4 - z + e * (4 - 3 * z + z**2)) / z**3),
        *((2 + z + e * (z - 2)) / z**3, (-4 - 3 * z - z**2 + e * (4 - z)) / z**3),
    )
    means = [step * part.mean(axis=-1) for part in parts]
    return np.exp(step * linear), np.exp(step * linear / 2), *(mean.real if real else mean for mean in means)


def _step(hat: np.ndarray, rate: Values, step: float, weights: tuple[np.ndarray, ...]) -> np.ndarray:
    whole, half, q, first, middle, last = weights
    at_start = rate(hat)
    a = half * hat + q * at_start
    at_a = rate(a)
    at_b = rate(half * hat + q * at_a)
    at_c = rate(half * a + q * (2 * at_b - at_start))
    return np.asarray(whole * hat + first * at_start + 2 * middle * (at_a + at_b) + last * at_c)
