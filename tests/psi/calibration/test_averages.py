"""What averages are worth: noise whose sharing is known, and what must not pass for shared noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from cpikan.psi.calibration.samples.averages import SIDES_PX, average_factors, shared_noise
from cpikan.psi.kernels.model import Demodulation
from cpikan.psi.model.schemes import LEAST_SQUARES, phasor_weights

STEPS = (0.0, 72.0, 144.0, 216.0, 288.0)
SHAPE = (96, 256)
PLACE = tuple(np.mgrid[: SHAPE[0], : SHAPE[1]])


def stack(noise: np.ndarray, second: float = 0.0) -> np.ndarray:
    """Frames (1, K, H, W) of a curved surface, with a share of the second harmonic."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    phase = 0.11 * x + 0.07 * y + 2e-4 * (x - 90) ** 2
    angle = phase + np.radians(STEPS[: len(noise)])[:, None, None]
    return (110 + 70 * (np.cos(angle) + second * np.cos(2 * angle)) + noise)[None]


def model(frames: int = 5, noise_dn: float = 1.0) -> Demodulation:
    weights = phasor_weights(LEAST_SQUARES, STEPS[:frames])
    return Demodulation.of_weights([weights], np.array([[noise_dn**2, 0.0]]), saturation_dn=255.0)


def blurred(seed: int, width: int, frames: int = 5) -> np.ndarray:
    """White noise averaged over width x width pixels, of standard deviation one."""
    white = np.random.default_rng(seed).normal(0, 1, (frames, *SHAPE))
    return width * ndimage.uniform_filter(white, (0, width, width), mode="wrap")


def expected(width: int, side: int) -> float:
    """k times the standard deviation of the mean of k x k pixels of such noise: its correlation is a triangle each way."""
    lags = np.subtract.outer(np.arange(side), np.arange(side))
    return float(side * np.maximum(1 - np.abs(lags) / width, 0).mean())


@pytest.mark.parametrize("width", [1, 3, 5])
def test_the_factor_is_that_of_the_noise(width: int) -> None:
    found = average_factors(stack(blurred(width, width)), model(), PLACE)
    assert found is not None
    assert tuple(found) == SIDES_PX
    for side, factor in found.items():
        squares = SHAPE[0] // side * (SHAPE[1] // side) / max(1, width / side) ** 2
        assert factor == pytest.approx(expected(width, side), rel=4 / np.sqrt(2 * squares))
    assert [one.name for one in shared_noise(found, (0.02,))] == (["noise-shared"] if width > 1 else [])


def test_struck_samples_dark_pixels_and_harmonics_are_no_shared_noise() -> None:
    frames = stack(blurred(7, 1), second=0.05)
    rng = np.random.default_rng(8)
    frames[0, 2][rng.random(SHAPE) < 0.002] = 250.0
    frames[..., 40:60, 100:130] = 5.0  # no fringes, and noise of its own
    found = average_factors(frames, model(), PLACE)
    assert found is not None
    for side, factor in found.items():
        squares = 0.4 * SHAPE[0] // side * (SHAPE[1] // side)  # whole ones
        assert factor == pytest.approx(1, rel=4 / np.sqrt(2 * squares) + 0.05)


def test_three_frames_and_few_pixels_say_nothing() -> None:
    assert average_factors(stack(blurred(9, 1, 3)), model(3), PLACE) is None
    assert average_factors(stack(blurred(9, 1))[..., :20, :20], model(), PLACE) is None
    assert average_factors(np.full((1, 5, 96, 96), 40.0), model(), PLACE) is None  # no noise at all
    assert shared_noise(None, (0.9,)) == ()


def test_shared_noise_that_orders_do_not_stand_is_a_warning_of_one_wavelength() -> None:
    factors = {2: 1.4, 4: 2.0, 8: 2.6}
    assert [one.name for one in shared_noise(factors, (0.29,))] == ["noise-shared"]
    (note, warning) = shared_noise(factors, (0.35,))
    assert (note.is_note, warning.is_note) == (True, False)
    assert (warning.name, "share phase noise of 0.35 rad" in warning.text) == ("rows-adrift", True)
    assert [one.name for one in shared_noise(factors, (0.5, 0.5))] == ["noise-shared"]
    assert shared_noise({8: 1.2}, (0.5,)) == ()  # noise of single pixels: unwrapping has neighbours to ask
