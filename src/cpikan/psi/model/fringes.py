"""The linear part of the forward model of a frame, written down once."""

from __future__ import annotations

import numpy as np


def fringe_columns(steps_rad: np.ndarray, harmonics: tuple[int, ...] = ()) -> np.ndarray:
    """Build the columns 1, cos(h d), -sin(h d), h = 1 and ``harmonics``, of steps d (..., K): (..., K, 3 + 2 H).

    Frames are these columns times A, B cos(phi), B sin(phi) and the two numbers of each further harmonic.
    """
    columns = [np.ones_like(steps_rad)]
    for order in (1, *harmonics):
        columns += [np.cos(order * steps_rad), -np.sin(order * steps_rad)]
    return np.stack(columns, axis=-1)
