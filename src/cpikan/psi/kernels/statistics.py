"""Sums over the pixels of a height map, kept per image row and merged exactly as rows come."""

from __future__ import annotations

import functools
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cpikan.compiled import compiled
from cpikan.psi.model.flags import Flag

COLUMNS = 8  # of the row table, in the order of `_row_sums`
_INVALID, _SATURATED = int(Flag.INVALID), int(Flag.SATURATED)
_LOW, _AMBIGUOUS = int(Flag.LOW_MODULATION), int(Flag.AMBIGUOUS)


_BLOCK = 512
_jit: Any = functools.partial(compiled, error_model="numpy", fastmath={"reassoc", "contract", "nsz"}, boundscheck=False)


@_jit
def _count_flags(bits):  # type: ignore[no-untyped-def]
    """Count valid, ambiguous, saturated and low pixels of a block, and tell whether any is invalid.

    Mostly all flags of a block are equal.
    """
    some, every = np.uint8(0), np.uint8(255)
    for x in range(bits.shape[0]):
        some |= bits[x]
        every &= bits[x]
    if some == every:
        n = bits.shape[0]
        valid = 0 if some & _INVALID else n
        ambiguous, saturated = (n if some & _AMBIGUOUS else 0), (n if some & _SATURATED else 0)
        return valid, ambiguous, saturated, (n if some & _LOW else 0), (some & _INVALID) != 0
    valid = ambiguous = saturated = low = 0
    for x in range(bits.shape[0]):
        flag = bits[x]
        valid += 0 if flag & _INVALID else 1
        ambiguous += 1 if flag & _AMBIGUOUS else 0
        saturated += 1 if flag & _SATURATED else 0
        low += 1 if flag & _LOW else 0
    return valid, ambiguous, saturated, low, (some & _INVALID) != 0


@_jit
def row_sums(height, flags, table):  # type: ignore[no-untyped-def]
    """Fill a table (rows, COLUMNS): counts valid, ambiguous, saturated, low; min, max; sums of h, h^2.

    Extremes are kept per lane of a block and reduced once a row: LLVM vectorises that, but not a running minimum.
    """
    width = height.shape[1]
    least, most = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    for y in range(height.shape[0]):
        for x in range(_BLOCK):
            least[x] = np.float32(np.inf)
            most[x] = np.float32(-np.inf)
        valid = ambiguous = saturated = low = 0
        total = squares = 0.0
        for x0 in range(0, width, _BLOCK):
            n = min(_BLOCK, width - x0)
            row, bits = height[y, x0 : x0 + n], flags[y, x0 : x0 + n]
            counted = _count_flags(bits)
            valid += counted[0]
            ambiguous += counted[1]
            saturated += counted[2]
            low += counted[3]
            # sums of a block in float32, about one of its heights: those of the heights themselves would drown in an offset
            pivot = np.float32(0)
            for x in range(n):
                if (bits[x] & _INVALID) == 0:
                    pivot = row[x]
                    break
            block, block_squares = np.float32(0), np.float32(0)
            if counted[4]:
                for x in range(n):
                    good = (bits[x] & _INVALID) == 0
                    here = row[x] - pivot if good else np.float32(0)
                    block += here
                    block_squares += here * here
                    least[x] = min(least[x], row[x] if good else np.float32(np.inf))
                    most[x] = max(most[x], row[x] if good else np.float32(-np.inf))
            else:
                for x in range(n):
                    here = row[x] - pivot
                    block += here
                    block_squares += here * here
                    least[x] = min(least[x], row[x])
                    most[x] = max(most[x], row[x])
            base, count = np.float64(pivot), np.float64(counted[0])
            total += block + count * base
            squares += block_squares + 2 * base * block + count * base * base
        lowest, highest = least[0], most[0]
        for x in range(1, _BLOCK):
            lowest, highest = min(lowest, least[x]), max(highest, most[x])
        table[y, 0], table[y, 1], table[y, 2], table[y, 3] = valid, ambiguous, saturated, low
        table[y, 4], table[y, 5], table[y, 6], table[y, 7] = lowest, highest, total, squares


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
        """Compute the RMS about the mean in nm."""
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
