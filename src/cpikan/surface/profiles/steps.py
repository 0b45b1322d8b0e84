"""Heights of steps by ISO 5436-1: two levels and one common slope, fitted where the edges do not reach."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.surface.profiles.path import Profile

FloatArray = NDArray[np.float64]


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
    width = right - left
    way = profile.distance_um
    inner = (way >= left + width / 3) & (way <= right - width / 3)
    away = np.maximum(left - way, way - right)
    outer = (away >= width / 3) & (away <= width)
    sides = [outer & (way < left), outer & (way > right)]
    valid = np.isfinite(profile.height_nm)
    if not width > 0 or any(not (part & valid).any() for part in (inner, *sides)):
        raise InputError(
            f"a feature from {left:g} to {right:g} um leaves no height beside it: give a profile that reaches more than a "
            "third of its width beyond both edges, and has heights there"
        )
    used = (inner | outer) & valid
    terms = np.stack([inner[used].astype(np.float64), np.ones(int(used.sum())), way[used]], 1)
    height, rest = _fitted(terms, profile.height_nm[used])
    return Step(height, rest, (left, right))


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


def _found_edges(profile: Profile) -> tuple[float, float]:
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
    crossed = np.flatnonzero(np.diff((flat / level > 0.5).astype(np.int8))) if level else np.zeros(0, np.int64)
    if crossed.size != 2:
        raise InputError(
            f"the profile crosses the middle of its step {crossed.size} times, not twice: give the edges in um"
        )
    share = (level / 2 - flat[crossed]) / (flat[crossed + 1] - flat[crossed])
    left, right = way[crossed] + share * (way[crossed + 1] - way[crossed])
    return float(left), float(right)
