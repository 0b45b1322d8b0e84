"""Doubt beside edges: flags where the images of the wavelengths, or their frames, do not lie on each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.ndimage import maximum_filter, maximum_filter1d, minimum_filter1d

from cpikan.pipeline.reconstruction.passes import flat_bands
from cpikan.pipeline.reconstruction.stage import Arrays, Context, Stage
from cpikan.psi.calibration.movement.registration import EdgeReach
from cpikan.psi.model.flags import Flag

_LOOKS = 24  # rows in which the slopes of the surface are looked at
_USUAL = 0.9  # quantile of the height differences of neighbours
_STEEPER = 2.0  # times it: a smooth surface is nowhere so steep
_NEAREST = EdgeReach(1, (0, 0), 0)


@dataclass(frozen=True)
class DoubtEdges(Stage):
    """Flags pixels within ``reach`` of a step (heights that differ by a quarter wave and more than slopes do), of the border of
    the image and of pixels without a measurement."""

    name: ClassVar[str] = "doubt"
    clock: ClassVar[str] = "orders"
    once: ClassVar[bool] = True
    reads: tuple[str, ...] = ("height_nm", "flags")
    writes: tuple[str, ...] = ("flags",)
    reach: EdgeReach = _NEAREST

    def run(self, arrays: Arrays, context: Context) -> dict[str, Any]:
        """Flag the pixels, band by band, each with the rows around it that count."""
        heights, flags, out = arrays.current("height_nm"), arrays.current("flags"), arrays.of(self, "flags")
        step_px = self.reach.step_px
        halo = max(step_px, self.reach.rim_px)
        least_nm = min(context.stack.acquisition.wavelengths_nm) / 4 + 2 * step_px * _STEEPER * _slope_nm(heights)
        with context.progress(self.name) as progress:
            for band in flat_bands(context.shape, context.settings.band_rows, 0):
                first = max(band.start - halo, 0)
                around = np.array(heights[first : band.stop + halo], np.float32)
                doubted = beside_steps(around, step_px, least_nm) | beside_gaps(around, self.reach.rim_px)
                doubted |= at_border(first, context.shape, self.reach.border_px)[: len(around)]
                rows = np.array(flags[band.start : band.stop])
                doubted = doubted[band.start - first :][: band.rows]
                rows[doubted & ((rows & np.uint8(Flag.INVALID)) == 0)] |= np.uint8(Flag.AMBIGUOUS)
                out[band.start : band.stop] = rows
                progress.advance(band.rows)
        return {}


def at_border(first_row: int, shape: tuple[int, int], border_px: tuple[int, int]) -> np.ndarray:
    """Mark pixels of an image of ``shape`` within so many rows and columns of its border, rows from ``first_row`` on."""
    y, x = (np.arange(size) for size in shape)
    rows, columns = ((at < px) | (at >= at.size - px) for at, px in zip((y, x), border_px, strict=True))
    return rows[first_row:, None] | columns


def beside_gaps(height_nm: np.ndarray, rim_px: int) -> np.ndarray:
    """Mark pixels of rows (n, W) that lie within ``rim_px`` rows and columns of one without a height: bool (n, W)."""
    known = np.isfinite(height_nm)
    return known & (maximum_filter(~known, 2 * rim_px + 1, mode="nearest") if rim_px else False)


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
