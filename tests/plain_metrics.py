"""Figures of merit of a height map: plain functions of arrays, NaN-aware, which the tallies are held against."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cpikan.metrics import NORMAL_95

FloatArray = NDArray[np.floating]
BoolArray = NDArray[np.bool_]


def rms(values: FloatArray) -> float:
    """Compute the root mean square of the finite values, accumulated in float64; NaN when there are none."""
    finite = np.asarray(values, np.float64)[np.isfinite(values)]
    return math.sqrt(float(finite @ finite) / finite.size) if finite.size else math.nan


def remove_piston(difference_nm: FloatArray, limit_nm: float | None = None) -> FloatArray:
    """Centre a difference of heights: by its median, then by the mean of what is within ``limit_nm`` of zero.

    The median does not move with wrong orders as long as they are fewer than half; without a limit the plain mean is
    removed. Float64, same shape; NaN stays NaN.
    """
    error = np.array(difference_nm, np.float64)
    finite = np.isfinite(error)
    if not finite.any():
        return error
    if limit_nm is None:
        return error - error[finite].mean()
    error -= np.median(error[finite])
    right = finite & (np.abs(error) <= limit_nm)
    return error - error[right].mean() if right.any() else error


def wrong_order_mask(error_nm: FloatArray, limit_nm: float) -> BoolArray:
    """Tell which pixels have an error, piston removed, above ``limit_nm``; pixels without one (NaN) are not wrong."""
    return np.abs(error_nm) > limit_nm


def wrong_order_fraction(error_nm: FloatArray, limit_nm: float) -> float:
    """Compute the share of the finite pixels that are wrong by an order; NaN when there are none."""
    valid = int(np.count_nonzero(np.isfinite(error_nm)))
    return int(np.count_nonzero(wrong_order_mask(error_nm, limit_nm))) / valid if valid else math.nan


def relative_l2(height_nm: FloatArray, truth_nm: FloatArray, limit_nm: float | None = None) -> float:
    """Compute |height - truth| / |truth| in the L2 norm over pixels finite in both, piston removed, truth centred.

    ``limit_nm`` is the wrong-order limit that keeps order errors out of the piston (see ``remove_piston``); their
    errors still count. NaN when the truth is flat or nothing is finite.
    """
    truth = np.asarray(truth_nm, np.float64)
    error = remove_piston(np.asarray(height_nm, np.float64) - truth, limit_nm)
    valid = np.isfinite(error)
    if not valid.any():
        return math.nan
    centred = truth[valid] - truth[valid].mean()
    norm = float(np.linalg.norm(centred))
    return float(np.linalg.norm(error[valid])) / norm if norm > 0 else math.nan


def coverage(error_nm: FloatArray, sigma_nm: FloatArray, width: float = NORMAL_95) -> float:
    """Compute the share of pixels with an error of at most ``width`` sigma; a pixel without a sigma is a miss."""
    valid = np.isfinite(error_nm)
    hits = np.abs(error_nm) <= width * np.asarray(sigma_nm)
    count = int(np.count_nonzero(valid))
    return int(np.count_nonzero(hits & valid)) / count if count else math.nan
