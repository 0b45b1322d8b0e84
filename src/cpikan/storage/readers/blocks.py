"""Rows of chunked arrays: each row of chunks is decoded once when bands run in order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from cpikan.storage.readers.scratch import ScratchFrames

_MAX_BLOCK_BYTES = 2**28


def read_frames(array: Any, frames: slice, rows: slice) -> np.ndarray:
    """Read rows of ``frames``, all or some, of a chunked array (L, K, H, W) or (K, H, W) as (frames, rows, W)."""
    if array.ndim == 3:
        return np.asarray(array[frames, rows, :])
    wavelengths, steps, _, width = array.shape
    if frames.stop - frames.start == wavelengths * steps:
        return np.asarray(array[:, :, rows, :]).reshape(wavelengths * steps, -1, width)
    return np.stack([np.asarray(array[k // steps, k % steps, rows, :]) for k in range(frames.start, frames.stop)])


class ChunkedRows:
    """Serve any rows of a chunked array from ``read(frames, rows)``, which decodes whole chunks.

    The last row of chunks over all frames is kept (at most 256 MiB); where it would be larger, the frames are decoded
    one by one into a scratch file first.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        dtype: np.dtype,
        chunk_rows: int,
        read: Callable[[slice, slice], np.ndarray],
    ) -> None:
        self._shape, self._dtype, self._read = shape, dtype, read
        self._chunk_rows = max(1, min(chunk_rows, shape[1]))
        self._start = -1
        self._block: np.ndarray | None = None
        self._scratch: ScratchFrames | None = None
        frames, height, width = shape
        if frames * self._chunk_rows * width * dtype.itemsize > _MAX_BLOCK_BYTES:
            decode = [partial(self._decoded, k) for k in range(frames)]
            self._scratch = ScratchFrames(shape, dtype, decode, 3 * height * width * dtype.itemsize)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return rows [start, stop) of every frame; may be a view that a later call does not change."""
        if self._scratch is not None:
            return self._scratch.rows(start, stop)
        size = self._chunk_rows
        first = start // size * size
        if stop <= first + size:
            return self._load(first)[:, start - first : stop - first, :]
        out = np.empty((self._shape[0], stop - start, self._shape[2]), self._dtype)
        for block in range(first, stop, size):
            lower, upper = max(start, block), min(stop, block + size)
            out[:, lower - start : upper - start] = self._load(block)[:, lower - block : upper - block]
        return out

    def close(self) -> None:
        self._block = None
        if self._scratch is not None:
            self._scratch.close()

    def _load(self, start: int) -> np.ndarray:
        if self._block is None or self._start != start:
            self._block = None  # freed before the next one is made
            stop = min(start + self._chunk_rows, self._shape[1])
            self._block = self._read(slice(0, self._shape[0]), slice(start, stop)).astype(self._dtype, copy=False)
            self._start = start
        return self._block

    def _decoded(self, frame: int) -> np.ndarray:
        return self._read(slice(frame, frame + 1), slice(0, self._shape[1]))[0].astype(self._dtype, copy=False)
