"""Frames in which a value, or a range of them, means that there is no measurement."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.storage.readers.base import BaseReader, FrameLayout


class MarkedReader(BaseReader):
    """The frames of another reader as floats, NaN where a sample lies in [``first``, ``last``], the marks of its format."""

    def __init__(self, reader: BaseReader, first: float, last: float) -> None:
        kind = np.dtype(np.float64 if reader.dtype == np.float64 else np.float32)
        super().__init__(FrameLayout(reader.shape, kind, reader.labels, reader.groups, reader.stored_dtype))
        self.take_over(reader)
        self._reader, self._marks = reader, (first, last)

    def _rows(self, start: int, stop: int) -> np.ndarray:
        band = self._reader.read_rows(start, stop)
        out = band.astype(self.dtype)
        out[(band >= self._marks[0]) & (band <= self._marks[1])] = np.nan
        return out

    def files(self) -> list[Path]:
        return self._reader.files()

    def origin(self) -> tuple[Any, ...]:
        return (self._reader, *self._marks)

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self._reader.fingerprint()} {self._marks}".encode()).hexdigest()

    def close(self) -> None:
        self._reader.close()
