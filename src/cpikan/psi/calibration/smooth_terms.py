"""Smooth functions of two coordinates as sums of Chebyshev products T_i(y) T_j(x), i + j bounded."""

from __future__ import annotations

import numpy as np
from numpy.polynomial.chebyshev import chebvander

from cpikan.psi.model.frame_model import SmoothField

Box = tuple[tuple[float, float], tuple[float, float]]


def terms(degree: int) -> np.ndarray:
    """List the powers (i, j) of T_i(y) T_j(x) with i + j <= ``degree``, by rising i + j, (M, 2).

    The terms of a degree are those of the lower degree and more.
    """
    return np.array([(i, total - i) for total in range(degree + 1) for i in range(total + 1)])


def terms_by_row(degree: int) -> np.ndarray:
    """List the powers (i, j) with i + j <= ``degree``, by rising i and then j, (M, 2)."""
    return np.array([(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)])


def features(points: np.ndarray, degree: int) -> np.ndarray:
    """Evaluate T_i(y) T_j(x) at ``points`` (B, 2) in [-1, 1], in the order of `terms`, (B, M)."""
    return features_of(points, terms(degree))


def features_of(points: np.ndarray, powers: np.ndarray) -> np.ndarray:
    """Evaluate T_i(y) T_j(x) at ``points`` (B, 2) in [-1, 1] for the ``powers`` (M, 2), (B, M)."""
    y, x = (chebvander(axis, int(powers.max())) for axis in points.T)
    return np.asarray(y[:, powers[:, 0]] * x[:, powers[:, 1]])


def smooth_field(box: Box, powers: np.ndarray, coefficients: np.ndarray) -> SmoothField:
    """Sum terms ``powers`` (M, 2) with ``coefficients`` (M,) to a field over ``box``, (low, high) of y and x."""
    square = np.zeros((int(powers.max()) + 1,) * 2)
    square[powers[:, 0], powers[:, 1]] = coefficients
    return SmoothField(box, square)
