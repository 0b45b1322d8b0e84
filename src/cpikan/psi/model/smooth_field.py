"""A smooth field over the image: a sum of Chebyshev polynomials of the rows and columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev

_BEYOND = 1.1  # of the box, as the segments of interpolated weights reach across its edge


@dataclass(frozen=True)
class SmoothField:
    """sum_ij ``coefficients``[i, j] T_i(y') T_j(x'), y' and x' in [-1, 1] as y and x go over ``box``, (low, high) of each."""

    box: tuple[tuple[float, float], tuple[float, float]]
    coefficients: np.ndarray

    def at(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Evaluate the field at pixels (y, x) of any common shape; well beyond the box, the values near its edge."""
        scaled = [
            np.clip((2 * np.asarray(v, float) - (low + high)) / max(high - low, 1e-12), -_BEYOND, _BEYOND)
            for v, (low, high) in zip((y, x), self.box, strict=True)
        ]
        rows, columns = np.broadcast_arrays(*scaled)
        return np.asarray(chebyshev.chebval2d(rows, columns, self.coefficients))
