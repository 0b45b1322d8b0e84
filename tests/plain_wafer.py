"""Wafers with exact answers, and wafer numbers computed plainly: masks over the whole map, NumPy's own least squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Disc:
    """A wafer of ``radius_mm`` on a square map of ``pixels``, its centre a little off the middle, with a V notch of 1 mm."""

    pixels: int
    radius_mm: float = 150.0
    notch_deg: float | None = 270.0
    missing: float = 0.0
    noise_nm: float = 0.0
    seed: int = 0

    @property
    def pixel_mm(self) -> float:
        return 2 * self.radius_mm / (0.985 * self.pixels)

    @property
    def centre(self) -> tuple[float, float]:
        """Column and row."""
        return self.pixels / 2 - 1.3, self.pixels / 2 + 0.7

    def places(self, start: int = 0, stop: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        rows = np.arange(start, self.pixels if stop is None else stop)[:, None]
        x = (np.arange(self.pixels)[None] - self.centre[0]) * self.pixel_mm
        y = (self.centre[1] - rows) * self.pixel_mm
        return x + 0 * y, y + 0 * x

    def cut(self, heights: np.ndarray, start: int = 0) -> np.ndarray:
        """Put NaN outside the wafer and where pixels are missing, and noise elsewhere."""
        x, y = self.places(start, start + len(heights))
        inside = x * x + y * y <= self.radius_mm**2
        if self.notch_deg is not None:
            turn = np.deg2rad(self.notch_deg)
            out, along = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
            inside &= out - (self.radius_mm - 1) <= np.abs(along)
        random = np.random.default_rng((self.seed, start))
        if self.missing:
            inside &= random.random(x.shape) >= self.missing
        noise = self.noise_nm * random.normal(size=x.shape) if self.noise_nm else 0.0
        return np.where(inside, heights + noise, np.nan)


def fit(x: np.ndarray, y: np.ndarray, z: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Heights above their least-squares plane, where ``used``."""
    design = np.stack([np.ones(used.sum()), x[used], y[used]], 1)
    return z[used] - design @ np.linalg.lstsq(design, z[used], rcond=None)[0]


def point(x: np.ndarray, y: np.ndarray, z: np.ndarray, place: tuple[float, float], reach: float) -> float:
    """Height of the least-squares plane of the disc around a place, there."""
    u, v = x - place[0], y - place[1]
    used = (u * u + v * v <= reach**2) & np.isfinite(z)
    design = np.stack([np.ones(used.sum()), u[used], v[used]], 1)
    return float(np.linalg.lstsq(design, z[used], rcond=None)[0][0])


def plain_numbers(z: np.ndarray, summary: dict[str, Any]) -> dict[str, Any]:
    """Flatness, shape and edge in um over the pixels that the summary's centre, radii and sites name."""
    found: dict[str, Any] = {}
    pixel = summary["pixel_um"] / 1e3
    column, row = summary["center_px"]
    y, x = np.mgrid[: z.shape[0], : z.shape[1]].astype(float)
    x, y = (x - column) * pixel, (row - y) * pixel
    radius, area = np.hypot(x, y), summary["diameter_mm"] / 2 - summary["edge_mm"]
    valid = np.isfinite(z) & (x * x + y * y <= area**2)
    whole = np.full(z.shape, np.nan)
    whole[valid] = fit(x, y, z, valid)
    found["gflr_um"] = np.ptp(whole[valid]) / 1e3
    found["gfld_um"] = np.abs(whole[valid]).max() / 1e3
    found["sori_um"] = found["gflr_um"]
    reach, first = max(0.5, 1.5 * pixel), 90.0 if summary["notch_deg"] is None else summary["notch_deg"] + 180
    turns = np.deg2rad(first + np.array([0, 120, 240]))
    support = (summary["diameter_mm"] / 2 - 3.175) * np.stack([np.cos(turns), np.sin(turns)], 1)
    heights = [point(x, y, z, tuple(place), reach) for place in support]
    plane = np.linalg.solve(np.column_stack([np.ones(3), support]), heights)
    found["bow_um"] = (point(x, y, z, (0.0, 0.0), reach) - plane[0]) / 1e3
    three = (z - plane[0] - plane[1] * x - plane[2] * y)[valid]
    found["gf3r_um"], found["gf3d_um"] = np.ptp(three) / 1e3, np.abs(three).max() / 1e3
    found["sites"] = []
    for site in summary["sites"]:
        box = _box(x[0], y[:, 0], site, summary["site_mm"])
        found["sites"].append(_site(x[box], y[box], z[box], whole[box], valid[box], site))
    count = len(summary["sectors"])
    ring = np.flatnonzero(valid & (radius >= area - 30))
    x, y, z = (one.ravel()[ring] for one in (x, y, z))
    sector = np.floor(np.arctan2(y, x) / (2 * np.pi) % 1.0 * count)
    found["esfqr_um"] = [np.ptp(fit(x, y, z, sector == k)) / 1e3 for k in range(count)]
    return found


def _box(x: np.ndarray, y: np.ndarray, site: dict[str, Any], size_mm: list[float]) -> tuple[slice, slice]:
    """Rows and columns whose centres lie in a site, its left and lower border included."""
    u, v = x - site["x_mm"] + size_mm[0] / 2, y - site["y_mm"] + size_mm[1] / 2
    columns, rows = (np.flatnonzero((t >= 0) & (t < size)) for t, size in ((u, size_mm[0]), (v, size_mm[1])))
    if not (columns.size and rows.size):
        return slice(0, 0), slice(0, 0)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _site(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, whole: np.ndarray, used: np.ndarray, site: dict[str, Any]
) -> dict[str, Any]:
    if used.sum() < 16:
        return {"pixels": int(used.sum())}
    rest = fit(x, y, z, used)
    name = "sfqr_um" if site["full"] else "psfqr_um"
    found = {"pixels": int(used.sum()), name: np.ptp(rest) / 1e3, name.replace("qr", "qd"): np.abs(rest).max() / 1e3}
    return found | ({"sflr_um": np.ptp(whole[used]) / 1e3} if site["full"] else {})
