"""Control charts: the constants of the range, limits, what stands out, capability."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cpikan.fleet.results.control import control, range_constants

# d2 and d3 as tables of statistical quality control print them, to three digits
PRINTED = {2: (1.128, 0.853), 3: (1.693, 0.888), 5: (2.326, 0.864), 10: (3.078, 0.797), 25: (3.931, 0.708)}


@pytest.mark.parametrize("count", PRINTED)
def test_constants_of_the_range(count: int) -> None:
    assert range_constants(count) == pytest.approx(PRINTED[count], abs=6e-4)  # half a digit of the tables
    if count == 2:  # |x - y| of two normal values: closed form
        assert range_constants(2) == pytest.approx((2 / math.sqrt(math.pi), math.sqrt(2 - 4 / math.pi)), abs=1e-6)


def test_individuals_have_the_textbook_limits() -> None:
    values = [10.0, 12.0, 11.0, 13.0, 30.0]
    found = control(values, list("abcde"), [None] * 5)
    assert found is not None
    moving = np.abs(np.diff(values)).mean()
    assert found.kind.startswith("individuals")
    assert found.sigma == pytest.approx(moving / 1.12838, rel=1e-5)
    assert found.location.high[0] - found.location.centre == pytest.approx(2.6587 * moving, rel=1e-4)
    assert found.spread.high[0] == pytest.approx(3.2665 * moving, rel=1e-4)
    assert found.spread.low.tolist() == [0.0] * 4
    assert found.spread.labels == ("b", "c", "d", "e")


def test_means_and_ranges_of_lots_of_any_size() -> None:
    rng = np.random.default_rng(1)
    lots = [f"L{n}" for n in range(300) for _ in range(3 + n % 3)]
    values = rng.normal(5.0, 2.0, len(lots))
    found = control(values.tolist(), lots, lots)
    assert found is not None
    assert found.kind == "means and ranges of lots"
    # the standard error of sigma over 300 ranges of some four values is 2 * 0.43 / sqrt(300); three of them
    assert found.sigma == pytest.approx(2.0, abs=3 * 2 * 0.43 / math.sqrt(300))
    assert found.location.high[0] - found.location.centre == pytest.approx(3 * found.sigma / math.sqrt(3))
    assert found.location.high[2] - found.location.centre == pytest.approx(3 * found.sigma / math.sqrt(5))
    assert len(found.location.outside) <= 5  # 0.8 expected


def test_what_stands_out() -> None:
    values = [0.0, 1.0] * 10 + [9.0]
    found = control(values, [str(n) for n in range(21)], [None] * 21)
    assert found is not None
    assert found.location.outside == [20]
    one_side = [5.0, 0.0, 5.1, 0.2] + [3.1, 3.2] * 5 + [0.0] * 8
    runs = control(one_side, [str(n) for n in range(22)], [None] * 22)
    assert runs is not None
    assert runs.location.runs == [11, 12, 13, 21]


def test_lots_of_one_wafer_and_wafers_without_a_lot_are_individuals() -> None:
    assert control([1.0, 2.0], ["a", "b"], ["L1", "L2"]).kind.startswith("individuals")
    assert control([1.0, 2.0, 3.0, 4.0], list("abcd"), ["L", "L", None, None]).kind.startswith("individuals")
    assert control([1.0], ["a"], [None]) is None


def test_capability_is_that_of_the_nearer_limit() -> None:
    found = control([1.0, 2.0, 1.0, 2.0], list("abcd"), [None] * 4)
    assert found is not None
    sigma = 1 / 1.12838
    both = found.capability(0.0, 4.0)
    assert both.cp == pytest.approx(4 / (6 * sigma), rel=1e-5)
    assert both.cpk == pytest.approx(1.5 / (3 * sigma), rel=1e-5)
    assert found.capability(None, 4.0).cp is None
    assert found.capability(None, 4.0).cpk == pytest.approx(2.5 / (3 * sigma), rel=1e-5)
    assert found.capability(None, None) == type(both)(None, None)
    assert control([1.0, 1.0], ["a", "b"], [None] * 2).capability(0, 2) == type(both)(None, None)
