"""Windows: smooth profiles that sum to one because each is the difference of two ramps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cpikan.partition.intervals import Intervals, Number


class Profile(NamedTuple):
    """A function of one coordinate with its first and second derivative, all of one shape."""

    value: np.ndarray
    d1: np.ndarray
    d2: np.ndarray


def smoothstep(t: np.ndarray) -> Profile:
    """Evaluate the C2 step 6 t^5 - 15 t^4 + 10 t^3 from 0 (t <= 0) to 1 (t >= 1) and its derivatives (Perlin 2002).

    The values are whole multiples of the type's epsilon, so differences and sums of them are exact and windows made of
    them sum to one without rounding.
    """
    t = t.clip(0.0, 1.0)
    near = np.minimum(t, 1.0 - t)  # the polynomial cancels near t = 1, where 1 - s(1 - t) is exact
    half = near * near * near * (10.0 + near * (6.0 * near - 15.0))
    value = (np.where(t <= 0.5, half, 1.0 - half) + 1.0) - 1.0  # 1 <= sum < 2 has steps of one epsilon
    slope = near * (1.0 - near)
    return Profile(value, 30.0 * slope * slope, 60.0 * slope * (1.0 - 2.0 * t))


def ramp(x: np.ndarray, start: float | np.ndarray, width: float) -> Profile:
    """Evaluate the smooth step over [start, start + width]; for width 0 a jump at ``start``, which counts as above."""
    if width == 0:
        zero = np.zeros_like(x)
        return Profile((x >= start).astype(x.dtype), zero, zero)
    value, d1, d2 = smoothstep((x - start) / width)
    return Profile(value, d1 / width, d2 / width**2)


def window(pieces: Intervals[Number], i: int, x: np.ndarray) -> Profile:
    """Evaluate the window of piece i at the coordinates x (float32 or float64): ``ramp_i - ramp_(i+1)``.

    The sum over the pieces telescopes to one, the sums of the derivatives to zero, for every x, also outside the axis.
    """
    if i:
        value, d1, d2 = ramp(x, pieces.ramps[i - 1], pieces.ramp)
    else:
        value, d1, d2 = np.ones_like(x), np.zeros_like(x), np.zeros_like(x)
    if i < len(pieces.ramps):
        down = ramp(x, pieces.ramps[i], pieces.ramp)
        value, d1, d2 = value - down.value, d1 - down.d1, d2 - down.d2
    return Profile(value, d1, d2)
