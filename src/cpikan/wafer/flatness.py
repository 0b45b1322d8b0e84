"""Planes of a wafer: of least squares by regions and through three points, the distances from them, and heights at points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cpikan.wafer.areas import Labels, Regions
from cpikan.wafer.kernels import region_ranges, region_sums
from cpikan.wafer.outline import Wafer

FloatArray = NDArray[np.float64]

ZERO = np.zeros(3)
_FEWEST_PIXELS = 16  # below, a plane follows the noise of single pixels
_THIN = 1e-9  # of a region: pixels on one line have no plane
SUPPORT_MM = 3.175  # distance of the three points from the edge (MF534: a circle 6.35 mm smaller than the wafer)
POINT_MM, _POINT_PX = 0.5, 2.0  # radius of the disc that a point is the plane of, at least: 12 pixels wherever it lies
_FEWEST_OF_POINT = 6


class PlaneFits:
    """Least-squares planes of regions from bands of rows; planes are (a, b, c) of a + b x + c y, nm and mm from the centre."""

    def __init__(self, regions: Regions) -> None:
        self._regions, self._centres = regions, regions.centres
        self._sums = np.zeros((len(self._centres), 9))

    def add(self, start: int, heights: FloatArray, labels: Labels) -> None:
        """Take rows from ``start``, heights in nm and the regions of their pixels."""
        frame = self._regions.wafer.frame
        region_sums(heights, labels, start, frame, self._centres, self._sums)

    @property
    def pixels(self) -> NDArray[np.int64]:
        """Count the valid pixels of each region."""
        return self._sums[:, 0].astype(np.int64)

    def planes(self) -> FloatArray:
        """Solve for the plane of each region (regions, 3); NaN where too few pixels are valid, or all on one line."""
        return np.array([_plane(*pair) for pair in zip(self._sums, self._centres, strict=True)]).reshape(-1, 3)

    def whole(self) -> FloatArray:
        """Solve for the plane of all regions together, (3,)."""
        moved = [_moved(*pair) for pair in zip(self._sums, self._centres, strict=True)]
        return _plane(np.sum(moved, 0), np.zeros(2))


class PlaneRanges:
    """Least and greatest distances of heights from planes (regions, planes, 3), by region, in nm."""

    def __init__(self, regions: Regions, planes: FloatArray) -> None:
        self._regions, self._planes = regions, np.ascontiguousarray(planes)
        self.low = np.full(planes.shape[:2], np.inf)
        self.high = np.full(planes.shape[:2], -np.inf)

    def add(self, start: int, heights: FloatArray, labels: Labels) -> None:
        """Take rows from ``start``, heights in nm and the regions of their pixels."""
        frame = self._regions.wafer.frame
        region_ranges(heights, labels, start, frame, self._planes, self.low, self.high)

    def of(self, plane: int) -> Spread:
        """Give the spread of every region about its plane of this number."""
        seen = np.isfinite(self._planes[:, plane, 0]) & (self.high[:, plane] >= self.low[:, plane])
        low, high = (np.where(seen, one[:, plane], np.nan) for one in (self.low, self.high))
        return Spread(low, high)


@dataclass(frozen=True)
class Spread:
    """Least and greatest distances from planes in nm, (regions,), NaN where nothing was measured."""

    low: FloatArray
    high: FloatArray

    @property
    def range(self) -> FloatArray:
        """Give the greatest less the least distance."""
        return self.high - self.low

    @property
    def deviation(self) -> FloatArray:
        """Give the largest distance to either side, with its sign."""
        return np.where(self.high >= -self.low, self.high, self.low)

    def about(self, level: FloatArray) -> Spread:
        """Count the distances from levels (regions,)."""
        return Spread(self.low - level, self.high - level)

    def whole(self, chosen: Sequence[bool] | NDArray[np.bool_] | None = None) -> tuple[float, float]:
        """Give the least and the greatest distance of all regions, or of those chosen; NaN where none was measured."""
        picked = np.isfinite(self.low) if chosen is None else np.isfinite(self.low) & np.asarray(chosen)
        if not picked.any():
            return float("nan"), float("nan")
        return float(self.low[picked].min()), float(self.high[picked].max())


def _plane(sums: FloatArray, centre: FloatArray) -> FloatArray:
    n, sx, sy, sxx, sxy, syy, sz, sxz, syz = sums
    if n < _FEWEST_PIXELS:
        return np.full(3, np.nan)
    mean_x, mean_y, mean = sx / n, sy / n, sz / n
    xx, xy, yy = sxx / n - mean_x**2, sxy / n - mean_x * mean_y, syy / n - mean_y**2
    xz, yz = sxz / n - mean_x * mean, syz / n - mean_y * mean
    area = xx * yy - xy * xy
    if area <= _THIN * max(xx, yy) ** 2:
        return np.full(3, np.nan)
    b, c = (xz * yy - yz * xy) / area, (yz * xx - xz * xy) / area
    return np.array([mean - b * (mean_x + centre[0]) - c * (mean_y + centre[1]), b, c])


def _moved(sums: FloatArray, centre: FloatArray) -> FloatArray:
    """Turn sums about a centre into sums about the wafer's."""
    n, sx, sy, sxx, sxy, syy, sz, sxz, syz = sums
    x, y = centre
    return np.array(
        [
            n,
            sx + n * x,
            sy + n * y,
            sxx + 2 * x * sx + n * x * x,
            sxy + x * sy + y * sx + n * x * y,
            syy + 2 * y * sy + n * y * y,
            sz,
            sxz + x * sz,
            syz + y * sz,
        ]
    )


class PointHeights:
    """Heights at places (points, 2) in mm: of the least-squares planes of the valid pixels within 0.5 mm (at least 2 pixels).

    Fed with bands of rows through `add`.
    """

    def __init__(self, wafer: Wafer, places_mm: FloatArray) -> None:
        self._wafer = wafer
        self._places = np.asarray(places_mm, np.float64).reshape(-1, 2)
        self._radius = max(POINT_MM, _POINT_PX * max(wafer.pixel_mm))
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
            self._sums[k] += [
                float((a * b).sum()) for a, b in ((one, one), (x, one), (y, one), (x, x), (x, y), (y, y))
            ] + [float((a * z).sum()) for a in (one, x, y)]

    def solve(self) -> FloatArray:
        """Solve for the heights in nm (points,), NaN where fewer than six pixels are valid, or all on one line."""
        found = np.full(len(self._sums), np.nan)
        for k, (n, sx, sy, sxx, sxy, syy, sz, sxz, syz) in enumerate(self._sums):
            normal = np.array([[n, sx, sy], [sx, sxx, sxy], [sy, sxy, syy]])
            if n >= _FEWEST_OF_POINT and np.linalg.cond(normal) < 1e12:
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
    return np.asarray(np.linalg.solve(np.column_stack([np.ones(3), places_mm]), heights_nm), np.float64)


def bow_nm(places_mm: FloatArray, heights_nm: FloatArray, plane: FloatArray) -> float:
    """Give the height of the centre, the first place, above a plane: positive where the surface bulges upwards."""
    x, y = places_mm[0]
    return float(heights_nm[0] - (plane[0] + plane[1] * x + plane[2] * y))
