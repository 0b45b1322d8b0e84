"""Piston per component and one form for all, against a plain least-squares solution of the whole map."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpikan.surface.apertures.aperture import Circle
from cpikan.surface.forms.form import form_modes
from cpikan.surface.forms.grouped_form import GroupedFormFit, no_form
from cpikan.surface.forms.zernike import ZernikeBasis

SHAPE = (37, 53)
TERMS = ("piston", "tilt", "piston,tilt,power", "coma", "zernike:16")
PUPILS = (Circle(26, 18, 33), Circle(20.3, 25.1, 17), Circle(26, 18, 30, 12), Circle(10, 30, 22, 9.5))


def make_map(seed: int, groups: int, shape: tuple[int, int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Heights with a slope and pistons of tens of um, and their groups (0 where there is none, NaN there)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(shape)
    group = (
        1 + np.minimum((columns * groups) // shape[1], groups - 1) if seed % 2 else rng.integers(1, groups + 1, shape)
    )
    height = 3.7 * rows - 2.1 * columns + rng.normal(0, 5e3, groups + 1)[group] + rng.normal(0, 10, shape)
    hole = rng.random(shape) < 0.1
    return np.where(hole, np.nan, height), np.where(hole, 0, group)


def design(height: np.ndarray, group: np.ndarray, terms: str, pupil: Circle) -> tuple[np.ndarray, ...]:
    """A column for the piston of every group and one for every other mode, at the valid pixels of the pupil."""
    valid = np.isfinite(height) & pupil.inside(0, *height.shape)
    numbers = np.unique(group[valid])
    modes = tuple(mode for mode in form_modes(terms) if mode != (0, 0))
    values = ZernikeBasis(modes, pupil.obscuration).values(*pupil.coordinates(*np.nonzero(valid)))
    return np.column_stack([*((group[valid] == n).astype(float) for n in numbers), *values]), valid, numbers


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999),
    groups=st.integers(1, 5),
    terms=st.sampled_from(TERMS),
    pupil=st.sampled_from(PUPILS),
    cuts=st.lists(st.integers(1, 36), max_size=4, unique=True),
)
def test_fit_equals_least_squares_in_any_bands(
    seed: int, groups: int, terms: str, pupil: Circle, cuts: list[int]
) -> None:
    height, group = make_map(seed, groups)
    fit = GroupedFormFit(form_modes(terms), pupil, groups)
    for a, b in itertools.pairwise([0, *sorted(cuts), SHAPE[0]]):
        fit.add(a, height[a:b], group[a:b])
    found = fit.solve()
    matrix, valid, numbers = design(height, group, terms, pupil)
    expected = np.linalg.lstsq(matrix, height[valid], rcond=None)[0]
    assert fit.pixels == valid.sum()
    # normal equations of columns of condition below 1e3: 1e4 nm * 1e6 * 2^-53
    np.testing.assert_allclose(found.constants_nm[numbers], expected[: len(numbers)], atol=1e-5)
    np.testing.assert_allclose(found.coefficients_nm, expected[len(numbers) :], atol=1e-5)
    left = np.concatenate(
        [
            found.remove(a, np.where(valid, height, np.nan)[a:b], group[a:b])
            for a, b in itertools.pairwise([0, *sorted(cuts), SHAPE[0]])
        ]
    )
    np.testing.assert_allclose(left[valid], height[valid] - matrix @ expected, atol=1e-5)
    assert np.isnan(left[~valid]).all()


def test_one_group_needs_no_numbers_and_bands_do_not_change_a_bit() -> None:
    height, _ = make_map(3, 1)
    for terms in ("zernike:25", "tilt"):
        fit = GroupedFormFit(form_modes(terms), Circle(26, 18, 40))
        fit.add(20, height[20:])
        fit.add(0, height[:20])
        found = fit.solve()
        whole = found.remove(0, height)
        for start, stop in ((20, 37), (5, 6), (0, 13)):
            np.testing.assert_array_equal(found.remove(start, height[start:stop]), whole[start:stop])
        assert abs(np.nanmean(whole)) < 1e-9
    # the tilt term is 2 r / 40; noise 10 nm / (sqrt(1764) * 11 pixels) = 0.02 nm a pixel
    assert found.coefficients_nm == pytest.approx((3.7 * 20, -2.1 * 20), abs=2)


def test_a_column_has_no_slope_across_and_nothing_gives_nothing() -> None:
    height = np.full((30, 20), np.nan)
    height[:, 4] = 2.0 * np.arange(30)
    pupil = Circle(4, 14.5, 14.5)
    fit = GroupedFormFit(form_modes("tilt"), pupil)
    fit.add(0, height)
    found = fit.solve()
    assert found.coefficients_nm == pytest.approx((14.5, 0.0), abs=1e-9)  # 2 y Z: 2 nm a pixel are 29 nm a radius
    assert np.nanmax(np.abs(found.remove(0, height))) < 1e-9
    empty = GroupedFormFit(form_modes("tilt"), pupil, 3)
    empty.add(0, np.full((4, 5), np.nan), np.zeros((4, 5), int))
    assert empty.pixels == 0
    assert empty.solve().coefficients_nm == (0.0, 0.0)
    assert empty.solve().constants_nm.tolist() == [0.0] * 4
    np.testing.assert_array_equal(no_form(2).remove(7, height, np.full(height.shape, 2)), height)


def test_pistons_do_not_tilt_the_form() -> None:
    """A staircase of components is flat; an ordinary plane would follow the stairs."""
    columns = np.tile(np.arange(60), (40, 1))
    group = 1 + columns // 20
    fit = GroupedFormFit(form_modes("piston,tilt,power"), Circle(29.5, 19.5, 36))
    assert fit.fewest == 4
    fit = GroupedFormFit(form_modes("piston,tilt,power"), Circle(29.5, 19.5, 36), 3)
    fit.add(0, 1000.0 * group, group)
    found = fit.solve()
    assert fit.fewest == 6
    np.testing.assert_allclose(found.coefficients_nm, 0.0, atol=1e-9)
    np.testing.assert_allclose(found.constants_nm[1:], [1000, 2000, 3000])
    assert found.without_piston().constants_nm.tolist() == [0.0] * 4
    summary = found.summary(("piston", "tilt", "power"))
    assert summary["pistons_nm"] == pytest.approx([1000, 2000, 3000])
    assert summary["noll"] == {"Z(1,-1)": 3, "Z(1,1)": 2, "Z(2,0)": 4}
    assert summary["circle_pixels"] == [29.5, 19.5, 36, 0]
