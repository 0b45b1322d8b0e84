"""Frames that already are an array: NumPy arrays in memory, and .npy files, memory-mapped."""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.masked import without_mask
from cpikan.storage.headers import check_frame_size, check_pixel_type, check_raw_size, decoding, read_npy_header
from cpikan.storage.readers.axes import InOrder, check_axes, turned_axes
from cpikan.storage.readers.base import BaseReader, FrameLayout, fingerprint_files, frame_labels
from cpikan.storage.readers.read_as import ReadAs
from cpikan.storage.readers.turned import Turn, TurnedReader


def layout_of(
    label: str, shape: tuple[int, ...], dtype: np.dtype, name: str | None = None, *, single: bool = False
) -> FrameLayout:
    """Check shape and type of an array (L, K, H, W) or (K, H, W) (``single``: or (H, W)) and describe its frames."""
    if single and len(shape) == 2 and min(shape) > 0:
        check_frame_size(label, *shape)
        return FrameLayout((1, *shape), check_pixel_type(label, dtype), (name or label,), None, dtype)
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

    def __init__(
        self, frames: np.ndarray, label: str = "array", name: str | None = None, *, single: bool = False
    ) -> None:
        array = np.asarray(without_mask(frames))
        super().__init__(layout_of(label, array.shape, array.dtype, name, single=single))
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


class NpyReader(ArrayReader):
    """Rows of a .npy file (L, K, H, W) or (K, H, W); C order and native byte order are served without a copy.

    Fortran order and foreign byte order are read too, more slowly. Raises InputError for object arrays, other shapes
    and types, and a file whose size is not what its header says.
    """

    def __init__(self, path: Path, axes: str | None = None, single: bool = False) -> None:
        """``axes`` are letters of the stored axes, rows before columns; ``single`` allows one frame (H, W)."""
        label = str(path)
        with decoding(label), open(path, "rb") as file:
            shape, fortran, dtype = read_npy_header(file)
            offset = file.tell()
        if axes is None:
            layout_of(label, shape, dtype, single=single)
        else:
            check_axes(label, axes, shape), check_pixel_type(label, dtype)
        check_raw_size(label, math.prod(shape) * dtype.itemsize, path.stat().st_size - offset)
        order = "F" if fortran else "C"
        with decoding(label):
            frames = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order=order)  # type: ignore[call-overload]
        if axes is not None:
            frames = InOrder(frames, axes)[(slice(None),) * frames.ndim]
        super().__init__(frames, label, path.name, single=single or axes == "yx")
        self._path, self._offset, self._opened = path, offset, (path.absolute(), axes, single)
        plain = order == "C" and axes is None and dtype == self.dtype and hasattr(os, "preadv")
        self._descriptor = os.open(path, os.O_RDONLY) if plain else -1

    def read_rows(self, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        """Read rows [start, stop); into ``out`` by positioned reads, in two thirds of the time of copying a map."""
        if out is None or self._descriptor < 0 or not out.flags.c_contiguous or out.dtype != self.dtype:
            return super().read_rows(start, stop, out)
        frames, height, width = self.shape
        if not 0 <= start <= stop <= height or out.shape != (frames, stop - start, width):
            raise IndexError(f"rows {start} to {stop} of {self.shape} into an array of {out.shape}")
        if start == stop:
            return out
        row_bytes = width * self.dtype.itemsize
        for frame in range(frames):
            view = memoryview(out[frame]).cast("B")
            offset = self._offset + (frame * height + start) * row_bytes
            while view:
                count = os.preadv(self._descriptor, [view], offset)
                if count == 0:
                    raise InputError(f"{self._path} ended early: it was cut while being read; write it anew")
                view, offset = view[count:], offset + count
        return out

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        super().close()

    def files(self) -> list[Path]:
        return [self._path]

    def origin(self) -> tuple[Any, ...]:
        return self._opened

    def fingerprint(self) -> str:
        return fingerprint_files([self._path], self.shape, self.dtype)


def open_npy(path: Path, how: ReadAs) -> BaseReader:
    """Open a .npy file; columns that come before rows are transposed."""
    if how.dataset:
        raise InputError(f"{path} is a .npy file of one array, without a name: leave ::{how.dataset} out")
    if how.axes is None:
        return NpyReader(path, None, how.single)
    axes, transposed = turned_axes(how.axes)
    reader = NpyReader(path, axes, how.single)
    return TurnedReader(reader, Turn(transpose=True)) if transposed else reader
