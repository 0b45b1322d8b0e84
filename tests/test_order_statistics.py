"""Median and quantile are NumPy's, bit by bit, for every kind of number and odd, even and tiny counts."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from cpikan.order_statistics import median, quantile, streamed_median

SHARES = (0.0, 0.001, 0.3, 0.5, 0.9, 0.998, 1.0)
DRAW = np.random.default_rng(4)


@pytest.mark.parametrize("dtype", ["f8", "u1", "i1", "u2", "i2", "i4"])
@pytest.mark.parametrize("count", [1, 2, 3, 10, 255, 256, 3001])
def test_both_are_those_of_numpy_to_the_last_bit(dtype, count):
    values = (DRAW.normal(0, 50, count) if dtype == "f8" else DRAW.integers(0, 120, count)).astype(dtype)
    assert median(values) == np.median(values)
    assert [quantile(values, share) for share in SHARES] == list(np.quantile(values.astype("f8"), SHARES))
    assert median(values[::-1]) == median(values)


def test_shape_and_equal_values_do_not_matter():
    values = DRAW.integers(0, 4, (3, 8, 5)).astype(float)
    assert median(values) == np.median(values)
    assert quantile(values, 0.31) == np.quantile(values, 0.31)
    infinite = np.array([-np.inf, 1.0, 2.0, np.inf])
    assert (median(infinite), quantile(infinite, 0.5)) == (1.5, 1.5)


@pytest.mark.parametrize("place", [0, 3, 6])
def test_what_is_not_a_number_makes_the_answer_none(place):
    values = np.arange(7.0)
    values[place] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [median(values), quantile(values, 0.2), quantile(values, 1.0), median(np.empty(0)), quantile([], 0.5)]
    assert all(map(math.isnan, found))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 10, 3001, 3002])
@pytest.mark.parametrize("few", [1, 40, 1 << 21])
def test_values_that_come_in_parts_have_the_same_median(count, few, monkeypatch):
    monkeypatch.setattr("cpikan.order_statistics._FEW", few)
    random = np.random.default_rng(count)
    for values in (
        np.abs(random.normal(0, 50, count)),
        random.integers(0, 4, count).astype(float),
        np.full(count, 7.0),
        1 + 1e-12 * random.normal(size=count),
        10.0 ** random.integers(-300, 300, count),
    ):
        found = streamed_median(lambda values=values: iter(np.array_split(values, 7)))
        assert found == np.median(values) if count else math.isnan(found)
