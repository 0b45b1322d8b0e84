"""The head of a tiled BigTIFF, written before any pixel, so that the tiles need no second pass over the disk.

Source: BigTIFF (the 64-bit variant of TIFF 6.0): header of 16 bytes, then a directory per page of 20-byte entries.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from cpikan.storage.atomic import plain
from cpikan.storage.writers.layout import QUANTITIES, MapLayout, pixel_um

TILE = 512
_GDAL_NODATA = 42113  # without it GDAL counts NaN as measured
_GDAL_METADATA = '<GDALMetadata><Item name="UNITTYPE" sample="0" role="unittype">{unit}</Item></GDALMetadata>'
_BLOCK = 4096  # pages of pixels start at multiples of this
_SAMPLE_FORMATS = {"u": 1, "i": 2, "f": 3}
_ASCII, _SHORT, _LONG, _RATIONAL, _DOUBLE, _LONG8 = 2, 3, 4, 5, 12, 16
_CODES = {_SHORT: "H", _LONG: "I", _RATIONAL: "I", _DOUBLE: "d", _LONG8: "Q"}


@dataclass(frozen=True)
class TiffPage:
    """One quantity in a file: where its first tile begins; its tiles follow one another, row by row."""

    quantity: str
    shape: tuple[int, int]
    dtype: np.dtype
    offset: int

    @property
    def tiles(self) -> tuple[int, int]:
        """Count the tiles along y and x."""
        return -(-self.shape[0] // TILE), -(-self.shape[1] // TILE)

    @property
    def tile_bytes(self) -> int:
        return TILE * TILE * self.dtype.itemsize

    @property
    def end(self) -> int:
        return self.offset + self.tiles[0] * self.tiles[1] * self.tile_bytes

    def tile_offset(self, row: int, column: int) -> int:
        """Compute the byte offset of tile (row, column)."""
        return self.offset + (row * self.tiles[1] + column) * self.tile_bytes

    @property
    def tile_offsets(self) -> range:
        """Return the byte offsets of all tiles, row by row."""
        return range(self.offset, self.end, self.tile_bytes)


def head_of(layout: MapLayout) -> tuple[bytes, list[TiffPage]]:
    """Encode all bytes before the first tile, and place the tiles of each page.

    A page's description is the JSON ``{"shape": ..., "quantity": ..., "unit": ...}`` (tifffile takes ``shape`` as the sign
    of a series of its own); page 0 also has ``attributes``. No program, version or time: equal maps give equal files.
    """
    size = len(_directories(layout, _placed(layout, 0)))  # lengths do not depend on the offsets
    pages = _placed(layout, -(-size // _BLOCK) * _BLOCK)
    return _directories(layout, pages), pages


def _placed(layout: MapLayout, start: int) -> list[TiffPage]:
    pages = []
    for name in layout.quantities:
        pages.append(TiffPage(name, layout.shape, QUANTITIES[name].dtype, start))
        start = pages[-1].end
    return pages


def _directories(layout: MapLayout, pages: Sequence[TiffPage]) -> bytes:
    head = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16)
    for index, page in enumerate(pages):
        described: dict[str, Any] = {"shape": list(page.shape), "quantity": page.quantity}
        described["unit"] = QUANTITIES[page.quantity].unit
        if index == 0:
            described["attributes"] = plain(layout.attributes)
        entries = _entries(page, json.dumps(described), layout.attributes)
        head += _directory(entries, len(head), last=index == len(pages) - 1)
    return head


def _entries(page: TiffPage, description: str, attributes: Mapping[str, Any]) -> list[tuple[int, int, bytes]]:
    """List the tags of a page as (code, type, value), in the ascending order the format demands."""
    pixel = pixel_um(attributes)
    resolution_y, resolution_x = (_per_cm(size) for size in pixel or (None, None))
    sizes = [page.tile_bytes] * len(page.tile_offsets)
    no_data = [(_GDAL_NODATA, _ASCII, b"nan\0")] if page.dtype.kind == "f" else []
    return [
        (256, _LONG, _pack(_LONG, page.shape[1])),  # ImageWidth
        (257, _LONG, _pack(_LONG, page.shape[0])),  # ImageLength
        (258, _SHORT, _pack(_SHORT, page.dtype.itemsize * 8)),  # BitsPerSample
        (259, _SHORT, _pack(_SHORT, 1)),  # Compression: none
        (262, _SHORT, _pack(_SHORT, 1)),  # PhotometricInterpretation: black is zero
        (270, _ASCII, description.encode("ascii") + b"\0"),  # ImageDescription
        (277, _SHORT, _pack(_SHORT, 1)),  # SamplesPerPixel
        (282, _RATIONAL, resolution_x),  # XResolution
        (283, _RATIONAL, resolution_y),  # YResolution
        (296, _SHORT, _pack(_SHORT, 3 if pixel else 1)),  # ResolutionUnit: cm or none
        (322, _LONG, _pack(_LONG, TILE)),  # TileWidth
        (323, _LONG, _pack(_LONG, TILE)),  # TileLength
        (324, _LONG8, _pack(_LONG8, *page.tile_offsets)),  # TileOffsets
        (325, _LONG8, _pack(_LONG8, *sizes)),  # TileByteCounts
        (339, _SHORT, _pack(_SHORT, _SAMPLE_FORMATS[page.dtype.kind])),  # SampleFormat
        *_elevation(page, pixel),
        *no_data,
    ]


def _elevation(page: TiffPage, pixel_um: tuple[float, float] | None) -> list[tuple[int, int, bytes]]:
    """List the tags by which GDAL, and what rests on it, takes a page for heights: pixel in m, first pixel, unit."""
    unit = QUANTITIES[page.quantity].unit
    tags = []
    if pixel_um is not None:
        y, x = pixel_um
        tags.append((33550, _DOUBLE, _pack(_DOUBLE, x / 1e6, y / 1e6, 0.0)))  # ModelPixelScale
        tags.append((33922, _DOUBLE, _pack(_DOUBLE, *[0.0] * 6)))  # ModelTiepoint
    if unit is not None:
        tags.append((42112, _ASCII, _GDAL_METADATA.format(unit=unit).encode() + b"\0"))
    return tags


def _per_cm(size_um: float | None) -> bytes:
    """Encode the pixels per cm; 1 where the size is not known."""
    number = Fraction(1e4 / size_um if size_um else 1).limit_denominator(10**5)
    return _pack(_RATIONAL, number.numerator, number.denominator)


def _directory(entries: Sequence[tuple[int, int, bytes]], start: int, *, last: bool) -> bytes:
    """Encode a directory at byte ``start``, its values longer than 8 bytes and, unless last, a link to the next."""
    table = struct.pack("<Q", len(entries))
    after = start + 8 + 20 * len(entries) + 8
    values = b""
    for code, kind, value in entries:
        unit = 1 if kind == _ASCII else 8 if kind in (_RATIONAL, _DOUBLE, _LONG8) else struct.calcsize(_CODES[kind])
        table += struct.pack("<HHQ", code, kind, len(value) // unit)
        if len(value) <= 8:
            table += value.ljust(8, b"\0")
        else:
            table += struct.pack("<Q", after + len(values))
            values += value.ljust(-(-len(value) // 8) * 8, b"\0")
    return table + struct.pack("<Q", 0 if last else after + len(values)) + values


def _pack(kind: int, *values: float) -> bytes:
    return struct.pack(f"<{len(values)}{_CODES[kind]}", *values)
