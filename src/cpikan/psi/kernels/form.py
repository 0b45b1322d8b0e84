"""Heights of one wavelength, formed once from phases and orders."""

from __future__ import annotations

import math

import numpy as np

from cpikan.compiled import compiled
from cpikan.psi.model.flags import Flag

_INVALID, _AMBIGUOUS = int(Flag.INVALID), int(Flag.AMBIGUOUS)


@compiled(error_model="numpy", boundscheck=False)
def form_rows(phase_rad, order, component, ambiguous, flags, nm_per_rad, constants_nm, datum_nm, height):  # type: ignore[no-untyped-def]
    """Form height = (phase + 2 pi order) nm_per_rad - datum, and the ambiguous flag, for rows of a band.

    The datum is ``constants_nm``, indexed by component number, plus ``datum_nm`` of the pixel (no rows: nothing); float64.
    """
    turn = 2 * math.pi
    for y in range(phase_rad.shape[0]):
        for x in range(phase_rad.shape[1]):
            number = component[y, x]
            value = (np.float64(phase_rad[y, x]) + turn * order[y, x]) * nm_per_rad - constants_nm[number]
            if datum_nm.shape[0] > 0:
                value -= datum_nm[y, x]
            height[y, x] = np.float32(value) if number > 0 else np.float32(np.nan)
            bits = flags[y, x]
            bits = bits | _INVALID if number == 0 else bits
            flags[y, x] = bits | _AMBIGUOUS if ambiguous[y, x] else bits
