"""The robust areal Gaussian filter of ISO 16610-71: pixels far from the large-scale part lose their weight, again and again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from cpikan.order_statistics import streamed_median
from cpikan.storage.scratch import Spill
from cpikan.surface.filters.gaussian import GaussianMean, Rows

FloatArray = NDArray[np.float64]

_CUT = 4.4478  # times the median of |rest|: three sigma of normal heights (ISO 16610-31)
_ENOUGH, _MOST_PASSES = 0.01, 20
_BAND_PIXELS = 1 << 21


class RobustMean:
    """The large-scale part of a map by Gaussian regression with Tukey's biweight of what it leaves.

    Passes go on until the cut-off, 4.4478 times the median of the rest's size over the whole map, changes by less than 1 %
    (the standard leaves the tolerance open), 20 at most. The mean of a pass lies in a temporary file (two of 8 bytes a pixel,
    in TMPDIR); memory is that of the Gaussian.
    """

    def __init__(self, source: Rows, nesting_px: float | tuple[float, float], order: int = 0) -> None:
        self._nesting, self._order = nesting_px, order
        self._plain = GaussianMean(source, nesting_px, order)
        self._source = source

    def rows(self, start: int, stop: int) -> Float64[np.ndarray, "rows w"]:
        """Evaluate rows [start, stop), (stop - start, W)."""
        return np.array(self._mean[start:stop])

    @cached_property
    def _mean(self) -> FloatArray:
        shape, spill = tuple(int(size) for size in self._source.shape), Spill(Path(tempfile.gettempdir()))
        mean, other = (spill.empty(shape, np.float64) for _ in range(2))
        for start, stop in self._bands():
            mean[start:stop] = self._plain.rows(start, stop)
        limit = np.inf
        for _ in range(_MOST_PASSES):
            before, limit = limit, _CUT * streamed_median(partial(self._rest, mean))
            if not limit > 0 or abs(limit - before) < _ENOUGH * limit:
                break
            weighed = GaussianMean(self._source, self._nesting, self._order, _Weighed(mean, limit))
            for start, stop in self._bands():
                found = weighed.rows(start, stop)
                other[start:stop] = np.where(
                    np.isfinite(found), found, mean[start:stop]
                )  # where all has lost its weight
            mean, other = other, mean
        return mean

    def _bands(self) -> Iterator[tuple[int, int]]:
        height, width = (int(size) for size in self._source.shape)
        step = max(1, _BAND_PIXELS // width)
        yield from ((start, min(start + step, height)) for start in range(0, height, step))

    def _rest(self, mean: FloatArray) -> Iterator[FloatArray]:
        """Give the sizes of what a mean leaves of the valid pixels."""
        for start, stop in self._bands():
            rest = np.abs(np.asarray(self._source[start:stop], np.float64) - mean[start:stop])
            yield rest[np.isfinite(rest)]


class _Weighed:
    """Tukey's biweight of heights by how far they are from a mean, 0 beyond the limit."""

    def __init__(self, mean: FloatArray, limit_nm: float) -> None:
        self._mean, self._limit = mean, limit_nm

    def __call__(self, start: int, heights: NDArray[Any]) -> FloatArray:
        share = (heights - self._mean[start : start + len(heights)]) / self._limit
        return np.where(np.abs(share) < 1, (1 - share**2) ** 2, 0.0)
