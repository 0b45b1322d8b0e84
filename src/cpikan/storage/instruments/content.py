"""What is written into a file of another program: rows as often as it takes, and what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.units import pixel_pair

_LARGEST = 2**31 - 1


@dataclass
class MapContent:
    """A map on its way into a file: ``bands()`` yields (first row, heights in nm (n, W), float64, NaN where missing).

    ``name`` is that of the output, for messages. ``acquisition`` is that of the map's document. An exporter adds to
    ``warnings`` what it had to make up, and to ``lost`` what it could not keep.
    """

    name: str
    shape: tuple[int, int]
    bands: Callable[[], Iterator[tuple[int, np.ndarray]]]
    acquisition: Mapping[str, Any] = field(default_factory=dict)
    fringe_nm: float | None = None
    warnings: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @property
    def pixel_um(self) -> tuple[float, float] | None:
        """Give the pixel size (y, x) in um, None where it is not known."""
        return pixel_pair(self.acquisition.get("pixel_um"))

    @property
    def wavelength_nm(self) -> float | None:
        """Give the first wavelength, None where none is known."""
        found = self.acquisition.get("wavelengths_nm") or ()
        return float(found[0]) if found else None

    @cached_property
    def _swept(self) -> tuple[float, float, int]:
        low, high, missing = np.inf, -np.inf, 0
        for _, rows in self.bands():
            lost = int(np.count_nonzero(np.isnan(rows)))
            missing += lost
            if lost < rows.size:
                low, high = min(low, float(np.nanmin(rows))), max(high, float(np.nanmax(rows)))
        return low, high, missing

    @property
    def range_nm(self) -> tuple[float, float]:
        """Find the lowest and the highest height in one sweep; (0, 0) of a map without a valid pixel."""
        low, high, _ = self._swept
        return (low, high) if low <= high else (0.0, 0.0)

    @property
    def missing(self) -> int:
        """Count the missing points, in the same sweep."""
        return self._swept[2]

    def some_pixel_um(self) -> tuple[float, float]:
        """Give the pixel size for a format that must have one: 1 um, with a warning, where it is not known."""
        if self.pixel_um is None:
            self.warnings.append(
                f"{self.name}: the map has no pixel size, and this format must have one: 1 um is written"
            )
            return 1.0, 1.0
        return self.pixel_um

    def check_size(self, largest: int = _LARGEST, pixels: int = 2**63) -> None:
        """Raise InputError for more rows, columns or pixels than the format can count."""
        height, width = self.shape
        if max(height, width) > largest or height * width > pixels:
            told = f"{largest} rows and columns" if max(height, width) > largest else f"{pixels} pixels"
            raise InputError(
                f"output {self.name}: a map of {height} x {width} does not fit into a format of at most {told}: cut it, or "
                "choose another format"
            )
