"""Ramps: how the weight passes from one tile to the next; the pair always sums to one."""

from __future__ import annotations

import numpy as np

WINDOWS = ("halo", "hann", "hamming", "smooth")


def rising(window: str, length: int) -> np.ndarray:
    """The weight of the later tile over a ramp of ``length`` pixels, (length,) float64; the earlier one has the rest.

    Samples sit at half pixels, t = (k + 1/2) / length, so no weight is zero and the ramp is its own mirror image:
    ``hann`` sin^2(pi t / 2); ``hamming`` (0.54 - 0.46 cos(pi t)) / 1.08, which jumps by 7.4 % at both ends as that
    window does; ``smooth`` 6 t^5 - 15 t^4 + 10 t^3 (C2, Perlin 2002); ``halo`` a step in the middle.
    """
    t = (np.arange(length) + 0.5) / max(length, 1)
    if window == "hann":
        return np.sin(0.5 * np.pi * t) ** 2
    if window == "hamming":
        return (0.54 - 0.46 * np.cos(np.pi * t)) / 1.08
    if window == "smooth":
        return t**3 * (10.0 + t * (6.0 * t - 15.0))
    return (np.arange(length) >= length // 2).astype(float)
