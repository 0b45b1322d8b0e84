"""The flags a pixel of a height map may carry."""

from __future__ import annotations

import enum


class Flag(enum.IntFlag):
    """Bits of the uint8 ``flags`` map; a pixel without any is a plain measurement."""

    INVALID = 1  # no measurement: outside the mask, no modulation, saturated or dead; the height is NaN
    SATURATED = 2  # at the upper end, or clipped at black, in at least one frame
    LOW_MODULATION = 4
    AMBIGUOUS = 8  # the fringe order is doubtful; the height is the best guess
    REFINED = 16  # a refiner changed the order
    INPAINTED = 32  # filled by a guess, not measured
