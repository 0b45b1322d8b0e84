"""Phase errors that neighbours share, seen in the means of small squares."""

from __future__ import annotations

import numpy as np
import pytest

from cpikan.psi.calibration.picture import Picture, phase_jumps
from cpikan.psi.calibration.wavelengths.patch_agreement import shared_variance
from cpikan.psi.kernels.model import OrderSearch

WAVES_NM = np.array([600.0, 620.0, 660.0])
SHAPE = (96, 160)
SIGMA_RAD = 0.2


def search() -> OrderSearch:
    return OrderSearch(
        order=(0, 1, 2),
        ratio=WAVES_NM[0] / WAVES_NM,
        half_wave_nm=WAVES_NM[0] / 2,
        piston_turns=np.zeros(3),
        tilt_turns=np.zeros((3, 2)),
        centre=(47.5, 79.5),
        low_nm=-2000.0,
        range_nm=4000.0,
        near_low_nm=-2000.0,
        near_range_nm=4000.0,
        misfit_max=30.0,
        finest=False,
    )


def picture(error_rad: np.ndarray, seed: int = 1, step_nm: float = 0.0) -> Picture:
    """Take phasors of a slope with noise and with errors (3, rows, columns) or broadcast."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    height = 4.0 * x - 3.0 * y + step_nm * (x > 83)
    noise = np.random.default_rng(seed).normal(0, SIGMA_RAD, (3, *SHAPE))
    phasor = np.exp(1j * (4 * np.pi * height / WAVES_NM[:, None, None] + noise + error_rad))
    lit = np.ones((3, *SHAPE), bool)
    jumps = [[phase_jumps(*one, axis) for axis in (0, 1)] for one in zip(phasor, lit, strict=True)]
    return Picture(phasor, np.zeros((3, *SHAPE)), lit, (y, x), jumps)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("step_nm", [0.0, 700.0])
def test_noise_is_not_shared(seed: int, step_nm: float) -> None:
    assert shared_variance([picture(np.zeros(1), seed, step_nm)], search(), [SIGMA_RAD] * 3) == 0.0


def test_errors_far_below_the_noise_of_a_pixel_are_seen() -> None:
    """What one wavelength alone is off by, 0.06 rad up and down, leaves 0.06^2 q of a variance in two degrees of freedom."""
    wave = 0.06 * np.sqrt(2) * np.sin(np.arange(SHAPE[1]) / 20)
    errors = np.zeros((3, 1, SHAPE[1]))
    errors[1] = wave
    found = shared_variance([picture(errors)], search(), [SIGMA_RAD] * 3)
    ratio = WAVES_NM[0] / WAVES_NM
    left = 1 - ratio[1] ** 2 / (ratio @ ratio)  # of the error: the height takes up the rest
    expected = 4 * left * 0.06**2 / 2 / SIGMA_RAD**2  # four times, as at the rim
    # 240 squares of two degrees of freedom: chi squared of 1 + excess to 15 %, of which a twentieth is trimmed
    assert found == pytest.approx(expected, rel=0.35)


def test_the_worst_picture_counts() -> None:
    bow = np.array([0.0, 0.1, 0.0])[:, None, None]
    both = shared_variance([picture(np.zeros(1)), picture(bow)], search(), [SIGMA_RAD] * 3)
    assert both == shared_variance([picture(bow)], search(), [SIGMA_RAD] * 3) > 0


def test_too_few_squares_tell_nothing() -> None:
    small = Picture(*(part[..., :24, :24] for part in picture(np.full((3, 1, 1), 0.5))[:3]), *picture(np.zeros(1))[3:])
    y, x = np.mgrid[:24, :24]
    jumps = [
        [marks[:24, :24][: 24 - (axis == 0), : 24 - (axis == 1)] for axis, marks in enumerate(one)]
        for one in small.jumps
    ]
    assert shared_variance([small._replace(position=(y, x), jumps=jumps)], search(), [SIGMA_RAD] * 3) == 0.0
