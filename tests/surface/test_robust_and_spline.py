"""The robust Gaussian and the spline filter against what defines them, written out densely."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cpikan.errors import InputError
from cpikan.surface.filters.kinds import FILTERS
from cpikan.surface.filters.robust import RobustMean
from cpikan.surface.filters.spline import SplineSurface


def bumpy(shape: tuple[int, int] = (60, 80), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A second-order surface without and with noise, 5 % of outliers, and a hole."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: float(shape[0]), : float(shape[1])]
    base = 0.02 * y - 0.03 * x + 0.004 * (x - 40) ** 2 - 0.002 * y * x
    heights = base + rng.normal(0, 0.1, shape)
    heights[rng.random(shape) < 0.05] += 30
    heights[20:30, 30:50] = np.nan
    return base, heights


def test_outliers_lose_their_weight():
    base, heights = bumpy()
    valid = np.isfinite(heights)
    robust = RobustMean(heights, 20.0, 2).rows(0, 60)
    # normal noise of 0.1 averaged over the weights around a pixel: (alpha n)^2 / 2 = 44 of them, 6 terms, five times
    assert np.abs(robust - base)[valid].max() < 5 * 0.1 * math.sqrt(6 / 44)
    plain = FILTERS["gaussian2"](heights, (20.0, 20.0)).rows(0, 60)
    assert np.abs(plain - base)[valid].max() > 2


def test_the_robust_filter_is_a_fixed_point_of_its_definition():
    heights = bumpy((12, 15))[1]
    heights[np.isnan(heights)] = 0.0
    found = RobustMean(heights, 9.0).rows(0, 12)
    alpha = math.sqrt(math.log(2) / math.pi)
    y, x = np.indices(heights.shape).reshape(2, -1)
    weights = np.exp(-np.pi * ((y[:, None] - y) ** 2 + (x[:, None] - x) ** 2) / (alpha * 9.0) ** 2)
    z, trust, limits = heights.ravel(), np.ones(heights.size), [np.inf]
    while True:
        mean = weights @ (trust * z) / (weights @ trust)
        limits.append(4.4478 * np.median(np.abs(z - mean)))
        if abs(limits[-1] - limits[-2]) < 0.01 * limits[-1]:
            break
        trust = np.clip(1 - ((z - mean) / limits[-1]) ** 2, 0, None) ** 2
    assert len(limits) > 3
    assert np.allclose(found.ravel(), mean, rtol=0, atol=1e-7)


@pytest.mark.parametrize("nesting", [9.0, 40.0])
def test_bands_change_nothing_of_the_robust_filter(nesting, monkeypatch):
    heights = bumpy()[1]
    whole = RobustMean(heights, nesting).rows(0, 60)
    monkeypatch.setattr("cpikan.surface.filters.robust._BAND_PIXELS", 700)
    monkeypatch.setattr("cpikan.order_statistics._FEW", 50)
    np.testing.assert_allclose(RobustMean(heights, nesting).rows(0, 60), whole, rtol=0, atol=1e-9)


def test_a_spline_that_memory_cannot_hold_is_refused(monkeypatch):
    monkeypatch.setattr("cpikan.surface.filters.spline._PIXEL_BYTES", 2**50)
    with pytest.raises(InputError, match=r"spline filter of 4 x 4 pixels takes .* GiB of memory and .* are free: crop"):
        SplineSurface(np.eye(4), 3.0).rows(0, 4)


@pytest.mark.parametrize("kind", FILTERS)
def test_every_filter_keeps_what_is_flat_and_turns_with_the_map(kind):
    heights = bumpy((24, 31))[1]
    found = FILTERS[kind](heights, (12.0, 7.0)).rows(0, 24)
    turned = FILTERS[kind](heights.T, (7.0, 12.0)).rows(0, 31).T
    assert np.allclose(turned, found, rtol=0, atol=1e-6)
    assert np.allclose(FILTERS[kind](2 * heights - 5, (12.0, 7.0)).rows(3, 9), 2 * found[3:9] - 5, rtol=0, atol=1e-6)
    flat = np.where(np.isnan(heights), np.nan, 4.0)
    assert np.allclose(FILTERS[kind](flat, (12.0, 7.0)).rows(0, 24)[np.isfinite(flat)], 4.0, rtol=0, atol=1e-9)
    row = FILTERS[kind](heights[:1], (12.0, 7.0)).rows(0, 1)
    assert np.isfinite(row[np.isfinite(heights[:1])]).all()
    assert np.isnan(FILTERS[kind](np.full((4, 5), np.nan), (3.0, 3.0)).rows(0, 4)).all()


@pytest.mark.parametrize("shape", [(9, 11), (1, 12), (12, 2), (2, 2)])
def test_the_spline_solves_its_normal_equations(shape):
    """Built densely from differences of unit vectors."""
    rng = np.random.default_rng(3)
    heights = rng.normal(0, 5, shape) + 100
    if min(shape) > 5:
        heights[3:5, 4:8] = np.nan
    a = [1 / (2 * math.sin(math.pi / n)) ** 2 for n in (7.0, 5.0)]
    units = np.eye(heights.size).reshape(-1, *shape)
    valid = np.isfinite(heights).ravel()
    bending = np.zeros((heights.size, heights.size))
    for one, other, factor in ((0, 0, a[0] ** 2), (1, 1, a[1] ** 2), (0, 1, 2 * a[0] * a[1])):
        rows = np.array([np.diff(np.diff(unit, axis=one), axis=other).ravel() for unit in units])
        bending += factor * rows @ rows.T
    expected = np.linalg.solve(bending + np.diag(valid.astype(float)), np.where(valid, heights.ravel(), 0.0))
    found = SplineSurface(heights, (7.0, 5.0)).rows(0, shape[0])
    assert np.allclose(found.ravel(), expected, rtol=0, atol=1e-7)


def test_planes_pass_a_spline_whatever_the_mask():
    y, x = np.mgrid[:30.0, :40.0]
    plane = 3 + 0.5 * y - 2 * x
    plane[np.random.default_rng(0).random(plane.shape) < 0.5] = np.nan
    found = SplineSurface(plane, 15.0).rows(0, 30)
    assert np.allclose(found, 3 + 0.5 * y - 2 * x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("period", [20.0, 40.0, 10.0])
def test_a_spline_passes_half_of_its_nesting_index_in_every_direction(period):
    x = np.arange(240.0)
    passed = 1 / (1 + (math.sin(math.pi / period) / math.sin(math.pi / 20)) ** 4)
    wave = np.tile(np.cos(2 * np.pi * (x - 120) / period), (3, 1))
    assert SplineSurface(wave, 20.0).rows(1, 2)[0, 120] == pytest.approx(passed, abs=1e-3)  # ends are 12 periods away
    y, x = np.mgrid[:120.0, :120.0]
    wave = np.cos(2 * np.pi * (x + y - 120) / (math.sqrt(2) * 20))
    assert SplineSurface(wave, 20.0).rows(60, 61)[0, 60] == pytest.approx(0.5, abs=0.01)  # sin of half the step


def test_bad_input_is_told():
    with pytest.raises(InputError, match="give 2 or more"):
        SplineSurface(np.eye(4), 1.5)
    with pytest.raises(InputError, match="not positive"):
        RobustMean(np.eye(4), -1.0)
