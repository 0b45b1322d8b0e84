"""Heights spread evenly over a map, taken while its rows are written: what a peak to valley without edge pixels is made of."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cpikan.psi.model.flags import Flag

_PIXELS = 1_000_000
LEFT_OUT = 0.001  # share of the valid pixels, half of it at either end


class HeightSample:
    """Heights of every n-th row and column of a map of ``shape``, at most about a million of them.

    ``add`` takes rows in any bands; which pixels are kept does not depend on them. Rows that were written by an earlier run
    are not there: the sample is then not ``complete``.
    """

    def __init__(self, shape: tuple[int, int], first_row: int = 0) -> None:
        self.complete = first_row == 0
        self._step = max(1, int(np.ceil(np.sqrt(shape[0] * shape[1] / _PIXELS))))
        self._heights: list[np.ndarray] = []

    def add(self, start: int, rows: Mapping[str, np.ndarray]) -> None:
        """Take from rows of the map, from row ``start`` on, the heights of pixels that were measured."""
        if "height_nm" not in rows:
            return
        offset = -start % self._step
        height = rows["height_nm"][offset :: self._step, :: self._step]
        known = np.isfinite(height)
        if "flags" in rows:
            known &= (rows["flags"][offset :: self._step, :: self._step] & np.uint8(Flag.INVALID)) == 0
        self._heights.append(height[known])

    def pv_nm(self) -> float | None:
        """Compute the range of heights without the highest and the lowest half per mille; None where there are none."""
        heights = np.concatenate(self._heights) if self._heights else np.empty(0)
        if not self.complete or not heights.size:
            return None
        low, high = np.quantile(heights.astype(np.float64), [LEFT_OUT / 2, 1 - LEFT_OUT / 2])
        return float(high - low)
