"""Frames turned or mirrored: what lay on its side, upside down, or column by column comes with row 0 on top."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.readers.base import BaseReader, FrameLayout
from cpikan.storage.scratch import Spill

_BLOCK_BYTES = 2**27
_STRIP = 64


@dataclass(frozen=True)
class Turn:
    """Exchange rows and columns (``transpose``), then reverse the order of the rows, of the columns, or of both."""

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    def __bool__(self) -> bool:
        return self.transpose or self.flip_rows or self.flip_columns

    def then(self, other: Turn) -> Turn:
        """Give the one turn that does this one and then ``other``."""
        rows, columns = self.flip_rows, self.flip_columns
        if other.transpose:
            rows, columns = columns, rows
        return Turn(self.transpose != other.transpose, rows != other.flip_rows, columns != other.flip_columns)

    def view(self, frames: np.ndarray) -> np.ndarray:
        """View frames (..., H, W) turned."""
        found = frames.swapaxes(-1, -2) if self.transpose else frames
        return found[..., :: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]

    def __str__(self) -> str:
        words = [
            "rows and columns exchanged" if self.transpose else "",
            "upside down" if self.flip_rows else "",
            "left and right exchanged" if self.flip_columns else "",
        ]
        return ", then ".join(word for word in words if word) or "as stored"


AS_STORED = Turn()
ROTATIONS = {0: AS_STORED, 90: Turn(True, True), 180: Turn(False, True, True), 270: Turn(True, False, True)}
FLIPS = {"none": Turn(), "vertical": Turn(flip_rows=True), "horizontal": Turn(flip_columns=True)}
# tag 274 of EXIF and TIFF 6.0: where row 0 and column 0 of what is stored lie in the picture
ORIENTATIONS = {
    1: Turn(),
    2: Turn(flip_columns=True),
    3: Turn(False, True, True),
    4: Turn(flip_rows=True),
    5: Turn(True),
    6: Turn(True, False, True),
    7: Turn(True, True, True),
    8: Turn(True, True),
}


def turn_of_tag(label: str, value: object) -> Turn:
    """Find the turn that an orientation tag asks for; none where there is no tag. InputError for a value outside 1 to 8."""
    if value is None:
        return Turn()
    if not isinstance(value, int) or value not in ORIENTATIONS:
        raise InputError(f"{label} has the orientation {value!r}: the tag is 1 to 8; write it without, or correct it")
    return ORIENTATIONS[value]


class TurnedReader(BaseReader):
    """The frames of another reader, turned. Flips are views of its bands.

    Rows that were columns are written once, by blocks of 128 MiB, into a temporary file of the size of all frames.
    """

    def __init__(self, reader: BaseReader, turn: Turn) -> None:
        frames, height, width = reader.shape
        shape = (frames, width, height) if turn.transpose else reader.shape
        super().__init__(FrameLayout(shape, reader.dtype, reader.labels, reader.groups, reader.stored_dtype))
        self.take_over(reader)
        self._reader, self._turn = reader, turn
        self._columns: np.ndarray | None = None

    def _rows(self, start: int, stop: int) -> np.ndarray:
        first, last = (self.shape[1] - stop, self.shape[1] - start) if self._turn.flip_rows else (start, stop)
        if self._turn.transpose:
            if self._columns is None:
                self._columns = self._transposed()
            band = self._columns[:, first:last]
        else:
            band = self._reader.read_rows(first, last)
        return Turn(False, self._turn.flip_rows, self._turn.flip_columns).view(band)

    def files(self) -> list[Path]:
        return self._reader.files()

    def origin(self) -> tuple[Any, ...]:
        return (self._reader, self._turn)

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self._reader.fingerprint()} {self._turn}".encode()).hexdigest()

    def close(self) -> None:
        self._columns = None
        self._reader.close()

    def _transposed(self) -> np.ndarray:
        """Write the transposed frames into a file without a name, which is gone with the last view of it."""
        frames, height, width = self._reader.shape
        out = Spill(Path(tempfile.gettempdir())).empty((frames, width, height), self.dtype)
        rows = max(1, min(height, _BLOCK_BYTES // (frames * width * self.dtype.itemsize)))
        for start in range(0, height, rows):
            stop = min(height, start + rows)
            for frame, band in zip(out, self._reader.read_rows(start, stop), strict=True):
                for first in range(0, stop - start, _STRIP):
                    strip = band[first : first + _STRIP]
                    frame[:, start + first : start + first + len(strip)] = strip.T
        return out.view(np.ndarray)
