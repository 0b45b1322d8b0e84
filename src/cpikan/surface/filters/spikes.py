"""Spikes: pixels that stand out from the median around them by more than the noise ever does. They become NaN, not heights."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.masked import without_mask
from cpikan.order_statistics import median
from cpikan.surface.filters.gaussian import GaussianMean

_SMOOTH = 4  # nesting index of what goes first, in windows
_NORMAL = 1.4826  # from the median of sizes to a standard deviation


def check_spikes(sigmas: float, window: int) -> None:
    """Raise InputError for sigmas that are not positive, and for a window that is not odd and above 1."""
    if window < 3 or window % 2 == 0 or not 0 < sigmas < np.inf:
        raise InputError(
            f"spikes beyond {sigmas} sigma in a window of {window} pixels: give a positive number, and 3, 5, 7 ..."
        )


def find_spikes(height_nm: Float[np.ndarray, "h w"], sigmas: float = 6.0, window: int = 5) -> Bool[np.ndarray, "h w"]:
    """Find valid pixels of a map (H, W) that lie more than ``sigmas`` off the median of the valid ones in a square window.

    Heights are those without their large-scale part (a Gaussian of second order, four windows long). A sigma is 1.4826 times
    the median size of such differences over the map. About 100 bytes a pixel are in use. Raises InputError for a window that
    is not odd and above 1, or sigmas that are not positive.
    """
    check_spikes(sigmas, window)
    heights = np.asarray(without_mask(height_nm), np.float64)
    valid = np.isfinite(heights)
    if not valid.any():
        return np.zeros(heights.shape, bool)
    # slopes and bends go first: at an edge the pixels around lie to one side
    rest = heights - GaussianMean(heights, float(_SMOOTH * window), 2).rows(0, len(heights))
    off = np.where(valid, rest - _medians(rest, valid, window), np.nan)
    sigma = _NORMAL * median(np.abs(off[valid])) or float(off[valid].std())  # most pixels may be their own median
    found: NDArray[np.bool_] = np.abs(off) > sigmas * sigma
    return found


def without_spikes(height_nm: Float[np.ndarray, "h w"], sigmas: float = 6.0, window: int = 5) -> NDArray[np.float64]:
    """Copy a map with NaN in place of its spikes; see ``find_spikes``."""
    heights = np.array(without_mask(height_nm), np.float64)
    heights[find_spikes(heights, sigmas, window)] = np.nan
    return heights


def _medians(heights: NDArray[np.float64], valid: NDArray[np.bool_], window: int) -> NDArray[np.float64]:
    """Take the median of the valid pixels around each: infinities below and above in turn stand for those that are not."""
    from scipy.ndimage import median_filter

    even = np.add.outer(np.arange(heights.shape[0]), np.arange(heights.shape[1])) % 2 == 0
    filled = np.where(valid, heights, np.where(even, np.inf, -np.inf))
    found = median_filter(filled, window, mode="reflect")
    return np.where(np.isfinite(found), found, heights)
