"""Surface numbers of a height map, accumulated over its rows: PV and RMS."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cpikan.surface.levelling import Plane


@dataclass
class LevelledRange:
    """PV and RMS of a map after a plane is removed, fed with rows; NaN ignored.

    PV is the plain maximum minus minimum (one bad pixel moves it); RMS is the root mean square about the mean (Sq), so
    neither depends on a piston. Both are None before the first finite height.
    """

    plane: Plane | None = None
    pixels: int = 0
    min_nm: float = math.inf
    max_nm: float = -math.inf
    mean_nm: float = 0.0
    _square: float = field(default=0.0, repr=False)  # sum of squared deviations from the running mean

    def add(self, start: int, height_nm: NDArray[np.floating]) -> None:
        """Take rows [start, start + n) of heights in nm, shape (n, W)."""
        values = height_nm if self.plane is None else self.plane.remove(height_nm, start)
        finite = np.asarray(values, np.float64)[np.isfinite(values)]
        if not finite.size:
            return
        self.min_nm = min(self.min_nm, float(finite.min()))
        self.max_nm = max(self.max_nm, float(finite.max()))
        # Chan, Golub, LeVeque (1983): means and squares of parts combine without cancellation
        mean = float(finite.mean())
        finite -= mean
        total = self.pixels + finite.size
        shift = mean - self.mean_nm
        self._square += float(finite @ finite) + shift**2 * self.pixels * finite.size / total
        self.mean_nm += shift * finite.size / total
        self.pixels = total

    @property
    def pv_nm(self) -> float | None:
        return self.max_nm - self.min_nm if self.pixels else None

    @property
    def rms_nm(self) -> float | None:
        return math.sqrt(self._square / self.pixels) if self.pixels else None


def surface_range(height_nm: NDArray[np.floating], plane: Plane | None = None) -> LevelledRange:
    """PV and RMS of a whole map (H, W) in nm, after ``plane`` is removed when one is given."""
    found = LevelledRange(plane)
    found.add(0, height_nm)
    return found
