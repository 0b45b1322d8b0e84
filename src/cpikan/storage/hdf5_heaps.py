"""Collections of texts and lists in HDF5 files, which the library may never come back from where they are damaged."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from cpikan.errors import InputError

_MARK = b"GCOL\1\0\0\0"
_OBJECT = struct.Struct("<HHIQ")  # number, references, nothing, size


def check_heaps(path: Path, numbers: range = range(0)) -> None:
    """Refuse a file with a collection (GCOL) whose objects do not follow one another: InputError that names the byte.

    Object 0 is what is free, its own head included. Bytes of ``numbers``, where a dataset lies in one piece, are not looked at.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for start, stop in ((0, numbers.start), (numbers.stop, len(data))) if numbers else ((0, len(data)),):
            at = data.find(_MARK, start, stop)
            while at >= 0:
                _check_heap(path, data, at)
                at = data.find(_MARK, at + len(_MARK), stop)


def _check_heap(path: Path, data: mmap.mmap, at: int) -> None:
    size = int.from_bytes(data[at + 8 : at + 16], "little")
    place, end = at + _OBJECT.size, min(at + size, len(data))
    while place + _OBJECT.size <= end:
        number, _, _, length = _OBJECT.unpack_from(data, place)
        step = length if number == 0 else _OBJECT.size + -(-length // 8) * 8
        if step < _OBJECT.size or place + step > end:
            raise InputError(f"{path} is damaged at byte {place}, among its texts: copy or export it again")
        place += step
