"""Pictures reduced by whole blocks of pixels, fed with rows in order or not."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_LONGEST = 1200  # pixels of the longer side of a picture


def reduction(shape: tuple[int, int], pixels: int) -> int:
    """Compute the block size that brings an image below ``pixels`` in all and 1200 along its longer side."""
    return max(1, math.ceil(max(shape) / _LONGEST), math.ceil(math.sqrt(shape[0] * shape[1] / pixels)))


class _Blocks:
    """Where the blocks of ``factor`` x ``factor`` pixels lie; the last row and column of blocks may be smaller."""

    def __init__(self, shape: tuple[int, int], factor: int) -> None:
        self.shape, self.factor = shape, factor
        self.reduced = (-(-shape[0] // factor), -(-shape[1] // factor))
        self._columns = np.arange(0, shape[1], factor)

    def _fold(self, start: int, rows: NDArray, add: np.ufunc) -> tuple[slice, NDArray]:
        """Combine rows [start, start + n) by blocks; returns the block rows they belong to and the result."""
        first = start // self.factor
        borders = np.arange(first, (start + len(rows) - 1) // self.factor + 1) * self.factor - start
        folded = add.reduceat(add.reduceat(rows, self._columns, axis=1), np.maximum(borders, 0), axis=0)
        return slice(first, first + len(folded)), folded


class BlockMean(_Blocks):
    """Mean of the finite values of each block, float64; NaN where a block has none."""

    def __init__(self, shape: tuple[int, int], factor: int) -> None:
        super().__init__(shape, factor)
        self._sums, self._counts = np.zeros(self.reduced), np.zeros(self.reduced)

    def add(self, start: int, rows: NDArray) -> None:
        finite = np.isfinite(rows)
        where, sums = self._fold(start, np.where(finite, rows, 0).astype(np.float64), np.add)
        self._sums[where] += sums
        self._counts[where] += self._fold(start, finite.astype(np.int64), np.add)[1]

    def result(self) -> NDArray[np.float64]:
        return np.divide(self._sums, self._counts, out=np.full(self.reduced, np.nan), where=self._counts > 0)


class BlockOr(_Blocks):
    """All flags that occur in each block."""

    def __init__(self, shape: tuple[int, int], factor: int) -> None:
        super().__init__(shape, factor)
        self._flags = np.zeros(self.reduced, np.int64)

    def add(self, start: int, rows: NDArray[np.integer]) -> None:
        where, flags = self._fold(start, rows.astype(np.int64), np.bitwise_or)
        self._flags[where] |= flags

    def result(self) -> NDArray[np.int64]:
        return self._flags
