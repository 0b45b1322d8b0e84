"""A wider sigma: the height carries half of a tilt between wavelengths, and what an image that moved makes of slopes."""

from __future__ import annotations

import numpy as np
import pytest

from cpikan.pipeline.reconstruction.reconstruct import reconstruct
from cpikan.pipeline.reconstruction.stages.widen_sigma import displaced_nm
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.psi.model.acquisition import Acquisition

WAVES_NM = (632.8, 543.5)
STEPS = (0.0, 90.0, 180.0, 270.0)
Y, X = np.mgrid[:96, :144] / 100
HEIGHT_NM = 300 * X * X - 200 * Y + 90 * np.sin(4 * X + 2 * Y)


def taken(tilt_rad: float) -> FrameStack:
    """Frames of a smooth surface; the second wavelength is tilted by so much at its borders."""
    waves = np.array(WAVES_NM)[:, None, None, None]
    angle = 4 * np.pi * HEIGHT_NM / waves + np.radians(STEPS)[:, None, None]
    angle[1] += tilt_rad * (X - X.mean()) / 0.72
    frames = 110 + 80 * np.cos(angle) + np.random.default_rng(5).normal(0, 1.0, angle.shape)
    return FrameStack.from_array(np.rint(frames).astype(np.uint8), Acquisition(WAVES_NM, phase_steps_deg=(STEPS,) * 2))


def covered(found) -> float:
    error = np.asarray(found.height_nm) - HEIGHT_NM
    return float((np.abs(error - np.median(error)) < 1.96 * np.asarray(found.sigma_nm)).mean())


def test_a_tilt_between_wavelengths_is_taken_off_and_sigma_allows_for_what_is_left(tmp_path):
    found = reconstruct(taken(0.3), tmp_path / "map.zarr", method="pixel", progress=False, band_rows=20)
    assert found.summary["warning_names"] == ["smooth-errors-removed"]
    assert "where sigma allows for up to" in found.summary["warnings"][0]
    assert covered(found) > 0.92
    assert found.summary["sigma_systematic_share"] > 0.5
    sigma = np.asarray(found.sigma_nm)
    # half of the tilt, 0.15 rad of 46.5 nm per rad, at both sides and none in the middle
    assert np.median(sigma[:, [0, -1]]) == pytest.approx(7.0, rel=0.1)
    assert np.median(sigma[:, 72]) < 1
    height_alone = reconstruct(taken(0.3), tmp_path / "alone.npy", method="pixel", progress=False)
    np.testing.assert_array_equal(np.asarray(height_alone.height_nm), np.asarray(found.height_nm))


def test_without_a_tilt_sigma_is_that_of_noise(tmp_path):
    found = reconstruct(taken(0.0), tmp_path / "map.zarr", method="pixel", progress=False)
    assert found.summary["warning_names"] == []
    assert 0.94 < covered(found) < 0.96
    assert found.summary["sigma_systematic_share"] < 0.05


def test_heights_change_along_a_shift_by_its_slope():
    heights = 3.0 * np.mgrid[:5, :7][0] - 2.0 * np.mgrid[:5, :7][1]
    np.testing.assert_allclose(displaced_nm(heights, (0.5, 2.0)), 0.5 * 3 - 2 * 2)
    heights[2, 3] = np.nan
    assert displaced_nm(heights, (0.5, 2.0))[2, 3] == -2.5  # from its neighbours
    assert displaced_nm(heights, (0.5, 2.0))[2, 2] == 1.5  # along the column alone: the row has a gap
    np.testing.assert_array_equal(displaced_nm(heights[:1], (1.0, 0.0)), 0)
