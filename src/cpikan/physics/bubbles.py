"""Bubbles: polynomials on a box that vanish on its boundary, orthonormal in the inner product of gradients.

In one dimension they are integrated Legendre polynomials, phi_k' = sqrt((2 k + 1) / 2) P_k (Szabo and Babuska 1991), turned so
that they are orthogonal in L2 too; their products over axes are then orthogonal in both, and divided by their length. Sums
of squares of <r, phi_k> are thus the square of the dual norm of r on the span: that of H^-1 (Rojas, Maczuga, Munoz-Matute,
Pardo and Paszynski, CMAME 2024).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.polynomial import legendre

from cpikan.errors import InputError


class BubbleJet(NamedTuple):
    """Values (n, K) of K functions with their first and unmixed second derivatives (n, K, d)."""

    value: np.ndarray
    gradient: np.ndarray
    second: np.ndarray


def bubbles(points: np.ndarray, lower: Sequence[float], upper: Sequence[float], count: int) -> BubbleJet:
    """Evaluate the count^d bubbles of a box at points (n, d) in it; raises InputError for ``count`` below 1."""
    if count < 1:
        raise InputError(f"{count} test functions per axis: give at least 1")
    lengths = np.asarray(upper, float) - np.asarray(lower, float)
    turned, squares = _turned(count)
    axes = []
    for axis, length in enumerate(lengths):
        unit = 2 * (points[:, axis] - lower[axis]) / length - 1
        axes.append([part @ turned * (2 / length) ** order for order, part in enumerate(_integrated(unit, count))])
    gradients = _gradient_squares(squares, lengths) ** -0.5
    value = _multiplied([jet[0] for jet in axes]) * gradients
    slopes, bends = (
        np.stack(
            [_multiplied([jet[order if a == b else 0] for b, jet in enumerate(axes)]) for a in range(len(axes))],
            axis=-1,
        )
        for order in (1, 2)
    )
    return BubbleJet(value, slopes * gradients[:, None], bends * gradients[:, None])


def _integrated(unit: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Evaluate the integrals of Legendre polynomials 1 ... count on [-1, 1], with two derivatives, (n, count) each."""
    table = legendre.legvander(unit, count + 1)
    degree = np.arange(1, count + 1)
    scale = np.sqrt((2 * degree + 1) / 2)
    value = scale / (2 * degree + 1) * (table[:, 2:] - table[:, :-2])
    second = np.stack([legendre.legval(unit, legendre.legder(np.eye(count + 1)[k])) for k in degree], axis=-1)
    return value, scale * table[:, 1:-1], scale * second


@cache
def _turned(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the rotation (count, count) that makes them orthogonal in L2, and their squares there, (count,)."""
    nodes, weights = legendre.leggauss(count + 2)
    value = _integrated(nodes, count)[0]
    squares, turned = np.linalg.eigh(value.T @ (weights[:, None] * value))
    return turned, squares


def _gradient_squares(squares: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Sum the squared slopes of the products of functions along the axes, (count^d,)."""
    along = [(2 / length * np.ones_like(squares), length / 2 * squares) for length in lengths]  # of slopes, of values
    parts = []
    for axis in range(len(lengths)):
        factors = [pair[0 if other == axis else 1] for other, pair in enumerate(along)]
        parts.append(_multiplied([factor[None] for factor in factors])[0])
    return np.asarray(sum(parts[1:], parts[0]))


def _multiplied(factors: Sequence[np.ndarray]) -> np.ndarray:
    """Multiply functions of single axes (n, K) to functions of all, (n, K^d), the last axis fastest."""
    found = factors[0]
    for factor in factors[1:]:
        found = (found[:, :, None] * factor[:, None, :]).reshape(len(found), -1)
    return found


def faces(lower: Sequence[float], upper: Sequence[float]) -> list[tuple[int, float, float]]:
    """List the faces of a box: the axis, the coordinate there and the outward normal along that axis."""
    ends = itertools.product(range(len(lower)), ((lower, -1.0), (upper, 1.0)))
    return [(axis, float(corner[axis]), sign) for axis, (corner, sign) in ends]
