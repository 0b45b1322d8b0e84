"""Spatial numbers of ISO 25178-2:2021: how fast the autocorrelation decays (Sal, Str), and the direction of the texture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cpikan.surface.areal.texture_direction import texture_direction_deg
from cpikan.surface.filters.gaussian import Rows
from cpikan.surface.spectra.autocorrelation import Autocorrelation, autocorrelation
from cpikan.units import PixelUm, pixel_pair

FloatArray = NDArray[np.float64]

DECAY = 0.2  # of the autocorrelation at lag 0 (ISO 25178-3)
_ANGLES = 360  # rays over half a turn
_STEP_PX = 0.25
_FIRST_REACH, _WIDEST_REACH = 64, 1024
SPATIAL = ("sal_um", "str", "std_deg")


@dataclass(frozen=True)
class Decay:
    """Shortest and longest way, in um, to where the autocorrelation has fallen to a share of its value at lag 0.

    ``longest_um`` is None where it does not fall so far in some direction within the map; so is ``shortest_um`` where it
    falls so far in none.
    """

    shortest_um: float | None
    longest_um: float | None


def decay_lengths(height_nm: Float[np.ndarray, "h w"], pixel_um: PixelUm = 1.0, share: float = DECAY) -> Decay:
    """Find the decay of the autocorrelation of a map (H, W) along 360 rays of half a turn, up to half the map's size.

    The reach of the correlation grows until every ray has crossed; cubic splines give values between lags. Beyond a reach
    of 1024 pixels it goes on with means of two by two pixels, against the mean square of all: what is so wide is as wide in
    them, but for the square of a pixel over that reach. So memory is that of transforms of 4096 x 4096, beside the map.
    """
    heights, pixel = np.asarray(height_nm), pixel_pair(pixel_um) or (1.0, 1.0)
    square = float(np.var(heights[np.isfinite(heights)], dtype=np.float64)) if np.isfinite(heights).any() else 0.0
    reach = _FIRST_REACH
    while True:
        bounds = tuple(min(reach, max(1, size // 2)) for size in heights.shape)
        found = _crossings(autocorrelation(heights, (bounds[0], bounds[1])), square, pixel, share)
        if np.isfinite(found).all() or reach >= max(heights.shape) // 2:
            break
        reach *= 2
        if reach > _WIDEST_REACH:
            heights, pixel, reach = _halved(heights), (2 * pixel[0], 2 * pixel[1]), reach // 2
    known = found[np.isfinite(found)]
    shortest = float(known.min()) if known.size else None
    return Decay(shortest, float(found.max()) if known.size == found.size else None)


def _halved(heights: NDArray[np.floating]) -> FloatArray:
    """Average the valid pixels of two by two; an odd last row or column goes alone."""
    padded = np.pad(heights.astype(np.float64), [(0, size % 2) for size in heights.shape], constant_values=np.nan)
    blocks = padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2)
    valid = np.isfinite(blocks)
    count = valid.sum((1, 3))
    total = np.where(valid, blocks, 0.0).sum((1, 3))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _crossings(correlation: Autocorrelation, square: float, pixel: tuple[float, float], share: float) -> FloatArray:
    """Find where each ray first comes below the share, in um; NaN for rays that leave the reach before."""
    from scipy.ndimage import map_coordinates, spline_filter

    if not square > 0:
        return np.full(_ANGLES, np.nan)
    values = np.where(np.isnan(correlation.products), 0.0, correlation.products) / square - share
    smooth, (reach_y, reach_x) = spline_filter(values, order=3, mode="mirror"), correlation.reach
    angles = np.arange(_ANGLES) * math.pi / _ANGLES
    unit = min(pixel)
    down, across = np.sin(angles) * unit / pixel[0], np.cos(angles) * unit / pixel[1]  # lags of a way of one unit

    def at(way: FloatArray, rays: NDArray[np.integer]) -> FloatArray:
        places = [reach_y + way * down[rays], reach_x + way * across[rays]]
        found: FloatArray = map_coordinates(smooth, places, order=3, mode="mirror", prefilter=False)
        return found

    with np.errstate(divide="ignore", invalid="ignore"):  # a ray along an axis never leaves the reach of the other
        leaves = [np.where(step == 0, np.inf, far / np.abs(step)) for far, step in ((reach_y, down), (reach_x, across))]
    ends = np.minimum(*leaves)
    found, open_rays, way = np.full(_ANGLES, np.nan), np.arange(_ANGLES), 0.0
    while open_rays.size:
        open_rays = open_rays[ends[open_rays] >= way + _STEP_PX]
        way += _STEP_PX
        below = at(np.full(open_rays.size, way), open_rays) < 0
        found[open_rays[below]] = way
        open_rays = open_rays[~below]
    crossed = np.flatnonzero(np.isfinite(found))
    low, high = found[crossed] - _STEP_PX, found[crossed]
    for _ in range(40):  # bisection: to the last digit
        middle = (low + high) / 2
        below = at(middle, crossed) < 0
        low, high = np.where(below, low, middle), np.where(below, middle, high)
    found[crossed] = (low + high) / 2 * unit
    return found


def spatial_numbers(height_nm: Rows, pixel_um: PixelUm | None = None) -> dict[str, float | None]:
    """Compute Sal, Str and Std; None where the correlation does not decay within half the map, or the map is flat."""
    decay = decay_lengths(np.asarray(height_nm), pixel_um or 1.0)
    ratio = None
    if decay.shortest_um is not None and decay.longest_um is not None:
        ratio = decay.shortest_um / decay.longest_um
    sal = None if pixel_um is None else decay.shortest_um
    return dict(zip(SPATIAL, (sal, ratio, texture_direction_deg(height_nm, pixel_um or 1.0)), strict=True))
