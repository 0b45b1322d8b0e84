"""Means of misfits (chi squared of pixels) that a few pixels which fit nothing do not decide."""

from __future__ import annotations

import numpy as np

_REGIONS = 6  # per axis
_REGION_PIXELS = 40
_ERRORS = 4.0  # standard errors by which the mean of a region may be high by chance


def fitting(misfit: np.ndarray) -> np.ndarray:
    """Choose the pixels whose misfit (P,) is not that of dust or of heights outside the window."""
    return misfit <= max(30.0, 8 * float(np.median(misfit))) if misfit.size else misfit.astype(bool)


def trimmed_mean(misfit: np.ndarray) -> float:
    """Compute the mean misfit without the few pixels that fit nothing."""
    keep = fitting(misfit)
    return float(misfit[keep].mean()) if keep.any() else 0.0


def worst_region(position: np.ndarray, misfit: np.ndarray, degrees: int) -> float:
    """Find the largest mean misfit per degree of freedom over the regions of an image, less what chance may add.

    ``misfit`` (P,) has ``degrees`` of freedom a pixel, pixels are at ``position`` (P, 2).
    """
    if not misfit.size:
        return 0.0
    low, reach = position.min(axis=0), np.ptp(position, axis=0) + 1e-9
    region = np.minimum(((position - low) / reach * _REGIONS).astype(int), _REGIONS - 1) @ (_REGIONS, 1)
    found = 0.0
    for number in range(_REGIONS**2):
        inside = misfit[region == number]
        if inside.size >= _REGION_PIXELS:
            chance = 1 + _ERRORS * np.sqrt(2 / (degrees * inside.size))
            found = max(found, trimmed_mean(inside) / degrees / chance)
    return float(found)
