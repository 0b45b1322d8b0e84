"""A map as the page sees it: what it is in words and numbers, and its tiles."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.pipeline.maps.height_map import HeightMap, open_height_map
from cpikan.units import pixel_pair
from cpikan.viewer.filtering import Filtering
from cpikan.viewer.levels import CHUNK, Levels
from cpikan.viewer.running import RunningMap, is_running

SHOWN = ("height_nm", "sigma_nm", "modulation", "flags", "slope_y_nm_per_px", "slope_x_nm_per_px")
_HALVE_AFTER_S = 1.0  # level 1 is made when the first view is there


class Exhibit:
    """A height map with coarser levels of each quantity, which are made when one is first asked for.

    Of a map that is still being written (``running``) the levels grow with its rows. Tiles may be asked for by several
    threads.
    """

    def __init__(self, height_map: HeightMap, running: RunningMap | None = None) -> None:
        self.map, self.running = height_map, running
        self._levels = {
            name: Levels(name, height_map.height_nm if name == "height_nm" else height_map.arrays[name])
            for name in SHOWN
            if name in height_map.arrays
        }
        self._locks = {name: threading.Lock() for name in self._levels}
        self._filled: set[str] = set()
        self._filtering: Filtering | None = None
        self._looking = threading.Lock()
        self._ended = False  # the run, and what its document says is known

    @classmethod
    def open(cls, path: Path | str) -> Exhibit:
        """Open a map of any format that holds heights, also one that is being written; raises InputError for others."""
        if is_running(Path(path)):
            running = RunningMap(Path(path))
            return cls(running.height_map, running)
        return cls(open_height_map(path))

    @property
    def quantities(self) -> tuple[str, ...]:
        return tuple(self._levels)

    def tile(self, name: str, level: int, row: int, column: int) -> NDArray[Any]:
        """Make a tile of 512 x 512 pixels.

        Raises KeyError or IndexError for one that does not exist, InputError where the file does not hold it.
        """
        filtering = self._filtering
        if filtering is not None and name == filtering.name:
            return filtering.levels.tile(level, row, column)
        levels = self._levels[name]
        if not 0 <= level < len(levels.shapes):
            raise IndexError(f"level {level} of {name} does not exist")
        if level:
            self.prepare(name)
        return levels.tile(level, row, column)

    def prepare(self, name: str) -> None:
        """Make the coarser levels of a quantity as far as its rows go, where that was not done before."""
        with self._locks[name]:
            if name in self._filled:
                return
            running = self.running
            if running is not None:
                self._levels[name].advance(running.rows)
                if not running.done:
                    return
            else:
                self._levels[name].fill_all()
            self._filled.add(name)
        timer = threading.Timer(_HALVE_AFTER_S, self._levels[name].halve_all)
        timer.daemon = True
        timer.start()

    def filter(self, number: int, s_filter: str | None, l_filter: str | None) -> dict[str, Any]:
        """Begin to filter the heights and tell what the result is called; an earlier one is dropped.

        Raises InputError for nesting indices that are none, and while rows are still being written.
        """
        if self.running is not None and not self.running.done:
            raise InputError(f"{self.map.path} is still being written: filter it when its rows are there")
        made = Filtering(f"filtered-{number}", self.map, s_filter, l_filter)
        if self._filtering is not None:
            self._filtering.stop()
        self._filtering = made
        made.start()
        return {"name": made.name, "unit": "nm", "type": "<f4", "said": made.said}

    def look(self) -> dict[str, Any]:
        """Tell how many rows there are, of the map and of heights that are being filtered, and what the file has lost."""
        self.prepare("height_nm")
        with self._looking:
            running, filtering = self.running, self._filtering
            told: dict[str, Any] = {"rows": self.map.shape[0], "done": True, "lost": self._levels["height_nm"].lost}
            if running is not None:
                running.look()
                if running.done and not self._ended:
                    self.map, self._ended = running.height_map, True
                told |= {"rows": running.rows, "done": running.done}
            if filtering is not None:
                told["filtered"] = {"name": filtering.name, "rows": filtering.rows, "failed": filtering.failed}
            return told

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
            "done": self.running is None or self.running.done,
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
