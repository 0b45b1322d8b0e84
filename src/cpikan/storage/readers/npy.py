"""Frames in a .npy file, memory-mapped."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.headers import check_raw_size, decoding, read_npy_header
from cpikan.storage.readers.array import ArrayReader, layout_of
from cpikan.storage.readers.base import fingerprint_files


class NpyReader(ArrayReader):
    """Rows of a .npy file (L, K, H, W) or (K, H, W); C order and native byte order are served without a copy.

    Fortran order and foreign byte order are read too, more slowly. Raises InputError for object arrays, other shapes
    and types, and a file whose size is not what its header says.
    """

    def __init__(self, path: Path) -> None:
        label = str(path)
        with decoding(label), open(path, "rb") as file:
            shape, fortran, dtype = read_npy_header(file)
            offset = file.tell()
        layout_of(label, shape, dtype)
        check_raw_size(label, math.prod(shape) * dtype.itemsize, path.stat().st_size - offset)
        order = "F" if fortran else "C"
        with decoding(label):
            frames = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order=order)  # type: ignore[call-overload]
        super().__init__(frames, label, path.name)
        self._path, self._offset = path, offset
        plain = order == "C" and dtype == self.dtype and hasattr(os, "preadv")
        self._descriptor = os.open(path, os.O_RDONLY) if plain else -1

    def read_rows(self, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        """Read rows [start, stop); into ``out`` by positioned reads, in two thirds of the time of copying a map."""
        if out is None or self._descriptor < 0 or not out.flags.c_contiguous or out.dtype != self.dtype:
            return super().read_rows(start, stop, out)
        frames, height, width = self.shape
        if not 0 <= start <= stop <= height or out.shape != (frames, stop - start, width):
            raise IndexError(f"rows {start} to {stop} of {self.shape} into an array of {out.shape}")
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
        return (self._path.absolute(),)

    def fingerprint(self) -> str:
        return fingerprint_files([self._path], self.shape, self.dtype)
