"""A frame that was stored or taken twice: among five its step is fitted, of four the three that are left serve."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cpikan
from cpikan.pipeline.stacks.subsample import take_subsample
from cpikan.psi.calibration.samples.repeated import Kept, Repeated, find_repeated
from cpikan.psi.kernels.weight_field import model_demodulation
from cpikan.psi.model.acquisition import Acquisition
from cpikan.psi.model.frame_model import FrameModel
from cpikan.psi.model.noise import NoiseModel
from independent_frames import Faults, Scene, make_scene
from small_stacks import FIVE_DEG, folder_of


@pytest.mark.parametrize(("first", "second"), [(1, 2), (0, 3)])
def test_the_map_is_right_and_the_frames_are_named(first: int, second: int, mirror: Scene, tmp_path: Path) -> None:
    frames = np.array(mirror.frames)
    frames[0, second] = frames[0, first]
    folder = folder_of(tmp_path / "stack", frames, waves_nm=(632.8,), steps_deg=FIVE_DEG)
    with cpikan.open_stack(folder) as stack:
        found = cpikan.reconstruct(stack, tmp_path / "out.npy", method="pixel", all_quantities=True, progress=False)
    assert found.summary["warning_names"][:2] == ["frames-identical", "steps-replaced"]
    assert f"{first + 1} and {second + 1} of wavelength 1 are identical" in found.summary["warnings"][0]
    error = np.asarray(found.height_nm[:]) - mirror.height_nm
    known = np.isfinite(error) & (np.asarray(found.flags[:]) == 0) & mirror.mask
    error = error[known] - np.median(error[known])
    # the surface is repaired to the noise of the frames that are left: 1 DN of 80, four of five frames, 50 nm a radian
    assert np.median(np.abs(error)) < 2.0


FOUR_DEG = (0.0, 90.0, 180.0, 270.0)
QUIET = Faults(read_noise=0.004, background=0.1, modulation=0.1, fringes=6.0)


def _said_and_error(
    frames: np.ndarray, scene: Scene, place: Path
) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    """The cautions, by name and in full, errors of the unflagged pixels without a piston, and their sigma."""
    folder = folder_of(place / "stack", frames, waves_nm=scene.wavelengths_nm, steps_deg=FOUR_DEG)
    with cpikan.open_stack(folder) as stack:
        found = cpikan.reconstruct(stack, place / "out.npy", method="pixel", all_quantities=True, progress=False)
    error = np.asarray(found.height_nm[:]) - scene.height_nm
    known = np.isfinite(error) & (np.asarray(found.flags[:]) == 0) & scene.mask
    assert known.sum() > 0.97 * scene.mask.sum()
    sigma = np.asarray(found.sigma_nm[:])[known]
    return found.summary["warning_names"], found.summary["warnings"], error[known] - np.median(error[known]), sigma


@pytest.mark.parametrize(
    ("first", "second", "waves"), [(2, 3, (632.8,)), (0, 1, (632.8,)), (3, 0, (532.0,)), (1, 2, (600.0, 660.0))]
)
def test_of_four_frames_the_three_that_are_left_are_used(
    first: int, second: int, waves: tuple[float, ...], tmp_path: Path
) -> None:
    scene = make_scene(4, (96, 128), waves, FOUR_DEG, QUIET)
    frames = np.array(scene.frames)
    frames[-1, second] = frames[-1, first]
    names, texts, error, sigma = _said_and_error(frames, scene, tmp_path)
    assert names[0] == "frames-identical"
    assert f"under {FOUR_DEG[first]:g} deg light does not follow the fringes" in texts[0]
    assert f"frames {min(first, second) + 1} and {max(first, second) + 1} are identical" in texts[0]
    # noise of 1 DN over fringes of about 80, the phase of three frames: 25 mrad at most, 50 nm a radian
    assert np.median(np.abs(error)) < 1.3
    # identical frames count once, or sigma would be nothing; of three frames noise is that of neighbours, which fringes enlarge
    assert (np.abs(error) < 1.96 * sigma).mean() > 0.93
    assert np.median(sigma) < 2.5


def test_a_step_that_was_not_taken_is_known_by_the_light(tmp_path: Path) -> None:
    """The last frame shows the step of the one before, with noise of its own: sigma holds, from what the two differ by."""
    scene = make_scene(4, (96, 128), (632.8,), (0.0, 90.0, 180.0, 180.0), QUIET)
    names, texts, error, sigma = _said_and_error(np.array(scene.frames), scene, tmp_path)
    assert names == ["frames-identical"]
    assert "frames 3 and 4 are one picture but for noise" in texts[0]
    assert 0.93 < (np.abs(error) < 1.96 * sigma).mean() < 0.97


def test_a_copy_is_told_from_a_step_that_was_not_taken() -> None:
    rng = np.random.default_rng(8)
    scene = make_scene(4, (96, 128), (632.8,), (0.0, 90.0, 180.0, 180.0), QUIET)
    frames = np.array(scene.frames)
    acquisition = Acquisition((632.8,), (FOUR_DEG,), "trusted", steps_said=False)
    sample = take_subsample(cpikan.FrameStack.from_array(frames, acquisition), None)
    (found,) = find_repeated(sample, acquisition)
    assert (found.first, found.second, found.step_deg) == (2, 3, 180.0)
    assert not found.identical
    assert not found.noise
    copied = frames[0, 2] + rng.integers(-1, 2, frames.shape[2:])
    frames[0, 3] = np.clip(copied, 0, 255)
    sample = take_subsample(cpikan.FrameStack.from_array(frames, acquisition), None)
    (found,) = find_repeated(sample, acquisition)
    assert not found.identical
    assert found.noise


@pytest.mark.parametrize("pair", [(0, 2), (1, 3)])
def test_identical_frames_half_a_turn_apart_are_refused_for_the_side_they_leave_open(
    pair: tuple[int, int], tmp_path: Path
) -> None:
    scene = make_scene(4, (96, 128), (632.8,), FOUR_DEG, QUIET)
    frames = np.array(scene.frames)
    frames[0, pair[1]] = frames[0, pair[0]]
    with pytest.raises(cpikan.InputError, match="which of the two the picture has is left open"):
        _said_and_error(frames, scene, tmp_path)


def test_other_steps_and_counts_are_no_repetition() -> None:
    """Steps of nearly a turn are meant to give the same picture; four frames as they should be are not looked at."""
    scene = make_scene(4, (96, 128), (632.8,), (0.0, 120.0, 240.0, 360.0), QUIET)
    for steps in ((0.0, 120.0, 240.0, 360.0), None):
        acquisition = Acquisition(
            (632.8,), None if steps is None else (steps,), "unknown" if steps is None else "nominal"
        )
        sample = take_subsample(cpikan.FrameStack.from_array(np.array(scene.frames), acquisition), None)
        assert find_repeated(sample, acquisition) == ()


def test_a_frame_that_is_left_out_has_no_weight_where_steps_vary() -> None:
    """Three tilted frames among four give each pixel the weights, and the noise, of the three alone."""
    tilt = np.array([[0, 0], [0.004, -0.002], [-0.003, 0.001]])
    three = replace(FrameModel.plain((0.0, 90.0, 270.0)), tilt_rad_px=tilt, gain=np.array([1.0, 1.1, 0.9]))
    found = model_demodulation((three,), (NoiseModel(1.0, 0.0, "neighbours", 9),), 255.0, (40, 60))
    kept = Kept.without((Repeated(0, 1, 2, 90.0, identical=True, noise=True),), 1)
    wide = kept.widened(found)
    assert wide.frames == 4
    assert wide.models is not None
    assert not wide.parity.any()
    y, x = np.array([3.0, 30.0]), np.array([50.0, 2.0])
    weights, _, covariance = wide.models[0].linear_at(y, x)
    alone, _, noise = three.linear_at(y, x)
    np.testing.assert_allclose(weights[..., [0, 1, 3]], alone, rtol=1e-12, atol=1e-15)
    assert np.abs(weights[..., 2]).max() < 1e-15
    np.testing.assert_allclose(covariance, noise, rtol=1e-12)
