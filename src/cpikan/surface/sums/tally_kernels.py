"""One pass over a block of heights for all that is summed of it; NaN is not looked at.

Finite is |v| < inf here: sums may be reordered, and v - v == 0, which isfinite compiles to, would be taken for true.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from cpikan.compiled import compiled

_jit: Any = functools.partial(compiled, error_model="numpy", fastmath={"reassoc", "contract", "nsz"}, boundscheck=False)


@_jit
def height_sums(heights, around):  # type: ignore[no-untyped-def]
    """Sum up rows (rows, W): count, minimum, maximum, sum of |d|, d, d^2, d^3, d^4 with d = height - ``around``."""
    total = np.zeros(8)
    total[1], total[2] = math.inf, -math.inf
    for y in range(heights.shape[0]):
        count = absolute = first = second = third = fourth = 0.0
        low, high = math.inf, -math.inf
        for x in range(heights.shape[1]):
            value = np.float64(heights[y, x])
            good = abs(value) < math.inf
            low, high = min(low, value if good else math.inf), max(high, value if good else -math.inf)
            d = value - around if good else 0.0
            square = d * d
            count += 1.0 if good else 0.0
            absolute += abs(d)
            first += d
            second += square
            third += d * square
            fourth += square * square
        total[0] += count
        total[1], total[2] = min(total[1], low), max(total[2], high)
        total[3] += absolute
        total[4] += first
        total[5] += second
        total[6] += third
        total[7] += fourth
    return total


@_jit
def difference_sums(left, right, shown):  # type: ignore[no-untyped-def]
    """Sum up the finite differences right - left (rows, W): count, sum of squares, minimum and maximum.

    The last two are those of ``shown`` at these pixels where it is given.
    """
    count = square = 0.0
    low, high = math.inf, -math.inf
    for y in range(left.shape[0]):
        in_row = 0.0
        for x in range(left.shape[1]):
            step = np.float64(right[y, x]) - np.float64(left[y, x])
            value = step if shown is None else shown[y, x]
            good = abs(step) < math.inf
            low, high = min(low, value if good else math.inf), max(high, value if good else -math.inf)
            count += 1.0 if good else 0.0
            step = step if good else 0.0
            in_row += step * step
        square += in_row
    return count, square, low, high


@_jit
def combine(maps, combination, valid, form, rest):  # type: ignore[no-untyped-def]
    """Fill ``rest`` (rows, W) with the combination of maps (maps, rows, W) without the form, NaN where not valid."""
    for y in range(rest.shape[0]):
        for x in range(rest.shape[1]):
            value = 0.0
            for k in range(maps.shape[0]):
                value += combination[k] * maps[k, y, x]
            rest[y, x] = value - form[y, x] if valid[y, x] else math.nan


_FLAT = 1e-3  # squares of slopes below it: four terms of the series of the root are exact to 5e-14


@_jit
def _excess(square):  # type: ignore[no-untyped-def]
    """Compute sqrt(1 + square) - 1 without loss for flat surfaces."""
    return square / (math.sqrt(1.0 + square) + 1.0)


@_jit
def _flat_excess(square):  # type: ignore[no-untyped-def]
    return square * (0.5 - square * (0.125 - square * (0.0625 - square * 0.0390625)))


@_jit
def area_sums(heights, pixel_y, pixel_x):  # type: ignore[no-untyped-def]
    """Sum up the cells between finite heights (rows, W): count, and area over that of the plane, minus 1.

    A cell is cut along both diagonals, and the areas of the two surfaces of triangles are averaged. A row without a steep
    cell is summed by the series of the square root, others again by the root itself.
    """
    count = excess = 0.0
    across, down = 1.0 / pixel_x, 1.0 / pixel_y
    for y in range(heights.shape[0] - 1):
        steepest = cells = flat = 0.0
        for x in range(heights.shape[1] - 1):
            top, bottom = (
                (heights[y, x + 1] - heights[y, x]) * across,
                (heights[y + 1, x + 1] - heights[y + 1, x]) * across,
            )
            left, right = (heights[y + 1, x] - heights[y, x]) * down, (heights[y + 1, x + 1] - heights[y, x + 1]) * down
            a, b, c, d = top * top, bottom * bottom, left * left, right * right
            good = a + b + c + d < math.inf
            cells += 1.0 if good else 0.0
            steepest = max(steepest, a + b + c + d if good else 0.0)
            found = _flat_excess(a + c) + _flat_excess(a + d) + _flat_excess(b + c) + _flat_excess(b + d)
            flat += found if good else 0.0
        count += cells
        if steepest < _FLAT:
            excess += flat
            continue
        for x in range(heights.shape[1] - 1):
            top, bottom = (
                (heights[y, x + 1] - heights[y, x]) * across,
                (heights[y + 1, x + 1] - heights[y + 1, x]) * across,
            )
            left, right = (heights[y + 1, x] - heights[y, x]) * down, (heights[y + 1, x + 1] - heights[y, x + 1]) * down
            a, b, c, d = top * top, bottom * bottom, left * left, right * right
            found = _excess(a + c) + _excess(a + d) + _excess(b + c) + _excess(b + d)
            excess += found if a + b + c + d < math.inf else 0.0
    return count, excess / 4.0
