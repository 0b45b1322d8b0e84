"""Heights of a map under S- and L-filters, filtered when they are read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cpikan.errors import InputError, check_name
from cpikan.storage.maps import LazyMap, MapArray
from cpikan.surface.filters.kinds import FILTERS, LargeScale
from cpikan.surface.filters.spikes import check_spikes, find_spikes
from cpikan.units import PixelUm, format_length, parse_length_nm, pixel_pair

Role = Literal["s", "l"]


@dataclass(frozen=True)
class MapFilter:
    """A filter of a map: an S-filter ("s") keeps its large-scale part, an L-filter ("l") what that leaves.

    ``nesting_px`` is the nesting index along y and x; ``said`` how it was given.
    """

    role: Role
    kind: str
    nesting_px: tuple[float, float]
    said: str

    @property
    def identity(self) -> str:
        """Name the filter in one phrase, such as "L gaussian 800 um"."""
        return f"{self.role.upper()} {self.kind} {self.said}"


def map_filter(role: Role, kind: str, nesting: str, pixel_um: PixelUm | None) -> MapFilter:
    """Read a filter: ``nesting`` is a length with a unit, or pixels as "800 px".

    Raises InputError for an unknown kind, a nesting index that is none, and a length on a map whose pixels have no size.
    """
    check_name("filter", kind, FILTERS)
    text = str(nesting).strip()
    if text.endswith("px"):
        try:
            pixels = float(text.removesuffix("px"))
        except ValueError:
            pixels = 0.0
        if not 0 < pixels < np.inf:
            raise InputError(f'nesting index {text!r} is not one: give a length such as "0.8 mm", or "800 px"')
        return MapFilter(role, kind, (pixels, pixels), f"{pixels:g} px")
    length_nm, pair = parse_length_nm(text, "nesting index"), pixel_pair(pixel_um)
    if pair is None:
        raise InputError(f'nesting index {text!r} on a map whose pixel size is not known: give pixels, such as "80 px"')
    return MapFilter(role, kind, (length_nm / 1000 / pair[0], length_nm / 1000 / pair[1]), format_length(length_nm))


class SpikelessHeights(LazyMap):
    """Heights of a map in nm, float64, NaN in place of spikes, which are found in the whole map when heights are first read."""

    def __init__(self, source: MapArray, sigmas: float, window: int) -> None:
        super().__init__((int(source.shape[0]), int(source.shape[1])), np.dtype(np.float64))
        check_spikes(sigmas, window)
        self._source, self._sigmas, self._window = source, sigmas, window

    @cached_property
    def _spikes(self) -> NDArray[np.bool_]:
        return find_spikes(np.asarray(self._source), self._sigmas, self._window)

    def _read(self, rows: range, columns: range) -> np.ndarray:
        window = slice(rows.start, rows.stop), slice(columns.start, columns.stop)
        heights = np.array(self._source[window], np.float64)
        heights[self._spikes[window]] = np.nan
        return heights


class FilteredHeights(LazyMap):
    """Heights of a map in nm, float64, through one filter; NaN where the map is NaN.

    The map is swept when heights are first read; memory is that of the filter (``cpikan.surface.filters``).
    """

    def __init__(self, source: MapArray, chosen: MapFilter) -> None:
        super().__init__((int(source.shape[0]), int(source.shape[1])), np.dtype(np.float64))
        self._source, self._chosen = source, chosen

    @cached_property
    def _large(self) -> LargeScale:
        return FILTERS[self._chosen.kind](self._source, self._chosen.nesting_px)

    def _read(self, rows: range, columns: range) -> np.ndarray:
        heights = np.asarray(self._source[rows.start : rows.stop], np.float64)
        large = self._large.rows(rows.start, rows.stop)
        found = large if self._chosen.role == "s" else heights - large
        return np.where(np.isfinite(heights), found, np.nan)[:, columns.start : columns.stop]
