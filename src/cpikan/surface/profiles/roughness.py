"""Profile numbers of ISO 21920-2: of the whole evaluation length, means over its section lengths, its core, its elements."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.surface.areal.material_ratio import MaterialRatio
from cpikan.surface.filters.gaussian import gaussian_filter
from cpikan.surface.profiles.path import Profile

FloatArray = NDArray[np.float64]

SECTIONS = 5
HEIGHTS = ("ra_nm", "rq_nm", "rt_nm", "rsk", "rku", "rz_nm", "rp_nm", "rv_nm", "rzx_nm", "rdq")
CORE = ("rk_nm", "rpk_nm", "rvk_nm", "rmrk1_percent", "rmrk2_percent")
ROUGHNESS = (*HEIGHTS, "rsm_um", *CORE)
_LEAST = 0.1  # of Rz: what is lower is no hill of an element, what is less deep no dale
_FEWEST = 3


def filtered_profile(profile: Profile, s_filter_um: float | None = None, l_filter_um: float | None = None) -> Profile:
    """Filter a profile by Gaussians (ISO 16610-21, renormalised at ends and gaps): what lies between both nesting indices."""
    heights = profile.height_nm[None]
    if s_filter_um is not None:
        heights = gaussian_filter(heights, (1.0, s_filter_um / profile.step_um))
    if l_filter_um is not None:
        heights = heights - gaussian_filter(heights, (1.0, l_filter_um / profile.step_um))
    return Profile(profile.step_um, heights[0], profile.x_px, profile.y_px)


def profile_numbers(profile: Profile, sections: int = SECTIONS) -> dict[str, float | None]:
    """Compute Ra, Rq, Rt, Rsk, Rku over the evaluation length about its mean, Rz, Rp, Rv as means over sections, Rzx, Rdq.

    Rz of a section is its highest peak plus its deepest pit; Rzx is the largest of them. They need a valid height in every
    section, Rdq (differences of neighbours, as a slope) two neighbours; None where a number does not exist. Rk, Rpk, Rvk and
    their ratios are those of the material ratio curve; Rsm is the mean width of the elements, hill and dale, in um. Raises
    InputError for a number of sections that is not positive.
    """
    if sections < 1:
        raise InputError(f"{sections} sections of a profile are none: give 1 or more (5 by default)")
    found: dict[str, float | None] = dict.fromkeys(ROUGHNESS)
    heights = np.asarray(profile.height_nm, np.float64)
    valid = np.isfinite(heights)
    if np.count_nonzero(valid) < _FEWEST:
        return found
    heights = heights - heights[valid].mean()
    values = heights[valid]
    rq = math.sqrt(float((values**2).mean()))
    found |= {"ra_nm": float(np.abs(values).mean()), "rq_nm": rq, "rt_nm": float(np.ptp(values))}
    if rq > 0:
        found |= {"rsk": float((values**3).mean()) / rq**3, "rku": float((values**4).mean()) / rq**4}
    parts = [part[np.isfinite(part)] for part in np.array_split(heights, sections)]
    if all(part.size for part in parts):
        peaks, pits = (np.array([sign * (sign * part).max() for part in parts]) for sign in (1, -1))
        found |= {"rp_nm": float(peaks.mean()), "rv_nm": float(-pits.mean())}
        found |= {"rz_nm": float((peaks - pits).mean()), "rzx_nm": float((peaks - pits).max())}
    slopes = np.diff(heights)
    slopes = slopes[np.isfinite(slopes)]
    if slopes.size:
        found["rdq"] = math.sqrt(float((slopes**2).mean())) / profile.step_um / 1000
    if rq > 0:
        found |= _core(values)
    if found["rz_nm"]:
        found["rsm_um"] = _mean_width(heights, _LEAST * found["rz_nm"], profile.step_um)
    return found


def _core(values: FloatArray) -> dict[str, float | None]:
    curve = MaterialRatio(values)
    ratios = (100 * curve.ratio(level) for level in (curve.core.top_nm, curve.core.bottom_nm))
    numbers = (curve.core.sk_nm, curve.reduced_peak_nm(), curve.reduced_dale_nm(), *ratios)
    return dict(zip(CORE, numbers, strict=True))


def _mean_width(heights: FloatArray, least_nm: float, step_um: float) -> float | None:
    """Average the way from one rising crossing of the mean line to the next, and from one falling to the next.

    A crossing counts where it leads from a dale deeper than ``least_nm`` to a hill higher than that, or back; none over a gap.
    """
    ways: list[FloatArray] = []
    gaps = np.flatnonzero(~np.isfinite(heights))
    for run in np.split(heights, gaps):
        places = _crossings(run[np.isfinite(run)], least_nm)
        ways.append(places[2:] - places[:-2])
    found = np.concatenate(ways)
    return float(found.mean()) * step_um if found.size else None


def _crossings(heights: FloatArray, least_nm: float) -> FloatArray:
    """Find where a profile without gaps first crosses zero between a hill and a dale, in steps; rising and falling in turn."""
    outside = np.flatnonzero(np.abs(heights) >= least_nm)
    rises = np.sign(heights[outside])
    places = []
    for before, after, rise in zip(outside[:-1], outside[1:], rises[1:], strict=True):
        if rise * heights[before] < 0:
            part = rise * heights[before : after + 1]
            k = int(np.argmax(part >= 0))
            places.append(before + k - 1 + part[k - 1] / (part[k - 1] - part[k]))
    return np.array(places, np.float64)
