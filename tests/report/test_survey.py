from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_map import memory_map

from cpikan.pipeline.maps.evaluate import align_to_truth
from cpikan.report import numbers
from cpikan.report.figures import Lateral, error_scale, height_scale
from cpikan.report.survey import BlockMean, BlockOr, reduction, survey


@settings(deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)), st.integers(1, 9), st.integers(1, 15), st.integers(0, 2**32 - 1)
)
def test_block_reduction_against_a_plain_loop(shape: tuple[int, int], factor: int, band: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 1, shape)
    values[rng.random(shape) < 0.4] = np.nan
    flags = rng.integers(0, 64, shape, np.uint8) * (rng.random(shape) < 0.1).astype(np.uint8)
    mean, union = BlockMean(shape, factor), BlockOr(shape, factor)
    for start in range(0, shape[0], band):
        mean.add(start, values[start : start + band])
        union.add(start, flags[start : start + band])
    for i in range(-(-shape[0] // factor)):
        for j in range(-(-shape[1] // factor)):
            part = (slice(i * factor, (i + 1) * factor), slice(j * factor, (j + 1) * factor))
            finite = values[part][np.isfinite(values[part])]
            expected = finite.mean() if finite.size else np.nan
            assert mean.result()[i, j] == pytest.approx(expected, rel=1e-12, abs=1e-12, nan_ok=True)
            assert union.result()[i, j] == np.bitwise_or.reduce(flags[part], axis=None)


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_pictures_stay_small(height: int, width: int) -> None:
    factor = reduction((height, width), 800_000)
    reduced = (-(-height // factor), -(-width // factor))
    assert max(reduced) <= 1200
    assert reduced[0] * reduced[1] <= 810_000  # the last blocks may be partial: 800 000 and one row and column


def test_numbers_of_a_survey() -> None:
    rng = np.random.default_rng(3)
    shape = (1500, 1400)
    height = rng.normal(0, 1, shape) + np.linspace(0, 700, shape[1])
    height[:100] = np.nan
    sigma = rng.uniform(1, 3, shape).astype(np.float32)
    flags = np.where(np.isnan(height), 1, 0).astype(np.uint8)
    flags[700, 700] |= 8
    found = survey(memory_map(height, sigma_nm=sigma, flags=flags))
    assert found.flag_shares[1] == 100 / 1500
    assert found.flag_shares[8] == 1 / height.size
    assert found.flags is not None
    assert np.count_nonzero(found.flags & 8) == 1
    assert found.sigma_median_nm == pytest.approx(2.0, abs=0.01)
    assert found.raw.pv_nm == np.nanmax(height) - np.nanmin(height)
    assert found.flat.rms_nm == pytest.approx(1.0, abs=0.01)
    left, right = found.plane.at(np.array([7, 7]), np.array([100, 101]))
    assert right - left == pytest.approx(700 / 1399, rel=1e-3)
    assert np.array_equal(found.row, height[750], equal_nan=True)
    assert np.array_equal(found.column, height[:, 700], equal_nan=True)
    assert found.histogram is not None
    assert found.histogram.counts.sum() + found.histogram.outside == 1400 * 1400
    assert np.nanstd(found.levelled) < 1.0
    assert found.modulation is None


def test_scales_choose_readable_units() -> None:
    ramp = np.linspace(0, 20_000, 1001)
    assert height_scale(ramp, "height").unit == "µm"
    assert height_scale(ramp / 1e4, "height").unit == "nm"
    assert height_scale(ramp / 1e6, "height").unit == "pm"
    constant = height_scale(np.full(4, 7.0), "height")
    assert constant.low < 7 * constant.factor < constant.high
    errors = error_scale(np.array([-3.0, 1.0, 400.0]), 150.0)
    assert errors.low == -errors.high
    assert errors.high < 4
    assert Lateral.of((100, 200), None) == Lateral((100.0, 200.0), "px")
    assert Lateral.of((100, 200), 5.0).unit == "µm"
    assert Lateral.of((7000, 9344), 43.0).size == pytest.approx((301.0, 401.792))


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (numbers.length(1.23456), ("1.235", "nm")),
        (numbers.length(12345.0), ("12.35", "µm")),
        (numbers.length(0.0123), ("12.30", "pm")),
        (numbers.length(None), ("–", "")),
        (numbers.length(float("nan")), ("–", "")),
        (numbers.percent(0.25), ("25.00", "%")),
        (numbers.percent(1.0), ("100.0", "%")),
        (numbers.percent(0.9999996), ("99.9999", "%")),
        (numbers.percent(2e-6), ("2.00", "ppm")),
        (numbers.percent(0.0), ("0", "%")),
    ],
)
def test_numbers_for_people(shown: tuple[str, str], expected: tuple[str, str]) -> None:
    assert shown == expected


def test_the_error_picture_shows_right_orders_and_clusters_of_wrong_ones() -> None:
    rng = np.random.default_rng(6)
    shape = (1000, 1000)  # blocks of 3 x 3 in the error picture
    truth = np.zeros(shape)
    truth[0] = 1.0
    height = truth + rng.normal(0, 1.0, shape)
    height[300, 300] += 316.4  # one pixel of nine: not shown
    height[600:630, 600:630] += 316.4
    found = survey(
        height_map := memory_map(height, document={"acquisition": {"wavelengths_nm": [632.8, 611.9]}}),
        align_to_truth(height_map, truth),
    )
    assert found.error is not None
    picture = found.error.picture
    assert picture.shape == (334, 334)
    assert np.all(np.abs(picture[200:210, 200:210] - 316.4) < 5)
    picture[200:210, 200:210] = 0
    assert np.abs(picture).max() < 5  # means of 9 (8 at the lone pixel) normal variates, at the rim of 3 or 1
