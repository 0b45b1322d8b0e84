"""Circular windows against a look at every pixel of every window, and the height that a share exceeds."""

from __future__ import annotations

import numpy as np
import pytest

from cpikan.wafer.outline import Wafer
from cpikan.wafer.thresholds import ThresholdHeights, Windows


@pytest.mark.parametrize("diameter", [2.0, 4.0])
def test_windows_are_those_of_all_their_pixels(diameter):
    random = np.random.default_rng(1)
    heights = random.normal(size=(90, 101))
    heights[random.random(heights.shape) < 0.05] = np.nan
    heights[40:50, 40:44] = np.nan
    wafer = Wafer(49.3, 45.1, 12.0, (0.26, 0.25))
    windows = Windows(wafer, 11.0, diameter, heights.shape)
    for start in range(0, 90, 7):
        windows.add(start, np.ascontiguousarray(heights[start : start + 7]))
    found = windows.peak_to_valley()
    y, x = np.mgrid[:90, :101]
    rows, columns = windows.centres
    assert np.diff(rows).max() <= max(1, diameter / 8 / 0.26)
    assert np.diff(columns).max() <= max(1, diameter / 8 / 0.25)
    seen = 0
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            used = np.hypot((y - row) * 0.26, (x - column) * 0.25) <= diameter / 2
            values = heights[used][np.isfinite(heights[used])]
            within = np.hypot((row - wafer.y) * 0.26, (column - wafer.x) * 0.25) <= 11 - diameter / 2
            counts = within and values.size >= used.sum() / 2
            seen += counts
            np.testing.assert_equal(found[i, j], np.ptp(values) if counts else np.nan)
    assert seen == windows.heights().falling_nm.size > 100


def test_the_height_that_a_share_exceeds():
    curve = ThresholdHeights(2.0, np.arange(10000.0)[::-1])
    assert (curve.falling_nm > curve.exceeded_by()).sum() == 5  # 0.05 % of 10 000
    assert next(share for share, height in curve.curve() if height == curve.exceeded_by()) == pytest.approx(5e-4)
    assert curve.curve()[-1] == [1.0, 0.0]
    assert np.isnan(ThresholdHeights(2.0, np.zeros(0)).exceeded_by())


def test_windows_of_less_than_three_pixels_are_none():
    assert Windows(Wafer(50, 50, 12.0, (0.9, 0.9)), 11.0, 2.0, (100, 100)).heights().falling_nm.size == 0
