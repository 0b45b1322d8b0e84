"""Frames in an array of a .npz file, written as ``file.npz::name``."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError, unknown_name
from cpikan.storage.headers import check_raw_size, decoding, read_npy_header
from cpikan.storage.readers.axes import default_axes, turned_axes
from cpikan.storage.readers.base import BaseReader
from cpikan.storage.readers.read_as import ReadAs
from cpikan.storage.readers.stored_array import StoredArray, StoredArrayReader
from cpikan.storage.readers.turned import Turn, TurnedReader

_PIECE = 2**20
_LOCAL_HEADER = 30
_MAX_MEMBERS = 2**16


class NpzReader(StoredArrayReader):
    """Rows of an array of a .npz file: mapped where it is stored plain (`numpy.savez`), decompressed once otherwise."""

    def __init__(self, path: Path, name: str, axes: str | None = None, single: bool = False) -> None:
        stored, _ = find_array(path, name, single)
        self._opened = (path.absolute(), name, axes, single)
        super().__init__(stored, axes, single)

    def origin(self) -> tuple[Any, ...]:
        return self._opened


def open_npz(path: Path, how: ReadAs) -> BaseReader:
    """Open an array of a .npz file: the one that is named, or the only one that may hold frames."""
    stored, fortran = find_array(path, how.dataset, how.single or how.axes is not None)
    axes = how.axes or default_axes(stored.label, stored.shape[::-1] if fortran else stored.shape, how.single)
    ordered, transposed = turned_axes(axes[::-1] if fortran else axes)
    reader = NpzReader(path, stored.name, ordered, how.single)
    return TurnedReader(reader, Turn(transpose=True)) if transposed else reader


def find_array(path: Path, name: str, single: bool) -> tuple[StoredArray, bool]:
    """Find an array, and tell whether it is in Fortran order: then its shape is given backwards, as its bytes lie.

    Raises InputError that lists the arrays where it is not there, or none is named and several may hold frames.
    """
    with decoding(str(path)), zipfile.ZipFile(path) as file:
        members = {
            info.filename.removesuffix(".npy"): info for info in file.infolist() if info.filename.endswith(".npy")
        }
        if len(members) > _MAX_MEMBERS:
            raise InputError(f"{path} has {len(members)} members: it is damaged")
        heads = {}
        for key in members if name in ("", "/") else [name] if name in members else []:
            heads[key] = _header(file, members[key])
        fewest = 2 if single else 3
        usable = [key for key, (shape, *_) in heads.items() if fewest <= len(shape) <= 4]
        if name not in ("", "/"):
            if name not in members:
                raise unknown_name(f"array in {path}", name, list(members)[:8])
            usable = [name]
        if len(usable) != 1:
            told = (
                f"name one of {', '.join(f'{path.name}::{key}' for key in usable[:8])}"
                if usable
                else "give one that does"
            )
            raise InputError(f"{path} holds {len(usable) or 'no'} arrays that may be frames: {told}")
        key = usable[0]
        return _stored(path, file, members[key], heads[key]), heads[key][1]


_Head = tuple[tuple[int, ...], bool, np.dtype, int]


def _header(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Head:
    """Read shape, Fortran order, type and length of the header of a member."""
    with file.open(info) as member:
        shape, fortran, dtype = read_npy_header(member)  # type: ignore[arg-type]
        return shape, fortran, dtype, member.tell()


def _stored(path: Path, file: zipfile.ZipFile, info: zipfile.ZipInfo, head: _Head) -> StoredArray:
    shape, fortran, dtype, length = head
    offset = None
    if info.compress_type == zipfile.ZIP_STORED:
        with open(path, "rb") as plain:
            plain.seek(info.header_offset)
            local = plain.read(_LOCAL_HEADER)
        if len(local) < _LOCAL_HEADER:
            raise InputError(f"{path} is truncated: copy it again")
        sizes = [int.from_bytes(local[at : at + 2], "little") for at in (26, 28)]
        offset = info.header_offset + _LOCAL_HEADER + sum(sizes) + length
    name = info.filename.removesuffix(".npy")
    pieces = _Pieces(path, info.filename, length)
    found = StoredArray(path, name, shape[::-1] if fortran else shape, dtype, dtype, offset, info.compress_size, pieces)
    check_raw_size(found.label, found.bytes, info.file_size - length)
    if offset is not None:
        check_raw_size(found.label, found.bytes, min(found.bytes, path.stat().st_size - offset))
    return found


class _Pieces:
    """The decompressed bytes of a member behind the header of its array; its checksum is checked at the end."""

    def __init__(self, path: Path, member: str, skipped: int) -> None:
        self._path, self._member, self._skipped = path, member, skipped

    def __call__(self) -> Iterator[bytes]:
        with zipfile.ZipFile(self._path) as file, file.open(self._member) as member:
            member.read(self._skipped)
            while piece := member.read(_PIECE):
                yield piece
