"""Where a wafer lies on a map: the circle of its edge, and the angle of its notch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.wafer.kernels import outermost_rows, outline_rows

FloatArray = NDArray[np.float64]
Sweep = Callable[[], Iterator[tuple[int, FloatArray]]]

_STEEP = math.sqrt(0.5)  # a row tells the edge where it crosses it steeply, else a column does
_FEWEST_POINTS = 16
_LEAST_ARC = 1 / 3  # of the whole circle: below, the centre hangs on the noise
_LOOSE_PX = 3.0  # points of an outline that is no circle lie farther from it than this
_NOTCH_DEPTH_MM, _NOTCH_REACH_MM = 1.0, 1.5  # SEMI M1: a V of 90 degrees, 1 mm deep
_COARSEST_MM = 0.3  # pixels: a notch of three in depth is told from the steps of an edge
_SEARCH_MM, _BEYOND_MM = 3.0, 0.5
_LIKE_A_NOTCH = 0.75  # correlation with the V
_DEPTHS_MM = (0.5, 2.5)


@dataclass(frozen=True)
class Wafer:
    """A wafer on a map: column and row of its centre, radius of its edge in mm, size of a pixel in mm (y, x).

    ``notch_deg`` is the polar angle of the notch, counter-clockwise from +x with row 0 on top, None where none is seen.
    ``seen`` is false where the outline is no circle, and the centre is that of the box of the valid pixels.
    """

    x: float
    y: float
    radius_mm: float
    pixel_mm: tuple[float, float]
    notch_deg: float | None = None
    seen: bool = True

    @property
    def frame(self) -> FloatArray:
        """Give what kernels need to know: column and row of the centre, width and height of a pixel in mm."""
        return np.array([self.x, self.y, self.pixel_mm[1], self.pixel_mm[0]])

    def pixel(self, x_mm: float, y_mm: float) -> tuple[float, float]:
        """Give row and column of a place on the wafer, (x, y) in mm from its centre, y up."""
        return self.y - y_mm / self.pixel_mm[0], self.x + x_mm / self.pixel_mm[1]


def find_wafer(
    sweep: Sweep, shape: tuple[int, int], pixel_mm: tuple[float, float], diameter_mm: float | None = None
) -> Wafer:
    """Find centre, radius and notch of a wafer from the outline of the valid pixels: two sweeps, memory of O(H + W).

    The edge lies half a pixel beyond the outermost valid ones. Where the outline is no circle and ``diameter_mm`` is given,
    the centre is that of the box of the valid pixels. Raises InputError where it is not given, and where nothing is valid.
    """
    row_ends, column_ends = np.full((2, shape[0]), -1), np.full((2, shape[1]), -1)
    for start, heights in sweep():
        outline_rows(heights, start, row_ends, column_ends)
    if row_ends[0].max() < 0:
        raise InputError("no pixel of the map is valid: there is no wafer on it")
    points = _edge_points(row_ends, column_ends, pixel_mm)
    circle = fit_circle(points, _LOOSE_PX * max(pixel_mm))
    if circle is not None:
        x, y, radius = circle
        wafer = Wafer(x / pixel_mm[1], -y / pixel_mm[0], radius, pixel_mm)
        return Wafer(wafer.x, wafer.y, radius, pixel_mm, _find_notch(sweep, wafer))
    if diameter_mm is None:
        raise InputError(
            "the outline of the valid pixels is no circle, so the map shows no wafer edge: say the diameter (such as 300mm), "
            "and the centre of the valid pixels is taken for that of the wafer"
        )
    rows, columns = (np.flatnonzero(ends[0] >= 0) for ends in (row_ends, column_ends))
    centre = (columns[0] + columns[-1]) / 2, (rows[0] + rows[-1]) / 2
    return Wafer(float(centre[0]), float(centre[1]), diameter_mm / 2, pixel_mm, None, seen=False)


def _edge_points(
    row_ends: NDArray[np.int64], column_ends: NDArray[np.int64], pixel_mm: tuple[float, float]
) -> FloatArray:
    """List the ends of rows (x, y, 1, 0) and of columns (x, y, 0, 1), in mm, y up; an end at the border is none."""
    found = []
    for ends, length, across in ((row_ends, column_ends.shape[1], 1.0), (column_ends, row_ends.shape[1], 0.0)):
        for which, beyond, border in ((0, -0.5, 0), (1, 0.5, length - 1)):
            index = np.flatnonzero((ends[which] >= 0) & (ends[which] != border))
            along, other = ends[which, index] + beyond, index.astype(float)
            x, y = (along, other) if across else (other, along)
            one = np.full(index.size, across)
            found.append(np.stack([x * pixel_mm[1], -y * pixel_mm[0], one, 1 - one], 1))
    return np.concatenate(found)


def fit_circle(points: FloatArray, loose_mm: float) -> tuple[float, float, float] | None:
    """Fit a circle to edge points (n, 4) by least squares of Tukey's biweight; None where they lie on none.

    A point counts where the row or the column it ends crosses the circle steeply. Returns x, y and the radius.
    """
    if len(points) < _FEWEST_POINTS:
        return None
    x, y, radius = _start(points)
    used = np.ones(len(points), bool)
    for _ in range(50):
        dx, dy = points[:, 0] - x, points[:, 1] - y
        distance = np.maximum(np.hypot(dx, dy), 1e-12)
        steep = np.abs(dx * points[:, 2] + dy * points[:, 3]) >= _STEEP * distance
        rest = distance - radius
        if np.count_nonzero(steep) < _FEWEST_POINTS:
            return None
        scale = max(1.4826 * float(np.median(np.abs(rest[steep]))), 1e-9)
        weight = np.where(steep, np.clip(1 - (rest / (4.7 * scale)) ** 2, 0, None) ** 2, 0.0)
        used = weight > 0
        design = np.stack([dx / distance, dy / distance, np.ones(len(points))], 1)
        step = np.linalg.lstsq(design * np.sqrt(weight)[:, None], rest * np.sqrt(weight), rcond=None)[0]
        x, y, radius = x + step[0], y + step[1], radius + step[2]
        if np.abs(step).max() < 1e-10 * radius:
            break
    turns = np.unique(np.floor(np.arctan2(points[used, 1] - y, points[used, 0] - x) * (36 / np.pi)))
    if scale > loose_mm or turns.size < _LEAST_ARC * 72:
        return None
    return float(x), float(y), float(radius)


def _start(points: FloatArray) -> tuple[float, float, float]:
    """Guess a circle from the ends: the median of middles, which holes and a cut side leave alone."""
    x, y = points[:, 0], points[:, 1]
    centre = (x.max() + x.min()) / 2, (y.max() + y.min()) / 2
    design = np.stack([x - centre[0], y - centre[1], np.ones(len(x))], 1)
    weight = np.ones(len(x))
    for _ in range(20):  # Kasa's fit of x^2 + y^2, of least absolute distance by weights
        square = (x - centre[0]) ** 2 + (y - centre[1]) ** 2
        a, b, c = np.linalg.lstsq(design * weight[:, None], square * weight, rcond=None)[0]
        rest = np.abs(
            np.hypot(x - centre[0] - a / 2, y - centre[1] - b / 2) - math.sqrt(max(c + (a * a + b * b) / 4, 0))
        )
        weight = 1 / np.sqrt(rest + 1e-3 * max(float(np.median(rest)), 1e-9))
    return centre[0] + a / 2, centre[1] + b / 2, math.sqrt(max(c + (a * a + b * b) / 4, 1e-18))


def _find_notch(sweep: Sweep, wafer: Wafer) -> float | None:
    """Find the polar angle of the V that is missing at the edge, in degrees, None where there is none or pixels are coarse."""
    fine = max(wafer.pixel_mm)
    bins = int(2 * math.pi * wafer.radius_mm / fine)
    reach = _SEARCH_MM
    if wafer.radius_mm < 3 * reach or fine > _COARSEST_MM:
        return None
    farthest = np.full(bins, wafer.radius_mm - reach)
    for start, heights in sweep():
        outermost_rows(heights, start, wafer.frame, wafer.radius_mm - reach, wafer.radius_mm + _BEYOND_MM, farthest)
    depth = wafer.radius_mm - farthest
    return notch_angle(depth - np.median(depth), 2 * math.pi * wafer.radius_mm / bins)


def notch_angle(depth_mm: FloatArray, step_mm: float) -> float | None:
    """Find the notch in the depth of the edge by polar angle, (bins,) of ``step_mm`` of arc each.

    The place where the V of SEMI M1 fits best, then the centroid of what is missing around it. None where the best fit is
    no V: correlation below 0.75, or a depth outside 0.5 to 2.5 mm.
    """
    bins = depth_mm.size
    offset = (np.arange(bins) + bins // 2) % bins - bins // 2
    shape = np.clip(_NOTCH_DEPTH_MM - np.abs(offset * step_mm), 0, None)
    near = (np.abs(offset * step_mm) <= _NOTCH_REACH_MM).astype(float)
    shape = np.where(near > 0, shape - shape[near > 0].mean(), 0.0)

    def along(kernel: FloatArray, values: FloatArray) -> FloatArray:
        spectrum: FloatArray = np.fft.irfft(np.fft.rfft(values) * np.conj(np.fft.rfft(kernel)), bins)
        return spectrum

    product, energy = along(shape, depth_mm), float((shape**2).sum())
    spread = along(near, depth_mm**2) - along(near, depth_mm) ** 2 / near.sum()
    best = int(np.argmax(product))
    alike = product[best] / math.sqrt(energy * max(float(spread[best]), 1e-30))
    if alike < _LIKE_A_NOTCH or not _DEPTHS_MM[0] <= product[best] / energy * _NOTCH_DEPTH_MM <= _DEPTHS_MM[1]:
        return None
    place = float(best)
    for _ in range(10):
        arc = (np.arange(bins) - place + bins / 2) % bins - bins / 2
        reach = _NOTCH_REACH_MM / step_mm
        share = np.clip(reach + 0.5 - np.abs(arc), 0, 1)  # ends between two bins count in part
        place += float((share * depth_mm * arc).sum() / (share * depth_mm).sum())
    return (place * 360 / bins) % 360
