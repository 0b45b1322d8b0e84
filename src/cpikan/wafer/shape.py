"""The shape of a wafer: heights at its centre, on the circle of its supports and in the middle of sites, and planes of three points."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cpikan.wafer.outline import Wafer

FloatArray = NDArray[np.float64]

SUPPORT_MM = 3.175  # distance of the three points from the edge (MF534: a circle 6.35 mm smaller than the wafer)
POINT_MM = 0.5  # radius of the disc that a point is the plane of
_FEWEST_PIXELS = 6


class PointHeights:
    """Heights at places (points, 2) in mm: of the least-squares planes of the valid pixels within 0.5 mm (at least 1.5 pixels).

    Fed with bands of rows through `add`.
    """

    def __init__(self, wafer: Wafer, places_mm: FloatArray) -> None:
        self._wafer = wafer
        self._places = np.asarray(places_mm, np.float64).reshape(-1, 2)
        self._radius = max(POINT_MM, 1.5 * max(wafer.pixel_mm))
        self._sums = np.zeros((len(self._places), 9))
        middle = np.array([wafer.pixel(x, y) for x, y in self._places]).reshape(-1, 2)
        reach = self._radius / np.array(wafer.pixel_mm)
        self._first = np.ceil(middle - reach).astype(int)
        self._last = np.floor(middle + reach).astype(int)

    def add(self, start: int, heights: FloatArray) -> None:
        """Take rows from ``start``, heights in nm."""
        stop = start + len(heights)
        for k in np.flatnonzero((self._first[:, 0] < stop) & (self._last[:, 0] >= start)):
            top, bottom = max(self._first[k, 0], start), min(self._last[k, 0] + 1, stop)
            left, right = max(self._first[k, 1], 0), min(self._last[k, 1] + 1, heights.shape[1])
            if left >= right:
                continue
            z = heights[top - start : bottom - start, left:right]
            x = (np.arange(left, right)[None, :] - self._wafer.x) * self._wafer.pixel_mm[1] - self._places[k, 0]
            y = (self._wafer.y - np.arange(top, bottom)[:, None]) * self._wafer.pixel_mm[0] - self._places[k, 1]
            used = (x * x + y * y <= self._radius**2) & np.isfinite(z)
            x, y, z = (np.broadcast_to(one, used.shape)[used] for one in (x, y, z))
            one = np.ones_like(z)
            self._sums[k] += [float((a * b).sum()) for a, b in ((one, one), (x, one), (y, one), (x, x), (x, y), (y, y))] + [
                float((a * z).sum()) for a in (one, x, y)
            ]

    def solve(self) -> FloatArray:
        """Solve for the heights in nm (points,), NaN where fewer than six pixels are valid, or all on one line."""
        found = np.full(len(self._sums), np.nan)
        for k, (n, sx, sy, sxx, sxy, syy, sz, sxz, syz) in enumerate(self._sums):
            normal = np.array([[n, sx, sy], [sx, sxx, sxy], [sy, sxy, syy]])
            if n >= _FEWEST_PIXELS and np.linalg.cond(normal) < 1e12:
                found[k] = np.linalg.solve(normal, [sz, sxz, syz])[0]
        return found


def support_places(wafer: Wafer, radius_mm: float) -> FloatArray:
    """Place the centre and three points on the circle of the supports, opposite the notch and 120 degrees to either side.

    Without a notch the first lies at 90 degrees. Shape (4, 2), mm.
    """
    first = 90.0 if wafer.notch_deg is None else wafer.notch_deg + 180
    turns = [math.radians(first + 120 * k) for k in range(3)]
    reach = radius_mm - SUPPORT_MM
    return np.array([[0.0, 0.0], *([reach * math.cos(turn), reach * math.sin(turn)] for turn in turns)])


def plane_through(places_mm: FloatArray, heights_nm: FloatArray) -> FloatArray:
    """Lay the plane (a, b, c) through three points; NaN where one of them was not measured."""
    if not np.isfinite(heights_nm).all():
        return np.full(3, np.nan)
    found: FloatArray = np.linalg.solve(np.column_stack([np.ones(3), places_mm]), heights_nm)
    return found


def bow_nm(places_mm: FloatArray, heights_nm: FloatArray, plane: FloatArray) -> float:
    """Give the height of the centre, the first place, above a plane: positive where the surface bulges upwards."""
    x, y = places_mm[0]
    return float(heights_nm[0] - (plane[0] + plane[1] * x + plane[2] * y))
