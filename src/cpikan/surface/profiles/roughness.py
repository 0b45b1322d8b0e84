"""Profile numbers of ISO 21920-2: of the whole evaluation length, and means over its section lengths."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.surface.filters.gaussian import gaussian_filter
from cpikan.surface.profiles.path import Profile

FloatArray = NDArray[np.float64]

SECTIONS = 5
ROUGHNESS = ("ra_nm", "rq_nm", "rt_nm", "rsk", "rku", "rz_nm", "rp_nm", "rv_nm", "rzx_nm", "rdq")
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
    section, Rdq (differences of neighbours, as a slope) two neighbours; None where a number does not exist. Raises
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
    return found
