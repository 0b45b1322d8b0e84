"""Piston per component and one tilt for all, against a plain least-squares solution of the whole map."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpikan.surface.grouped_plane import GroupedPlaneFit


def make_map(seed: int, groups: int, shape: tuple[int, int] = (37, 53)) -> tuple[np.ndarray, np.ndarray]:
    """Heights with a slope and pistons of tens of um, and their groups (0 where there is none, NaN there)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(shape)
    group = (
        1 + np.minimum((columns * groups) // shape[1], groups - 1) if seed % 2 else rng.integers(1, groups + 1, shape)
    )
    height = 3.7 * rows - 2.1 * columns + rng.normal(0, 5e3, groups + 1)[group] + rng.normal(0, 10, shape)
    hole = rng.random(shape) < 0.1
    return np.where(hole, np.nan, height), np.where(hole, 0, group)


def design(height: np.ndarray, group: np.ndarray, tilt: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    valid = np.isfinite(height)
    y, x = np.nonzero(valid)
    numbers = np.unique(group[valid])
    columns = [(group[valid] == n).astype(float) for n in numbers]
    if tilt:
        columns += [y - (height.shape[0] - 1) / 2, x - (height.shape[1] - 1) / 2]
    matrix = np.stack(columns, axis=1)
    return matrix, height[valid], numbers


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.integers(1, 5), st.booleans(), st.lists(st.integers(1, 36), max_size=4, unique=True))
def test_fit_equals_least_squares_in_any_bands(seed: int, groups: int, tilt: bool, cuts: list[int]) -> None:
    height, group = make_map(seed, groups)
    fit = GroupedPlaneFit(height.shape, groups, tilt)
    edges = [0, *sorted(cuts), height.shape[0]]
    for a, b in itertools.pairwise(edges):
        fit.add(a, height[a:b], group[a:b])
    plane = fit.solve()
    matrix, values, numbers = design(height, group, tilt)
    expected = np.linalg.lstsq(matrix, values, rcond=None)[0]
    # moments about the centre of 2000 heights of 1e4 nm: 1e4 * 26^2 * 2^-53 and a good deal of room
    np.testing.assert_allclose(plane.constants_nm[numbers], expected[: len(numbers)], atol=1e-6)
    np.testing.assert_allclose(plane.slope, expected[len(numbers) :] if tilt else (0, 0), atol=1e-8)
    left = plane.take_from(0, height, group)
    assert left.dtype == np.float32
    # float32 of what is left: 100 nm * 2^-24, and of tilt that stays
    np.testing.assert_allclose(left[np.isfinite(height)], values - matrix @ expected, atol=1e-4)
    assert np.isnan(left[~np.isfinite(height)]).all()


def test_one_group_needs_no_numbers_and_rows_may_start_anywhere() -> None:
    height, _ = make_map(3, 1)
    fit = GroupedPlaneFit(height.shape, 1, True)
    fit.add(20, height[20:], None)
    fit.add(0, height[:20], None)
    plane = fit.solve()
    assert plane.slope == pytest.approx((3.7, -2.1), abs=0.1)  # noise 10 nm / (sqrt(1764) * 11 pixels) = 0.02
    whole = plane.take_from(0, height, None)
    np.testing.assert_array_equal(plane.take_from(20, height[20:], None), whole[20:])
    assert abs(np.nanmean(whole)) < 1e-4


def test_a_column_has_no_slope_across_and_nothing_gives_nothing() -> None:
    height = np.full((30, 20), np.nan)
    height[:, 4] = 2.0 * np.arange(30)
    fit = GroupedPlaneFit(height.shape, 1, True)
    fit.add(0, height, None)
    plane = fit.solve()
    assert plane.slope == pytest.approx((2.0, 0.0), abs=1e-9)
    assert np.nanmax(np.abs(plane.take_from(0, height, None))) < 1e-5
    empty = GroupedPlaneFit((4, 5), 3, True)
    empty.add(0, np.full((4, 5), np.nan), np.zeros((4, 5), int))
    found = empty.solve()
    assert found.slope == (0.0, 0.0)
    assert found.constants_nm.tolist() == [0.0] * 4


def test_pistons_do_not_tilt_the_plane() -> None:
    """A staircase of components is flat; an ordinary plane would follow the stairs."""
    columns = np.tile(np.arange(60), (40, 1))
    group = 1 + columns // 20
    fit = GroupedPlaneFit(group.shape, 3, True)
    fit.add(0, 1000.0 * group, group)
    plane = fit.solve()
    assert plane.slope == pytest.approx((0, 0), abs=1e-9)
    np.testing.assert_allclose(plane.constants_nm[1:], [1000, 2000, 3000])
