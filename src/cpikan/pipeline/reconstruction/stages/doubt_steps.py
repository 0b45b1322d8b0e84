"""Doubt beside steps: flags where the images of the wavelengths do not lie on each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from cpikan.pipeline.reconstruction.passes import flat_bands
from cpikan.pipeline.reconstruction.stage import Arrays, Context, Stage
from cpikan.psi.model.flags import Flag

_LOOKS = 24  # rows in which the slopes of the surface are looked at
_USUAL = 0.9  # quantile of the height differences of neighbours
_STEEPER = 2.0  # times it: a smooth surface is nowhere so steep


@dataclass(frozen=True)
class DoubtSteps(Stage):
    """Flags pixels within ``reach_px`` of a step: heights that differ by a quarter wave and more than slopes do."""

    name: ClassVar[str] = "doubt"
    clock: ClassVar[str] = "orders"
    once: ClassVar[bool] = True
    reads: tuple[str, ...] = ("height_nm", "flags")
    writes: tuple[str, ...] = ("flags",)
    reach_px: int = 1

    def run(self, arrays: Arrays, context: Context) -> dict[str, Any]:
        """Flag the pixels, band by band, each with the rows around it that count."""
        heights, flags, out = arrays.current("height_nm"), arrays.current("flags"), arrays.of(self, "flags")
        least_nm = min(context.stack.acquisition.wavelengths_nm) / 4 + 2 * self.reach_px * _STEEPER * _slope_nm(heights)
        with context.progress(self.name) as progress:
            for band in flat_bands(context.shape, context.settings.band_rows, 0):
                first = max(band.start - self.reach_px, 0)
                around = np.array(heights[first : band.stop + self.reach_px], np.float32)
                steps = beside_steps(around, self.reach_px, least_nm)[band.start - first :][: band.rows]
                rows = np.array(flags[band.start : band.stop])
                rows[steps & ((rows & np.uint8(Flag.INVALID)) == 0)] |= np.uint8(Flag.AMBIGUOUS)
                out[band.start : band.stop] = rows
                progress.advance(band.rows)
        return {}


def beside_steps(height_nm: np.ndarray, reach_px: int, least_nm: float) -> np.ndarray:
    """Mark pixels of rows (n, W) from which heights within ``reach_px`` along a row or a column span ``least_nm``: bool (n, W).

    NaN counts for nothing.
    """
    known, size = np.isfinite(height_nm), 2 * reach_px + 1
    found = np.zeros(height_nm.shape, bool)
    high, low = np.where(known, height_nm, -np.inf), np.where(known, height_nm, np.inf)
    for axis in (0, 1):
        found |= (
            maximum_filter1d(high, size, axis, mode="nearest") - minimum_filter1d(low, size, axis, mode="nearest")
            > least_nm
        )
    return found & known


def _slope_nm(heights: np.ndarray) -> float:
    """Give the height difference of neighbours that one in ten exceeds, in rows spread over the map; 0 where there is none."""
    rows = heights[np.unique(np.linspace(0, heights.shape[0] - 1, _LOOKS).astype(int))]
    slopes = np.abs(np.diff(np.asarray(rows, np.float64), axis=1))
    slopes = slopes[np.isfinite(slopes)]
    return float(np.quantile(slopes, _USUAL)) if slopes.size else 0.0
