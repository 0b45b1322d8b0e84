"""Wafers with exact answers, and wafer numbers computed plainly: pixels of each region cut out, NumPy's own algebra."""

from __future__ import annotations

from collections.abc import Iterator
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


_BAND = 500


def fit(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Least-squares plane (a, b, c) of a + b x + c y, by normal equations about the middle in the unit of the extent."""
    middle, size = np.array([x.mean(), y.mean()]), max(np.ptp(x), np.ptp(y))
    design = np.stack([np.ones(x.size), (x - middle[0]) / size, (y - middle[1]) / size], 1)
    a, b, c = np.linalg.solve(design.T @ design, design.T @ z) / [1, size, size]
    return np.array([a - b * middle[0] - c * middle[1], b, c])


def above(x: np.ndarray, y: np.ndarray, z: np.ndarray, plane: np.ndarray | None = None) -> np.ndarray:
    """Heights above a plane, or above their own."""
    a, b, c = fit(x, y, z) if plane is None else plane
    return z - a - b * x - c * y


@dataclass(frozen=True)
class Face:
    """A map and the places of its pixels in mm from the centre that a summary names."""

    z: np.ndarray
    column: float
    row: float
    pixel_mm: float
    radius_mm: float  # of the quality area

    def cut(self, left: float, right: float, low: float, high: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, y and heights of the pixels whose centres lie in a box, left and lower border included."""
        x = (np.arange(self.z.shape[1]) - self.column) * self.pixel_mm
        y = (self.row - np.arange(self.z.shape[0])) * self.pixel_mm
        columns, rows = np.flatnonzero((x >= left) & (x < right)), np.flatnonzero((y >= low) & (y < high))
        if not (columns.size and rows.size):
            return np.empty(0), np.empty(0), np.empty(0)
        part = self.z[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        u, v = np.meshgrid(x[columns], y[rows])
        used = np.isfinite(part)
        return u[used], v[used], part[used]

    def inside(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """x, y and heights of the valid pixels of the quality area, a band of rows at a time."""
        for start in range(0, len(self.z), _BAND):
            part = self.z[start : start + _BAND]
            y, x = np.mgrid[start : start + len(part), : part.shape[1]].astype(float)
            x, y = (x - self.column) * self.pixel_mm, (self.row - y) * self.pixel_mm
            used = np.isfinite(part) & (x * x + y * y <= self.radius_mm**2)
            yield x[used], y[used], part[used]

    def plane(self) -> np.ndarray:
        """Least-squares plane of the quality area."""
        normal, moment = np.zeros((3, 3)), np.zeros(3)
        for x, y, z in self.inside():
            design = np.stack([np.ones(x.size), x / self.radius_mm, y / self.radius_mm], 1)
            normal, moment = normal + design.T @ design, moment + design.T @ z
        return np.linalg.solve(normal, moment) / [1, self.radius_mm, self.radius_mm]

    def spread(self, plane: np.ndarray) -> tuple[float, float]:
        """Least and greatest height of the quality area above a plane."""
        ends = [(rest.min(), rest.max()) for band in self.inside() if (rest := above(*band, plane)).size]
        return min(low for low, _ in ends), max(high for _, high in ends)

    def point(self, place: np.ndarray) -> float:
        """Height of the least-squares plane of the disc around a place, there."""
        reach = max(0.5, 2 * self.pixel_mm)
        wide = reach + self.pixel_mm
        x, y, z = self.cut(place[0] - wide, place[0] + wide, place[1] - wide, place[1] + wide)
        used = np.hypot(x - place[0], y - place[1]) <= reach
        return float(fit(x[used] - place[0], y[used] - place[1], z[used])[0])


def plain_numbers(z: np.ndarray, summary: dict[str, Any]) -> dict[str, Any]:
    """Flatness, shape and edge in um over the pixels that the summary's centre, radii and sites name."""
    area = summary["diameter_mm"] / 2 - summary["edge_mm"]
    face = Face(z, *summary["center_px"], summary["pixel_um"] / 1e3, area)
    whole = face.plane()
    low, high = face.spread(whole)
    found: dict[str, Any] = {
        "gflr_um": (high - low) / 1e3,
        "gfld_um": max(high, -low) / 1e3,
        "sori_um": (high - low) / 1e3,
    }
    first = 90.0 if summary["notch_deg"] is None else summary["notch_deg"] + 180
    turns = np.deg2rad(first + np.array([0, 120, 240]))
    support = (summary["diameter_mm"] / 2 - 3.175) * np.stack([np.cos(turns), np.sin(turns)], 1)
    three = np.linalg.solve(np.column_stack([np.ones(3), support]), [face.point(place) for place in support])
    found["bow_um"] = (face.point(np.zeros(2)) - three[0]) / 1e3
    low, high = face.spread(three)
    found["gf3r_um"], found["gf3d_um"] = (high - low) / 1e3, max(high, -low) / 1e3
    found["sites"] = [_site(face, whole, site, summary["site_mm"]) for site in summary["sites"]]
    found["esfqr_um"] = _sectors(face, len(summary["sectors"]))
    return found


def _site(face: Face, whole: np.ndarray, site: dict[str, Any], size_mm: list[float]) -> dict[str, Any]:
    left, low = site["x_mm"] - size_mm[0] / 2, site["y_mm"] - size_mm[1] / 2
    box = face.cut(left, left + size_mm[0], low, low + size_mm[1])
    used = box[0] ** 2 + box[1] ** 2 <= face.radius_mm**2
    x, y, z = (one[used] for one in box)
    if z.size < 16:
        return {"pixels": z.size}
    rest = above(x, y, z)
    name = "sfqr_um" if site["full"] else "psfqr_um"
    found = {"pixels": z.size, name: np.ptp(rest) / 1e3, name.replace("qr", "qd"): np.abs(rest).max() / 1e3}
    return found | ({"sflr_um": np.ptp(above(x, y, z, whole)) / 1e3} if site["full"] else {})


def _sectors(face: Face, count: int) -> list[float]:
    """ESFQR of the outer 30 mm of the quality area."""
    ring = [[one[np.hypot(*band[:2]) >= face.radius_mm - 30] for one in band] for band in face.inside()]
    x, y, z = (np.concatenate(parts) for parts in zip(*ring, strict=True))
    sector = np.floor(np.arctan2(y, x) / (2 * np.pi) % 1.0 * count).astype(int)
    order = np.argsort(sector, kind="stable")
    parts = np.split(order, np.searchsorted(sector[order], np.arange(1, count)))
    return [float(np.ptp(above(x[part], y[part], z[part]))) / 1e3 for part in parts]


def noise_shares(noisy: dict[str, Any], exact: dict[str, Any], noise_nm: float) -> dict[str, float]:
    """How far noise moved the numbers of a wafer, over what the page of wafer numbers says.

    ``bow_sigmas``: bow, in standard errors. ``least_fall`` and ``most_growth``: of all ranges, the largest fall over the
    standard error of a difference of two pixels, and the largest growth over twice the height that noise stays below.
    """
    pixel = exact["pixel_um"] / 1e3
    column, row = exact["center_px"]
    reach = max(0.5, 2 * pixel) / pixel
    rows, columns = (np.arange(np.floor(at - reach), np.ceil(at + reach) + 1) - at for at in (row, column))
    count = np.count_nonzero(np.hypot(rows[:, None], columns[None]) <= reach)  # of a point's disc
    bow = abs(noisy["bow_um"] - exact["bow_um"]) * 1e3 / (noise_nm * np.sqrt(4 / 3 / count))
    sites = [(one, two, one["pixels"]) for one, two in zip(noisy["sites"], exact["sites"], strict=True)]
    sectors = [(one, two, exact["pixels"] / 72) for one, two in zip(noisy["sectors"], exact["sectors"], strict=True)]
    changes = [
        ((one[name] - two[name]) * 1e3 / noise_nm, pixels)
        for one, two, pixels in [*sites, *sectors, (noisy, exact, exact["pixels"])]
        for name in ("sfqr_um", "psfqr_um", "sflr_um", "esfqr_um", "gflr_um", "gf3r_um")
        if one.get(name) is not None
    ]
    return {
        "bow_sigmas": float(bow),
        "least_fall": max(-change / np.sqrt(2) for change, _ in changes),
        "most_growth": max(change / 2 / np.sqrt(2 * np.log(1e4 * pixels)) for change, pixels in changes),
    }
