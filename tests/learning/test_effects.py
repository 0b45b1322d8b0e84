"""Effects: medians of ratios, the sign test against SciPy, and interactions that are known."""

from __future__ import annotations

import math

import pytest
from scipy.stats import binomtest

from cpikan.learning.effects import PLAIN, contrast, effect, interaction, sign_test


@pytest.mark.parametrize(("lower", "higher"), [(0, 0), (3, 0), (0, 3), (5, 5), (9, 2), (1, 30)])
def test_the_sign_test_is_that_of_scipy(lower, higher):
    expected = binomtest(lower, lower + higher).pvalue if lower + higher else 1.0
    assert sign_test(lower, higher) == pytest.approx(expected, rel=1e-12)


def test_ratios_are_paired_by_problem_and_seed():
    errors = {
        ("a", PLAIN, 0): 1.0,
        ("a", PLAIN, 1): 1e-3,
        ("b", PLAIN, 0): 5.0,
        ("a", "x", 0): 0.1,
        ("a", "x", 1): 2e-4,
        ("b", "x", 0): 5.0,
        ("b", "x", 1): 1e-9,  # no plain run to compare with
    }
    found = effect(errors, "x")
    assert found is not None
    assert found.ratio == pytest.approx(0.2)  # of 0.1, 0.2 and 1
    assert (found.lower, found.higher, found.pairs) == (2, 0, 3)
    assert found.p_value == 0.5
    alone = effect(errors, "x", "a")
    assert alone is not None
    assert alone.ratio == pytest.approx(math.sqrt(0.1 * 0.2))
    assert effect(errors, "y") is None
    assert effect(errors, "x", "c") is None


def test_a_run_that_failed_is_worse_than_any_and_as_bad_as_another():
    errors = {("a", PLAIN, 0): 1.0, ("a", "x", 0): math.inf, ("a", "y", 0): math.inf}
    found, equal = effect(errors, "x"), effect(errors, "x", beside="y")
    assert found is not None
    assert equal is not None
    assert (found.lower, found.higher) == (0, 1)
    assert math.isfinite(found.ratio)
    assert found.ratio > 1e300
    assert (equal.ratio, equal.lower, equal.higher, equal.pairs) == (1.0, 0, 0, 1)
    assert interaction(errors, "x", "y", "x") is None
    assert contrast([math.inf, -math.inf]) == contrast([-700.0, 700.0])


@pytest.mark.parametrize("factor", [0.2, 1.0, 3.0])
def test_an_interaction_is_what_both_do_beyond_the_product(factor):
    errors = {}
    for seed in range(5):
        plain = 0.7**seed
        for name, ratio in ((PLAIN, 1.0), ("x", 0.5), ("y", 0.25), ("x+y", 0.5 * 0.25 * factor)):
            errors["a", name, seed] = plain * ratio
    found = interaction(errors, "x", "y", "x+y")
    assert found is not None
    assert found.ratio == pytest.approx(factor)
    if factor != 1:
        assert (found.lower, found.higher) == ((5, 0) if factor < 1 else (0, 5))


def test_a_part_that_changes_nothing_has_no_interaction_to_the_bit():
    errors = {("a", PLAIN, 0): 0.3, ("a", "x", 0): 0.3, ("a", "y", 0): 0.1, ("a", "x+y", 0): 0.1}
    found = interaction(errors, "x", "y", "x+y")
    assert found is not None
    assert (found.lower, found.higher) == (0, 0)
