"""The lid-driven cavity by its stream function: a reference that shares nothing with `cavity` but the corners' flow.

psi = both corners' flows + sum c_ij T_i(x) T_j(y) satisfies psi_y Lap psi_x - psi_x Lap psi_y = Lap Lap psi / Re at n + 8
Gauss points per axis and has the walls' values and slopes, by least squares and Newton's steps. The points' weights take off
what inertia leaves at the corners, r^-2.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import scipy.linalg
from numpy.polynomial import chebyshev

_EXTRA, _WALLS, _STEPS, _ENOUGH = 8, 1e3, 20, 1e-9
_SLOPE, _ALONG, _DOWN = np.array([-(math.pi**2), 4.0, 2 * math.pi]) / (math.pi**2 - 4)


def cavity_profiles(reynolds: float, y: np.ndarray, x: np.ndarray, modes: int = 28) -> tuple[np.ndarray, np.ndarray]:
    """Compute u at heights y of the vertical centre line, and v at places x of the horizontal one."""
    half = np.full(1, 0.5)
    u = velocity(reynolds, half, np.asarray(y), modes)[0][0]
    v = velocity(reynolds, np.asarray(x), half, modes)[1][:, 0]
    return u, v


def velocity(reynolds: float, x: np.ndarray, y: np.ndarray, modes: int = 28) -> tuple[np.ndarray, np.ndarray]:
    """Compute u and v (x, y) on the grid of places x and heights y."""
    c, (bx, by) = _coefficients(reynolds, modes), (_basis(axis, modes, 1) for axis in (x, y))
    flow = _corners(*np.meshgrid(x, y, indexing="ij"))
    return bx[0] @ c @ by[1].T + flow["y"], -(bx[1] @ c @ by[0].T) - flow["x"]


def stream(reynolds: float, x: np.ndarray, y: np.ndarray, modes: int = 28) -> np.ndarray:
    """Compute the stream function (x, y) on a grid."""
    c, (bx, by) = _coefficients(reynolds, modes), (_basis(axis, modes, 0) for axis in (x, y))
    found: np.ndarray = bx[0] @ c @ by[0].T + _corners(*np.meshgrid(x, y, indexing="ij"))[""]
    return found


@cache
def _coefficients(reynolds: float, modes: int) -> np.ndarray:
    """Solve for c (modes, modes)."""
    count = modes + _EXTRA
    t = (1 - np.cos(np.pi * (np.arange(count) + 0.5) / count)) / 2
    basis = _basis(t, modes, 4)

    def rows(by_x: int, by_y: int) -> np.ndarray:
        return np.einsum("pi,qj->pqij", basis[by_x], basis[by_y]).reshape(count**2, modes**2)

    x, y = (axis.ravel() for axis in np.meshgrid(t, t, indexing="ij"))
    flow = _corners(x, y)
    slopes = {"x": rows(1, 0), "y": rows(0, 1), "gx": rows(3, 0) + rows(1, 2), "gy": rows(2, 1) + rows(0, 3)}
    bend = (rows(4, 0) + 2 * rows(2, 2) + rows(0, 4)) / reynolds
    near = np.minimum(np.hypot(x, 1 - y), np.hypot(1 - x, 1 - y)) ** 2
    weight = near * np.minimum.reduce([x, 1 - x, y, 1 - y])  # points crowd at the walls
    walls, wanted = _wall_rows(t, basis)
    c = np.zeros(modes**2)
    for _ in range(_STEPS):
        px, py, gx, gy = (slopes[name] @ c + flow[name] for name in ("x", "y", "gx", "gy"))
        missed = py * gx - px * gy - bend @ c
        change = py[:, None] * slopes["gx"] + gx[:, None] * slopes["y"]
        change -= px[:, None] * slopes["gy"] + gy[:, None] * slopes["x"] + bend
        system = np.concatenate([weight[:, None] * change, _WALLS * walls])
        left = -np.concatenate([weight * missed, _WALLS * (walls @ c - wanted)])
        scale = np.linalg.norm(system, axis=0)
        step = scipy.linalg.lstsq(system / scale, left, cond=1e-14, lapack_driver="gelsy")[0] / scale
        c += step
        if np.abs(step).max() < _ENOUGH:
            break
    return c.reshape(modes, modes)


def _wall_rows(t: np.ndarray, basis: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Write down psi = 0 and its slopes, u = 1 on the lid alone, at points t of all walls: rows, and what they have to be."""
    modes = basis[0].shape[1]
    ends = _basis(np.array([0.0, 1.0]), modes, 1)
    rows, wanted = [], []
    for end in (0, 1):
        there = np.full(len(t), float(end))
        beside, along = _corners(there, t), _corners(t, there)
        for by, name in enumerate(("", "x")):
            rows.append(np.einsum("i,qj->qij", ends[by][end], basis[0]).reshape(len(t), -1))
            wanted.append(-beside[name])
        for by, name in enumerate(("", "y")):
            rows.append(np.einsum("qi,j->qij", basis[0], ends[by][end]).reshape(len(t), -1))
            wanted.append(float(end * by) - along[name])
    return np.concatenate(rows), np.concatenate(wanted)


def _basis(t: np.ndarray, modes: int, highest: int) -> list[np.ndarray]:
    """Evaluate Chebyshev polynomials on [0, 1] with their derivatives, (points, modes) each."""
    unit = np.eye(modes)
    return [
        np.stack([2.0**by * chebyshev.chebval(2 * t - 1, chebyshev.chebder(one, by)) for one in unit], axis=1)
        for by in range(highest + 1)
    ]


def _corners(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Evaluate the corners' stream function "", its slopes "x" and "y", and the slopes "gx" and "gy" of its Laplacian."""
    left, right = _corner(x, 1 - y), _corner(1 - x, 1 - y)
    return {
        "": left[0] + right[0],
        "x": left[1] - right[1],
        "y": -left[2] - right[2],
        "gx": left[3] - right[3],
        "gy": -left[4] - right[4],
    }


def _corner(x: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, ...]:
    """Evaluate psi = a s + b t x + c t s, t the angle of (x, s), s down from the lid: itself, slopes, slopes of its
    Laplacian."""
    t, square = np.arctan2(s, x), np.maximum(x * x + s * s, 1e-300)
    laplacian = 2 * (_DOWN * x - _ALONG * s) / square
    return (
        _SLOPE * s + _ALONG * t * x + _DOWN * t * s,
        _ALONG * t - (_ALONG * x * s + _DOWN * s * s) / square,
        _SLOPE + _DOWN * t + (_ALONG * x * x + _DOWN * x * s) / square,
        2 * (_DOWN - x * laplacian) / square,
        -2 * (_ALONG + s * laplacian) / square,
    )
