"""What the writers of maps share: the layout, rows that are checked before they are stored, and a full disk that is named."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from cpikan.storage.atomic import full_disk_named
from cpikan.storage.protocols import MapWriter
from cpikan.storage.writers.layout import MapLayout


class LayoutWriter(ABC):
    """The part of a MapWriter that does not depend on the format; a writer supplies ``_put`` and ``_flush``."""

    row_align = 1

    def __init__(self, layout: MapLayout) -> None:
        self._layout, self.quantities = layout, layout.quantities

    def write_rows(self, start: int, rows: Mapping[str, np.ndarray]) -> None:
        with full_disk_named(self._layout.path, self._layout.remaining_bytes(start)):
            for name, array in self._layout.checked_rows(start, rows, self.row_align).items():
                self._put(name, start, array)

    def sync(self) -> None:
        with full_disk_named(self._layout.path, self._layout.raw_bytes):
            self._flush()

    @abstractmethod
    def _put(self, name: str, start: int, rows: np.ndarray) -> None:
        """Store rows of a quantity, C-contiguous and of its type."""

    @abstractmethod
    def _flush(self) -> None:
        """Make everything written durable."""


class RowAssembler:
    """Collects consecutive rows for a writer whose ranges must start at multiples of its ``row_align``.

    Compute bands stay small enough for the caches, whatever the chunks of the output are.
    """

    def __init__(self, writer: MapWriter, shape: tuple[int, int]) -> None:
        self._writer, self._height, self._width = writer, shape[0], shape[1]
        self._held: dict[str, np.ndarray] = {}
        self._start = self._count = 0

    def write(self, start: int, rows: Mapping[str, np.ndarray]) -> int:
        """Take rows that follow the last ones; returns the row up to which everything was handed to the writer."""
        align = self._writer.row_align
        if align == 1:
            self._writer.write_rows(start, rows)
            return start + len(next(iter(rows.values())))
        if self._count == 0:
            self._start = start
        taken, total = 0, len(next(iter(rows.values())))
        while taken < total:
            piece = min(align - self._count, total - taken)
            for name, array in rows.items():
                self._buffer(name, array.dtype)[self._count : self._count + piece] = array[taken : taken + piece]
            self._count += piece
            taken += piece
            if self._count == align or self._start + self._count == self._height:
                self._writer.write_rows(self._start, {name: self._held[name][: self._count] for name in rows})
                self._start, self._count = self._start + self._count, 0
        return self._start

    def _buffer(self, name: str, dtype: np.dtype) -> np.ndarray:
        if name not in self._held:
            rows = min(self._writer.row_align, self._height)
            self._held[name] = np.empty((rows, self._width), dtype)
        return self._held[name]
