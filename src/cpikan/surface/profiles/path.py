"""Paths over a map, and the heights along them: lines, polylines, circles, sampled at equal distances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.surface.filters.gaussian import Rows
from cpikan.units import PixelUm, pixel_pair

FloatArray = NDArray[np.float64]
Point = tuple[float, float]

_MOST_POINTS = 10_000_000


@dataclass(frozen=True)
class Profile:
    """Heights in nm at equal steps of the way, NaN where the map has none; ``x_px``, ``y_px`` are where they were taken.

    ``step_um`` is in um; on a map whose pixels have no size it is in pixels.
    """

    step_um: float
    height_nm: FloatArray
    x_px: FloatArray
    y_px: FloatArray

    @property
    def distance_um(self) -> FloatArray:
        """Give the way from the first point to each."""
        way: FloatArray = self.step_um * np.arange(self.height_nm.size, dtype=np.float64)
        return way


def line_profile(
    source: Rows, points: Sequence[Point], pixel_um: PixelUm | None = None, step_um: float | None = None
) -> Profile:
    """Take heights along the line, or polyline, through ``points`` (x, y) in pixels, first pixel centre at (0, 0).

    Heights between pixels are bilinear, and NaN where a pixel they need is NaN or outside. The step is the smaller side
    of a pixel unless it is given; the last point is the last one a whole number of steps away. Only the rows around the
    path are read. Raises InputError for fewer than two points, or no length.
    """
    pair = pixel_pair(pixel_um) or (1.0, 1.0)
    corners = np.asarray(points, np.float64)
    if corners.ndim != 2 or corners.shape[1:] != (2,) or len(corners) < 2 or not np.isfinite(corners).all():
        raise InputError("a line needs points (x, y) in pixels: give two or more")
    lengths = np.hypot(*(np.diff(corners, axis=0) * (pair[1], pair[0])).T)
    way = np.concatenate([[0.0], np.cumsum(lengths)])
    step = _checked_step(step_um or min(pair), float(way[-1]))
    # a share of a step more, so that rounding does not cut the last point off
    places = np.arange(math.floor(way[-1] / step + 1e-9) + 1) * step
    x, y = (np.interp(places, way, corners[:, k]) for k in (0, 1))
    return Profile(step, bilinear(source, y, x), x, y)


def circle_profile(
    source: Rows, centre: Point, radius_um: float, pixel_um: PixelUm | None = None, step_um: float | None = None
) -> Profile:
    """Take heights once around a circle about ``centre`` (x, y) in pixels, counter-clockwise as seen, from +x.

    The radius is in um (in pixels where they have no size); the step is made to fit a whole number of times. Raises
    InputError for a radius that is not positive.
    """
    pair = pixel_pair(pixel_um) or (1.0, 1.0)
    around = 2 * math.pi * radius_um
    count = max(3, round(around / _checked_step(step_um or min(pair), around)))
    angles = 2 * np.pi * np.arange(count) / count
    x = centre[0] + radius_um / pair[1] * np.cos(angles)
    y = centre[1] - radius_um / pair[0] * np.sin(angles)
    return Profile(around / count, bilinear(source, y, x), x, y)


def bilinear(source: Rows, y: FloatArray, x: FloatArray) -> FloatArray:
    """Interpolate a map (H, W) at points in pixels; NaN where a neighbour of weight is NaN or outside."""
    height, width = (int(size) for size in source.shape)
    inside = (y >= 0) & (y <= height - 1) & (x >= 0) & (x <= width - 1)
    out = np.full(y.shape, np.nan)
    if not inside.any():
        return out
    y, x = y[inside], x[inside]
    first = int(np.floor(y.min()))
    rows: NDArray[Any] = np.asarray(source[first : min(height, int(np.floor(y.max())) + 2)], np.float64)
    top, left = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    down, across = y - top, x - left
    total = np.zeros(y.shape)
    for dy, share_y in ((0, 1 - down), (1, down)):
        for dx, share_x in ((0, 1 - across), (1, across)):
            weight = share_y * share_x
            values = rows[np.minimum(top + dy, height - 1) - first, np.minimum(left + dx, width - 1)]
            total += np.where(weight > 0, weight * values, 0.0)  # a NaN of no weight does not count
    out[inside] = total
    return out


def _checked_step(step: float, length: float) -> float:
    if not (0 < step < math.inf and 0 < length < math.inf):
        raise InputError(
            f"a path of length {length:g} in steps of {step:g} is none: give points apart, and a step above zero"
        )
    if length / step > _MOST_POINTS:
        raise InputError(f"a path of {length / step:.3g} points is too long: give {_MOST_POINTS} at most")
    return step
