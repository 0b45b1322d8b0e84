"""The numeric variables of a MATLAB file of version 5, 6 or 7 (MAT-File Format, MathWorks): where each of them lies."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.headers import check_raw_size, decoding
from cpikan.storage.readers.stored_array import StoredArray

_HEADER, _TAG = 128, 8
_MATRIX, _COMPRESSED = 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {
    6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8",
}  # fmt: skip
_COMPLEX = 0x0800
_PIECE = 2**20
_MAX_AXES, _MAX_NAME, _MAX_VARIABLES = 32, 4096, 2**12


def find_variables(path: Path) -> list[StoredArray]:
    """List the numeric arrays of a file, of which only heads are read; cells, structures, text and sparse ones are left out.

    Raises InputError for a file of another kind (version 4 has no mark), one that is cut, and one whose sizes contradict
    each other.
    """
    found: list[StoredArray] = []
    with decoding(str(path)), open(path, "rb") as file:
        size = path.stat().st_size
        order = _byte_order(path, file.read(_HEADER))
        at = _HEADER
        while at + _TAG <= size:
            if len(found) > _MAX_VARIABLES:
                raise InputError(f"{path} has more than {_MAX_VARIABLES} variables: it is damaged")
            file.seek(at)
            kind, length = (int(value) for value in np.frombuffer(file.read(_TAG), order + "u4"))
            start, at = at + _TAG, at + _TAG + length
            if at > size:
                raise InputError(f"{path} is cut: a variable claims bytes up to {at} of {size}; copy it again")
            if kind == _COMPRESSED:
                source: _Source = _Inflated(path, start, length)
                place = None
            elif kind == _MATRIX:
                source, place = _Plain(file, start, at), start
                at += -length % 8
            else:
                continue
            with source, _damage(path):
                variable = _matrix(path, source, order, place, length)
            if variable is not None:
                found.append(variable)
    return found


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Name the file in what is found wrong in the head of a variable."""
    try:
        yield
    except _Damaged as error:
        raise InputError(f"{path} is damaged: {error}; copy or save it again") from error


class _Damaged(Exception):
    """What is wrong in the head of a variable."""


def _byte_order(path: Path, head: bytes) -> str:
    order = {b"IM": "<", b"MI": ">"}.get(head[126:128])
    if order is None or len(head) < _HEADER:
        raise InputError(
            f"{path} is no MATLAB file of version 5 to 7.3: save it in MATLAB with save(..., '-v7'), or '-v7.3' above 2 GB"
        )
    return order


class _Source(ABC):
    """Bytes of a variable one after the other; ``read`` gives fewer than asked where it ends."""

    def __init__(self) -> None:
        self.place = 0

    @abstractmethod
    def read(self, count: int) -> bytes:
        """Read up to ``count`` bytes."""

    def __enter__(self) -> _Source:
        return self

    def __exit__(self, *failure: object) -> None:
        return None


class _Plain(_Source):
    def __init__(self, file: BinaryIO, start: int, stop: int) -> None:
        super().__init__()
        self._file, self._start, self._stop = file, start, stop

    def read(self, count: int) -> bytes:
        self._file.seek(self._start + self.place)
        data = self._file.read(max(0, min(count, self._stop - self._start - self.place)))
        self.place += len(data)
        return data


class _Inflated(_Source):
    """A variable that is compressed, decompressed as far as it is read."""

    def __init__(self, path: Path, start: int, length: int) -> None:
        super().__init__()
        self.origin = (path, start, length)
        self._file = open(path, "rb")  # noqa: SIM115 - closed on exit
        self._file.seek(start)
        self._left, self._inflate = length, zlib.decompressobj()
        self._matrix = False

    def read(self, count: int) -> bytes:
        if not self._matrix:  # the stream begins with the tag of the matrix
            self._matrix = True
            self._take(_TAG)
        data = self._take(count)
        self.place += len(data)
        return data

    def _take(self, count: int) -> bytes:
        parts = []
        while count > 0:
            data = self._inflate.unconsumed_tail
            if not data and not self._inflate.eof:
                data = self._file.read(min(_PIECE, self._left))
                self._left -= len(data)
            part = self._inflate.decompress(data, count) if data else b""
            if not part and (not data or self._inflate.eof):
                break
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def __exit__(self, *failure: object) -> None:
        self._file.close()


@dataclass(frozen=True)
class _Pieces:
    """The bytes of a compressed variable from its numbers on."""

    path: Path
    start: int
    length: int
    skipped: int
    size: int

    def __call__(self) -> Iterator[bytes]:
        left = self.size
        with _Inflated(self.path, self.start, self.length) as source:
            source.read(self.skipped)
            while left and (piece := source.read(min(_PIECE, left))):
                left -= len(piece)
                yield piece
            source.read(2 * _TAG)  # to the end, where the checksum is


def _matrix(path: Path, source: _Source, order: str, place: int | None, length: int) -> StoredArray | None:
    """Read the head of a variable; None for one that is no plain array of numbers."""
    flags = np.frombuffer(_element(source, order, 64), order + "u4")
    sizes = np.frombuffer(_element(source, order, 4 * _MAX_AXES), order + "i4")
    name = _element(source, order, _MAX_NAME).decode("latin-1")
    if flags.size == 0 or int(flags[0]) & 255 not in _CLASSES or int(flags[0]) & _COMPLEX or sizes.size < 2:
        return None
    if sizes.min() < 1:
        return None
    if not name.isidentifier():
        raise _Damaged(f"a variable is called {name[:60]!r}")
    kind, size, small = _tag(source, order)
    if kind not in _STORED:
        raise InputError(f"{path}::{name} has numbers of the unknown type {kind}: it is damaged")
    dtype, value = np.dtype(order + _STORED[kind]), np.dtype(_CLASSES[int(flags[0]) & 255])
    shape = tuple(int(one) for one in sizes[::-1])
    stored = length if place is None else size
    if small is not None:
        return None  # at most four bytes: no frames
    offset = None if place is None else place + source.place
    pieces = None if not isinstance(source, _Inflated) else _Pieces(*source.origin, source.place, size)
    found = StoredArray(path, name, shape, dtype, value, offset, stored, pieces)
    check_raw_size(found.label, found.bytes, size)
    if place is not None:
        check_raw_size(found.label, found.bytes, min(found.bytes, length - source.place))
    return found


def _tag(source: _Source, order: str) -> tuple[int, int, bytes | None]:
    """Read type and size of an element, and its data where they are so short that they stand in the tag."""
    head = source.read(_TAG)
    if len(head) < _TAG:
        raise _Damaged("it ends within the head of a variable")
    first, second = (int(value) for value in np.frombuffer(head, order + "u4"))
    if first >> 16:
        return first & 0xFFFF, first >> 16, head[4 : 4 + min(4, first >> 16)]
    return first, second, None


def _element(source: _Source, order: str, most: int) -> bytes:
    """Read the data of an element of at most ``most`` bytes."""
    _, size, small = _tag(source, order)
    if small is not None:
        return small
    if size > most:
        raise _Damaged(f"the head of a variable claims {size} bytes")
    data = source.read(size)
    source.read(-size % 8)
    if len(data) < size:
        raise _Damaged("it ends within the head of a variable")
    return data[: size - size % 4] if most != _MAX_NAME else data
