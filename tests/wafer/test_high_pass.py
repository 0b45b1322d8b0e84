"""Nanotopography against the filter of the standard on every pixel, twice, after a polynomial that is fitted here again."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.polynomial import legendre

from cpikan.surface.filters.gaussian import gaussian_filter
from cpikan.wafer.high_pass import CUTOFF_MM, ORDER, HighPass
from cpikan.wafer.outline import Wafer


def filtered(heights: np.ndarray, wafer: Wafer, radius_mm: float, rows: int) -> np.ndarray:
    high_pass = HighPass(wafer, radius_mm, heights.shape)
    bands = [(start, np.ascontiguousarray(heights[start : start + rows])) for start in range(0, len(heights), rows)]
    for band in bands:
        high_pass.sample(*band)
    for band in bands:
        high_pass.gather(*band)
    return np.concatenate([high_pass.rows(*band) for band in bands])


def plain(heights: np.ndarray, wafer: Wafer, radius_mm: float) -> np.ndarray:
    rows, columns = np.mgrid[: heights.shape[0], : heights.shape[1]]
    pixel = wafer.pixel_mm[0]
    v, u = (rows - wafer.y) * pixel / radius_mm, (columns - wafer.x) * pixel / radius_mm
    inside = u * u + v * v <= 1
    step = int(radius_mm / pixel / 100) or 1
    used = inside & np.isfinite(heights) & (rows % step == 0) & (columns % step == 0)
    design = legendre.legvander2d(v, u, (ORDER, ORDER))
    a, b = np.divmod(np.arange(design.shape[-1]), ORDER + 1)
    design = design[..., a + b <= ORDER]
    series = np.linalg.lstsq(design[used], heights[used], rcond=None)[0]
    left = np.where(inside, heights - design @ series, np.nan)
    for _ in range(2):
        left = left - gaussian_filter(left, CUTOFF_MM / pixel)
    return left


@pytest.mark.parametrize(("pixel_mm", "tolerance_nm"), [(0.5, 1e-5), (0.068, 5e-3)])
def test_it_is_the_filter_of_every_pixel(pixel_mm, tolerance_nm):
    """Pixels of 0.068 mm are gathered in cells of two, a 27th of a sigma: 1e-4 of the 50 nm that are left of the bowl."""
    n = 240
    radius = 0.48 * n * pixel_mm
    wafer = Wafer(n / 2 - 0.3, n / 2 + 0.6, radius, (pixel_mm, pixel_mm))
    y, x = np.mgrid[:n, :n]
    x, y = (x - wafer.x) * pixel_mm, (wafer.y - y) * pixel_mm
    heights = 5000 * (x * x + y * y) / radius**2 + 50 * np.sin(19 * x / radius) * np.cos(17 * y / radius)
    heights[(x - radius / 3) ** 2 + y**2 < radius**2 / 60] = np.nan
    heights[np.random.default_rng(0).random(x.shape) < 0.03] = np.nan
    found, expected = filtered(heights, wafer, radius - 1, 37), plain(heights, wafer, radius - 1)
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
    assert np.nanmax(np.abs(expected)) > 5
    assert np.nanmax(np.abs(found - expected)) < tolerance_nm
    np.testing.assert_allclose(filtered(heights, wafer, radius - 1, 240), found, atol=1e-7, rtol=0)


def test_nothing_inside_stays_nothing():
    heights = np.full((30, 30), np.nan)
    assert np.isnan(filtered(heights, Wafer(15, 15, 10, (1.0, 1.0)), 9, 30)).all()
