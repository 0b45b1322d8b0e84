"""Heights of steps and grooves by ISO 5436-1: levels, arcs and one common slope, fitted where the edges do not reach."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.surface.profiles.path import Profile

FloatArray = NDArray[np.float64]

_NM_PER_UM = 1e3
_ROUND = 0.1  # of the depth: a round feature begins where it is that deep
_FEWEST, _LEAST_BEND = 5, 1e-9


@dataclass(frozen=True)
class Step:
    """A step: ``height_nm`` of the level that was asked for over the other, the RMS of what the fit leaves, and the edges.

    ``edges_um`` are where the feature begins and ends along the profile; empty for regions of a map.
    """

    height_nm: float
    rest_nm: float
    edges_um: tuple[float, ...] = ()


def groove_depth(profile: Profile, edges_um: tuple[float, float] | None = None) -> Step:
    """Measure a groove or a ridge of type A1 (ISO 5436-1:2000, 7.1): its depth is negative, its height positive.

    Of a feature of width W count its middle third, and outside of it what lies between W / 3 and W away from each edge; a
    straight line with an offset of the feature is fitted by least squares. Without ``edges_um`` the edges are where the
    profile, without its line through both ends, crosses the middle between its two levels. Raises InputError where the profile
    does not reach that far, or crosses another number of times than two.
    """
    left, right = edges_um or _found_edges(profile)
    inner, outer, _ = _beside(profile, left, right)
    used = inner | outer
    terms = np.stack([inner[used].astype(np.float64), np.ones(int(used.sum())), profile.distance_um[used]], 1)
    height, rest = _fitted(terms, profile.height_nm[used])
    return Step(height, rest, (left, right))


def _beside(profile: Profile, left: float, right: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_], FloatArray]:
    """Find the valid heights of the middle third of a feature, those beside it, and the line of these at the former.

    Raises InputError where there are none on a side.
    """
    width, way, valid = right - left, profile.distance_um, np.isfinite(profile.height_nm)
    inner = (way >= left + width / 3) & (way <= right - width / 3) & valid
    away = np.maximum(left - way, way - right)
    outer = (away >= width / 3) & (away <= width) & valid
    if not width > 0 or not all(part.any() for part in (inner, outer & (way < left), outer & (way > right))):
        raise InputError(
            f"a feature from {left:g} to {right:g} um leaves no height beside it: give a profile that reaches more than a "
            "third of its width beyond both edges, and has heights there"
        )
    slope, level = np.polyfit(way[outer] - left, profile.height_nm[outer], 1)
    return inner, outer, level + slope * (way[inner] - left)


@dataclass(frozen=True)
class RoundGroove:
    """A groove or ridge whose middle is an arc: ``height_nm`` of its deepest (or highest) point over the line beside it,
    ``radius_um`` of the arc, the RMS of what the arc leaves, and where the feature begins and ends along the profile."""

    height_nm: float
    radius_um: float
    rest_nm: float
    edges_um: tuple[float, float]


def round_groove_depth(profile: Profile, edges_um: tuple[float, float] | None = None) -> RoundGroove:
    """Measure a wide groove with a round bottom, type A2 (ISO 5436-1:2000): depth to the lowest point of an arc, its radius.

    The line is fitted as for type A1; the circular arc to the middle third of the feature, by least squares of heights above
    that line. Without ``edges_um`` the edges are where the profile reaches a tenth of its depth. Raises InputError where
    fewer than five heights lie in the middle third, and where these bend no more than rounding does.
    """
    from scipy.optimize import least_squares

    left, right = edges_um or _found_edges(profile, _ROUND)
    inner, _, line = _beside(profile, left, right)
    way, heights = profile.distance_um[inner], profile.height_nm[inner] - line
    if way.size < _FEWEST:
        raise InputError(
            f"the middle third of a feature from {left:g} to {right:g} um has {way.size} heights: an arc needs {_FEWEST}"
        )
    middle, scale = (left + right) / 2, (right - left) / 2
    bend, slope, bottom = np.polyfit((way - middle) / scale, heights, 2)
    curvature = 2 * bend / scale**2 / _NM_PER_UM  # 1/um
    if abs(bend) < _LEAST_BEND * max(float(np.abs(heights).max()), 1e-300):
        raise InputError(
            f"the middle third of a feature from {left:g} to {right:g} um is straight: measure it as a flat groove (A1)"
        )
    start = np.array([middle - scale * slope / (2 * bend), bottom - slope**2 / (4 * bend), curvature])
    units = np.array([scale, abs(bend), abs(curvature)])

    def rest(numbers: FloatArray) -> FloatArray:
        place, deepest, bent = numbers * units
        square = np.clip(1 - (bent * (way - place)) ** 2, 0.0, None)
        return deepest + _NM_PER_UM * bent * (way - place) ** 2 / (1 + np.sqrt(square)) - heights

    found = least_squares(rest, start / units, xtol=1e-15, ftol=1e-15, gtol=1e-15)
    _, deepest, bent = found.x * units
    return RoundGroove(float(deepest), float(1 / abs(bent)), float(np.sqrt((found.fun**2).mean())), (left, right))


def step_between(
    height_nm: Float[np.ndarray, "h w"], upper: Bool[np.ndarray, "h w"], lower: Bool[np.ndarray, "h w"]
) -> Step:
    """Measure how far the region ``upper`` of a map lies above ``lower``: two parallel planes by least squares.

    Raises InputError where a region has no valid pixel.
    """
    heights = np.asarray(height_nm, np.float64)
    upper, lower = (np.asarray(region, bool) & np.isfinite(heights) for region in (upper, lower))
    if not upper.any() or not lower.any():
        raise InputError("a region of the step has no valid pixel: give two that have some")
    used = upper | lower
    y, x = np.nonzero(used)
    terms = np.stack([upper[used].astype(np.float64), np.ones(y.size), y - y.mean(), x - x.mean()], 1)
    return Step(*_fitted(terms, heights[used]))


def _fitted(terms: FloatArray, heights: FloatArray) -> tuple[float, float]:
    """Fit terms of which the first is the step; its factor, and the RMS of the rest."""
    around = float(heights.mean())
    factors = np.linalg.lstsq(terms, heights - around, rcond=None)[0]
    rest = heights - around - terms @ factors
    return float(factors[0]), float(np.sqrt((rest**2).mean()))


def _found_edges(profile: Profile, share: float = 0.5) -> tuple[float, float]:
    """Find where a profile, without its line through both ends, crosses a ``share`` of the level of its feature."""
    way, valid = profile.distance_um, np.isfinite(profile.height_nm)
    if np.count_nonzero(valid) < 6:
        raise InputError("a profile with fewer than six heights has no step: give a longer one")
    way, heights = way[valid], profile.height_nm[valid]
    tenth = max(1, heights.size // 10)
    ends = [(way[part].mean(), np.median(heights[part])) for part in (slice(0, tenth), slice(-tenth, None))]
    slope = (ends[1][1] - ends[0][1]) / (ends[1][0] - ends[0][0])
    flat = heights - ends[0][1] - slope * (way - ends[0][0])
    level = flat[np.abs(flat).argmax()]
    if level:  # that of the feature, not of its spikes
        level = float(np.median(flat[np.abs(flat - level) < np.abs(level) / 2]))
    crossed = np.flatnonzero(np.diff((flat / level > share).astype(np.int8))) if level else np.zeros(0, np.int64)
    if crossed.size != 2:
        raise InputError(
            f"the profile crosses {share:g} of its step {crossed.size} times, not twice: give the edges in um"
        )
    part = (share * level - flat[crossed]) / (flat[crossed + 1] - flat[crossed])
    left, right = way[crossed] + part * (way[crossed + 1] - way[crossed])
    return float(left), float(right)
