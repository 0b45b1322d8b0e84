from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpikan.errors import InputError
from cpikan.surface.levelling import Plane, PlaneFit, fit_terms, remove
from cpikan.surface.numbers import LevelledRange, surface_range


def _planted(shape: tuple[int, int], seed: int = 0) -> tuple[Plane, np.ndarray]:
    rng = np.random.default_rng(seed)
    plane = Plane(shape, *(float(v) for v in rng.normal(0, 1e4, 3)))
    return plane, plane.rows(0, shape[0])


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 2**32 - 1), st.integers(1, 7))
def test_streamed_fit_equals_lstsq(height: int, width: int, seed: int, band: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 50, (height, width)) + _planted((height, width), seed)[1]
    values[rng.random(values.shape) < 0.2] = np.nan
    valid = np.isfinite(values)
    if valid.sum() < 8 or np.ptp(np.nonzero(valid), axis=1).min() == 0:
        return
    fit = PlaneFit((height, width))
    for start in range(0, height, band):
        fit.add(start, values[start : start + band])
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    basis = np.stack([np.ones(valid.sum()), y[valid], x[valid]], 1)
    oracle, _, rank, singular = np.linalg.lstsq(basis, values[valid], rcond=None)
    if rank < 3 or singular[-1] < 0.05 * singular[0]:
        return  # a few pixels nearly in line: the normal equations square the condition
    plane = fit.solve()
    found = [plane.piston_nm, plane.tilt_y_nm, plane.tilt_x_nm]
    # condition of the normal equations <= 400, heights <= 4e4 nm: 400 * 4e4 * 2^-53 * sum factor << 1e-6 nm
    np.testing.assert_allclose(found, oracle, atol=1e-6)


def test_terms_choose_what_is_removed() -> None:
    _, heights = _planted((50, 70))
    assert np.abs(remove(heights, ("piston", "tilt"))).max() < 1e-8
    only_piston = remove(heights, ("piston",))
    assert only_piston.mean() == pytest.approx(0.0, abs=1e-8)
    assert np.ptp(only_piston) == pytest.approx(np.ptp(heights))
    only_tilt = remove(heights, ("tilt",))
    assert np.ptp(only_tilt) < 1e-8
    assert only_tilt.mean() == pytest.approx(heights.mean())
    assert np.array_equal(remove(heights, ()), heights)


def test_unknown_term_and_wrong_dimensions_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'tilt'"):
        fit_terms(np.zeros((3, 3)), terms=("tilts",))
    with pytest.raises(InputError, match="two dimensions"):
        fit_terms(np.zeros(3))


def test_mask_and_empty_maps() -> None:
    plane, heights = _planted((40, 40))
    spoiled = heights.copy()
    spoiled[:10] = 1e9
    weights = np.ones((40, 40))
    weights[:10] = 0
    assert fit_terms(spoiled, weights).tilt_x_nm == pytest.approx(plane.tilt_x_nm)
    assert fit_terms(np.full((4, 4), np.nan)) == Plane((4, 4))
    # a single row constrains no slope along y
    assert fit_terms(heights[:1]).tilt_y_nm == 0.0


def test_one_reweighting_holds_the_plane_against_a_step() -> None:
    rng = np.random.default_rng(2)
    plane, heights = _planted((200, 200))
    heights = heights + rng.normal(0, 1.0, heights.shape)
    heights[:60, :60] += 2000.0  # 9 % of the area, in a corner: it tilts the plain fit
    plain = fit_terms(heights)
    robust = fit_terms(heights, reweight=True)
    plain_off = abs(plain.tilt_y_nm - plane.tilt_y_nm)
    robust_off = abs(robust.tilt_y_nm - plane.tilt_y_nm)
    assert plain_off > 100
    assert robust_off < plain_off / 5


def test_slope_per_pixel() -> None:
    plane = fit_terms(np.add.outer(3.0 * np.arange(11), -2.0 * np.arange(21)))
    assert plane.slope_nm_per_pixel == pytest.approx((3.0, -2.0))


@given(st.integers(0, 2**32 - 1), st.integers(1, 13))
def test_range_in_bands_equals_numpy(seed: int, band: int) -> None:
    rng = np.random.default_rng(seed)
    heights = rng.normal(1e5, 3.0, (23, 31)).astype(np.float32)  # a large mean must not eat the RMS
    heights[rng.random(heights.shape) < 0.3] = np.nan
    plane = Plane((23, 31), 5.0, 100.0, -30.0)
    levelled = plane.remove(heights)
    found = LevelledRange(plane)
    for start in range(0, 23, band):
        found.add(start, heights[start : start + band])
    assert found.pv_nm == np.nanmax(levelled) - np.nanmin(levelled)
    assert found.rms_nm == pytest.approx(np.nanstd(levelled), rel=1e-9)
    assert found.mean_nm == pytest.approx(np.nanmean(levelled), rel=1e-12)


def test_range_of_nothing() -> None:
    found = surface_range(np.full((3, 3), np.nan))
    assert found.pv_nm is None
    assert found.rms_nm is None
