"""Heights of a map under a filter, worked out once in a thread and kept in a file without a name."""

from __future__ import annotations

import threading

import numpy as np

from cpikan.errors import InputError
from cpikan.messages import one_line
from cpikan.pipeline.maps.height_map import HeightMap
from cpikan.viewer.levels import Levels, unnamed_array
from cpikan.viewer.running import GrowingArray

_BAND_ROWS = 512


class Filtering:
    """The heights of a map through Gaussian S- and L-filters (ISO 16610-61), the first ``rows`` of which are there.

    Raises InputError for nesting indices that are none; what fails later is told in ``failed``.
    """

    def __init__(self, name: str, height_map: HeightMap, s_filter: str | None, l_filter: str | None) -> None:
        self.name = name
        self._filtered = height_map.filtered(s_filter or None, l_filter or None)
        self.said = ", ".join(one.identity for one in self._filtered.filters)
        self._kept = unnamed_array(height_map.shape, np.dtype("<f4"))
        self._array = GrowingArray("height_nm", height_map.shape, lambda: self._kept)
        self.levels = Levels("height_nm", self._array)
        self.failed: str | None = None
        self._stopped = False

    @property
    def rows(self) -> int:
        return self._array.rows

    def start(self) -> None:
        """Work in a thread of its own until all rows are there, or `stop`."""
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """End the work after the rows that are being filtered."""
        self._stopped = True

    def _run(self) -> None:
        height = self._array.shape[0]
        try:
            for start in range(0, height, _BAND_ROWS):
                if self._stopped:
                    return
                stop = min(height, start + _BAND_ROWS)
                self._kept[start:stop] = self._filtered.height_nm[start:stop]
                self._array.rows = stop
                self.levels.advance(stop)
        except (InputError, OSError, MemoryError) as failure:
            self.failed = one_line(str(failure))
