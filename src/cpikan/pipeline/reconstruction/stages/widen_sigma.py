"""A wider sigma: what smooth errors between the wavelengths have in common, and images that do not lie on each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cpikan.pipeline.reconstruction.passes import flat_bands
from cpikan.pipeline.reconstruction.stage import Arrays, Context, Stage


@dataclass(frozen=True)
class WidenSigma(Stage):
    """Adds to the variance of every pixel what its neighbours share: no noise, so that no average makes it smaller."""

    name: ClassVar[str] = "widen"
    clock: ClassVar[str] = "orders"
    once: ClassVar[bool] = True
    reads: tuple[str, ...] = ("height_nm", "sigma_nm")
    writes: tuple[str, ...] = ("sigma_nm",)

    def run(self, arrays: Arrays, context: Context) -> dict[str, Any]:
        """Widen sigma, band by band."""
        calibrated, (height, width) = context.calibrated, context.shape
        common, shift = calibrated.calibration.common, calibrated.registration.displacement_px
        heights, sigma, out = arrays.current("height_nm"), arrays.current("sigma_nm"), arrays.of(self, "sigma_nm")
        with context.progress(self.name) as progress:
            for band in flat_bands(context.shape, context.settings.band_rows, 0):
                variance = np.square(sigma[band.start : band.stop], dtype=np.float64)
                if common is not None:
                    variance += common.sigma_nm(band.start, band.stop, width) ** 2
                if any(shift):
                    first, last = max(band.start - 1, 0), min(band.stop + 1, height)
                    moved = displaced_nm(np.array(heights[first:last], np.float64), shift)
                    variance += moved[band.start - first :][: band.rows] ** 2
                out[band.start : band.stop] = np.sqrt(variance)
                progress.advance(band.rows)
        return {}


def displaced_nm(height_nm: np.ndarray, shift_px: tuple[float, float]) -> np.ndarray:
    """Compute by how much heights (n, W) change along ``shift_px`` (down, right), to first order; 0 beside gaps."""
    found = np.zeros(height_nm.shape)
    for axis, pixels in enumerate(shift_px):
        if pixels and height_nm.shape[axis] > 1:
            found += np.nan_to_num(pixels * np.gradient(height_nm, axis=axis))
    return found
