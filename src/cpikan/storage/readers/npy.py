"""Frames in a .npy file, memory-mapped."""

from __future__ import annotations

import math
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.headers import check_raw_size, decoding
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
            shape, fortran, dtype = _read_header(file)
            offset = file.tell()
        layout_of(label, shape, dtype)
        check_raw_size(label, math.prod(shape) * dtype.itemsize, path.stat().st_size - offset)
        order = "F" if fortran else "C"
        with decoding(label):
            frames = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order=order)  # type: ignore[call-overload]
        super().__init__(frames, label, path.name)
        self._path = path

    def fingerprint(self) -> str:
        return fingerprint_files([self._path], self.shape, self.dtype)


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, Fortran order and type; NumPy parses the header as literals and limits its length."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise InputError(
        f"{file.name} is a .npy of version {version[0]}.{version[1]}: 1.0 and 2.0 hold plain frames, save them with "
        "numpy.save"
    )
