"""Steps that determine no phase are refused; steps that do pass, whatever their order and offset."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpikan.errors import InputError
from cpikan.psi.model.acquisition import MAX_CONDITION, Acquisition, check_steps, step_condition


def acquisition(*rows: tuple[float, ...]) -> Acquisition:
    return Acquisition(tuple(500.0 + 10 * k for k in range(len(rows))), rows, "trusted")


@given(st.integers(3, 20), st.integers(1, 3), st.floats(-720, 720))
def test_even_steps_have_the_smallest_condition(frames: int, cycles: int, offset: float) -> None:
    steps = tuple(offset + 360.0 * cycles * k / frames for k in range(frames))
    distinct = frames // math.gcd(frames, cycles)
    if distinct < 3:
        return
    # columns are orthogonal with squared lengths N, N/2, N/2: the condition number is sqrt(2)
    assert step_condition(steps) == pytest.approx(math.sqrt(2), rel=1e-9)
    check_steps(acquisition(steps))


@given(st.lists(st.floats(-1000, 1000), min_size=3, max_size=8))
def test_condition_equals_numpys(steps: list[float]) -> None:
    rad = np.deg2rad(steps)
    matrix = np.stack([np.ones_like(rad), np.cos(rad), np.sin(rad)], axis=1)
    expected = np.linalg.cond(matrix)
    if expected < 1e8:
        assert step_condition(tuple(steps)) == pytest.approx(expected, rel=1e-6)
    else:
        assert step_condition(tuple(steps)) > 1e7


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((0.0, 90.0), "three or more per wavelength"),
        ((), "three or more per wavelength"),
        ((0.0, 0.0, 0.0, 0.0), "1 distinct positions"),
        ((0.0, 180.0, 360.0, 540.0), "2 distinct positions"),
        ((0.0, 360.0, 90.0, -270.0), "2 distinct positions"),
        ((359.9999999, 0.0, 90.0), "2 distinct positions"),
        ((0.0, 10.0, 20.0), "condition number"),
        ((0.0, 0.001, 90.0, 90.001), "condition number"),
    ],
)
def test_degenerate_steps_are_refused(steps: tuple[float, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_steps(acquisition(steps))


@pytest.mark.parametrize(
    "steps", [(0.0, 120.0, 240.0), (0.0, 90.0, 180.0), (0.0, 51.9, 107.1, 174.5), (0.0, -60.0, -120.0)]
)
def test_useful_steps_pass(steps: tuple[float, ...]) -> None:
    check_steps(acquisition(steps))
    assert step_condition(steps) < MAX_CONDITION


def test_every_wavelength_is_checked_and_named() -> None:
    with pytest.raises(InputError, match="at 510 nm"):
        check_steps(acquisition((0.0, 90.0, 180.0), (0.0, 180.0, 360.0)))


def test_unknown_steps_pass() -> None:
    check_steps(Acquisition((632.8,)))
