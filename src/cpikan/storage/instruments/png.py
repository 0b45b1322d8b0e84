"""Heights as a 16-bit grey picture, .png, with what a grey value means in its text: ours, and as Gwyddion writes it.

Row 0 is on top. Height = value x scale + offset; ours has 0 for a missing point, and scale, offset, unit, pixel and
wavelength as JSON in a text chunk ``cpikan``; Gwyddion's has the heights of 0 and 65535 in ``Gwy::ZMin`` and ``Gwy::ZMax``. A
picture with neither is none of heights.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cpikan.errors import InputError
from cpikan.messages import one_line
from cpikan.storage.documents import parse_json
from cpikan.storage.headers import check_compressed_size, check_frame_size, decoding
from cpikan.storage.instruments.rasters import Linear, pixel_pair_um, positive, stored_map
from cpikan.storage.maps import LazyMap, StoredMap
from cpikan.units import pixel_pair, unit_nm

if TYPE_CHECKING:
    from cpikan.storage.instruments.content import MapContent

_MAGIC = b"\x89PNG\r\n\x1a\n"
_KEY = "cpikan"
_TOP = 65535
_LONGEST = 2**20  # bytes of text


class _Picture(LazyMap):
    """Heights of a picture, which is decoded whole when rows are first read: two bytes a pixel."""

    def __init__(self, path: Path, shape: tuple[int, int], decode: Linear) -> None:
        super().__init__(shape, np.dtype(np.float64))
        self._path, self._decode = path, decode

    @cached_property
    def _values(self) -> np.ndarray:
        from cpikan.storage.readers.images import read_image

        values = read_image(self._path)
        if values.shape != self.shape or values.dtype != np.uint16:
            raise InputError(
                f"{self._path} holds {values.dtype} of {values.shape}: heights are one grey value of 16 bits each"
            )
        return values

    def _read(self, rows: range, columns: range) -> np.ndarray:
        with decoding(str(self._path)):
            return self._decode(self._values[rows.start : rows.stop, columns.start : columns.stop])


def open_png_map(path: Path) -> StoredMap:
    """Open a picture of heights; InputError for one that does not say what its values mean, or of other than 16 bits grey."""
    shape, texts = _head(path)
    if _KEY in texts:
        return _ours(path, shape, texts[_KEY])
    if {"Gwy::ZMin", "Gwy::ZMax"} <= set(texts):
        return _gwyddion(path, shape, texts)
    raise InputError(
        f"{path} does not say what its grey values mean (text {_KEY}, or Gwy::ZMin and Gwy::ZMax): it is no picture of heights"
    )


def _head(path: Path) -> tuple[tuple[int, int], dict[str, str]]:
    """Read size and texts of the chunks before the pixels."""
    texts, shape = {}, None
    with open(path, "rb") as file:
        if file.read(8) != _MAGIC:
            raise InputError(f"{path} is no PNG picture")
        while shape is None or len(texts) < 1000:
            length, kind = struct.unpack(">I4s", file.read(8))
            if kind in (b"IDAT", b"IEND"):
                break
            if length > _LONGEST:
                raise InputError(f"{path} has {length} bytes of text or the like in one piece: it is damaged")
            data = file.read(length)
            file.seek(4, 1)
            if kind == b"IHDR":
                width, height, bits, color = struct.unpack_from(">IIBB", data)
                if (bits, color) != (16, 0):
                    raise InputError(f"{path} has {bits} bits of colour kind {color}: heights are 16 bits of grey")
                shape = (height, width)
            elif kind == b"tEXt":
                key, _, text = data.partition(b"\0")
                texts[key.decode("latin-1")] = text.decode("latin-1")
    if shape is None:
        raise InputError(f"{path} has no size: it is damaged")
    check_frame_size(str(path), *shape)
    check_compressed_size(str(path), 2 * shape[0] * shape[1], path.stat().st_size)
    return shape, texts


def _ours(path: Path, shape: tuple[int, int], text: str) -> StoredMap:
    said: Any = parse_json(text)
    if not isinstance(said, dict) or unit_nm(str(said.get("unit"))) is None:
        raise InputError(f"{path} has a text {_KEY} without a unit: write the map again")
    unit = unit_nm(str(said["unit"])) or 0.0
    scale = positive(path, float(said.get("scale", 0)), "a scale of") * unit
    mark = said.get("missing")
    missing = (lambda values: values == mark) if isinstance(mark, int) else None
    heights = _Picture(path, shape, Linear(scale, float(said.get("offset", 0)) * unit, missing))
    waves = [float(wave) for wave in said.get("wavelengths_nm") or ()]
    return stored_map(path, heights, pixel_um=pixel_pair(said.get("pixel_um")), wavelengths_nm=waves)


def _gwyddion(path: Path, shape: tuple[int, int], texts: dict[str, str]) -> StoredMap:
    unit = unit_nm(texts.get("Gwy::ZUnit", ""))
    if unit is None:
        raise InputError(
            f"{path} has heights in {one_line(texts.get('Gwy::ZUnit', '')) or 'no unit'}: a map needs a length"
        )
    low, high = float(texts["Gwy::ZMin"]), float(texts["Gwy::ZMax"])
    heights = _Picture(path, shape, Linear(positive(path, high - low, "a range of") * unit / _TOP, low * unit))
    lateral = unit_nm(texts.get("Gwy::XYUnit", ""))
    pixel = None
    if lateral is not None:
        sizes = (float(texts.get(f"Gwy::{axis}Real", "nan")) for axis in "YX")
        pixel = pixel_pair_um(*(size * lateral * 1e-3 / count for size, count in zip(sizes, shape, strict=True)))
    return stored_map(path, heights, pixel_um=pixel)


def export_png(content: MapContent, path: Path) -> None:
    """Write 16-bit values, 1 for the least height and 65535 for the greatest: a height is off by range / 131068 at most."""
    content.check_size()
    height, width = content.shape
    low, high = content.range_nm
    scale = (high - low) / (_TOP - 1) or 1.0
    offset = low - scale
    with open(path, "wb") as file:
        file.write(_MAGIC + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)))
        for key, text in _texts(content, scale, offset).items():
            file.write(_chunk(b"tEXt", key.encode() + b"\0" + text.encode()))
        engine = zlib.compressobj(4)
        for piece in _filtered(content, scale, offset):
            if data := engine.compress(piece):
                file.write(_chunk(b"IDAT", data))
        file.write(_chunk(b"IDAT", engine.flush()) + _chunk(b"IEND", b""))


def _texts(content: MapContent, scale: float, offset: float) -> dict[str, str]:
    waves = [float(wave) for wave in content.acquisition.get("wavelengths_nm") or ()]
    said: dict[str, Any] = {"unit": "nm", "scale": scale, "offset": offset, "missing": 0, "wavelengths_nm": waves}
    said["pixel_um"] = list(content.pixel_um) if content.pixel_um else None
    texts = {_KEY: json.dumps(said), "Gwy::ZUnit": "m", "Gwy::ZMin": repr(offset / 1e9)}
    texts["Gwy::ZMax"] = repr((offset + _TOP * scale) / 1e9)
    if content.pixel_um is not None:
        sizes = [size * count / 1e6 for size, count in zip(content.pixel_um, content.shape, strict=True)]
        texts |= {"Gwy::XYUnit": "m", "Gwy::XReal": repr(sizes[1]), "Gwy::YReal": repr(sizes[0])}
    return texts


def _filtered(content: MapContent, scale: float, offset: float) -> Iterator[bytes]:
    """Yield bands of lines as PNG filters them: each less the one above it, behind the number of that filter."""
    above = np.zeros(2 * content.shape[1], np.uint8)
    for _, rows in content.bands():
        values = np.where(np.isnan(rows), 0, np.clip(np.rint((rows - offset) / scale), 1, _TOP)).astype(">u2")
        lines = values.view(np.uint8).reshape(len(rows), -1)
        out = np.full((len(rows), lines.shape[1] + 1), 2, np.uint8)
        out[:, 1:] = lines - np.concatenate([above[None], lines[:-1]])
        above = lines[-1].copy()
        yield out.tobytes()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
