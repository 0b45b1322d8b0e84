"""The material ratio curve of ISO 25178-2:2021: core, peaks and dales (Sk family), and the volumes of material and void.

The curve is that of the heights themselves, without classes: sorted from the top, height number k of n is exceeded by
k / (n - 1) of the surface, and between two heights the curve is straight. Volumes are sums over pixels of equal area.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cpikan.errors import InputError

FloatArray = NDArray[np.float64]

CORE = 0.4  # share of the curve that its secant covers (ISO 25178-2:2021, annex B)
PEAKS, VOIDS = 0.1, 0.8  # material ratios between which the core is (ISO 25178-3)
_BLOCK = 1 << 20
_LEAST_STEP = 1e-6  # of a pixel: a share below it is rounding


@dataclass(frozen=True)
class Core:
    """The equivalent line through the flattest 40 % of a material ratio curve: its heights at ratios 0 and 1, in nm."""

    top_nm: float
    bottom_nm: float

    @property
    def sk_nm(self) -> float:
        return self.top_nm - self.bottom_nm


class MaterialRatio:
    """Heights in nm by the share of the surface that lies above them; memory is that of the valid heights, sorted."""

    def __init__(self, height_nm: Float[np.ndarray, ...]) -> None:
        """Sort the finite heights; raises InputError for fewer than two."""
        heights = np.asarray(height_nm)
        values = heights[np.isfinite(heights)]
        if values.size < 2:
            raise InputError(f"{values.size} valid heights have no material ratio curve: give two at least")
        values.sort()
        self.falling_nm = values[::-1]
        self._last = values.size - 1

    def height_nm(self, ratio: float) -> float:
        """Give the height that a share of the surface, 0 to 1, lies above: Smc; 0 is the highest point."""
        if not 0 <= ratio <= 1:
            raise InputError(f"material ratio {ratio} is no share: give 0 to 1")
        return float(self._at(np.array([ratio * self._last]))[0])

    def ratio(self, height_nm: float) -> float:
        """Give the share of the surface that lies above a height: Smr."""
        rising = self.falling_nm[::-1]
        low, high = (int(np.searchsorted(rising, height_nm, side)) for side in ("left", "right"))
        if low == 0 or high > self._last:
            return 1.0 if height_nm <= rising[0] else 0.0
        if high > low:  # a plateau: the middle of its share, as both its ends are on the curve
            place = (low + high - 1) / 2
        else:
            place = low - 1 + (height_nm - float(rising[low - 1])) / (float(rising[low]) - float(rising[low - 1]))
        return 1 - place / self._last

    @cached_property
    def core(self) -> Core:
        """Fit the line by least squares of heights where the secant over 40 % falls least, the first such place."""
        span, best, start = CORE * self._last, np.inf, 0
        final = int((1 - CORE) * self._last)
        for first in range(0, final + 1, _BLOCK):
            places = np.arange(first, min(first + _BLOCK, final + 1))
            drop = self.falling_nm[places[0] : places[-1] + 1] - self._at(places + span)
            lowest = int(np.argmin(drop))
            if drop[lowest] < best:
                best, start = float(drop[lowest]), first + lowest
        heights = self.falling_nm[start : int(np.floor(start + span)) + 1].astype(np.float64)
        ratios = (start + np.arange(heights.size)) / self._last
        middle, mean = float(ratios.mean()), float(heights.mean())
        spread = float(((ratios - middle) ** 2).sum())
        slope = float((ratios - middle) @ (heights - mean)) / spread if spread else 0.0
        return Core(mean - slope * middle, mean + slope * (1 - middle))

    def material_nm(self, ratio: float) -> float:
        """Compute the volume of material above the height of ``ratio``, per unit of area, in nm: Vm."""
        return self._above(self.height_nm(ratio))

    def void_nm(self, ratio: float) -> float:
        """Compute the volume of voids below the height of ``ratio``, per unit of area, in nm: Vv."""
        return self._below(self.height_nm(ratio))

    def reduced_peak_nm(self) -> float:
        """Compute Spk: twice the volume above the core's top, by the share Smr1; 0 without such a peak."""
        share = self.ratio(self.core.top_nm)
        return 2 * self._above(self.core.top_nm) / share if share * self._last > _LEAST_STEP else 0.0

    def reduced_dale_nm(self) -> float:
        """Compute Svk: twice the volume below the core's bottom, by the share 1 - Smr2; 0 without such a dale."""
        share = 1 - self.ratio(self.core.bottom_nm)
        return 2 * self._below(self.core.bottom_nm) / share if share * self._last > _LEAST_STEP else 0.0

    def _at(self, places: FloatArray) -> FloatArray:
        """Interpolate the curve at places counted in heights from the highest."""
        whole = np.minimum(places.astype(np.int64), self._last - 1)
        high, low = (self.falling_nm[whole + step].astype(np.float64) for step in (0, 1))
        return high + (low - high) * (places - whole)

    def _above(self, level_nm: float) -> float:
        """Average over all pixels what they lie above a level."""
        count = self._last + 1 - int(np.searchsorted(self.falling_nm[::-1], level_nm, "right"))
        return self._sum(0, count, level_nm) / (self._last + 1)

    def _below(self, level_nm: float) -> float:
        first = self._last + 1 - int(np.searchsorted(self.falling_nm[::-1], level_nm, "left"))
        return -self._sum(first, self._last + 1, level_nm) / (self._last + 1)

    def _sum(self, first: int, last: int, level_nm: float) -> float:
        starts = range(first, last, _BLOCK)
        blocks = (self.falling_nm[k : min(k + _BLOCK, last)].astype(np.float64) - level_nm for k in starts)
        return sum(float(block.sum()) for block in blocks)


def functional_numbers(height_nm: Float[np.ndarray, "h w"]) -> dict[str, float | None]:
    """Compute the functional numbers of a map in nm about its mean, volumes per unit of area; all None for a flat map."""
    finite = np.asarray(height_nm)[np.isfinite(height_nm)]
    if finite.size < 2 or finite.max() == finite.min():
        return dict.fromkeys(FUNCTIONAL)
    curve = MaterialRatio(finite - finite.mean(dtype=np.float64))
    material = {ratio: curve.material_nm(ratio) for ratio in (PEAKS, VOIDS)}
    void = {ratio: curve.void_nm(ratio) for ratio in (PEAKS, VOIDS)}
    found = (
        curve.core.sk_nm,
        curve.reduced_peak_nm(),
        curve.reduced_dale_nm(),
        100 * curve.ratio(curve.core.top_nm),
        100 * curve.ratio(curve.core.bottom_nm),
        max(0.0, float(curve.falling_nm[0]) - curve.core.top_nm),
        max(0.0, curve.core.bottom_nm - float(curve.falling_nm[-1])),
        curve.height_nm(0.025) - curve.height_nm(0.5),
        material[PEAKS],
        material[VOIDS] - material[PEAKS],
        void[PEAKS] - void[VOIDS],
        void[VOIDS],
    )
    return dict(zip(FUNCTIONAL, found, strict=True))


FUNCTIONAL = (
    "sk_nm",
    "spk_nm",
    "svk_nm",
    "smr1_percent",
    "smr2_percent",
    "spkx_nm",
    "svkx_nm",
    "sxp_nm",
    "vmp_nm",
    "vmc_nm",
    "vvc_nm",
    "vvv_nm",
)
