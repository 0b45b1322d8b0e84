"""Near-edge geometry: roll-off amount (ROA) and curvature (ZDD) of the radial profile of each sector."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cpikan.wafer.kernels import radial_sums
from cpikan.wafer.outline import Wafer

FloatArray = NDArray[np.float64]

# distances from the edge of the nominal diameter in mm; Kimura et al., Jpn. J. Appl. Phys. 38 (1999) 38 for the roll-off
REFERENCE_MM, ROLL_OFF_MM, CURVATURE_MM = (3.0, 6.0), 1.0, 2.0
POINT_HALF_MM, CURVATURE_HALF_MM = 0.25, 1.0  # half widths of the windows that values are fitted in
_FEWEST_PIXELS = 30  # below, a sector has no profile


class NearEdge:
    """Roll-off and curvature by sector, from bands of rows; sectors count counter-clockwise, the first begins at +x."""

    def __init__(self, wafer: Wafer, radius_mm: float, sectors: int) -> None:
        near, far = REFERENCE_MM
        self._windows = np.array(
            [
                [radius_mm - (near + far) / 2, (far - near) / 2],
                [radius_mm - ROLL_OFF_MM, POINT_HALF_MM],
                [radius_mm - CURVATURE_MM, CURVATURE_HALF_MM],
            ]
        )
        self._windows[1:, 1] = np.maximum(self._windows[1:, 1], 1.5 * max(wafer.pixel_mm))
        self._frame = wafer.frame
        self._sums = np.zeros((len(self._windows), sectors, 8))

    def add(self, start: int, heights: FloatArray) -> None:
        """Take rows from ``start``, heights in nm."""
        radial_sums(heights, start, self._frame, self._windows, self._sums.shape[1], self._sums)

    def roll_off_nm(self) -> FloatArray:
        """Give how far the profile lies below its line at 1 mm from the edge, (sectors,): positive where the edge falls."""
        lines, points = _fits(self._sums[0], 1), _fits(self._sums[1], 1)
        distance = self._windows[1, 0] - self._windows[0, 0]
        return lines[:, 0] + lines[:, 1] * distance - points[:, 0]

    def curvature_nm_per_mm2(self) -> FloatArray:
        """Give the second derivative of the profile by the radius at 2 mm from the edge, (sectors,)."""
        return 2 * _fits(self._sums[2], 2)[:, 2]


def _fits(sums: FloatArray, degree: int) -> FloatArray:
    """Fit polynomials of the radius by least squares, (sectors, degree + 1), NaN where pixels are too few."""
    count = degree + 1
    found = np.full((len(sums), count), np.nan)
    for k, one in enumerate(sums):
        if one[0] < _FEWEST_PIXELS:
            continue
        normal = np.array([[one[i + j] for j in range(count)] for i in range(count)]) / one[0]
        scale = 1 / np.sqrt(np.maximum(np.diag(normal), 1e-300))
        normal *= np.outer(scale, scale)
        if np.linalg.cond(normal) < 1e10:
            found[k] = np.linalg.solve(normal, one[5 : 5 + count] / one[0] * scale) * scale
    return found
