"""Places, pistons and tilts of many maps together, by Gauss-Newton on the differences of all overlaps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpikan.registration.affine import Affine, ResampledMap
from cpikan.registration.correlation import EVERY, SHARED_PX, SMOOTH_PX, smoothed

FloatArray = NDArray[np.float64]

_ROUNDS = 2  # of an error below a pixel, less than a hundredth is left
_LINES = 64  # rows of an overlap that its first plane is fitted to
_BAND = 512  # rows of an overlap in memory
_MARGIN = 8  # pixels around them, beyond which smoothing sees nothing
_SHARP = 1e-10  # singular values that count as zero: what moves all maps together


@dataclass(frozen=True)
class Settled:
    """Places (maps, 2), planes (maps, 3) of a + b row + c column, and the standard errors of the places (maps, 2)."""

    places: FloatArray
    planes: FloatArray
    sigma_px: FloatArray


@dataclass(frozen=True)
class _Equations:
    """Normal equations of second - first on an overlap: shift (row, column), piston and tilts; their noise is one."""

    pair: tuple[int, int]
    normal: FloatArray
    moment: FloatArray


@dataclass(frozen=True)
class _Frame:
    """Where planes are counted from, and in what: they stay of the size of heights."""

    centre: FloatArray
    scale: float

    def design(self, rows: FloatArray, columns: FloatArray) -> FloatArray:
        """Give piston and tilts at pixels, (pixels, 3)."""
        return np.stack(
            [np.ones(rows.size), (rows - self.centre[0]) / self.scale, (columns - self.centre[1]) / self.scale], 1
        )


def settle(
    maps: Sequence[Any], places: FloatArray, pairs: Sequence[tuple[int, int]], agreed: AbstractSet[tuple[int, int]]
) -> Settled:
    """Refine ``places`` (maps, 2) on all overlaps at once, from within the length over which the surface changes.

    A pair in ``agreed`` moves its maps; the others tell planes alone. The first map that moves is held to the whole pixel where
    it began. Planes have no sum. The tilt of a map is one for all of its overlaps: a slope that an overlap alone could
    not tell from a shift is known from the others.
    """
    frame = _Frame(places.mean(0) + np.array(maps[0].shape) / 2, float(max(max(one.shape) for one in maps)))
    moving = np.zeros(len(maps), bool)
    moving[[k for pair in agreed for k in pair]] = True
    planes = _solve([_first_plane(maps, places, pair, frame) for pair in pairs], len(maps), 3)[0]
    held, places, sigma = places, places.copy(), np.full((len(maps), 2), np.nan)
    for _ in range(_ROUNDS if agreed else 0):
        told = [_refined(maps, places, planes, pair, frame) for pair in pairs]
        step, covariance = _solve([_kept(one, one.pair in agreed) for one in told], len(maps), 5)
        places += np.where(moving[:, None], step[:, :2], 0.0)
        planes += step[:, 2:]
        sigma[moving] = np.sqrt(covariance[moving, :2])
    if moving.any():
        first = int(np.argmax(moving))
        places -= places[first] - np.round(held[first])
    return Settled(places, _unscaled(planes, frame), sigma)


def laid_at(source: Any, place: FloatArray, shape: tuple[int, ...]) -> ResampledMap:
    """Lay a map with its first pixel at ``place`` (row, column) on pixels of ``shape``."""
    matrix = np.array([[1.0, 0.0, -place[0]], [0.0, 1.0, -place[1]]])
    return ResampledMap(source, Affine(matrix), (int(shape[0]), int(shape[1])))


def _overlap(maps: Sequence[Any], places: FloatArray, pair: tuple[int, int]) -> tuple[NDArray[np.int64], list[Any]]:
    """Lay both maps of a pair on the pixels that they share: the first pixel, and the two maps."""
    i, j = pair
    low = np.ceil(np.maximum(places[i], places[j])).astype(int)
    high = np.floor(np.minimum(places[i] + maps[i].shape, places[j] + maps[j].shape)).astype(int)
    return low, [laid_at(maps[k], places[k] - low, tuple(high - low)) for k in pair]


def _first_plane(maps: Sequence[Any], places: FloatArray, pair: tuple[int, int], frame: _Frame) -> _Equations:
    """Sum up the plane of second - first over some lines of an overlap."""
    low, (one, two) = _overlap(maps, places, pair)
    normal, moment = np.zeros((3, 3)), np.zeros(3)
    for row in range(0, one.shape[0], max(1, one.shape[0] // _LINES)):
        rest = np.asarray(two[row]) - np.asarray(one[row])
        used = np.flatnonzero(np.isfinite(rest))
        design = frame.design(np.full(used.size, float(low[0] + row)), low[1] + used.astype(np.float64))
        normal += design.T @ design
        moment += design.T @ rest[used]
    return _Equations(pair, normal, moment)


def _refined(
    maps: Sequence[Any], places: FloatArray, planes: FloatArray, pair: tuple[int, int], frame: _Frame
) -> _Equations:
    """Sum up shift and plane of second - first over an overlap, both smoothed and less their planes, over its variance.

    Slopes are those of the mean of both, less what its noise has.
    """
    normal, moment, square, count = np.zeros((5, 5)), np.zeros(5), 0.0, 0
    for corner, one, two in _bands(maps, places, planes, pair, frame):
        slopes = [np.asarray(slope) for slope in np.gradient((one + two) / 2)]
        rest = two - one
        inner = np.zeros(one.shape, bool)
        inner[_MARGIN:-_MARGIN:EVERY, _MARGIN:-_MARGIN:EVERY] = True
        rows, columns = np.nonzero(inner & np.isfinite(rest) & np.isfinite(slopes[0]) & np.isfinite(slopes[1]))
        forms = frame.design(corner[0] + rows.astype(np.float64), corner[1] + columns.astype(np.float64))
        design = np.concatenate([np.stack([slope[rows, columns] for slope in slopes], 1), forms], 1)
        values = rest[rows, columns]
        normal += design.T @ design
        moment += design.T @ values
        square += float(values @ values)
        count += values.size
    left = square - float(moment @ np.linalg.lstsq(normal, moment, rcond=_SHARP)[0])
    variance = max(left, 1e-30) / max(count, 1)
    # of the mean of two maps, the slopes of their noise; what is left of the slopes stays positive whatever the planes take up
    known = normal[:2, :2] - normal[:2, 2:] @ np.linalg.lstsq(normal[2:, 2:], normal[2:, :2], rcond=_SHARP)[0]
    noise = min(count * variance / (8 * SMOOTH_PX**2), 0.9 * max(float(np.linalg.eigvalsh(known)[0]), 0.0))
    normal[[0, 1], [0, 1]] -= noise
    weight = 1 / (variance * SHARED_PX)
    return _Equations(pair, normal * weight, moment * weight)


def _bands(
    maps: Sequence[Any], places: FloatArray, planes: FloatArray, pair: tuple[int, int], frame: _Frame
) -> Iterator[tuple[tuple[int, int], FloatArray, FloatArray]]:
    """Read an overlap by bands that share a margin: its corner in the mosaic, and both maps, level and smoothed."""
    low, laid = _overlap(maps, places, pair)
    height, width = laid[0].shape
    for top in range(0, height - 2 * _MARGIN, _BAND):
        bottom = min(top + _BAND + 2 * _MARGIN, height)
        rows, columns = (part.ravel() for part in np.mgrid[low[0] + top : low[0] + bottom, low[1] : low[1] + width])
        design = frame.design(rows.astype(np.float64), columns.astype(np.float64))
        one, two = (
            smoothed(np.asarray(source[top:bottom]) - (design @ planes[k]).reshape(bottom - top, width))
            for k, source in zip(pair, laid, strict=True)
        )
        yield (int(low[0]) + top, int(low[1])), one, two


def _kept(told: _Equations, moves: bool) -> _Equations:
    """Leave the shift out where an overlap does not tell it."""
    if moves:
        return told
    normal, moment = told.normal.copy(), told.moment.copy()
    normal[:2], normal[:, :2], moment[:2] = 0.0, 0.0, 0.0
    return _Equations(told.pair, normal, moment)


def _solve(told: Sequence[_Equations], count: int, unknowns: int) -> tuple[FloatArray, FloatArray]:
    """Solve for the unknowns of all maps, (count, unknowns), whose means are zero, and their variances."""
    normal, right = np.zeros((count, unknowns, count, unknowns)), np.zeros((count, unknowns))
    for one in told:
        i, j = one.pair
        for a, b, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
            normal[a, :, b] += sign * one.normal
        right[j] += one.moment
        right[i] -= one.moment
    inverse = np.linalg.pinv(normal.reshape(count * unknowns, -1), rcond=_SHARP, hermitian=True)
    found = (inverse @ right.ravel()).reshape(count, unknowns)
    return found, np.diag(inverse).clip(0).reshape(count, unknowns)


def _unscaled(planes: FloatArray, frame: _Frame) -> FloatArray:
    """Turn planes about the centre into a + b row + c column."""
    found = planes.copy()
    found[:, 1:] /= frame.scale
    found[:, 0] -= found[:, 1:] @ frame.centre
    return found
