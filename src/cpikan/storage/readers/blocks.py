"""Chunked arrays of frames: which of their axes is the wavelength, and rows of chunks that are decoded once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.readers.scratch import ScratchFrames

WAVELENGTH, STEPS = "C", "ZT"  # letters of ImageJ and OME: a channel is a wavelength; a focus or a time is a phase step
_WORDS = {
    "C": ("c", "channel", "wavelength", "lambda"),
    "T": ("t", "time", "z", "step", "phase", "phase step", "phase shift", "frame"),
}
_LETTER = {word: letter for letter, words in _WORDS.items() for word in words}


def is_step_major(label: str, names: Sequence[str | None] | None, axes: int) -> bool:
    """Tell whether an array of four axes has its steps before its wavelengths, by the names of its axes.

    Names such as c, channel or wavelength and t, z, time or step count, in any case and number; where neither of the
    first two is known the order is wavelength-major. Raises InputError where both mean the same.
    """
    if axes != 4 or names is None or len(names) != 4:
        return False
    told = [
        _LETTER.get(" ".join(str(name or "").lower().replace("_", " ").split()).removesuffix("s")) for name in names[:2]
    ]
    if told[0] is not None and told[0] == told[1]:
        what = "wavelengths" if told[0] == "C" else "steps"
        raise InputError(
            f"{label} has its frames along {names[0]} and {names[1]}, both of which are {what}: name one of the two axes "
            "for the wavelengths (c) and one for the steps (t)"
        )
    return told[0] == "T" or told[1] == "C"


def in_stored_order(index: Iterable[int], step_major: bool) -> tuple[int, ...]:
    """Turn the place (wavelength, step) of a frame into its place in the file; any other index stays."""
    found = tuple(int(part) for part in index)
    return found[::-1] if step_major and len(found) == 2 else found


_MAX_BLOCK_BYTES = 2**28


def read_frames(array: Any, frames: slice, rows: slice) -> np.ndarray:
    """Read rows of ``frames``, all or some, of a chunked array (L, K, H, W), (K, H, W) or (H, W) as (frames, rows, W)."""
    if array.ndim == 2:
        return np.asarray(array[rows, :])[None]
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
