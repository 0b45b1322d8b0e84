"""Surface data files, .sdf, of ISO 25178-71 and of its forerunner BCR, binary and ASCII.

A header of named fields, the heights in units of Zscale m, a trailer. The first profile is row 0, as every reader but those
that draw y upwards shows it. Missing points are, by revision: the least number of the type (ISO), the largest (BCR), ``BAD`` in
ASCII; NaN, which some programs write, is taken for one too.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.headers import check_frame_size
from cpikan.storage.instruments.rasters import (
    Block,
    Linear,
    MappedRaster,
    StreamedRaster,
    pixel_pair_um,
    positive,
    stored_map,
)
from cpikan.storage.maps import LazyMap, StoredMap

if TYPE_CHECKING:
    from cpikan.storage.instruments.content import MapContent

_MAGIC = re.compile(rb"([abAB])(ISO|BCR)-(1\.0|2\.0)")
_TYPES = ("u1", "<u2", "<u4", "<f4", "i1", "<i2", "<i4", "<f8")  # by code
_NAMES = {"UCHAR": 0, "UINTEGER": 1, "ULONGINT": 2, "FLOAT": 3, "CHAR": 4, "INTEGER": 5, "LONGINT": 6, "DOUBLE": 7}
_NONE = {"NULL": 0, "NONE": 0}  # names that BCR has for codes
_FIELDS = (
    "NumPoints",
    "NumProfiles",
    "Xscale",
    "Yscale",
    "Zscale",
    "Zresolution",
    "Compression",
    "DataType",
    "CheckType",
)
_BCR_FLOAT = {4: 3.4e38, 8: 1.7e308}  # from here on a number marks a bad point
_LONGEST = 2**16  # bytes of an ASCII header
_STRINGS = 34  # bytes: manufacturer, two dates


@dataclass(frozen=True)
class _Head:
    """What a header says; ``start`` is the byte where the heights begin."""

    family: str
    shape: tuple[int, int]
    pixel_um: tuple[float, float] | None
    scale_nm: float
    dtype: np.dtype
    start: int
    notes: tuple[str, ...]


def open_sdf_map(path: Path) -> StoredMap:
    """Open an .sdf; InputError for another file, a scale of zero, a compressed one, and one that is cut short."""
    with open(path, "rb") as file:
        found = _MAGIC.fullmatch(file.read(8))
        if found is None:
            raise InputError(f"{path} is no SDF file: it begins with none of aISO-1.0, bISO-1.0, aBCR-1.0, bBCR-1.0")
        kind, family, revision = (part.decode() for part in found.groups())
        head = _binary(path, file, family, revision) if kind in "bB" else _ascii(path, file, family)
    heights = _binary_heights(path, head) if kind in "bB" else _ascii_heights(path, head)
    return stored_map(path, heights, pixel_um=head.pixel_um, notes=head.notes)


def _binary(path: Path, file: BinaryIO, family: str, revision: str) -> _Head:
    form = "<" + ("II" if revision == "2.0" else "HH") + "ddddBBB"
    size = struct.calcsize(form)
    data = file.read(_STRINGS + size)
    if len(data) < _STRINGS + size:
        raise InputError(f"{path} is truncated in its header: copy it again")
    values = struct.unpack(form, data[_STRINGS:])
    return _checked(path, family, dict(zip(_FIELDS, values, strict=True)), 8 + len(data))


def _ascii(path: Path, file: BinaryIO, family: str) -> _Head:
    data = file.read(_LONGEST)
    end = re.search(rb"(?:^|[\r\n])[ \t]*\*[^\r\n]*[\r\n]+", data)
    if end is None:
        raise InputError(f"{path} has no line with * after its header: it is damaged; export it again")
    lines = data[: end.start()].decode("latin-1").splitlines()
    named = {}
    for line in lines:
        name, equals, value = line.split(";", 1)[0].partition("=")
        if equals:
            named[name.strip().lower()] = value.strip()
    lacking = [name for name in _FIELDS if name.lower() not in named and name not in ("Zresolution", "CheckType")]
    if lacking:
        raise InputError(f"{path} lacks {', '.join(lacking)} in its header: it is damaged; export it again")
    values: dict[str, float] = {}
    for name in _FIELDS:
        text = named.get(name.lower(), "0").upper()
        codes = _NAMES if name == "DataType" else _NONE
        whole = name.startswith("Num") or name in ("Compression", "DataType", "CheckType")
        values[name] = codes.get(text, 0) if text in codes else int(text) if whole else float(text)
    return _checked(path, family, values, 8 + end.end())


def _checked(path: Path, family: str, values: dict[str, float], start: int) -> _Head:
    code = int(values["DataType"])
    if not 0 <= code < len(_TYPES):
        raise InputError(f"{path} has DataType {code}: allowed are 0 to 7; it is damaged")
    if values["Compression"]:
        raise InputError(
            f"{path} is compressed ({values['Compression']:g}), which the standard leaves open: export it plain"
        )
    shape = (int(values["NumProfiles"]), int(values["NumPoints"]))
    check_frame_size(str(path), *shape)
    scale = positive(path, values["Zscale"], "a Zscale of")
    pixel = pixel_pair_um(values["Yscale"] * 1e6, values["Xscale"] * 1e6)
    notes = []
    if pixel is None:
        notes.append(f"{path} has an Xscale or a Yscale that is no length: lateral numbers are in pixels")
    if values["CheckType"]:
        notes.append(f"{path} has a checksum, whose making the standard leaves open: it is not checked")
    if family == "BCR":
        notes.append(
            f"{path} is of BCR-1.0, which does not say where its first profile lies: it is taken for the top row"
        )
    return _Head(family, shape, pixel, scale * 1e9, np.dtype(_TYPES[code]), start, tuple(notes))


def _missing(family: str, dtype: np.dtype) -> Callable[[np.ndarray], np.ndarray]:
    if family == "BCR":
        limit = _BCR_FLOAT[dtype.itemsize] if dtype.kind == "f" else np.iinfo(dtype).max
        return lambda numbers: numbers >= limit
    if dtype.kind == "u":  # of BCR alone, and without a mark in ISO
        return lambda numbers: numbers == np.iinfo(dtype).max
    least = np.finfo(dtype).min if dtype.kind == "f" else np.iinfo(dtype).min
    return lambda numbers: numbers == least


def _binary_heights(path: Path, head: _Head) -> LazyMap:
    missing = _missing(head.family, head.dtype)
    return MappedRaster(Block(path, head.dtype, head.start, head.shape), Linear(head.scale_nm, missing=missing))


def _ascii_heights(path: Path, head: _Head) -> LazyMap:
    needed = head.start + 2 * head.shape[0] * head.shape[1] - 1
    if path.stat().st_size < needed:
        raise InputError(f"{path} is truncated: {head.shape[0]} x {head.shape[1]} heights do not fit; copy it again")
    return StreamedRaster(str(path), head.shape, partial(_ascii_rows, path, head))


def _ascii_rows(path: Path, head: _Head) -> Iterator[np.ndarray]:
    """Read whole rows of the words of an ASCII file, however they are cut into lines."""
    missing, width = _missing(head.family, head.dtype), head.shape[1]
    decode = Linear(head.scale_nm, missing=missing)
    kept: list[np.ndarray] = []
    count = 0
    with open(path, encoding="latin-1") as file:
        file.seek(head.start)
        for line in file:
            if line.lstrip().startswith("*"):
                break
            words = line.split(";", 1)[0].split() if head.family == "BCR" else line.split()
            kept.append(np.array([math.nan if word.upper() == "BAD" else float(word) for word in words]))
            count += len(words)
            if count >= width:
                numbers = np.concatenate(kept)
                whole = count // width * width
                yield decode(numbers[:whole].reshape(-1, width))
                kept, count = [numbers[whole:]], count - whole


_LARGEST_SHORT = 2**16 - 1


def export_sdf(content: MapContent, path: Path) -> None:
    """Write a binary ISO-1.0 file (ISO-2.0 beyond 65535 rows or columns) of float64 in nm: exact to the bit."""
    content.check_size(2**32 - 1)
    height, width = content.shape
    y, x = content.some_pixel_um()
    short = max(content.shape) <= _LARGEST_SHORT
    date = b"0" * 12  # no time: equal maps give equal files
    head = (b"bISO-1.0" if short else b"bISO-2.0") + b"cpikan    " + date + date
    head += struct.pack("<HH" if short else "<II", width, height)
    head += struct.pack("<ddddBBB", x / 1e6, y / 1e6, 1e-9, -1.0, 0, 7, 0)
    least = np.finfo(np.float64).min
    with open(path, "wb") as file:
        file.write(head)
        for _, rows in content.bands():
            file.write(np.where(np.isnan(rows), least, rows).astype("<f8").tobytes())
