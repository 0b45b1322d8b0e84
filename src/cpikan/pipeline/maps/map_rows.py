"""A stored height map, read in bands as often as it takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.pipeline.maps.height_map import HeightMap
from cpikan.streaming.engine import Band, split_bands
from cpikan.streaming.events import Events, Progress

_HIGHEST_NM = 1e15
_BLOCK_PIXELS = 1 << 20
_CHUNK_ROWS = 512  # the largest unit of rows that a file of ours decodes at once


def check_heights(heights: NDArray[np.number], name: str) -> None:
    """Raise InputError for finite heights in nm that no surface has: their powers would leave the range of numbers."""
    size = np.abs(np.asarray(heights, np.float64))
    beyond = (size > _HIGHEST_NM) & (size < np.inf)
    if beyond.any():
        raise InputError(
            f"{name} holds a height of {size[beyond].max():.3g} nm: more than {_HIGHEST_NM:g} nm is no height; check the file, "
            "and that it is in nm"
        )


class MapRows:
    """The quantities of a height map read in bands of ``block_pixels`` (about a million).

    Every chunk of the file is decoded once per sweep.
    Bands hold a power of two of rows, so none crosses a chunk; the rows of the last chunk of each quantity are kept.
    """

    def __init__(
        self,
        height_map: HeightMap,
        label: str = "evaluate",
        *,
        progress: bool | Events = False,
        block_pixels: int | None = None,
    ) -> None:
        self.map = height_map
        self._label, self._progress = label, progress
        height, width = (int(n) for n in height_map.height_nm.shape)
        self.shape = (height, width)
        rows = min(_CHUNK_ROWS, max(1, (block_pixels or _BLOCK_PIXELS) // width))
        self.bands = split_bands(height, 1 << (rows.bit_length() - 1))
        self._kept: dict[str, tuple[int, NDArray[Any]]] = {}

    def read(self, name: str, band: Band) -> NDArray[Any] | None:
        """Read rows of the quantity ``name`` (``height_nm``, ``sigma_nm``, ...), None when the map has none."""
        source = getattr(self.map, name)
        if source is None or isinstance(source, np.ndarray):
            return None if source is None else source[band.start : band.stop]
        first = band.start // _CHUNK_ROWS * _CHUNK_ROWS
        if name not in self._kept or self._kept[name][0] != first:
            self._kept[name] = (first, np.asarray(source[first : first + _CHUNK_ROWS, :]))
        return self._kept[name][1][band.start - first : band.stop - first]

    def heights(self) -> Iterator[tuple[Band, NDArray[Any]]]:
        """Yield every band with its heights in nm, from top to bottom."""
        with Progress(self._label, *self.shape, self._progress) as bar:
            for band in self.bands:
                rows = self.read("height_nm", band)
                assert rows is not None
                check_heights(rows, str(self.map.path))
                yield band, rows
                bar.advance(band.rows)
