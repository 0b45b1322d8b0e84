"""Registration: shifts that were planted are found where there are steps, and none where there are none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from cpikan.psi.calibration import registration
from cpikan.psi.calibration.registration import ImageShift, Window, _closed, image_shifts, mean_shift
from cpikan.psi.kernels.model import Demodulation
from cpikan.psi.model.schemes import LEAST_SQUARES, phasor_weights

STEPS = (0.0, 90.0, 180.0, 270.0)
WAVES_NM = (632.8, 611.3, 543.5)
SHAPE = (96, 200)
PLACE = tuple(np.mgrid[: SHAPE[0], : SHAPE[1]])


def surface_nm(stepped: bool) -> np.ndarray:
    y, x = PLACE
    smooth = 3.1 * x + 1.7 * y + 0.02 * (x - 70) ** 2
    return smooth + 1150.0 * stepped * ((x // 37 % 2) ^ (y // 29 % 2))


def stack(stepped: bool, move: tuple[float, float] = (0, 0), noise_rad: float = 0.05) -> np.ndarray:
    """Frames (3, 4, H, W); the image of the second wavelength lies ``move`` down and right."""
    waves, rng = np.array(WAVES_NM)[:, None, None, None], np.random.default_rng(3)
    angle = 4 * np.pi * surface_nm(stepped) / waves + np.radians(STEPS)[:, None, None]
    frames = 110 + 70 * np.cos(angle)
    frames[1] = ndimage.shift(frames[1], (0, *move), order=1, mode="nearest")
    return frames + rng.normal(0, 70 * noise_rad * np.sqrt(2), frames.shape)


def model() -> Demodulation:
    weights = phasor_weights(LEAST_SQUARES, STEPS)
    return Demodulation.of_weights([weights] * 3, np.ones((3, 2)), saturation_dn=1e9)


@pytest.mark.parametrize("noise_rad", [0.01, 0.1])
@pytest.mark.parametrize("move", [(0, 0.5), (2, 0), (-1.5, 3)])
def test_a_shift_is_found_where_there_are_steps(move, noise_rad):
    (found,) = image_shifts([Window(stack(True, move, noise_rad), PLACE)], model())
    assert found.number == 1
    assert found.pixels == pytest.approx(move, abs=0.1)
    assert found.size == pytest.approx(np.hypot(*move), abs=0.1)


@pytest.mark.parametrize(("stepped", "move"), [(True, (0, 0)), (True, (0, 0.02)), (False, (0, 0)), (False, (0, 2))])
@pytest.mark.parametrize("noise_rad", [0.01, 0.1])
def test_nothing_is_found_without_steps_and_without_a_shift(stepped, move, noise_rad):
    assert image_shifts([Window(stack(stepped, move, noise_rad), PLACE)], model()) == ()


def test_the_largest_shift_of_several_windows_counts():
    still, moved = Window(stack(True), PLACE), Window(stack(True, (1, -2)), PLACE)
    (found,) = image_shifts([still, moved, still], model())
    assert found.pixels == pytest.approx((1, -2), abs=0.1)


def test_dark_and_saturated_pixels_show_no_steps():
    frames = stack(True, (0, 2))
    dark = frames.copy()
    dark[:, :, 20:] = 20 + np.random.default_rng(1).normal(
        0, 1, dark[:, :, 20:].shape
    )  # more of it than not: the median is dark
    assert all(abs(found.pixels[1] - 2) < 0.3 for found in image_shifts([Window(dark, PLACE)], model()))
    frames[:, 2, :, ::3] = 300.0
    weights = phasor_weights(LEAST_SQUARES, STEPS)
    clipped = Demodulation.of_weights([weights] * 3, np.ones((3, 2)), saturation_dn=290.0)
    assert image_shifts([Window(frames[..., :60], tuple(one[:, :60] for one in PLACE))], clipped) == ()


@pytest.mark.parametrize(("stepped", "looked_at"), [(False, [0]), (True, [0, 1, 2])])
def test_other_wavelengths_are_looked_at_where_the_first_one_jumps(stepped, looked_at, monkeypatch):
    phasor, asked = registration._phasor, []
    monkeypatch.setattr(registration, "_phasor", lambda *given: asked.append(given[2]) or phasor(*given))
    image_shifts([Window(stack(stepped), PLACE)], model())
    assert asked == looked_at


def test_closing_is_that_of_scipy():
    marks = np.random.default_rng(2).random((23, 31)) < 0.7
    assert np.array_equal(_closed(marks), ndimage.binary_closing(marks))


def test_the_shift_of_marks_is_the_mean_distance_of_their_pairs():
    one, other = np.zeros((8, 40), bool), np.zeros((8, 40), bool)
    one[:, [10, 25]] = True
    other[:, [11, 12, 26, 27]] = True
    assert mean_shift(one, other, 1) == (1.5, 0.0, 32)
    assert mean_shift(one.T, other.T, 0) == (1.5, 0.0, 32)
    assert mean_shift(one, np.zeros_like(one), 1)[1:] == (np.inf, 0)
    assert mean_shift(one[:, :6], other[:, :6], 1)[1:] == (np.inf, 0)  # narrower than the distances that are looked for


def test_the_caution_says_which_way_the_image_lies():
    text = ImageShift(2, (-1.26, 0.0)).caution().text
    assert "wavelength 3 lies 1.3 px up from that of wavelength 1" in text
    assert "2 px down and 0.5 px left" in ImageShift(1, (2.0, -0.5)).caution().text
