"""Arrays with a mask of their own, made plain at the door: a mask that is forgotten turns dropouts into heights."""

from __future__ import annotations

from typing import Any

import numpy as np


def without_mask(array: Any) -> Any:
    """Return a NumPy masked array as plain numbers with NaN where it is masked, and anything else as it is.

    Floats keep their type; integers of up to 16 bits become float32 and longer ones float64, all values exact.
    """
    if not isinstance(array, np.ma.MaskedArray):
        return array
    if not np.ma.is_masked(array):
        return array.data
    if array.dtype.kind in "biu":
        array = array.astype(np.float32 if array.dtype.itemsize <= 2 else np.float64)
    return array.filled(np.nan)
