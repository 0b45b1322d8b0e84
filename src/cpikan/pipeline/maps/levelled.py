"""Heights inside an aperture without a form, computed for the window that is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cpikan.storage.lazy import LazyMap
from cpikan.storage.maps import MapArray
from cpikan.surface.aperture import Aperture, circle_around, pupil_of
from cpikan.surface.form import Form, FormFit, surface_rows

_BAND_ROWS = 512  # the largest unit of rows that a file of ours decodes at once


class LevelledHeights(LazyMap):
    """Heights of a map in nm, float64: NaN outside ``aperture`` (None: nowhere), less the least-squares form of ``terms``.

    The form is fitted when heights are first read, in the aperture's own circle or the one around the valid pixels: one
    or two sweeps of the map, memory of a band.
    """

    def __init__(
        self, stored: MapArray, aperture: Aperture | None, terms: tuple[str, ...], aspect: float = 1.0
    ) -> None:
        super().__init__((int(stored.shape[0]), int(stored.shape[1])), np.dtype(np.float64))
        self._stored, self._aperture, self._terms, self._aspect = stored, aperture, terms, aspect

    @cached_property
    def form(self) -> Form:
        """Fit the form that is removed."""
        masks = ((start, np.isfinite(heights)) for start, heights in self._bands())
        fit = FormFit(self._terms, pupil_of(self._aperture) or circle_around(masks, self._aspect))
        for start, heights in self._bands():
            fit.add(start, heights)
        return fit.solve()

    def _read(self, rows: range, columns: range) -> np.ndarray:
        heights = self._cut(rows.start, rows.stop)
        if self._terms:
            form = np.array([self.form.coefficients_nm])
            heights -= surface_rows(self.form.basis, self.form.pupil, form, rows.start, np.isfinite(heights))[0]
        return heights[:, columns.start : columns.stop]

    def _bands(self) -> Iterator[tuple[int, NDArray[np.float64]]]:
        for start in range(0, self.shape[0], _BAND_ROWS):
            yield start, self._cut(start, min(start + _BAND_ROWS, self.shape[0]))

    def _cut(self, start: int, stop: int) -> NDArray[np.float64]:
        heights = np.array(self._stored[start:stop], np.float64)
        if self._aperture is not None:
            self._aperture.cut(start, heights)
        return heights
