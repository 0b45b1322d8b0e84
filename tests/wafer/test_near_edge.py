"""Roll-off and curvature of profiles with closed forms, and against polynomials fitted by NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from cpikan.wafer.near_edge import NearEdge
from cpikan.wafer.outline import Wafer


@pytest.fixture
def edge():
    """Wafer, radius and angle of its pixels: 40 mm on 400 x 410 pixels."""
    wafer = Wafer(205.3, 199.1, 20.0, (0.101, 0.1))
    y, x = np.mgrid[:400, :410]
    x, y = (x - wafer.x) * 0.1, (wafer.y - y) * 0.101
    return wafer, np.hypot(x, y), np.arctan2(y, x) % (2 * np.pi)


def of(heights: np.ndarray, wafer: Wafer, sectors: int = 8) -> NearEdge:
    found = NearEdge(wafer, 20.0, sectors)
    for start in range(0, len(heights), 60):
        found.add(start, np.ascontiguousarray(heights[start : start + 60]))
    return found


def test_a_parabola_and_a_kink(edge):
    wafer, radius, _ = edge
    found = of(700 - 3 * radius + 2.5 * radius**2, wafer)
    np.testing.assert_allclose(found.curvature_nm_per_mm2(), 5.0, rtol=1e-7)
    kink = of(np.where(radius > 17, -10 * (radius - 17), 0.0) + 4 * radius, wafer)  # falls from 3 mm to the edge on
    np.testing.assert_allclose(kink.roll_off_nm(), 20.0, rtol=1e-9)  # 2 mm of it up to 1 mm from the edge


def test_against_polynomials_of_numpy(edge):
    wafer, radius, angle = edge
    random = np.random.default_rng(0)
    heights = np.where(radius <= 20, 50 * random.normal(size=radius.shape) - np.maximum(radius - 16, 0) ** 3, np.nan)
    heights[random.random(radius.shape) < 0.1] = np.nan
    found = of(heights, wafer)
    for k in range(8):
        used = np.isfinite(heights) & (np.floor(angle / (2 * np.pi) * 8) == k)

        def fit(middle, half, degree, used=used):
            near = used & (np.abs(radius - middle) <= half)
            return np.polynomial.polynomial.polyfit(radius[near] - middle, heights[near], degree)

        line = fit(15.5, 1.5, 1)
        assert found.roll_off_nm()[k] == pytest.approx(line[0] + 3.5 * line[1] - fit(19, 0.25, 1)[0], rel=1e-9)
        assert found.curvature_nm_per_mm2()[k] == pytest.approx(2 * fit(18, 1.0, 2)[2], rel=1e-8)


def test_a_sector_without_pixels_has_no_number(edge):
    wafer, radius, angle = edge
    found = of(np.where(angle < np.pi / 4, np.nan, radius), wafer)
    assert np.isnan(found.roll_off_nm()[0])
    assert np.isfinite(found.roll_off_nm()[1:]).all()
