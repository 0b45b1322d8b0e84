"""Heights of one wavelength, formed once from phases and orders."""

from __future__ import annotations

import math

import numba
import numpy as np

from cpikan.psi.flags import Flag

_INVALID, _AMBIGUOUS = int(Flag.INVALID), int(Flag.AMBIGUOUS)


@numba.njit(nogil=True, cache=True, error_model="numpy", boundscheck=False)
def form_rows(phase_rad, order, component, ambiguous, flags, nm_per_rad, constants_nm, slope, start, centre, height):  # type: ignore[no-untyped-def]
    """height = (phase + 2 pi order) nm_per_rad - plane of the component, and the ambiguous flag, for rows of a band.

    ``constants_nm`` is indexed by component number, ``slope`` (y, x) is in nm per pixel about ``centre``; all float64.
    """
    turn = 2 * math.pi
    for y in range(phase_rad.shape[0]):
        base = slope[0] * (start + y - centre[0])
        for x in range(phase_rad.shape[1]):
            number = component[y, x]
            value = (np.float64(phase_rad[y, x]) + turn * order[y, x]) * nm_per_rad
            value -= constants_nm[number] + base + slope[1] * (x - centre[1])
            height[y, x] = np.float32(value) if number > 0 else np.float32(np.nan)
            bits = flags[y, x]
            bits = bits | _INVALID if number == 0 else bits
            flags[y, x] = bits | _AMBIGUOUS if ambiguous[y, x] else bits
