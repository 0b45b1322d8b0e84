"""Holes filled by least bending energy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpikan.psi.refine.inpaint import inpaint


def disc(size: int, radius: float) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size / 2
    return y**2 + x**2 < radius**2


@given(st.tuples(*(st.floats(-10, 10) for _ in range(3))), st.integers(3, 14))
def test_planes_go_on_exactly(plane, radius):
    """A plane has no bending energy: it is the minimum. Rounding: 1e-16 of 1e3 through a system of condition 1e6."""
    y, x = np.mgrid[:40, :40]
    height = plane[0] + plane[1] * y + plane[2] * x
    hole = disc(40, radius)
    assert np.abs(inpaint(height, hole) - height).max() < 1e-7


def test_biharmonic_surfaces_go_on_and_known_pixels_stay():
    """Quadratics solve the discrete equation: second differences are constant."""
    y, x = np.mgrid[:300, :300] - 150.0
    height = 3e-3 * x**2 - 1e-3 * y * x + 0.02 * y
    hole = disc(300, 105)
    filled = inpaint(np.where(hole, np.nan, height), hole)
    assert np.array_equal(filled[~hole], height[~hole])
    assert np.abs(filled - height).max() < 1e-3


def test_bending_energy_is_the_least():
    """Any other filling bends more."""
    rng = np.random.default_rng(0)
    height = rng.normal(size=(24, 24)).cumsum(0).cumsum(1)
    hole = disc(24, 6)
    filled = inpaint(height, hole)

    def energy(u: np.ndarray) -> float:
        mixed = u[1:, 1:] - u[1:, :-1] - u[:-1, 1:] + u[:-1, :-1]
        return (np.diff(u, 2, 0) ** 2).sum() + (np.diff(u, 2, 1) ** 2).sum() + 2 * (mixed**2).sum()

    for _ in range(20):
        other = filled + np.where(hole, rng.normal(size=filled.shape), 0) * 10.0 ** rng.integers(-3, 2)
        assert energy(other) > energy(filled)


@pytest.mark.parametrize("known", [0, 2])
def test_too_little_around_stays_open(known):
    height = np.full((9, 9), np.nan)
    height[4, :known] = 1.0
    hole = ~np.isfinite(height)
    assert not np.isfinite(inpaint(height, hole)[hole]).any()


def test_pixels_outside_the_hole_may_be_missing():
    y, x = np.mgrid[:30, :30]
    height = (2.0 * y - x).astype(float)
    height[:, 20:] = np.nan
    hole = disc(30, 5)
    filled = inpaint(height, hole & (x < 20))
    assert np.isnan(filled[:, 20:]).all()
    assert np.abs(filled[:, :20] - (2 * y - x)[:, :20]).max() < 1e-8
