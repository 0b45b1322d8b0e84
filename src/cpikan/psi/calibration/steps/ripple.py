"""Print-through of the fringes before and after a fit of the frames, measured on the subsample."""

from __future__ import annotations

import numpy as np

from cpikan.psi.calibration.steps.fringes import unwrap_scattered
from cpikan.surface.ripple import ripple_of_points

_LARGEST_REST = 1.5  # rad about the smooth form: beyond it the orders of a pixel are wrong
_SHARE_WRONG = 0.01
_FEWEST = 1000


def ripple_before_and_after(
    before_rad: np.ndarray, after_rad: np.ndarray, position: np.ndarray
) -> tuple[dict[int, float], dict[int, float]] | None:
    """Measure amplitudes in mrad at 1 to 4 times the fringes of two wrapped phases (P,) of the same pixels.

    Both refer to the smooth form left by the second; None where the pixels are too few or too far apart to unwrap.
    """
    if len(after_rad) < _FEWEST:
        return None
    scattered = unwrap_scattered(after_rad, position)
    kept = scattered.reached
    change = np.angle(np.exp(1j * (before_rad - after_rad)))[kept]
    if not scattered.resolved or len(kept) < _FEWEST or (np.abs(change) > _LARGEST_REST).mean() > _SHARE_WRONG:
        return None
    after, where = scattered.unwrapped_rad[kept], position[kept]
    return (
        ripple_of_points(where, after + change, after),
        ripple_of_points(where, after, after),
    )
