"""What the writers of maps share: the layout, rows that are checked before they are stored, and a full disk that is named."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from cpikan.storage.atomic import full_disk_named
from cpikan.storage.writers.layout import MapLayout


class LayoutWriter(ABC):
    """The part of a MapWriter that does not depend on the format; a writer supplies ``_put`` and ``_flush``."""

    row_align = 1

    def __init__(self, layout: MapLayout) -> None:
        self._layout = layout

    @property
    def quantities(self) -> tuple[str, ...]:
        return self._layout.quantities

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
