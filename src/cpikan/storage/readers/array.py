"""Frames that already are an array: NumPy arrays in memory, and what memory-mapped files turn into."""

from __future__ import annotations

import hashlib
import math

import numpy as np

from cpikan.errors import InputError
from cpikan.masked import without_mask
from cpikan.storage.headers import check_frame_size, check_pixel_type
from cpikan.storage.readers.base import BaseReader, FrameLayout, frame_labels


def layout_of(label: str, shape: tuple[int, ...], dtype: np.dtype, name: str | None = None) -> FrameLayout:
    """Check shape and type of an array (L, K, H, W) or (K, H, W) and describe its frames."""
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise InputError(
            f"{label} has the shape {tuple(shape)}: give (wavelengths, steps, rows, columns) or (frames, rows, columns)"
        )
    *leading, height, width = shape
    check_frame_size(label, height, width, math.prod(leading))
    native = check_pixel_type(label, dtype)
    groups = leading[0] if len(leading) == 2 else None
    return FrameLayout((math.prod(leading), height, width), native, frame_labels(name or label, shape), groups, dtype)


class ArrayReader(BaseReader):
    """Rows of an array (L, K, H, W) or (K, H, W) of any memory order and byte order; views wherever they can be.

    What a NumPy masked array masks is NaN. Raises InputError when shape or pixel type is none of those allowed.
    """

    def __init__(self, frames: np.ndarray, label: str = "array", name: str | None = None) -> None:
        array = np.asarray(without_mask(frames))
        super().__init__(layout_of(label, array.shape, array.dtype, name))
        self._frames = array.view()
        self._frames.flags.writeable = False

    def _rows(self, start: int, stop: int) -> np.ndarray:
        band = self._frames[..., start:stop, :]  # first the band, then the shape: in Fortran order reshaping copies
        band = (
            band.reshape(-1, stop - start, self.shape[2]) if band.size else np.empty((self.shape[0], 0, self.shape[2]))
        )
        return band.astype(self.dtype, copy=False)

    def close(self) -> None:
        self._frames = self._frames[..., :0, :].copy()

    def fingerprint(self) -> str:
        """Hash the shape, the type and about a million samples of the values."""
        step = max(1, int(self._frames.size // 2**20) // max(1, self.shape[0]))
        rows = max(1, int(step**0.5))
        sample = np.ascontiguousarray(self._frames[..., ::rows, :: max(1, step // rows)])
        digest = hashlib.sha256(f"{self._frames.shape} {self._frames.dtype}".encode())
        digest.update(sample.tobytes())
        return digest.hexdigest()
