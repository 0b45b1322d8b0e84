"""Frames in a variable of a MATLAB file, written as ``file.mat::name``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cpikan.errors import InputError, unknown_name
from cpikan.storage.headers import decoding
from cpikan.storage.readers.axes import check_axes, turned_axes
from cpikan.storage.readers.base import BaseReader
from cpikan.storage.readers.hdf5 import Hdf5Reader, array_names
from cpikan.storage.readers.matlab_file import find_variables
from cpikan.storage.readers.read_as import ReadAs
from cpikan.storage.readers.stored_array import StoredArray, StoredArrayReader
from cpikan.storage.readers.turned import Turn, TurnedReader

_HDF5_VERSION = b"MATLAB 7.3"


class MatlabReader(StoredArrayReader):
    """Rows of a variable of a MATLAB file of version 5 to 7: mapped where it is plain, decompressed once otherwise.

    ``axes`` are letters of its sizes backwards, for MATLAB stores the first size fastest.
    """

    def __init__(self, path: Path, name: str, axes: str | None = None, single: bool = False) -> None:
        self._opened = (path.absolute(), name, axes, single)
        super().__init__(_chosen(path, name, find_variables(path), single), axes, single)

    def origin(self) -> tuple[Any, ...]:
        return self._opened


def open_matlab(path: Path, how: ReadAs) -> BaseReader:
    """Open a variable: the one that is named, or the only one that may hold frames.

    ``how.axes`` are the letters of its sizes in MATLAB's order. Where nobody says them the shortest axes are those of the
    frames: (rows, columns, steps, wavelengths) or (wavelengths, steps, rows, columns); InputError where the sizes do not tell.
    """
    single = how.single or how.axes is not None
    with decoding(str(path)), open(path, "rb") as file:
        version = file.read(len(_HDF5_VERSION))
    if version == _HDF5_VERSION:
        name, backwards = _dataset(path, how.dataset, single)
    else:
        stored = _chosen(path, how.dataset, find_variables(path), single)
        name, backwards = stored.name, stored.shape
    axes = _axes(f"{path}::{name}", backwards[::-1], how)
    ordered, transposed = turned_axes(axes[::-1])
    kind = Hdf5Reader if version == _HDF5_VERSION else MatlabReader
    reader: BaseReader = kind(path, name, ordered, how.single)
    if transposed:
        reader = TurnedReader(reader, Turn(transpose=True))
    reader.orientation = f"axes {axes} by the sizes that MATLAB gives ({' x '.join(map(str, backwards[::-1]))})"
    return reader


def _chosen(path: Path, name: str, variables: list[StoredArray], single: bool) -> StoredArray:
    usable = [one for one in variables if (2 if single else 3) <= len(one.shape) <= 4 and 1 not in one.shape[-2:]]
    named = variables if name not in ("", "/") else usable
    chosen = _only(path, name, [one.name for one in named])
    return next(one for one in named if one.name == chosen)


def _dataset(path: Path, name: str, single: bool) -> tuple[str, tuple[int, ...]]:
    """Find the variable of a file of version 7.3, which is HDF5: its sizes stand there backwards."""
    known = array_names(path, 2 if single else 3)
    names = {key.lstrip("/"): shape for key, shape in known.items() if not key.startswith("/#")}
    chosen = _only(path, name.lstrip("/"), list(names))
    return chosen, names[chosen]


def _only(path: Path, name: str, names: list[str]) -> str:
    """Choose the name that is given, or the only one."""
    if name not in ("", "/"):
        if name not in names:
            raise unknown_name(f"variable with numbers in {path}", name, names[:8])
        return name
    if len(names) != 1:
        told = f"name one of {', '.join(f'{path.name}::{key}' for key in names[:8])}" if names else "give one that does"
        raise InputError(f"{path} holds {len(names) or 'no'} variables that may be frames: {told}")
    return names[0]


def _axes(label: str, sizes: tuple[int, ...], how: ReadAs) -> str:
    """Find the letters of the sizes, in MATLAB's order."""
    if how.axes is not None:
        return check_axes(label, how.axes, sizes)
    count = len(sizes)
    if how.single and count == 2:
        return "yx"
    if count in (3, 4):
        first, last = sizes[:2], sizes[2:]
        if max(last) < min(first):
            return "yxsw"[:count]
        first, last = sizes[:-2], sizes[-2:]
        if max(first) < min(last):
            return "wsyx"[-count:]
    raise InputError(
        f"{label} has the sizes {' x '.join(map(str, sizes))}, which do not tell frames from rows and columns: say axes = "
        '"yxs" for (rows, columns, steps), with w for wavelengths, in the order of size() in MATLAB'
    )
