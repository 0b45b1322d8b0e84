"""A step, groove or ridge with straight edges at any angle, found in a map and measured by all of its pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.surface.profiles.steps import step_between
from cpikan.units import PixelUm, pixel_pair

FloatArray = NDArray[np.float64]

_PASSES, _TRIED = 4, 180
_FEWEST = 8  # pixels along an edge
_STRAIGHT_PX = 4.0  # places of one edge lie no farther apart across it
_MINOR = 0.2  # of the longest edge: what is shorter is dirt


@dataclass(frozen=True)
class MapStep:
    """``height_nm`` of the feature over what is beside it, the RMS of what two parallel planes leave, and where its edges lie.

    ``angle_deg`` is the direction across the edges, from +x counter-clockwise as the map is seen, -90 to 90; ``edges_um`` how
    far they are from the first pixel in that direction: one for a step (that way from the lower number to the higher, the
    height of what comes after it), two for a groove (negative height) or ridge.
    """

    height_nm: float
    rest_nm: float
    angle_deg: float
    edges_um: tuple[float, ...]


def map_step(height_nm: Float[np.ndarray, "h w"], pixel_um: PixelUm | None = None) -> MapStep:
    """Measure the only step, groove or ridge of a map (H, W) whose edges are straight and parallel, at any angle.

    Pixels are parted by the middle of both levels, edges fitted to where the parts meet. Of a groove or ridge of width W the
    middle third counts, and beside it what lies W / 3 to W away (ISO 5436-1:2000, type A1, over an area); of a single step
    both sides, W the nearer end of the map. Without ``pixel_um`` lengths are in pixels. Raises InputError where no edge or
    more than two are found, and where nothing is left beside them.
    """
    heights, pair = np.asarray(height_nm, np.float64), pixel_pair(pixel_um) or (1.0, 1.0)
    valid = np.isfinite(heights)
    if min(heights.shape) < _FEWEST or valid.mean() < 0.1:
        raise InputError(
            f"a map of {heights.shape[0]} x {heights.shape[1]} pixels with few heights has no step: give a larger one"
        )
    y, x = (np.arange(size) * one for size, one in zip(heights.shape, pair, strict=True))
    tilt = [_usual_slope(heights, axis) / pair[axis] for axis in (0, 1)]
    high = np.zeros(heights.shape, bool)
    for _ in range(_PASSES):
        before = high
        high = _upper(heights - tilt[0] * y[:, None] - tilt[1] * x, valid)
        tilt = _common_slope(heights, valid, high, y, x)
        if np.array_equal(high, before):
            break
    normal, edges = _edges(*_borders(high, valid, pair), min(pair))
    across = normal[0] * x - normal[1] * y[:, None]  # up is positive
    feature, beside = _regions(across, edges)
    found = step_between(heights, feature, beside)
    return MapStep(found.height_nm, found.rest_nm, float(np.degrees(np.arctan2(normal[1], normal[0]))), edges)


def _usual_slope(heights: FloatArray, axis: int) -> float:
    """Give the median difference of neighbours: that of the levels, since few pixels lie on an edge."""
    steps = np.diff(heights, axis=axis)
    known = steps[np.isfinite(steps)]
    return float(np.median(known)) if known.size else 0.0


def _upper(flat: FloatArray, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Part pixels by the middle between the means of both parts; single ones go with those around them."""
    from scipy.ndimage import median_filter

    known = flat[valid]
    level = float(known.min() + known.max()) / 2
    for _ in range(50):
        above = known > level
        if not above.any() or above.all():
            raise InputError("the map has one level alone: there is no step to be measured")
        before, level = level, float(known[above].mean() + known[~above].mean()) / 2
        if level == before:
            break
    return median_filter((flat > level) & valid, 3) & valid


def _common_slope(
    heights: FloatArray, valid: NDArray[np.bool_], high: NDArray[np.bool_], y: FloatArray, x: FloatArray
) -> list[float]:
    """Fit one slope (y, x) to both parts."""
    down, across = np.nonzero(valid)
    terms = np.stack([high[valid].astype(np.float64), np.ones(down.size), y[down] - y.mean(), x[across] - x.mean()], 1)
    found = np.linalg.lstsq(terms, heights[valid] - heights[valid].mean(), rcond=None)[0]
    return [float(found[2]), float(found[3])]


def _borders(
    high: NDArray[np.bool_], valid: NDArray[np.bool_], pair: tuple[float, float]
) -> tuple[FloatArray, FloatArray]:
    """Find places (x, and y upwards, in um) half-way between neighbours of which one is high."""
    places = []
    for axis in (0, 1):
        one, other = ((slice(None),) * axis + (part,) for part in (slice(None, -1), slice(1, None)))
        rows, columns = np.nonzero((high[one] != high[other]) & valid[one] & valid[other])
        places.append(np.stack([columns + 0.5 * (axis == 1), -(rows + 0.5 * (axis == 0))]))
    x, y = np.concatenate(places, axis=1)
    return x * pair[1], y * pair[0]


def _edges(x: FloatArray, y: FloatArray, unit: float) -> tuple[FloatArray, tuple[float, ...]]:
    """Fit one or two parallel lines to places; the direction across them (x, y), x not negative, and where they are."""
    if x.size < _FEWEST:
        raise InputError(f"{x.size} places where two levels meet are no edge: give a map with a longer one")
    turns = np.radians(np.arange(_TRIED) * 180 / _TRIED - 90)
    sharp = [_sharpness((x * np.cos(turn) + y * np.sin(turn)) / unit) for turn in turns]
    turn = float(turns[int(np.argmax(sharp))])
    for _ in range(_PASSES):
        across, along = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        lines = _lines(across, _STRAIGHT_PX * unit)
        apart = [(along[one] - along[one].mean(), across[one] - across[one].mean()) for one in lines]
        turn -= float(np.arctan2(sum((a * b).sum() for a, b in apart), sum((a * a).sum() for a, _ in apart)))
    if np.cos(turn) < 0:
        turn += np.pi
    across = x * np.cos(turn) + y * np.sin(turn)
    if len(lines) > 2:
        raise InputError(f"{len(lines)} parallel edges were found: crop the map to one step, groove or ridge")
    return np.array([np.cos(turn), np.sin(turn)]), tuple(sorted(float(across[one].mean()) for one in lines))


def _sharpness(across: FloatArray) -> float:
    return float((np.bincount(np.rint(across - across.min()).astype(np.int64)).astype(np.float64) ** 2).sum())


def _lines(across: FloatArray, gap: float) -> list[NDArray[np.int64]]:
    """Group places by how far across they lie; what has few of them is left out."""
    order = np.argsort(across)
    parts = np.split(order, np.flatnonzero(np.diff(across[order]) > gap) + 1)
    most = max(one.size for one in parts)
    return [one for one in parts if one.size >= max(_FEWEST, _MINOR * most)]


def _regions(across: FloatArray, edges: tuple[float, ...]) -> tuple[Bool[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Choose the pixels of the feature and those beside it, as far from the edges as the standard has it."""
    left, right = edges[0], edges[-1]
    if len(edges) == 1:
        width = min(left - float(across.min()), float(across.max()) - left)
        return (across >= left + width / 3) & (across <= left + width), (across <= left - width / 3) & (
            across >= left - width
        )
    width = right - left
    away = np.maximum(left - across, across - right)
    return (across >= left + width / 3) & (across <= right - width / 3), (away >= width / 3) & (away <= width)
