"""Wafer numbers by name: of the sites, of the edge, of the shape, and all together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpikan.wafer.areas import Sectors, SiteGrid
from cpikan.wafer.flatness import Spread
from cpikan.wafer.outline import Wafer
from cpikan.wafer.thresholds import ThresholdHeights

FloatArray = NDArray[np.float64]

FREE, SITE, WHOLE, THREE = range(4)  # planes that the heights of a site are measured from


@dataclass(frozen=True)
class WaferNumbers:
    """All numbers of a wafer, and what they are of; lengths of height in nm, ``nan`` where nothing was measured."""

    wafer: Wafer
    grid: SiteGrid
    sectors: Sectors
    sites: FlatSites
    edge: EdgeNumbers
    shape: ShapeNumbers
    thresholds: tuple[ThresholdHeights, ...]
    warnings: tuple[str, ...]
    facts: dict[str, Any]

    def summary(self) -> dict[str, Any]:
        """Return all numbers by name, as JSON has them: None where nothing was measured."""
        one = self.wafer
        return _plain(
            {
                "center_px": [one.x, one.y],
                "radius_px": one.radius_mm / one.pixel_mm[1],
                "notch_deg": one.notch_deg,
                **self.facts,
                **self.shape.summary(),
                **self.sites.summary(self.grid),
                **self.edge.summary(self.sectors),
                **{f"tha_{found.diameter_mm:g}mm_nm": found.exceeded_by() for found in self.thresholds},
                **{f"tha_{found.diameter_mm:g}mm_curve": found.curve() for found in self.thresholds},
                "warnings": list(self.warnings),
            }
        )


@dataclass(frozen=True)
class FlatSites:
    """Flatness of the sites, (sites,) each: spreads about planes, levels at the middle of the sites, valid pixels."""

    spreads: dict[int, Spread]
    levels: dict[int, FloatArray]
    pixels: NDArray[np.int64]
    thickness: bool

    def summary(self, grid: SiteGrid) -> dict[str, Any]:
        """Return the numbers of all sites together, and the list of the sites."""
        columns = self._columns(grid)
        full = np.array([site.full for site in grid.sites])
        low, high = self.spreads[FREE].whole()
        whole, three = self.spreads[WHOLE].whole(), self.spreads[THREE].whole()
        gbir = (high - low) / 1e3 if self.thickness else None
        sites = [
            {"x_mm": site.x_mm, "y_mm": site.y_mm, "column": site.column, "row": site.row, "full": site.full}
            | {"pixels": int(pixels)}
            | {name: float(values[k]) for name, values in columns.items()}
            for k, (site, pixels) in enumerate(zip(grid.sites, self.pixels, strict=True))
        ]
        return {
            "ttv_um": gbir,
            "gbir_um": gbir,
            "gflr_um": (whole[1] - whole[0]) / 1e3,
            "gfld_um": max(whole[1], -whole[0]) / 1e3,
            "gf3r_um": (three[1] - three[0]) / 1e3,
            "gf3d_um": max(three[1], -three[0]) / 1e3,
            **{name.replace("_um", "_max_um"): _most(values) for name, values in columns.items()},
            "sites_full": int(full.sum()),
            "sites": sites,
        }

    def _columns(self, grid: SiteGrid) -> dict[str, FloatArray]:
        """Give the numbers of every site in um; whole and partial sites have names of their own."""
        full = np.array([site.full for site in grid.sites])
        own, whole, free, three = (self.spreads[plane] for plane in (SITE, WHOLE, FREE, THREE))
        focal = whole.about(self.levels[WHOLE])
        back = free.about(self.levels[FREE])
        seen = np.where(self.thickness, 1.0, np.nan)
        return {
            "sfqr_um": np.where(full, own.range, np.nan) / 1e3,
            "sfqd_um": np.where(full, np.abs(own.deviation), np.nan) / 1e3,
            "psfqr_um": np.where(full, np.nan, own.range) / 1e3,
            "psfqd_um": np.where(full, np.nan, np.abs(own.deviation)) / 1e3,
            "sflr_um": np.where(full, whole.range, np.nan) / 1e3,
            "sfld_um": np.where(full, np.abs(focal.deviation), np.nan) / 1e3,
            "sf3r_um": np.where(full, three.range, np.nan) / 1e3,
            "sbir_um": np.where(full, free.range, np.nan) / 1e3 * seen,
            "sbid_um": np.where(full, np.abs(back.deviation), np.nan) / 1e3 * seen,
        }


@dataclass(frozen=True)
class EdgeNumbers:
    """Near-edge geometry by sector, (sectors,) each."""

    spread: Spread
    roll_off_nm: FloatArray
    curvature_nm_per_mm2: FloatArray

    def summary(self, sectors: Sectors) -> dict[str, Any]:
        """Return largest and mean of all sectors, and the list of the sectors."""
        columns = {
            "esfqr_um": self.spread.range / 1e3,
            "esfqd_um": self.spread.deviation / 1e3,
            "roa_um": self.roll_off_nm / 1e3,
            "zdd_nm_per_mm2": self.curvature_nm_per_mm2,
        }
        extremes = {}
        for name, values in columns.items():
            stem, unit = name.split("_", 1)
            extremes[f"{stem}_max_{unit}"] = _most(values)
            extremes[f"{stem}_mean_{unit}"] = _mean(values)
        listed = [
            {"angle_deg": float(angle)} | {name: float(values[k]) for name, values in columns.items()}
            for k, angle in enumerate(sectors.angles_deg)
        ]
        return {**extremes, "sectors": listed}


@dataclass(frozen=True)
class ShapeNumbers:
    """Bow and warp of the median surface, or of the front face where only that is known, and sori of the front, in nm."""

    surface: str
    bow_nm: float
    bow_best_fit_nm: float
    warp_nm: float
    warp_three_points_nm: float
    sori_nm: float

    def summary(self) -> dict[str, Any]:
        """Return the numbers by name, in um."""
        return {
            "surface": self.surface,
            "bow_um": self.bow_nm / 1e3,
            "bow_best_fit_um": self.bow_best_fit_nm / 1e3,
            "warp_um": self.warp_nm / 1e3,
            "warp_three_points_um": self.warp_three_points_nm / 1e3,
            "sori_um": self.sori_nm / 1e3,
        }


def _most(values: FloatArray) -> float:
    """Give the value of largest size, with its sign."""
    seen = values[np.isfinite(values)]
    return float(seen[np.argmax(np.abs(seen))]) if seen.size else math.nan


def _mean(values: FloatArray) -> float:
    seen = values[np.isfinite(values)]
    return float(seen.mean()) if seen.size else math.nan


def _plain(value: Any) -> Any:
    """Put None where a number is not finite."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
