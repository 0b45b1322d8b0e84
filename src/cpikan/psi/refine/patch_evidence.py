"""What the phases of a pixel and of its neighbours on the same surface say together about their common order.

Votes of neighbours are no evidence of their own: a patch of pixels that all moved to a wrong order agrees with itself. What
tells is whether the phases of the whole patch fit better where they are than at any rival order, chi squared against chi
squared: noise is independent from pixel to pixel, errors that they share count once.
"""

from __future__ import annotations

import numpy as np

from cpikan.psi.kernels.cpu_phasors import jit
from cpikan.psi.kernels.cpu_search import order_misfit

RADIUS = 3  # pixels, of the patch
_f = np.float32
_NOWHERE = _f(1e9)
_SAME = _f(0.5)  # cycles: neighbours that lie closer are on the same surface


@jit
def fill_gaps(rows, order, search, first, heights, gaps):  # type: ignore[no-untyped-def]
    """Fill heights (cycles) and chi squared of every rival order less that of the pixel's, ``gaps`` (rivals, rows, W).

    The rows are those from ``first`` on of ``rows``; pixels that are no measurement lie nowhere.
    """
    phase, weight, ratio, rivals = rows.phase_cycles, rows.weight, search.ratio, search.rivals
    for r in range(heights.shape[0]):
        y = first + r
        for x in range(heights.shape[1]):
            if rows.flags[y, x] & np.uint8(1):
                heights[r, x] = _NOWHERE
                continue
            total = _f(0)
            for i in range(len(ratio)):
                total += weight[i, y, x] * (ratio[i] * ratio[i])
            variance = _f(1) / total
            anchor = phase[0, y, x] + order[y, x]
            misfit, shift = order_misfit(phase[:, y, :], weight[:, y, :], ratio, anchor, variance, x)
            heights[r, x] = anchor + shift
            for j in range(len(rivals)):
                other = order_misfit(phase[:, y, :], weight[:, y, :], ratio, anchor + rivals[j], variance, x)[0]
                gaps[j, r, x] = other - misfit


@jit
def least_gap(heights, gaps, r, x, shared):  # type: ignore[no-untyped-def]
    """Sum the gaps of the patch around a pixel for each rival order; the least of them, chi squared.

    ``shared`` is the share of the phase variance that is the same for the whole patch.
    """
    height, width = heights.shape
    least = _f(1e30)
    for j in range(gaps.shape[0]):
        total, count = _f(0), _f(0)
        for v in range(max(0, r - RADIUS), min(height, r + RADIUS + 1)):
            for u in range(max(0, x - RADIUS), min(width, x + RADIUS + 1)):
                if abs(heights[v, u] - heights[r, x]) < _SAME:
                    total += gaps[j, v, u]
                    count += _f(1)
        least = min(least, total / (_f(1) + (count - _f(1)) * shared))
    return least
