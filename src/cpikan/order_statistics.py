"""Median and quantile of all values of an array: NumPy's, bit by bit, several times faster.

NumPy divides around all the values it looks for at once, which no vector unit does for it, and smaller integers neither.
"""

from __future__ import annotations

import math

import numpy as np


def median(values: np.ndarray) -> float:
    """Compute the median of real numbers of any shape, in float64; NaN for none, and where one is NaN."""
    flat = _flat(values)
    count = flat.size
    if count == 0:
        return math.nan
    divided = np.partition(flat, count // 2)
    middle = float(divided[count // 2])
    if _holds_nan(divided[count // 2 :]):
        return math.nan
    return middle if count % 2 else (float(divided[: count // 2].max()) + middle) / 2


def quantile(values: np.ndarray, share: float) -> float:
    """Compute the value below which ``share`` of numbers of any shape lie, between two of them linearly; NaN as `median`."""
    flat = _flat(values)
    if flat.size == 0:
        return math.nan
    place = share * (flat.size - 1)
    index = math.floor(place)
    divided = np.partition(flat, index)
    above = divided[index + 1 :]
    low = float(divided[index])
    if math.isnan(low) or _holds_nan(above):
        return math.nan
    if not above.size:
        return low
    high, part = float(above.min()), place - index
    # from the nearer one, as NumPy does
    return high - (high - low) * (1 - part) if part >= 0.5 else low + (high - low) * part


def _flat(values: np.ndarray) -> np.ndarray:
    flat = np.asarray(values).ravel()
    return flat.astype(np.int16) if flat.dtype.kind in "iu" and flat.itemsize == 1 else flat


def _holds_nan(values: np.ndarray) -> bool:
    """Tell whether there is a NaN among values, those above one of an array: there they gather."""
    return values.size > 0 and values.dtype.kind == "f" and math.isnan(values.max())
