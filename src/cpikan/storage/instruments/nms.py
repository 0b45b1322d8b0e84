"""NanoFocus .nms files of confocal microscopes (usurf): only read, for nobody has published what they hold.

What is known of them: least and greatest height in um at byte 16, columns and rows at 1368, pixel in nm (x, y) at 1376,
16-bit codes from 3468 on, row 0 on top, 0 for the least height and 65535 for the greatest. No code is known for a missing
point. Every map says that it rests on this.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.headers import check_frame_size
from cpikan.storage.instruments.rasters import Block, Linear, MappedRaster, pixel_pair_um, positive, stored_map
from cpikan.storage.maps import StoredMap

_RANGE_AT, _SHAPE_AT, _DATA_AT = 16, 1368, 3468
_CODES = 2**16 - 1
_LIMIT = 100_000  # rows or columns


def open_nms_map(path: Path) -> StoredMap:
    """Open a NanoFocus file; InputError for one whose range, size or length cannot be that of a map."""
    with open(path, "rb") as file:
        head = file.read(_DATA_AT)
    if len(head) < _DATA_AT:
        raise InputError(f"{path} is truncated: {len(head)} of {_DATA_AT} bytes of header; copy it again")
    low, high = struct.unpack_from("<2d", head, _RANGE_AT)
    width, height, x_nm, y_nm = struct.unpack_from("<2I2d", head, _SHAPE_AT)
    if max(width, height) > _LIMIT:
        raise InputError(f"{path} claims {height} x {width} points: it is no NanoFocus file, or damaged")
    check_frame_size(str(path), height, width)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(f"{path} has heights from {low:g} to {high:g} um: it is no NanoFocus file, or damaged")
    scale = positive(path, high - low, "a range of heights (um) of") * 1e3 / _CODES
    heights = MappedRaster(Block(path, np.dtype("<u2"), _DATA_AT, (height, width)), Linear(scale, low * 1e3))
    note = (
        f"{path}: the format is not published; heights in um, a pixel in nm and no code for missing points are what its files "
        "suggest: compare one with the instrument's own program"
    )
    return stored_map(path, heights, pixel_um=pixel_pair_um(y_nm * 1e-3, x_nm * 1e-3), notes=[note])
