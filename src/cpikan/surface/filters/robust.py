"""The robust areal Gaussian filter of ISO 16610-71: pixels far from the large-scale part lose their weight, again and again."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from cpikan.order_statistics import median
from cpikan.surface.filters.gaussian import GaussianMean, Rows

FloatArray = NDArray[np.float64]

_CUT = 4.4478  # times the median of |rest|: three sigma of normal heights (ISO 16610-31)
_ENOUGH, _MOST_PASSES = 0.01, 20
_BAND_ROWS = 512


class RobustMean:
    """The large-scale part of a map by Gaussian regression with Tukey's biweight of what it leaves.

    Passes go on until the cut-off, 4.4478 times the median of the rest's size over the whole map, changes by less than 1 %
    (the standard leaves the tolerance open), 20 at most. The whole map is held: about 40 bytes a pixel.
    """

    def __init__(self, source: Rows, nesting_px: float | tuple[float, float], order: int = 0) -> None:
        self._nesting, self._order = nesting_px, order
        self._plain = GaussianMean(source, nesting_px, order)
        self._source = source

    def rows(self, start: int, stop: int) -> Float64[np.ndarray, "rows w"]:
        """Evaluate rows [start, stop), (stop - start, W)."""
        return self._mean[start:stop].copy()

    @cached_property
    def _mean(self) -> FloatArray:
        height = int(self._source.shape[0])
        mean, limit = self._plain.rows(0, height), np.inf
        for _ in range(_MOST_PASSES):
            before, limit = limit, _CUT * self._median_rest(mean)
            if not limit > 0 or abs(limit - before) < _ENOUGH * limit:
                break
            weighed = _Weighed(mean, limit)
            found = GaussianMean(self._source, self._nesting, self._order, weighed).rows(0, height)
            mean = np.where(np.isfinite(found), found, mean)  # where all around has lost its weight
        return mean

    def _median_rest(self, mean: FloatArray) -> float:
        sizes = []
        for start in range(0, len(mean), _BAND_ROWS):
            rest = np.abs(np.asarray(self._source[start : start + _BAND_ROWS]) - mean[start : start + _BAND_ROWS])
            sizes.append(rest[np.isfinite(rest)])
        return median(np.concatenate(sizes))


class _Weighed:
    """Tukey's biweight of heights by how far they are from a mean, 0 beyond the limit."""

    def __init__(self, mean: FloatArray, limit_nm: float) -> None:
        self._mean, self._limit = mean, limit_nm

    def __call__(self, start: int, heights: NDArray[Any]) -> FloatArray:
        share = (heights - self._mean[start : start + len(heights)]) / self._limit
        return np.where(np.abs(share) < 1, (1 - share**2) ** 2, 0.0)
