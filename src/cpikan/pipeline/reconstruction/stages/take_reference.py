"""The reference surface of the instrument, taken off the heights before a form is fitted to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cpikan.errors import NothingMeasured
from cpikan.pipeline.reconstruction.passes import flat_bands
from cpikan.pipeline.reconstruction.stage import Arrays, Context, Stage
from cpikan.pipeline.reconstruction.summary import told
from cpikan.psi.model.caution import Caution
from cpikan.psi.model.flags import Flag

_INVALID = np.uint8(Flag.INVALID)


@dataclass(frozen=True)
class TakeReference(Stage):
    """Subtracts the reference, adds its variance to that of the heights, and leaves out what it does not know.

    Heights of several wavelengths are stored; those of one are formed from phases, so that the reference is a correction.
    """

    name: ClassVar[str] = "reference"
    once: ClassVar[bool] = True

    @classmethod
    def off(cls, *, one_wave: bool) -> TakeReference:
        """Make the stage for phases of one wavelength, or for heights of several."""
        heights = ("correction_nm", "component", "flags") if one_wave else ("height_nm", "flags")
        return cls(reads=("sigma_rad",) if one_wave else ("sigma_nm",), writes=(*heights, "sigma_nm"))

    def run(self, arrays: Arrays, context: Context) -> dict[str, Any]:
        """Subtract it band by band; NothingMeasured where no pixel of the map has a reference."""
        reference = context.stack.reference
        assert reference is not None, "a stage without a reference"
        left = lost = 0
        with context.progress(self.name) as progress:
            for band in flat_bands(context.shape, context.settings.band_rows, 0):
                heights, variance = reference.rows(band.start, band.stop)
                rows = arrays.rows((*self.writes, *self.reads), band.start, band.stop)
                known = np.isfinite(heights)
                measured = (rows["component"] > 0) if "component" in rows else (rows["flags"] & _INVALID) == 0
                left, lost = left + int((measured & known).sum()), lost + int((measured & ~known).sum())
                found = self._less(rows, np.where(known, heights, 0.0), variance, context.nm_per_rad)
                if "component" in found:
                    found["component"][~known] = 0
                else:
                    found["height_nm"][~known] = np.nan
                found["flags"][~known] |= _INVALID
                for name, values in found.items():
                    arrays.of(self, name)[band.start : band.stop] = values
                progress.advance(band.rows)
        if left == 0:
            raise NothingMeasured(
                f"reference {reference.path} has no height at any pixel of this map: check that it lies alike"
            )
        unknown = Caution("reference-without-sigma", f"reference {reference.path} has no sigma_nm: {_WITHOUT}")
        return {
            "reference": {
                "map": str(reference.path),
                "sigma_known": reference.sigma_nm is not None,
                "pixels_lost": lost,
            },
            **told(() if reference.sigma_nm is not None else (unknown,)),
        }

    def _less(
        self, rows: dict[str, np.ndarray], heights: np.ndarray, variance: np.ndarray, nm_per_rad: float
    ) -> dict[str, np.ndarray]:
        """Subtract heights from rows of the map by quantity, and widen their sigma."""
        sigma = rows["sigma_nm"] if "sigma_nm" in rows else rows["sigma_rad"] * nm_per_rad
        of = "correction_nm" if "correction_nm" in self.writes else "height_nm"
        found = {name: rows[name] for name in self.writes if name in rows}
        found["sigma_nm"] = np.sqrt(np.square(sigma, dtype=np.float64) + variance)
        found[of] = rows.get(of, np.zeros_like(heights)) - heights
        return found


_WITHOUT = "sigma does not count what it adds; measure it with this program, or give a .zarr or .tif with both"
