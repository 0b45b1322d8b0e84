"""Sums over the pixels of a height map, kept per image row and merged exactly as rows come."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numba
import numpy as np

from cpikan.psi.flags import Flag

COLUMNS = 8  # of the row table, in the order of `_row_sums`
_INVALID, _SATURATED = int(Flag.INVALID), int(Flag.SATURATED)
_LOW, _AMBIGUOUS = int(Flag.LOW_MODULATION), int(Flag.AMBIGUOUS)


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"}, boundscheck=False)
def row_sums(height, flags, table):  # type: ignore[no-untyped-def]
    """Fill a table (rows, COLUMNS): counts valid, ambiguous, saturated, low; min, max; sums of h, h^2."""
    width = height.shape[1]
    for y in range(height.shape[0]):
        row, bits = height[y], flags[y]
        valid = ambiguous = saturated = low = 0
        least, most = np.float32(np.inf), np.float32(-np.inf)
        h1 = h2 = 0.0
        for x in range(width):
            flag = bits[x]
            good = (flag & _INVALID) == 0
            value = row[x] if good else np.float32(0)
            here = np.float64(value)
            valid += 1 if good else 0
            ambiguous += 1 if flag & _AMBIGUOUS else 0
            saturated += 1 if flag & _SATURATED else 0
            low += 1 if flag & _LOW else 0
            least = min(least, value if good else np.float32(np.inf))
            most = max(most, value if good else np.float32(-np.inf))
            h1 += here
            h2 += here * here
        table[y, 0], table[y, 1], table[y, 2], table[y, 3] = valid, ambiguous, saturated, low
        table[y, 4], table[y, 5] = least, most
        table[y, 6], table[y, 7] = h1, h2


@dataclass
class MapStatistics:
    """What the summary of a map needs; heights in nm, sums over valid pixels."""

    pixels: int = 0
    valid: int = 0
    ambiguous: int = 0
    saturated: int = 0
    low: int = 0
    least: float = math.inf
    most: float = -math.inf
    h: float = 0.0
    hh: float = 0.0

    def add(self, table: np.ndarray, width: int) -> None:
        """Merge the table of consecutive rows; merging row by row makes the sums independent of the bands."""
        for valid, ambiguous, saturated, low, least, most, h, hh in table.tolist():
            self.pixels += width
            self.valid += int(valid)
            self.ambiguous += int(ambiguous)
            self.saturated += int(saturated)
            self.low += int(low)
            self.least, self.most = min(self.least, least), max(self.most, most)
            self.h += h
            self.hh += hh

    @property
    def pv_nm(self) -> float:
        return self.most - self.least if self.valid else math.nan

    @property
    def rms_nm(self) -> float:
        """RMS about the mean."""
        if not self.valid:
            return math.nan
        return math.sqrt(max(self.hh / self.valid - (self.h / self.valid) ** 2, 0.0))

    def to_json(self) -> dict[str, Any]:
        return {key: (None if isinstance(v, float) and math.isinf(v) else v) for key, v in asdict(self).items()}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> MapStatistics:
        values = dict(stored)
        values["least"] = math.inf if values["least"] is None else values["least"]
        values["most"] = -math.inf if values["most"] is None else values["most"]
        return cls(**values)
