"""Doubt beside edges: an image that moved between wavelengths is told, and pixels beside its steps are flagged."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from cpikan.pipeline.reconstruction.reconstruct import reconstruct
from cpikan.pipeline.reconstruction.stages.doubt_edges import at_border, beside_gaps, beside_steps
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.psi.model.acquisition import Acquisition
from cpikan.streaming.events import Cancelled

WAVES_NM = (632.8, 611.3)
STEPS = (0.0, 90.0, 180.0, 270.0)


def mesas_nm() -> np.ndarray:
    y, x = np.mgrid[:96, :144]
    return 2.0 * x - 1.1 * y + 2010.0 * ((x // 31) % 2)


def taken(move: float) -> FrameStack:
    """Frames of mesas; the image of the second wavelength lies ``move`` pixels right."""
    waves = np.array(WAVES_NM)[:, None, None, None]
    angle = 4 * np.pi * mesas_nm() / waves + np.radians(STEPS)[:, None, None]
    frames = 110 + 80 * np.cos(angle)
    frames[1] = ndimage.shift(frames[1], (0, 0, move), order=1, mode="nearest")
    frames += np.random.default_rng(5).normal(0, 1.0, frames.shape)
    return FrameStack.from_array(np.rint(frames).astype(np.uint8), Acquisition(WAVES_NM, phase_steps_deg=(STEPS,) * 2))


def quiet(found) -> int:
    """Count the pixels that are off by more than a quarter wave and carry no flag."""
    error = np.asarray(found.height_nm) - mesas_nm()
    wrong = np.abs(error - np.nanmedian(error)) > min(WAVES_NM) / 4
    return int((wrong & (np.asarray(found.flags) == 0)).sum())


@pytest.mark.parametrize("method", ["pixel", "hybrid"])
@pytest.mark.parametrize("move", [0.6, -3.0])
def test_no_pixel_beside_a_step_is_wrong_in_silence(tmp_path, move, method):
    found = reconstruct(taken(move), tmp_path / "map.zarr", method=method, progress=False)
    assert quiet(found) == 0
    assert "images-moved" in found.summary["warning_names"]
    assert (np.asarray(found.flags) == 0).mean() > 0.6  # four steps with some eight pixels each of 144


def test_images_on_each_other_are_not_doubted(tmp_path):
    found = reconstruct(taken(0.0), tmp_path / "map.zarr", progress=False)
    assert found.summary["warning_names"] == []
    assert (np.asarray(found.flags) == 0).all()
    assert quiet(found) == 0


class StopIn:
    """Events that cancel the run once a stage has done a part."""

    def __init__(self, stage):
        self.stage, self.reached = stage, False

    def progress(self, stage, done, of, **figures):
        self.reached |= stage == self.stage and done > 0

    def warning(self, text):
        pass

    def cancelled(self):
        return self.reached


@pytest.mark.parametrize("stage", ["demodulate", "doubt", "write"])
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(tmp_path, stage):
    whole = reconstruct(taken(2.0), tmp_path / "whole.zarr", method="pixel", progress=False, band_rows=16)
    events = StopIn(stage)
    with pytest.raises(Cancelled):
        reconstruct(taken(2.0), tmp_path / "map.zarr", method="pixel", progress=events, band_rows=16)
    assert events.reached
    found = reconstruct(taken(2.0), tmp_path / "map.zarr", method="pixel", progress=False, band_rows=16, resume=True)
    for name in ("flags", "height_nm", "sigma_nm"):
        np.testing.assert_array_equal(np.asarray(getattr(found, name)), np.asarray(getattr(whole, name)))


def test_the_scratch_files_of_doubt_are_looked_for_room(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "cpikan.pipeline.reconstruction.reconstruct.check_disk_space", lambda path, size: asked.append(size)
    )
    reconstruct(taken(2.0), tmp_path / "map.zarr", method="pixel", progress=False)
    assert asked[-1] - asked[0] == 96 * 144 * (4 * 4 + 2)  # height, modulation; sigma and flags twice


def test_bands_do_not_change_what_is_flagged(tmp_path):
    whole = reconstruct(taken(2.0), tmp_path / "whole.zarr", method="pixel", progress=False)
    bands = reconstruct(taken(2.0), tmp_path / "bands.zarr", method="pixel", progress=False, band_rows=7)
    np.testing.assert_array_equal(np.asarray(bands.flags), np.asarray(whole.flags))
    np.testing.assert_array_equal(np.asarray(bands.height_nm), np.asarray(whole.height_nm))


def test_steps_are_seen_along_rows_and_columns_within_their_reach():
    heights = np.zeros((9, 12), np.float32)
    heights[:, 6:] = 500.0
    heights[2, 1] = np.nan
    found = beside_steps(heights, 2, 300.0)
    expected = np.zeros((9, 12), bool)
    expected[:, 4:8] = True
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(beside_steps(heights.T, 2, 300.0), expected.T)
    assert not beside_steps(heights, 2, 501.0).any()
    assert not beside_steps(np.full((4, 4), np.nan, np.float32), 1, 1.0).any()


def test_the_border_of_the_image_and_what_lies_beside_gaps_are_marked():
    found = at_border(2, (6, 7), (1, 2))
    expected = np.zeros((4, 7), bool)
    expected[:, [0, 1, 5, 6]] = expected[3] = True
    np.testing.assert_array_equal(found, expected)
    heights = np.zeros((7, 9), np.float32)
    heights[3, 4] = np.nan
    gaps = beside_gaps(heights, 2)
    expected = np.zeros((7, 9), bool)
    expected[1:6, 2:7] = True
    expected[3, 4] = False
    np.testing.assert_array_equal(gaps, expected)
    assert not beside_gaps(heights, 0).any()
