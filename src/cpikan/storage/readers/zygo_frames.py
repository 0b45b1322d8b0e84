"""The intensity frames (buckets) of Zygo MetroPro files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.headers import check_frame_size
from cpikan.storage.instruments.zygo import INVALID_INTENSITY, read_zygo_fields
from cpikan.storage.readers.base import BaseReader
from cpikan.storage.readers.marked import MarkedReader
from cpikan.storage.readers.stored_array import StoredArray, StoredArrayReader

_LARGEST = 65535


class ZygoFramesReader(StoredArrayReader):
    """Rows of the intensity frames of a MetroPro file, uint16, memory-mapped; the file says wavelength and pixel size.

    Raises InputError for a file of another kind, one that is cut, and one without intensities.
    """

    def __init__(self, path: Path) -> None:
        fields = read_zygo_fields(path)
        shape = (fields["buckets"], fields["intensity_height"], fields["intensity_width"])
        if 0 in shape:
            raise InputError(
                f"{path} holds a height map but no intensity frames: give it where a map is asked for, or save the data with "
                "all intensity frames from MetroPro"
            )
        check_frame_size(str(path), shape[1], shape[2], shape[0])
        kind = np.dtype(">u2")
        super().__init__(
            StoredArray(path, "intensity", shape, kind, np.dtype("u2"), fields["header_size"], 2 * math.prod(shape))
        )
        self._opened = path.absolute()
        largest = fields["intensity_range"]
        if largest and (largest & (largest + 1)) == 0:  # of the camera: 255, 1023, 4095
            self.bits = int(largest).bit_length()
        self.told = _told(fields)

    def origin(self) -> tuple[Any, ...]:
        return (self._opened,)


def open_zygo_frames(path: Path) -> BaseReader:
    """Open the intensity frames of a MetroPro .dat file; NaN where the camera saw nothing that counts."""
    return MarkedReader(ZygoFramesReader(path), INVALID_INTENSITY, _LARGEST)


def _told(fields: dict[str, Any]) -> dict[str, Any]:
    """Give what the header says under the keys of acquisition.toml."""
    found: dict[str, Any] = {}
    for key, name in (("wavelengths", "wavelength_m"), ("pixel_size", "pixel_m")):
        value = fields[name]
        if math.isfinite(value) and 1e-12 < value < 1:
            text = f"{value * 1e9:.7g} nm"
            found[key] = [text] if key == "wavelengths" else text
    return found
