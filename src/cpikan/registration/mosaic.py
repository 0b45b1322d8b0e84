"""Many maps as one: places from shifts of overlaps, piston and tilt of each map, both by least squares over all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpikan.registration.affine import Affine, ResampledMap
from cpikan.registration.correlation import find_shift, refine_shift
from cpikan.storage.maps import LazyMap

FloatArray = NDArray[np.float64]

_WINDOW_PX = 1024  # of an overlap, for its shift
_LEAST_PX = 12
_LINES = 64  # rows of an overlap that its plane is fitted to
_WHOLE_PX = 0.05  # a place within this of a whole pixel is rounded: its pixels keep their values
_PRIOR = 1e-3  # information of a place as it was said, where nothing else is known


@dataclass(frozen=True)
class Placement:
    """Rows and columns of the first pixels of the maps (maps, 2), and the planes (maps, 3) that are taken off them.

    A plane is a + b row + c column of the mosaic. ``matched`` tells which maps had an overlap to find their place by.
    """

    places: FloatArray
    planes: FloatArray
    matched: NDArray[np.bool_]


def place_maps(maps: Sequence[Any], nominal: FloatArray, most_px: int = 32) -> Placement:
    """Find places and planes of maps (H, W) from where they should lie, (maps, 2), at most ``most_px`` off between two.

    Shifts of overlaps come from phase correlation and refinement, weighed by what they are worth; planes from the differences
    on the overlaps, of the maps as they lie then. A map without a match stays where it was said.
    """
    pairs = list(_pairs([one.shape for one in maps], nominal))
    found = [(i, j, _match(maps[i], maps[j], nominal[j] - nominal[i], most_px)) for i, j in pairs]
    matches = [(i, j, *match) for i, j, match in found if match is not None]
    places, matched = _solve_places(nominal, matches)
    return Placement(places, _solve_planes(maps, places), matched)


def _pairs(shapes: Sequence[tuple[int, ...]], places: FloatArray) -> Iterator[tuple[int, int]]:
    for i, one in enumerate(shapes):
        for j in range(i + 1, len(shapes)):
            low = np.maximum(places[i], places[j])
            high = np.minimum(places[i] + one[:2], places[j] + shapes[j][:2])
            if (high - low >= _LEAST_PX).all():
                yield i, j


def _match(first: Any, second: Any, away: FloatArray, most_px: int) -> tuple[FloatArray, FloatArray] | None:
    """Measure where the second map lies from the first, (2,), and the information (2, 2); None without a match."""
    whole = np.round(away).astype(int)
    low = np.maximum(whole, 0)
    high = np.minimum(np.array(first.shape), np.array(second.shape) + whole)
    middle, half = (low + high) // 2, np.minimum(high - low, _WINDOW_PX) // 2
    low, high = middle - half, middle + half
    one, two = (
        np.array(source[low[0] - k[0] : high[0] - k[0], low[1] - k[1] : high[1] - k[1]], np.float64)
        for source, k in ((first, (0, 0)), (second, whole))
    )
    start = find_shift(one, two, most_px)
    if start is None:
        return None
    match = refine_shift(one, two, start)
    if match is None or np.abs(match.shift_px).max() > most_px + 1:
        return None
    return whole - match.shift_px, match.information


def _solve_places(
    nominal: FloatArray, matches: Sequence[tuple[int, int, FloatArray, FloatArray]]
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Solve for all places, a doubtful match counting less each time (Huber), the first map held to whole pixels."""
    count = len(nominal)
    matched = np.zeros(count, bool)
    places = nominal.astype(np.float64)
    for _ in range(10 if matches else 0):
        normal, right = _PRIOR * np.eye(2 * count), _PRIOR * nominal.ravel()
        for i, j, away, information in matches:
            rest = places[j] - places[i] - away
            share = 1 / max(1.0, float(np.hypot(*rest)))  # pixels: beyond one, a match is wrong rather than noisy
            block = share * information
            for a, b, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
                normal[2 * a : 2 * a + 2, 2 * b : 2 * b + 2] += sign * block
            right[2 * j : 2 * j + 2] += block @ away
            right[2 * i : 2 * i + 2] -= block @ away
            matched[[i, j]] = True
        places = np.asarray(np.linalg.solve(normal, right).reshape(count, 2), np.float64)
    if matched.any():
        first = int(np.argmax(matched))
        places -= places[first] - np.round(nominal[first])
    near = np.round(places)
    return np.where(np.abs(places - near) < _WHOLE_PX, near, places), matched


def _solve_planes(maps: Sequence[Any], places: FloatArray) -> FloatArray:
    """Solve for the planes by which the maps differ least on all overlaps; their sum is zero."""
    count = len(maps)
    normal, right = np.zeros((3 * count, 3 * count)), np.zeros(3 * count)
    centre = places.mean(0) + np.array(maps[0].shape) / 2
    scale = max(max(one.shape) for one in maps)
    for i, j in _pairs([one.shape for one in maps], places):
        block, moment = _difference(maps, places, (i, j), centre, scale)
        for a, b, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
            normal[3 * a : 3 * a + 3, 3 * b : 3 * b + 3] += sign * block
        right[3 * j : 3 * j + 3] += moment
        right[3 * i : 3 * i + 3] -= moment
    found = np.asarray(np.linalg.lstsq(normal, right, rcond=1e-10)[0].reshape(count, 3), np.float64)
    found[:, 1:] /= scale
    found[:, 0] -= found[:, 1:] @ centre
    return found


def _difference(
    maps: Sequence[Any], places: FloatArray, pair: tuple[int, int], centre: FloatArray, scale: float
) -> tuple[FloatArray, FloatArray]:
    """Sum up the normal equations of the plane of second - first on an overlap."""
    i, j = pair
    low = np.ceil(np.maximum(places[i], places[j])).astype(int)
    high = np.floor(np.minimum(places[i] + maps[i].shape, places[j] + maps[j].shape)).astype(int)
    laid = [placed(maps[k], places[k] - low, tuple(high - low)) for k in pair]
    block, moment = np.zeros((3, 3)), np.zeros(3)
    for row in range(0, high[0] - low[0], max(1, (high[0] - low[0]) // _LINES)):
        rest = np.asarray(laid[1][row]) - np.asarray(laid[0][row])
        used = np.flatnonzero(np.isfinite(rest))
        x = (low[1] + used - centre[1]) / scale
        design = np.stack([np.ones(used.size), np.full(used.size, (low[0] + row - centre[0]) / scale), x], 1)
        block += design.T @ design
        moment += design.T @ rest[used]
    return block, moment


def placed(source: Any, place: FloatArray, shape: tuple[int, ...]) -> ResampledMap:
    """Lay a map with its first pixel at ``place`` (row, column) on pixels of ``shape``."""
    matrix = np.array([[1.0, 0.0, -place[0]], [0.0, 1.0, -place[1]]])
    return ResampledMap(source, Affine(matrix), (int(shape[0]), int(shape[1])))


class Mosaic(LazyMap):
    """Maps as one, read a window at a time: each less its plane, weighed by the distance from its borders."""

    def __init__(self, maps: Sequence[Any], placement: Placement) -> None:
        low = np.floor(placement.places.min(0)).astype(int)
        ends = placement.places + [one.shape for one in maps]
        shape = np.ceil(ends.max(0)).astype(int) - low
        super().__init__((int(shape[0]), int(shape[1])), np.dtype(np.float64))
        self.origin = low
        self._maps, self._placement = maps, placement
        self._laid = [placed(one, place - low, self.shape) for one, place in zip(maps, placement.places, strict=True)]

    def _read(self, rows: range, columns: range) -> np.ndarray:
        total, weight = np.zeros((len(rows), len(columns))), np.zeros((len(rows), len(columns)))
        for one, laid, place, plane in zip(
            self._maps, self._laid, self._placement.places - self.origin, self._placement.planes, strict=True
        ):
            top, bottom = _cut(rows, place[0], one.shape[0])
            left, right = _cut(columns, place[1], one.shape[1])
            if top >= bottom or left >= right:
                continue
            y, x = np.arange(top, bottom, dtype=float), np.arange(left, right, dtype=float)
            form = plane[0] + (plane[1] * (y + self.origin[0]))[:, None] + plane[2] * (x + self.origin[1])
            heights = np.asarray(laid[top:bottom, left:right]) - form
            inner = _distance(y - place[0], one.shape[0])[:, None] * _distance(x - place[1], one.shape[1])
            window = slice(top - rows.start, bottom - rows.start), slice(left - columns.start, right - columns.start)
            valid = np.isfinite(heights)
            total[window] += np.where(valid, inner * heights, 0.0)
            weight[window] += np.where(valid, inner, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(weight > 0, total / weight, np.nan)


def _cut(chosen: range, place: float, length: int) -> tuple[int, int]:
    return max(chosen.start, int(np.ceil(place))), min(chosen.stop, int(np.floor(place + length - 1)) + 1)


def _distance(inside: FloatArray, length: int) -> FloatArray:
    """Give the distance from the nearer border, at least half a pixel."""
    return np.maximum(np.minimum(inside + 0.5, length - 0.5 - inside), 0.5)
