"""Many maps as one: places from shifts of overlaps, then places, pistons and tilts together by least squares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpikan.registration.correlation import find_shift, refine_shift
from cpikan.registration.settling import Settled, laid_at, settle
from cpikan.storage.maps import LazyMap

FloatArray = NDArray[np.float64]

_WINDOW_PX = 1024  # of an overlap, for its shift
_LEAST_PX = 12
_WHOLE_PX, _MOST_PX, _SIGMAS = (
    0.05,
    0.25,
    4,
)  # places are whole where all lie within this, or so many sigmas, of whole ones
_PRIOR = 1e-3  # information of a place as it was said, where nothing else is known
_WRONG_PX = 1.0  # a shift that contradicts the others by more is wrong rather than noisy


@dataclass(frozen=True)
class Placement:
    """Rows and columns of the first pixels of the maps (maps, 2), and the planes (maps, 3) that are taken off them.

    A plane is a + b row + c column of the mosaic. ``matched`` tells which maps had an overlap to find their place by.
    ``sigma_px`` (maps, 2) is the standard error of a place against the mean of all, from noise alone; NaN without a match.
    """

    places: FloatArray
    planes: FloatArray
    matched: NDArray[np.bool_]
    sigma_px: FloatArray


def place_maps(maps: Sequence[Any], nominal: FloatArray, most_px: int = 32) -> Placement:
    """Find places and planes of maps (H, W) from where they should lie, (maps, 2), at most ``most_px`` off between two.

    Shifts of overlaps come from phase correlation and refinement, weighed by what they are worth; from there places and planes
    of all maps are refined together on the differences of all overlaps. A map without a match stays where it was said.
    """
    pairs = list(_pairs([one.shape for one in maps], nominal))
    found = [(i, j, _match(maps[i], maps[j], nominal[j] - nominal[i], most_px)) for i, j in pairs]
    matches = [(i, j, *match) for i, j, match in found if match is not None]
    places, matched = _solve_places(nominal, matches)
    agreed = {(i, j) for i, j, away, _ in matches if np.hypot(*(places[j] - places[i] - away)) < _WRONG_PX}
    settled = settle(maps, places, list(_pairs([one.shape for one in maps], places)), agreed)
    return Placement(_rounded(settled), settled.planes, matched, settled.sigma_px)


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


def _rounded(settled: Settled) -> FloatArray:
    """Round the places where all of them lie as near to whole ones as their errors let them: pixels keep their values then.

    What they have in common beside whole pixels is no distance between them: it is taken off before.
    """
    known = np.isfinite(settled.sigma_px).all(1)
    if not known.any():
        return settled.places
    turns = np.exp(2j * np.pi * settled.places[known]).mean(0)
    moved = settled.places - np.angle(turns) / (2 * np.pi)
    near = np.clip(_SIGMAS * settled.sigma_px[known], _WHOLE_PX, _MOST_PX)
    whole = np.round(moved)
    return whole if (np.abs(moved - whole)[known] < near).all() else settled.places


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
            share = 1 / max(1.0, float(np.hypot(*rest)) / _WRONG_PX)
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
    return places, matched


class Mosaic(LazyMap):
    """Maps as one, read a window at a time: each less its plane, weighed by the distance from its borders."""

    def __init__(self, maps: Sequence[Any], placement: Placement) -> None:
        low = np.floor(placement.places.min(0)).astype(int)
        ends = placement.places + [one.shape for one in maps]
        shape = np.ceil(ends.max(0)).astype(int) - low
        super().__init__((int(shape[0]), int(shape[1])), np.dtype(np.float64))
        self.origin = low
        self._maps, self._placement = maps, placement
        self._laid = [laid_at(one, place - low, self.shape) for one, place in zip(maps, placement.places, strict=True)]

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
