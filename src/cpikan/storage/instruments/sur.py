"""Digital Surf files, .sur, of MountainsMap and of instruments that write them: plain and compressed.

A header of 512 bytes, a comment, a private zone, then integers of 16 or 32 bits, row 0 on top, or zlib streams of
them behind a directory of their lengths. Height = (integer x spacing + offset) in a unit that the file names; the missing
point is the least valid integer less 2. Source: the description of the format that Digital Surf gives away.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cpikan.errors import InputError
from cpikan.messages import one_line
from cpikan.storage.headers import check_compressed_size, check_frame_size
from cpikan.storage.instruments.rasters import (
    Block,
    Linear,
    MappedRaster,
    StreamedRaster,
    pixel_pair_um,
    positive,
    rows_of_bytes,
    stored_map,
)
from cpikan.storage.maps import LazyMap, StoredMap
from cpikan.units import unit_nm

if TYPE_CHECKING:
    from cpikan.storage.instruments.content import MapContent

_PLAIN, _COMPRESSED = b"DIGITAL SURF", b"DSCOMPRESSED"
_SIZE = 512
_FIELDS = {  # name: offset, struct format; little endian
    "code": (0, "12s"),
    "format": (12, "h"),
    "objects": (14, "h"),
    "version": (16, "h"),
    "kind": (18, "h"),
    "special_points": (86, "h"),
    "absolute": (88, "h"),
    "bits": (98, "h"),
    "lowest": (100, "i"),
    "highest": (104, "i"),
    "width": (108, "i"),
    "height": (112, "i"),
    "points": (116, "i"),
    "spacing_x": (120, "f"),
    "spacing_y": (124, "f"),
    "spacing_z": (128, "f"),
    "name_x": (132, "16s"),
    "name_y": (148, "16s"),
    "name_z": (164, "16s"),
    "step_unit_x": (180, "16s"),
    "step_unit_y": (196, "16s"),
    "step_unit_z": (212, "16s"),
    "unit_x": (228, "16s"),
    "unit_y": (244, "16s"),
    "unit_z": (260, "16s"),
    "ratio_x": (276, "f"),
    "ratio_y": (280, "f"),
    "ratio_z": (284, "f"),
    "inversion": (290, "h"),
    "comment": (334, "H"),
    "private": (336, "H"),
    "offset_z": (474, "f"),
}
_SURFACES = (1, 2, 5, 8, 11, 13, 16)  # 1 is a profile, which Gwyddion writes for a surface
_PIECE = 1 << 20
_STREAMS = 2**16


@dataclass(frozen=True)
class _Stream:
    start: int
    packed: int
    plain: int


def open_sur_map(path: Path) -> StoredMap:
    """Open a Digital Surf file; InputError for another file, one without heights, without a unit, and one cut short."""
    with open(path, "rb") as file:
        head = file.read(_SIZE)
    fields = _checked(path, head)
    shape = (fields["height"], fields["width"])
    unit = unit_nm(_text(fields["step_unit_z"]))
    if unit is None:
        raise InputError(
            f"{path} has heights in {one_line(_text(fields['step_unit_z'])) or 'no unit'}: a map needs a length"
        )
    scale = positive(path, fields["spacing_z"], "a spacing in z of")
    mark = fields["lowest"] - 2
    missing = (lambda numbers: numbers == mark) if fields["special_points"] == 1 else None
    decode = Linear(scale * unit, fields["offset_z"] * unit, missing)
    start = _SIZE + fields["comment"] + fields["private"]
    dtype = np.dtype("<i2" if fields["bits"] == 16 else "<i4")
    heights: LazyMap
    if fields["code"] == _PLAIN:
        heights = MappedRaster(Block(path, dtype, start, shape), decode)
    else:
        streams = _streams(path, start, dtype.itemsize * shape[0] * shape[1])
        heights = StreamedRaster(str(path), shape, partial(_unpacked_rows, path, streams, dtype, decode, shape))
    return stored_map(path, heights, pixel_um=_pixel_um(fields), notes=_notes(path, fields))


def _checked(path: Path, head: bytes) -> dict[str, Any]:
    if head[:12] not in (_PLAIN, _COMPRESSED):
        raise InputError(f"{path} is no Digital Surf file: it begins with neither DIGITAL SURF nor DSCOMPRESSED")
    if len(head) < _SIZE:
        raise InputError(f"{path} is truncated: {len(head)} of {_SIZE} bytes of header; copy it again")
    fields = {name: struct.unpack_from("<" + form, head, at)[0] for name, (at, form) in _FIELDS.items()}
    if fields["format"] != 0 or fields["bits"] not in (16, 32):
        raise InputError(
            f"{path} has integers of {fields['bits']} bits in order {fields['format']}: allowed are 16 and 32 in order 0 (PC)"
        )
    if fields["kind"] not in _SURFACES or (fields["kind"] == 1 and fields["height"] < 2):
        raise InputError(f"{path} holds no surface but an object of kind {fields['kind']}: save the surface alone")
    check_frame_size(str(path), fields["height"], fields["width"])
    if fields["points"] != fields["height"] * fields["width"]:
        raise InputError(
            f"{path} claims {fields['points']} points for {fields['height']} x {fields['width']}: it is damaged"
        )
    return fields


def _text(data: bytes) -> str:
    data = data.split(b"\0")[0].strip()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _pixel_um(fields: dict[str, Any]) -> tuple[float, float] | None:
    units = [unit_nm(_text(fields[f"step_unit_{axis}"])) for axis in "yx"]
    sizes = [fields[f"spacing_{axis}"] * (unit or np.nan) * 1e-3 for axis, unit in zip("yx", units, strict=True)]
    return pixel_pair_um(sizes[0], sizes[1])


def _notes(path: Path, fields: dict[str, Any]) -> list[str]:
    notes = []
    if _pixel_um(fields) is None:
        told = _text(fields["step_unit_x"]) or "no unit"
        notes.append(f"{path} has a lateral spacing in {told}: it is left out, lateral numbers are in pixels")
    if fields["inversion"]:
        notes.append(
            f"{path} says that it was inverted ({fields['inversion']}): heights are read as they are stored, as MountainsMap "
            "exports them; Gwyddion and SurfaceTopography turn them once more"
        )
    if fields["objects"] > 1:
        notes.append(f"{path} holds {fields['objects']} objects: the first is read")
    return notes


def _streams(path: Path, start: int, expected: int) -> list[_Stream]:
    """Read the directory of compressed data; InputError where its lengths do not fit the file or the map."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(start)
        (count,) = struct.unpack("<I", file.read(4))
        if not 0 < count <= _STREAMS or start + 4 + 8 * count > size:
            raise InputError(f"{path} claims {count} compressed blocks: it is damaged or cut short; copy it again")
        lengths = struct.unpack(f"<{2 * count}I", file.read(8 * count))
    at, streams = start + 4 + 8 * count, []
    for plain, packed in zip(lengths[::2], lengths[1::2], strict=True):
        streams.append(_Stream(at, packed, plain))
        at += packed
    if at > size:
        raise InputError(f"{path} is truncated: its compressed blocks end at {at} of {size} bytes; copy it again")
    total = sum(stream.plain for stream in streams)
    if total != expected:
        raise InputError(f"{path} has {total} bytes in its blocks, where {expected} are a map: it is damaged")
    check_compressed_size(str(path), total, sum(stream.packed for stream in streams))
    return streams


def _unpacked_rows(
    path: Path, streams: list[_Stream], dtype: np.dtype, decode: Linear, shape: tuple[int, int]
) -> Iterator[np.ndarray]:
    for rows in rows_of_bytes(_unpacked(path, streams), dtype, shape[1]):
        yield decode(rows)


def _unpacked(path: Path, streams: list[_Stream]) -> Iterator[bytes]:
    with open(path, "rb") as file:
        for stream in streams:
            file.seek(stream.start)
            engine, left, made = zlib.decompressobj(), stream.packed, 0
            while made < stream.plain:
                data = engine.unconsumed_tail or file.read(min(left, _PIECE))
                left -= 0 if engine.unconsumed_tail else len(data)
                piece = engine.decompress(data, _PIECE)
                if not piece and not data:
                    raise InputError(
                        f"{path} has a block of {made} bytes, where {stream.plain} are told: it is damaged"
                    )
                made += len(piece)
                yield piece


_STEPS = 2**31 - 2**10  # float32 may round the step to 128 of them fewer


def export_sur(content: MapContent, path: Path) -> None:
    """Write 32-bit integers from 0 on, in steps of the range / 2**31: a height is off by half a step at most.

    The least height is the offset, and 0 the least integer: every known reading of spacing and offset gives these heights.
    """
    content.check_size(pixels=2**31 - 1)
    low, high = content.range_nm
    offset = np.float32(low)
    if offset > low:
        offset = np.nextafter(offset, np.float32(-np.inf))
    step = np.float32((high - float(offset)) / _STEPS) or np.float32(1)
    highest = round((high - float(offset)) / float(step))
    with open(path, "wb") as file:
        file.write(_header(content, {"highest": highest, "spacing_z": step, "offset_z": offset}))
        for _, rows in content.bands():
            numbers = np.where(np.isnan(rows), -2, np.rint((rows - float(offset)) / float(step)))
            file.write(numbers.astype("<i4").tobytes())


def _header(content: MapContent, scales: dict[str, Any]) -> bytes:
    height, width = content.shape
    y, x = content.some_pixel_um()
    known: dict[str, Any] = {
        "code": _PLAIN,
        "objects": 1,
        "version": 1,
        "kind": 2,
        "special_points": int(content.missing > 0),
        "absolute": 1,
        "bits": 32,
        "lowest": 0,
        "width": width,
        "height": height,
        "points": width * height,
        "spacing_x": x * 1e-3,
        "spacing_y": y * 1e-3,
        **{f"ratio_{axis}": 1.0 for axis in "xyz"},
        **{f"name_{axis}": axis.upper().encode().ljust(16) for axis in "xyz"},
        **{
            f"{which}_{axis}": unit for which in ("step_unit", "unit") for axis, unit in zip("xyz", _UNITS, strict=True)
        },
        **scales,
    }
    head = bytearray(_SIZE)
    for name, value in known.items():
        at, form = _FIELDS[name]
        struct.pack_into("<" + form, head, at, value)
    return bytes(head)


_UNITS = (b"mm".ljust(16), b"mm".ljust(16), b"nm".ljust(16))
