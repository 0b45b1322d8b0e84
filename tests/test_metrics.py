from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cpikan.errors import InputError
from cpikan.metrics import wrong_order_limit_nm
from cpikan.surface.sums.tallies import ErrorTally
from plain_metrics import coverage, relative_l2, remove_piston, rms, wrong_order_fraction, wrong_order_mask

HEIGHTS = st.floats(-1e4, 1e4, width=32)


def test_rms_ignores_nan_and_accumulates_in_float64() -> None:
    assert rms(np.array([3.0, np.nan, -4.0])) == pytest.approx(math.sqrt(12.5))
    assert math.isnan(rms(np.full(3, np.nan)))
    # 2**24 + 1 ones summed in float32 one by one would stop at 2**24; here the result is exact
    assert rms(np.ones((1 << 24) + 1, np.float32)) == 1.0


def test_the_limit_is_a_quarter_of_the_shortest_wavelength() -> None:
    assert wrong_order_limit_nm((640.0, 600.0)) == 150.0
    with pytest.raises(InputError, match="wavelength"):
        wrong_order_limit_nm(())


def test_piston_does_not_move_with_wrong_orders() -> None:
    rng = np.random.default_rng(3)
    error = 7.0 + rng.normal(0, 1.0, 10_001)
    error[:4000] += 316.4  # 40 % of the pixels are one order off
    error[0] = np.nan
    centred = remove_piston(error, 158.2)
    right = ~wrong_order_mask(centred, 158.2) & np.isfinite(centred)
    assert right.sum() == 6001
    assert centred[right].mean() == pytest.approx(0.0, abs=1e-12)
    assert wrong_order_fraction(centred, 158.2) == 3999 / 10_000
    # without a limit it is the plain mean
    assert np.nanmean(remove_piston(error)) == pytest.approx(0.0, abs=1e-10)


@given(arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(2, 9)), elements=HEIGHTS), HEIGHTS)
def test_relative_l2_against_numpy(truth: np.ndarray, piston: float) -> None:
    height = truth.astype(np.float64) * 1.25 + piston
    centred = truth.astype(np.float64) - truth.astype(np.float64).mean()
    value = relative_l2(height, truth)
    if np.linalg.norm(centred) < 1e-6:
        return  # a flat truth has no scale
    # height - truth - piston is a quarter of the centred truth, whatever the piston; rounding: 1e4 * 2^-53 * few / norm
    assert value == pytest.approx(0.25, rel=1e-9, abs=1e-10 / np.linalg.norm(centred))


def test_relative_l2_of_a_flat_truth_is_nan() -> None:
    assert math.isnan(relative_l2(np.ones(4), np.zeros(4)))
    assert math.isnan(relative_l2(np.full(4, np.nan), np.arange(4.0)))


def test_coverage_of_a_normal_error() -> None:
    rng = np.random.default_rng(5)
    sigma = rng.uniform(0.5, 3.0, 100_000)
    error = rng.normal(0, sigma)
    # binomial: sqrt(0.05 * 0.95 / 1e5) = 0.0007; five of them
    assert coverage(error, sigma) == pytest.approx(0.95, abs=0.0035)
    assert coverage(error, sigma / 2) < 0.7
    assert coverage(np.array([0.0, 0.0, np.nan]), np.array([1.0, np.nan, 1.0])) == 0.5


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_tally_equals_the_plain_functions(seed: int, parts: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 100, (30, 17))
    error = rng.normal(0, 2, truth.shape) + 300.0 * (rng.random(truth.shape) < 0.1)
    error[rng.random(truth.shape) < 0.2] = np.nan
    sigma = np.full(truth.shape, 2.0)
    tally = ErrorTally(150.0)
    for rows in np.array_split(np.arange(30), parts):
        tally.add(error[rows], truth[rows] - 5.0, sigma[rows])
    found = tally.summary()
    valid = np.isfinite(error)
    right = valid & (np.abs(error) <= 150)
    assert found["pixels"] == valid.sum()
    assert found["rms_nm"] == pytest.approx(rms(error[right]), rel=1e-12)
    assert found["max_abs_nm"] == np.abs(error[right]).max()
    assert found["wrong_order_fraction"] == wrong_order_fraction(error, 150.0)
    assert found["coverage_95"] == pytest.approx(coverage(error, sigma))
    expected = np.linalg.norm(error[valid]) / np.linalg.norm(truth[valid] - truth[valid].mean())
    assert found["relative_l2"] == pytest.approx(expected, rel=1e-12)


def test_a_wrong_order_is_a_miss_even_under_a_huge_sigma() -> None:
    tally = ErrorTally(150.0)
    tally.add(np.array([300.0, 1.0]), np.array([0.0, 1.0]), np.array([1e6, 1.0]))
    assert tally.summary()["coverage_95"] == 0.5


def test_an_empty_tally_has_no_figures() -> None:
    found = ErrorTally(150.0).summary()
    assert found["pixels"] == 0
    assert all(value is None for name, value in found.items() if name != "pixels")
