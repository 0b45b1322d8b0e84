"""A map as the page sees it: what it is in words and numbers, and its tiles."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.pipeline.maps.height_map import HeightMap
from cpikan.units import pixel_pair
from cpikan.viewer.levels import CHUNK, Levels

SHOWN = ("height_nm", "sigma_nm", "modulation", "flags", "slope_y_nm_per_px", "slope_x_nm_per_px")


class Exhibit:
    """A height map with coarser levels of each quantity, which are made when one is first asked for.

    Tiles may be asked for by several threads.
    """

    def __init__(self, height_map: HeightMap) -> None:
        self.map = height_map
        self._levels = {
            name: Levels(name, height_map.height_nm if name == "height_nm" else height_map.arrays[name])
            for name in SHOWN
            if name in height_map.arrays
        }
        self._locks = {name: threading.Lock() for name in self._levels}
        self._filled: set[str] = set()

    @property
    def quantities(self) -> tuple[str, ...]:
        return tuple(self._levels)

    def tile(self, name: str, level: int, row: int, column: int) -> NDArray[Any]:
        """Make a tile of 512 x 512 pixels.

        Raises KeyError or IndexError for one that does not exist, InputError where the file does not hold it.
        """
        levels = self._levels[name]
        if not 0 <= level < len(levels.shapes):
            raise IndexError(f"level {level} of {name} does not exist")
        if level:
            self.prepare(name)
        return levels.tile(level, row, column)

    def prepare(self, name: str) -> None:
        """Make the coarser levels of a quantity, where that was not done before."""
        with self._locks[name]:
            if name not in self._filled:
                self._levels[name].fill_all()
                self._filled.add(name)

    def shapes(self) -> list[tuple[int, int]]:
        """List the shapes of all levels, finest first."""
        return self._levels["height_nm"].shapes

    def describe(self) -> dict[str, Any]:
        """Tell name, sizes, units, quantities and what has to be known about the map."""
        pixel = pixel_pair(self.map.pixel_um)
        return {
            "name": self.map.path.name,
            "shape": list(self.map.shape),
            "levels": [list(shape) for shape in self.shapes()],
            "chunk": CHUNK,
            "pixel_um": None if pixel is None else list(pixel),
            "wavelengths_nm": list(self.map.wavelengths_nm),
            "quantities": {
                name: {"unit": levels.quantity.unit, "type": levels.dtype.str} for name, levels in self._levels.items()
            },
            "warnings": [*self.map.summary.get("warnings", ()), *self.map.notes],
            "summary": _plain(self.map.summary),
        }


_FIGURES = ("method", "valid_fraction", "sigma_nm_median", "pv_nm", "rms_nm", "components", "ambiguous_fraction")


def _plain(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Take the figures that are shown, without what JSON cannot hold."""
    found = {name: summary[name] for name in _FIGURES if name in summary}
    return {name: value for name, value in found.items() if not (isinstance(value, float) and not np.isfinite(value))}


def check_pair(one: Exhibit, other: Exhibit) -> None:
    """Raise InputError for two maps of different shapes, which have no difference."""
    if one.map.shape != other.map.shape:
        sizes = (f"{h} x {w}" for h, w in (other.map.shape, one.map.shape))
        raise InputError(
            f"{other.map.path} has {next(sizes)} pixels and {one.map.path} {next(sizes)}: maps to compare must have the same "
            "shape; crop or register one of them"
        )
