"""A flow on a torus: vorticity in Fourier modes by exponential Runge-Kutta steps, velocities from it."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from own_problems.spectral import Resolution, Values, time_series

SIDE, END, VISCOSITY = 2 * math.pi, 0.1, 0.01
_FASTEST, _PEAK, _HIGHEST, _SEED = (
    3.0,
    2.0,
    4,
    0,
)  # speed, wave number that most of it has, the largest, and the drawing


@cache
def _waves() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the stream function of the start: wave numbers (n, 2), amplitudes (n,), phases (n,)."""
    span = np.arange(-_HIGHEST, _HIGHEST + 1)
    k = np.array([(a, b) for a in span for b in span if (a, b) > (0, 0) and a * a + b * b <= _HIGHEST**2], float)
    random = np.random.default_rng(_SEED)
    size = np.hypot(*k.T)
    amplitude = random.standard_normal(len(k)) * np.exp(-(np.log(size / _PEAK) ** 2) / 0.5) / size
    phase = random.uniform(0, SIDE, len(k))
    ticks = np.arange(64) * SIDE / 64
    grid = np.stack(np.meshgrid(ticks, ticks, indexing="ij"), axis=-1)
    fastest = float(_velocity(torch.from_numpy(grid), k, amplitude, phase).norm(dim=-1).max())
    return k, amplitude * _FASTEST / fastest, phase


def _velocity(x: Tensor, k: np.ndarray, amplitude: np.ndarray, phase: np.ndarray) -> Tensor:
    """Evaluate the velocities (..., 2) of a stream function sum a cos(k x + phase): its slopes by y, and by x, negative."""
    waves, sizes, shifts = (torch.from_numpy(part) for part in (k, amplitude, phase))
    wave = -sizes * torch.sin(x @ waves.T + shifts)
    return torch.stack([wave @ waves[:, 1], -wave @ waves[:, 0]], dim=-1)


def torus_start(x: Tensor) -> Tensor:
    """Evaluate the velocities (..., 2) at the start, at points (..., 2): waves of random amplitudes and phases.

    Their sizes have a peak at wave number 2, and the largest speed is 3. By torch alone: forms that hold them need slopes.
    """
    return _velocity(x, *_waves())


def torus_flow(modes: int = 96, degree: int = 14, steps: int = 20) -> Values:
    """Solve for the velocities: a function of points (n, 3) of x, y, t to (n, 2)."""
    k = np.fft.fftfreq(modes, 1 / modes)
    kx, ky = np.meshgrid(k, k, indexing="ij")
    square = kx**2 + ky**2
    keep = (np.abs(kx) <= modes / 3) & (np.abs(ky) <= modes / 3)
    by_x, by_y = 1j * kx, 1j * ky
    stream = 1 / np.where(square == 0, np.inf, square)  # of the vorticity -Laplacian psi

    def values(hat: np.ndarray) -> np.ndarray:
        return np.fft.ifft2(hat).real

    def rate(w: np.ndarray) -> np.ndarray:
        carried = values(by_y * stream * w) * values(by_x * w) - values(by_x * stream * w) * values(by_y * w)
        return -np.where(keep, np.fft.fft2(carried), 0)

    ticks = np.arange(modes) * SIDE / modes
    grid = np.stack(np.meshgrid(ticks, ticks, indexing="ij"), axis=-1)
    u, v = np.moveaxis(torus_start(torch.from_numpy(grid)).numpy(), -1, 0)
    start = by_x * np.fft.fft2(v) - by_y * np.fft.fft2(u)
    series = time_series(-VISCOSITY * square, rate, start, END, Resolution(modes, 1, degree, steps))[0]
    velocities = np.stack([by_y * stream * series, -by_x * stream * series]) / modes**2
    return _evaluated(velocities, k)


def _evaluated(velocities: np.ndarray, k: np.ndarray) -> Values:
    """Make the function of points of Chebyshev coefficients in time of modes (2, degree, kx, ky)."""
    used = np.abs(k) <= max(np.abs(k[np.abs(velocities).max(axis=(0, 1, 3)) > 1e-16]), default=0)
    velocities, k = velocities[:, :, used][..., used], k[used]

    def solution(points: np.ndarray) -> np.ndarray:
        out = np.empty((len(points), 2))
        for part in np.array_split(np.arange(len(points)), max(1, len(points) // 1000)):
            times, place = np.unique(points[part, 2], return_inverse=True)
            basis = np.polynomial.chebyshev.chebvander(2 * times / END - 1, velocities.shape[1] - 1)
            ex, ey = (np.exp(1j * points[part, axis][:, None] * k) for axis in (0, 1))
            at_times = np.einsum("td,odxy->toxy", basis, velocities)
            for one in range(len(times)):
                mine = place == one
                found = np.einsum("nx,oxy->noy", ex[mine], at_times[one])
                out[part[mine]] = np.einsum("noy,ny->no", found, ey[mine]).real
        return out

    return solution
