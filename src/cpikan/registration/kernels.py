"""Loops over pixels for maps that are laid on each other; a pixel that is not finite was not measured."""

from __future__ import annotations

import math

import numpy as np

from cpikan.compiled import compiled


@compiled
def _cubic(t, weights):  # type: ignore[no-untyped-def]
    """Fill the four weights of cubic convolution (Keys, IEEE ASSP 29, 1153 (1981), a = -1/2) at ``t`` from the second."""
    weights[0] = ((-0.5 * t + 1.0) * t - 0.5) * t
    weights[1] = (1.5 * t - 2.5) * t * t + 1.0
    weights[2] = ((-1.5 * t + 2.0) * t + 0.5) * t
    weights[3] = (0.5 * t - 0.5) * t * t


@compiled
def resample_tile(source, origin, matrix, start, out):  # type: ignore[no-untyped-def]
    """Sample a window of a source whose first pixel is ``origin`` (row, column) at the pixels of a tile from ``start``.

    ``matrix`` (2, 3) leads from a row and column of the output to those of the source: m[:, 0] row + m[:, 1] column + m[:, 2].
    Cubic where the 16 pixels around are valid, else linear; NaN where one of the linear ones is missing.
    """
    height, width = source.shape
    wy, wx = np.empty(4), np.empty(4)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            row, column = start[0] + i, start[1] + j
            y = matrix[0, 0] * row + matrix[0, 1] * column + matrix[0, 2] - origin[0]
            x = matrix[1, 0] * row + matrix[1, 1] * column + matrix[1, 2] - origin[1]
            top, left = math.floor(y), math.floor(x)
            ty, tx = y - top, x - left
            if ty < 1e-9 or ty > 1 - 1e-9:  # on a row: it alone
                top, ty = round(y), 0.0
            if tx < 1e-9 or tx > 1 - 1e-9:
                left, tx = round(x), 0.0
            out[i, j] = math.nan
            bottom, right = top + (ty > 0), left + (tx > 0)
            if top < 0 or left < 0 or bottom >= height or right >= width:
                continue
            value = (1 - ty) * ((1 - tx) * source[top, left] + tx * source[top, right]) + ty * (
                (1 - tx) * source[bottom, left] + tx * source[bottom, right]
            )
            if not math.isfinite(value):
                continue
            out[i, j] = value
            if (ty > 0 or tx > 0) and top >= 1 and left >= 1 and top + 2 < height and left + 2 < width:
                _cubic(ty, wy)
                _cubic(tx, wx)
                total = 0.0
                for a in range(4):
                    along = 0.0
                    for b in range(4):
                        if wx[b] != 0.0:
                            along += wx[b] * source[top - 1 + a, left - 1 + b]
                    if wy[a] != 0.0:
                        total += wy[a] * along
                if math.isfinite(total):
                    out[i, j] = total
