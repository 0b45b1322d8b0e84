"""Wyko .opd files of Veeco and Bruker: named blocks behind a directory, heights in units of a wavelength.

Heights lie column after column, each from the bottom to the top. A missing point is 2**127 in float32 (anything from 1e38
on is taken for one) and 32766 or 32767 in 16 bits. Height in nm = number x Wavelength / Mult; the pixel is Pixel_size in mm
wide and Aspect times as high. Bruker publishes no text: the layout is that of files of Vision.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.instruments.rasters import Block, Linear, MappedRaster, pixel_pair_um, positive, stored_map
from cpikan.storage.maps import StoredMap

if TYPE_CHECKING:
    from cpikan.storage.instruments.content import MapContent

_MAGIC = b"\x01\x00Directory\0"
_ENTRY = struct.Struct("<16shlH")
_ARRAY = struct.Struct("<HHH")
_HEIGHTS = ("RAW_DATA", "RAW DATA", "Raw", "OPD", "SAMPLE_DATA")
_DTYPES = {2: "<i2", 4: "<f4"}
_BAD = {2: 32766, 4: 1e38}
_DIRECTORY, _ARRAYS, _SHORT, _FLOAT = 1, 3, 6, 7
_MARK = np.float32(2.0**127)
_LIMIT = 2**16 - 1
_NOMINAL_NM = 632.8


@dataclass(frozen=True)
class _Entry:
    name: str
    kind: int
    size: int
    start: int


def open_opd_map(path: Path) -> StoredMap:
    """Open a Wyko file; InputError for another file, one without heights or wavelength, and one that is cut short."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        if not file.read(len(_MAGIC)).startswith(_MAGIC):
            raise InputError(f"{path} is no Wyko file: it does not begin with its directory")
        entries = _directory(path, file, size)
        numbers = {entry.name: _number(file, entry) for entry in entries if entry.kind in (_SHORT, _FLOAT)}
        found = [entry for entry in entries if entry.kind == _ARRAYS and entry.name in _HEIGHTS]
        if not found:
            told = ", ".join(entry.name for entry in entries if entry.kind == _ARRAYS) or "none"
            raise InputError(f"{path} has no heights: its arrays are {told[:100]}; save the height data")
        block, itemsize = _block(path, file, found[0])
    if "Wavelength" not in numbers:
        raise InputError(f"{path} does not say the wavelength that its heights are counted in: export it again")
    wavelength = positive(path, numbers["Wavelength"], "a wavelength of")
    scale = wavelength / positive(path, numbers.get("Mult", 1.0), "a Mult of")
    limit = _BAD[itemsize]
    heights = MappedRaster(block, Linear(scale, missing=lambda stored: stored >= limit), lambda stored: stored.T[::-1])
    x = numbers.get("Pixel_size", math.nan) * 1e3
    pixel = pixel_pair_um(x * numbers.get("Aspect", 1.0), x)
    notes = [f"{path} holds {', '.join(e.name for e in found)}: {found[0].name} is read"] if len(found) > 1 else []
    return stored_map(path, heights, pixel_um=pixel, wavelengths_nm=[wavelength], notes=notes)


def _directory(path: Path, file: BinaryIO, size: int) -> list[_Entry]:
    file.seek(2)
    _, _, length, _ = _ENTRY.unpack(file.read(_ENTRY.size))
    if length < _ENTRY.size or length % _ENTRY.size or 2 + length > size:
        raise InputError(f"{path} has a directory of {length} bytes: it is damaged or cut short; export it again")
    entries, start = [], 2 + length
    for _ in range(length // _ENTRY.size - 1):
        name, kind, bytes_, _ = _ENTRY.unpack(file.read(_ENTRY.size))
        if bytes_ <= 0:
            continue
        if start + bytes_ > size:
            raise InputError(f"{path} is truncated: {size} of at least {start + bytes_} bytes are there; copy it again")
        entries.append(_Entry(name.split(b"\0")[0].decode("latin-1"), kind, bytes_, start))
        start += bytes_
    return entries


def _number(file: BinaryIO, entry: _Entry) -> float:
    """Read a number; some files declare a float that has the two bytes of an integer."""
    file.seek(entry.start)
    data = file.read(min(entry.size, 4))
    form = "<h" if len(data) < 4 else "<f" if entry.kind == _FLOAT else "<i"
    return float(struct.unpack(form, data[: struct.calcsize(form)].ljust(2, b"\0"))[0])


def _block(path: Path, file: BinaryIO, entry: _Entry) -> tuple[Block, int]:
    file.seek(entry.start)
    width, height, itemsize = _ARRAY.unpack(file.read(_ARRAY.size))
    if itemsize not in _DTYPES:
        raise InputError(f"{path} has heights of {itemsize} bytes: allowed are 2 and 4; it is damaged")
    if width * height * itemsize + _ARRAY.size != entry.size:
        raise InputError(
            f"{path} claims {width} x {height} heights in {entry.size} bytes: it is damaged; export it again"
        )
    return Block(path, np.dtype(_DTYPES[itemsize]), entry.start + _ARRAY.size, (width, height)), itemsize


def export_opd(content: MapContent, path: Path) -> None:
    """Write heights in units of the wavelength as float32: each is off by 2**-24 of itself at most."""
    content.check_size(_LIMIT, (2**31 - 1 - _ARRAY.size) // 4)
    if content.wavelength_nm is None:
        content.warnings.append(
            f"{content.name}: the map has no wavelength, and this format counts in it: {_NOMINAL_NM} nm is written; heights "
            "are right"
        )
    wavelength = np.float32(content.wavelength_nm or _NOMINAL_NM)
    height, width = content.shape
    blocks = [("RAW_DATA", _ARRAYS, _ARRAY.size + 4 * height * width), ("Wavelength", _FLOAT, 4), ("Mult", _SHORT, 2)]
    tail = struct.pack("<fh", wavelength, 1)
    if content.pixel_um is not None:
        y, x = content.pixel_um
        blocks += [("Aspect", _FLOAT, 4), ("Pixel_size", _FLOAT, 4)]
        tail += struct.pack("<ff", y / x, x * 1e-3)
    length = _ENTRY.size * (len(blocks) + 1)
    head = b"\x01\x00" + _ENTRY.pack(b"Directory", _DIRECTORY, length, 0xFFFF)
    head += b"".join(_ENTRY.pack(name.encode(), kind, size, 8) for name, kind, size in blocks)
    head += _ARRAY.pack(width, height, 4)
    with open(path, "wb") as file:
        file.write(head)
        file.truncate(len(head) + 4 * height * width)
    numbers = np.memmap(path, "<f4", "r+", len(head), (width, height))
    upright = numbers.T[::-1]
    for start, rows in content.bands():
        upright[start : start + len(rows)] = np.where(np.isnan(rows), _MARK, rows / np.float64(wavelength))
    numbers.flush()
    del numbers, upright
    with open(path, "ab") as file:
        file.write(tail)
