"""How a map is shifted, turned and scaled against another: spectra for the turn, phase correlation, then least squares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.registration.affine import Affine, ResampledMap
from cpikan.registration.correlation import find_shift, smoothed

FloatArray = NDArray[np.float64]

_LEVELS_PX = (256, 512, 1024, 2048)  # longest side of the reduced maps
_ANGLES, _RADII = 720, 256
_STEPS, _STOP_PX = 30, 1e-3
_EXACT_PX = 0.05  # what moves no pixel by more is rounded away
_FEWEST_PIXELS = 256


@dataclass(frozen=True)
class Similarity:
    """Where the pixels of a reference come from in a map (``affine``), and what that is: turn, scale, shift of the middle."""

    affine: Affine
    turn_deg: float
    scale: float
    shift_px: tuple[float, float]


def find_similarity(reference: Any, moving: Any, *, turned: bool = True) -> Similarity:
    """Find how ``moving`` lies on ``reference``, maps of square pixels; ``turned``: it may also be turned and scaled.

    Both are reduced to 256, 512, 1024 and 2048 pixels, by means. On the first the logarithmic spectra give turn and scale
    (tried with half a turn more) and phase correlation the shift, and Gauss-Newton on differences less a plane refines them
    on all. Raises InputError where the maps have too little in common.
    """
    scale = max(max(reference.shape), max(moving.shape))
    found: FloatArray | None = None
    done = 0
    for longest in _LEVELS_PX:
        factor = max(1, -(-scale // longest))
        if factor == done:
            break
        one, two = (reduced(source, factor) for source in (reference, moving))
        start = _begun(one, two, turned) if found is None else _at_level(found, done, factor)
        found, done = _refined(one, two, start, turned), factor
        if factor == 1:
            break
    assert found is not None
    return _described(_at_level(found, done, 1), reference.shape)


def reduced(source: Any, factor: int) -> FloatArray:
    """Take means of ``factor`` x ``factor`` pixels, read in bands; NaN where fewer than half are valid."""
    height, width = (length // factor * factor for length in source.shape)
    rows = []
    for top in range(0, height, factor):
        band = np.asarray(source[top : top + factor, :width], np.float64).reshape(factor, -1, factor)
        valid = np.isfinite(band)
        count = valid.sum((0, 2))
        total = np.where(valid, band, 0.0).sum((0, 2))
        rows.append(np.where(2 * count >= factor * factor, total / np.maximum(count, 1), np.nan))
    return np.stack(rows) if rows else np.zeros((0, 0))


def _begun(one: FloatArray, two: FloatArray, turned: bool) -> FloatArray:
    """Guess (p, q, ty, tx) of row' = p row + q column + ty, column' = p column - q row + tx."""
    shape = tuple(np.maximum(one.shape, two.shape))
    middle = np.array(two.shape) / 2 - 0.5, np.array(one.shape) / 2 - 0.5
    turns = _turns(_padded(one, shape), _padded(two, shape)) if turned else [(0.0, 1.0)]
    best: tuple[float, FloatArray] | None = None
    for turn, scale in turns:
        affine = Affine.about(tuple(middle[0]), tuple(middle[1]), turn, scale)
        laid = np.asarray(ResampledMap(two, affine, one.shape))
        shift = find_shift(one, laid, max(shape) // 2)
        if shift is None:
            continue
        matrix = affine.matrix.copy()
        matrix[:, 2] += matrix[:, :2] @ shift
        laid = np.asarray(ResampledMap(two, Affine(matrix), one.shape))
        alike = _alike(one, laid)
        if best is None or alike > best[0]:
            best = alike, np.array([matrix[0, 0], matrix[0, 1], matrix[0, 2], matrix[1, 2]])
    if best is None:
        raise InputError(
            "the maps have too few valid pixels in common to be laid on each other: check that they overlap"
        )
    return best[1]


def _turns(one: FloatArray, two: FloatArray) -> list[tuple[float, float]]:
    """List turn and scale from the logarithmic spectra, each with half a turn more, and none."""
    from scipy.ndimage import map_coordinates

    size = min(one.shape)
    angles = np.arange(_ANGLES) * (np.pi / _ANGLES)
    base = math.log(size / 2 / 4) / _RADII
    radii = 4 * np.exp(base * np.arange(_RADII))
    polar = []
    for heights in (one, two):
        spectrum = np.fft.fftshift(np.abs(np.fft.fft2(heights)))
        rows = spectrum.shape[0] // 2 - np.sin(angles)[:, None] * radii * spectrum.shape[0] / size
        columns = spectrum.shape[1] // 2 + np.cos(angles)[:, None] * radii * spectrum.shape[1] / size
        sampled = np.log(map_coordinates(spectrum, [rows, columns], order=1, mode="nearest") + 1e-12)
        polar.append(sampled - sampled.mean(0))
    spectra = [np.fft.fft2(part) for part in polar]
    cross = np.conj(spectra[0]) * spectra[1]
    found = np.fft.ifft2(cross / (np.abs(cross) + 1e-3 * np.abs(cross).max())).real
    reach = _RADII // 4
    near = np.roll(found, reach, 1)[:, : 2 * reach + 1]
    angle, radius = np.unravel_index(int(np.argmax(near)), near.shape)
    turn, scale = -float(angle) * 180 / _ANGLES, math.exp(base * (float(radius) - reach))
    return [(turn, scale), (turn + 180, scale), (0.0, 1.0)]


def _refined(one: FloatArray, two: FloatArray, start: FloatArray, turned: bool) -> FloatArray:
    """Refine by Gauss-Newton; the columns of the design are slopes times where places go."""
    from scipy.ndimage import map_coordinates

    first, second = smoothed(one), smoothed(two)
    holes = np.isfinite(second)
    filled = np.where(holes, second, float(np.nanmean(second)))
    slopes = np.gradient(filled)
    y, x = (part.ravel().astype(np.float64) for part in np.mgrid[: one.shape[0], : one.shape[1]])
    values, p = first.ravel(), start.copy()
    centre = np.array(one.shape) / 2
    for _ in range(_STEPS):
        places = np.stack([p[0] * y + p[1] * x + p[2], p[0] * x - p[1] * y + p[3]])
        valid = map_coordinates(holes.astype(np.float32), places, order=1, mode="constant") > 0.999
        used = valid & np.isfinite(values)
        if np.count_nonzero(used) < _FEWEST_PIXELS:
            raise InputError(
                "the maps have too few valid pixels in common to be laid on each other: check that they overlap"
            )
        at = places[:, used]
        high = map_coordinates(filled, at, order=3, mode="nearest")
        down, across = (map_coordinates(slope, at, order=1, mode="nearest") for slope in slopes)
        u, v = y[used] - centre[0], x[used] - centre[1]
        columns = [down, across, np.ones(u.size), u, v]
        if turned:
            columns += [down * u + across * v, down * v - across * u]
        design = np.stack(columns, 1)
        step = np.linalg.lstsq(design.T @ design, design.T @ (values[used] - high), rcond=1e-14)[0]
        p += _step(step, centre, turned)
        size = np.abs(step[:2]).max() + (np.abs(step[5:]).max() * max(one.shape) if turned else 0.0)
        if size < _STOP_PX:
            break
    return p


def _step(step: FloatArray, centre: FloatArray, turned: bool) -> FloatArray:
    """Turn a step of shift, scale and turn about the middle into one of (p, q, ty, tx)."""
    grow, turn = (float(step[5]), float(step[6])) if turned else (0.0, 0.0)
    shift = np.clip(step[:2], -8, 8)
    return np.array(
        [
            grow,
            turn,
            shift[0] - grow * centre[0] - turn * centre[1],
            shift[1] - grow * centre[1] + turn * centre[0],
        ]
    )


def _at_level(p: FloatArray, factor: int, other: int) -> FloatArray:
    """Carry (p, q, ty, tx) from maps reduced by ``factor`` to maps by ``other``; a place is the middle of its pixels."""
    ratio = factor / other
    offset = (ratio - 1) / 2  # a pixel k of the coarse map has its middle at ratio k + offset of the fine one
    shift = np.array([offset - (p[0] + p[1]) * offset, offset - (p[0] - p[1]) * offset])
    return np.array([p[0], p[1], ratio * p[2] + shift[0], ratio * p[3] + shift[1]])


def _described(p: FloatArray, shape: tuple[int, int]) -> Similarity:
    reach = max(shape) / 2
    scale, turn = 1 / math.hypot(p[0], p[1]), math.degrees(math.atan2(p[1], p[0]))
    quarter = round(turn / 90) * 90.0
    middle = np.array(shape) / 2 - 0.5
    there = np.array([p[0] * middle[0] + p[1] * middle[1] + p[2], p[0] * middle[1] - p[1] * middle[0] + p[3]])
    if abs(scale - 1) * reach < _EXACT_PX and math.radians(abs(turn - quarter)) * reach < _EXACT_PX:
        scale, turn = 1.0, quarter
        corner = Affine.about(tuple(there), tuple(middle), turn).matrix[:, 2]
        near = np.round(corner) - corner
        there = there + np.where(np.abs(near) < _EXACT_PX, near, 0.0)
    affine = Affine.about(tuple(there), tuple(middle), turn, scale)
    shift = there - middle
    return Similarity(affine, turn, scale, (float(shift[0]), float(shift[1])))


def _alike(one: FloatArray, two: FloatArray) -> float:
    """Correlate the heights of two maps where both are valid."""
    used = np.isfinite(one) & np.isfinite(two)
    if np.count_nonzero(used) < _FEWEST_PIXELS:
        return -1.0
    a, b = one[used] - one[used].mean(), two[used] - two[used].mean()
    share = float(used.sum()) / max(1.0, float(np.isfinite(one).sum()))
    return float((a * b).sum() / math.sqrt(float((a * a).sum() * (b * b).sum()) + 1e-300)) * min(1.0, 2 * share)


def _padded(heights: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """Centre a map on a frame, its mean taken off, with borders that fade."""
    valid = np.isfinite(heights)
    mean = float(heights[valid].mean()) if valid.any() else 0.0
    fade = [np.sin(np.pi * (np.arange(length) + 0.5) / length) for length in heights.shape]
    out = np.zeros(shape)
    top, left = ((a - b) // 2 for a, b in zip(shape, heights.shape, strict=True))
    out[top : top + heights.shape[0], left : left + heights.shape[1]] = (
        np.where(valid, heights - mean, 0.0) * fade[0][:, None] * fade[1][None, :]
    )
    return out
