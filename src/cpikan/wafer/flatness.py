"""Flatness by regions: least-squares planes, and the least and greatest distance from planes, of sites, sectors and all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cpikan.wafer.areas import Labels, Regions
from cpikan.wafer.kernels import region_ranges, region_sums

FloatArray = NDArray[np.float64]

ZERO = np.zeros(3)
_FEWEST_PIXELS = 16  # below, a plane follows the noise of single pixels
_THIN = 1e-9  # of a region: pixels on one line have no plane


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
