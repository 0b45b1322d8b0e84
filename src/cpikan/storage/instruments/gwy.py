"""Gwyddion's own files, .gwy: a tree of named components of which one is the heights as float64.

Source: the format's page in the Gwyddion user guide. Row 0 is on top, lengths are in m. Missing points are NaN and, as
Gwyddion itself marks them, 1 in a mask of the same name.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from cpikan.errors import InputError
from cpikan.messages import printable
from cpikan.storage.instruments.rasters import Block, Linear, MappedRaster, pixel_pair_um, stored_map
from cpikan.storage.maps import StoredMap
from cpikan.units import unit_nm

if TYPE_CHECKING:
    from cpikan.storage.instruments.content import MapContent

_SIZES = {"b": 1, "c": 1, "i": 4, "q": 8, "d": 8}
_FORMS = {"b": "<B", "c": "<b", "i": "<i", "q": "<q", "d": "<d"}
_ITEMS = {"C": 1, "I": 4, "Q": 8, "D": 8}
_NAME = 1024  # bytes of a name at most
_DEPTH = 16
_SURFACE = re.compile(r"/(\d+)/data")
_WAVELENGTH = "Wavelength"


@dataclass(frozen=True)
class _Part:
    """A component: ``value`` of a number or a text, the parts of an object, or (offset, count) of an array."""

    kind: str
    value: Any
    name: str = ""  # of the class of an object


def open_gwy_map(path: Path) -> StoredMap:
    """Open the first height field of a .gwy; InputError for a damaged file and one without heights in a length."""
    with open(path, "rb") as file:
        if file.read(4) != b"GWYP":
            raise InputError(f"{path} is no Gwyddion file: it does not begin with GWYP")
        root = _object(path, file, os.path.getsize(path), 0)
    fields = {int(m[1]): part for name, part in root.value.items() if (m := _SURFACE.fullmatch(name))}
    for number in sorted(fields):
        parts = fields[number].value if fields[number].kind == "o" else {}
        unit = unit_nm(_unit(parts, "si_unit_z"))
        if unit is not None:
            return _opened(path, root.value, number, unit)
    told = ", ".join(_unit(part.value, "si_unit_z") or "no unit" for part in fields.values() if part.kind == "o")
    raise InputError(
        f"{path} has no heights in a length ({told or 'no data field'}): choose a file with a height channel"
    )


def _opened(path: Path, root: dict[str, _Part], number: int, unit: float) -> StoredMap:
    parts = root[f"/{number}/data"].value
    height, width = (int(_number(path, parts, name)) for name in ("yres", "xres"))
    data = parts.get("data")
    if data is None or data.kind != "D" or data.value[1] != height * width:
        raise InputError(f"{path} has a data field of {height} x {width} without as many numbers: it is damaged")
    heights = MappedRaster(Block(path, np.dtype("<f8"), data.value[0], (height, width)), Linear(unit))
    lateral = unit_nm(_unit(parts, "si_unit_xy"))
    notes, pixel = [], None
    if lateral is None:
        told = _unit(parts, "si_unit_xy") or "no unit"
        notes.append(f"{path} has its lateral size in {told}: it is left out, lateral numbers are in pixels")
    else:
        sizes = (_number(path, parts, name) * lateral * 1e-3 for name in ("yreal", "xreal"))
        pixel = pixel_pair_um(*(size / count for size, count in zip(sizes, (height, width), strict=True)))
    meta = root.get(f"/{number}/meta")
    told_wave = meta.value.get(_WAVELENGTH) if meta is not None and meta.kind == "o" else None
    if f"/{number}/mask" in root and told_wave is None:
        notes.append(
            f"{path} has a mask, which is not read: Gwyddion marks missing points and anything else in it, and fills them"
        )
    wave = float(told_wave.value) * 1e9 if told_wave is not None and told_wave.value else math.nan
    return stored_map(path, heights, pixel_um=pixel, wavelengths_nm=[wave] if 0 < wave < math.inf else [], notes=notes)


def _number(path: Path, parts: dict[str, _Part], name: str) -> float:
    if name not in parts or parts[name].kind not in _FORMS:
        raise InputError(f"{path} has a data field without {name}: it is damaged; save it again")
    return float(parts[name].value)


def _unit(parts: dict[str, _Part], name: str) -> str:
    unit = parts.get(name)
    text = unit.value.get("unitstr") if unit is not None and unit.kind == "o" else None
    return str(text.value) if text is not None and text.kind == "s" else ""


def _object(path: Path, file: BinaryIO, end: int, depth: int) -> _Part:
    """Read an object, arrays left where they are; InputError for one that does not fit into what holds it."""
    if depth > _DEPTH:
        raise InputError(f"{path} has objects inside one another {depth} deep: it is damaged")
    name = _text(path, file, end)
    (size,) = struct.unpack("<I", _exactly(path, file, 4, end))
    stop = file.tell() + size
    if stop > end:
        raise InputError(f"{path} is truncated: {name[:40]} ends at byte {stop} of {end}; copy it again")
    parts: dict[str, _Part] = {}
    while file.tell() < stop:
        key = _text(path, file, stop)
        parts[key] = _component(path, file, stop, depth)
    return _Part("o", parts, name)


def _component(path: Path, file: BinaryIO, end: int, depth: int) -> _Part:
    kind = _exactly(path, file, 1, end).decode("latin-1")
    if kind in _SIZES:
        return _Part(kind, struct.unpack(_FORMS[kind], _exactly(path, file, _SIZES[kind], end))[0])
    if kind == "s":
        return _Part(kind, _text(path, file, end, 2**20))
    if kind == "o":
        return _object(path, file, end, depth + 1)
    (count,) = struct.unpack("<I", _exactly(path, file, 4, end))
    at = file.tell()
    if kind in _ITEMS:
        if at + count * _ITEMS[kind] > end:
            raise InputError(f"{path} is truncated: an array of {count} numbers does not fit; copy it again")
        file.seek(count * _ITEMS[kind], os.SEEK_CUR)
    elif kind in ("S", "O"):
        for _ in range(count):
            _object(path, file, end, depth + 1) if kind == "O" else _text(path, file, end, 2**20)
    else:
        raise InputError(f"{path} has a component of the unknown type {kind!r}: it is damaged; save it again")
    return _Part(kind, (at, count))


def _exactly(path: Path, file: BinaryIO, size: int, end: int) -> bytes:
    if file.tell() + size > end:
        raise InputError(f"{path} is truncated at byte {end}: copy it again")
    return file.read(size)


def _text(path: Path, file: BinaryIO, end: int, longest: int = _NAME) -> str:
    at = file.tell()
    data = file.read(min(longest, end - at))
    stop = data.find(b"\0")
    if stop < 0:
        raise InputError(f"{path} has a text without an end at byte {at}: it is damaged; save it again")
    file.seek(at + stop + 1)
    return printable(data[:stop].decode("utf-8", "replace").replace("\n", " "))


def export_gwy(content: MapContent, path: Path) -> None:
    """Write heights in m as float64, NaN and mask where they are missing; InputError beyond the 4 GiB of the format."""
    height, width = content.shape
    y, x = content.some_pixel_um()
    content.check_size(pixels=(2**32 - 2**16) // (16 if content.missing else 8))
    sizes = {"xres": width, "yres": height, "xreal": x * width / 1e6, "yreal": y * height / 1e6}
    count = height * width
    head = b"".join(_small(name, value) for name, value in sizes.items()) + _si_unit("xy")
    data = [(_Field("/0/data", head + _si_unit("z"), count), _heights_m)]
    if content.missing:
        data.append((_Field("/0/mask", head, count), _missing))
    wave = "" if content.wavelength_nm is None else repr(content.wavelength_nm / 1e9)
    rest = _small("/0/data/title", "height") + _made("/0/meta", "GwyContainer", _small(_WAVELENGTH, wave))
    size = sum(field.size for field, _ in data) + len(rest)
    with open(path, "wb") as file:
        file.write(b"GWYP" + b"GwyContainer\0" + struct.pack("<I", size))
        for field, rows_of in data:
            file.write(field.head)
            for piece in rows_of(content):
                file.write(piece.astype("<f8").tobytes())
        file.write(rest)


def _heights_m(content: MapContent) -> Iterator[np.ndarray]:
    return (rows / 1e9 for _, rows in content.bands())


def _missing(content: MapContent) -> Iterator[np.ndarray]:
    return (np.isnan(rows) for _, rows in content.bands())


@dataclass(frozen=True)
class _Field:
    """A data field of ``count`` numbers, which follow its ``head``."""

    key: str
    parts: bytes
    count: int

    @property
    def head(self) -> bytes:
        inside = self.parts + b"data\0D" + struct.pack("<I", self.count)
        size = len(inside) + 8 * self.count
        return self.key.encode() + b"\0oGwyDataField\0" + struct.pack("<I", size) + inside

    @property
    def size(self) -> int:
        return len(self.head) + 8 * self.count


def _small(name: str, value: int | float | str) -> bytes:
    if isinstance(value, str):
        return name.encode() + b"\0s" + value.encode() + b"\0"
    return (
        name.encode()
        + b"\0"
        + (b"i" + struct.pack("<i", value) if isinstance(value, int) else b"d" + struct.pack("<d", value))
    )


def _made(key: str, name: str, parts: bytes) -> bytes:
    return key.encode() + b"\0o" + name.encode() + b"\0" + struct.pack("<I", len(parts)) + parts


def _si_unit(which: str) -> bytes:
    return _made(f"si_unit_{which}", "GwySIUnit", _small("unitstr", "m"))
