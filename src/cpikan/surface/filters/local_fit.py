"""Regression around every pixel of an image at once, from the weighted moments of what lies around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Powers = tuple[int, int]

TERMS: dict[int, tuple[Powers, ...]] = {0: ((0, 0),), 2: ((0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (2, 0))}
_LEAST_PIVOT, _LEAST_SHARE, _TINY = 1e-9, 1e-12, 1e-280


def moments_needed(order: int) -> tuple[tuple[Powers, ...], tuple[Powers, ...]]:
    """List the powers (y, x) whose moments a regression of ``order`` needs: of the heights, and of the weights."""
    terms = TERMS[order]
    products = {(a[0] + b[0], a[1] + b[1]) for a in terms for b in terms}
    return terms, tuple(sorted(products))


def fitted_height(
    order: int, heights: Callable[[Powers], FloatArray], weights: Callable[[Powers], FloatArray]
) -> FloatArray:
    """Solve for the height at the origin of polynomials of ``order`` from moments by powers (y, x); NaN without weight.

    Terms that the pixels around do not determine are left out, from the highest on: what is left of a second-order
    regression on too few pixels is one of first or zero order.
    """
    terms = TERMS[order]
    if order == 0:
        return _ratio(heights((0, 0)), weights((0, 0)))
    matrix = {
        (i, j): weights((a[0] + b[0], a[1] + b[1])).copy() for i, a in enumerate(terms) for j, b in _upto(terms, i)
    }
    right = [heights(term).copy() for term in terms]
    # what is lost to rounding, and what weighs nothing beside the pixel itself
    least = [np.maximum(_LEAST_PIVOT * matrix[i, i], _LEAST_SHARE * matrix[0, 0] + _TINY) for i in range(len(terms))]
    for last in range(len(terms) - 1, 0, -1):  # the constant term is eliminated last
        pivot = matrix[last, last]
        inverse = np.where(pivot > least[last], 1.0, 0.0) / np.where(pivot > least[last], pivot, 1.0)
        for i in range(last):
            factor = matrix[last, i] * inverse
            right[i] -= factor * right[last]
            for j in range(i + 1):
                matrix[i, j] -= factor * matrix[last, j]
    return _ratio(right[0], matrix[0, 0])


def _upto(terms: Sequence[Powers], last: int) -> list[tuple[int, Powers]]:
    return list(enumerate(terms))[: last + 1]


def _ratio(over: FloatArray, under: FloatArray) -> FloatArray:
    found = np.full(over.shape, np.nan)
    np.divide(over, under, out=found, where=under > 0)
    return found
