"""Five frames of cameras that are bent more than harmonics of a fixed share describe: errors of steps and ripple are said."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cpikan.psi.calibration.calibrate import CalibrationSettings, calibrate
from cpikan.psi.calibration.samples.subsample import Subsample
from cpikan.psi.calibration.steps.carrier import WholeRows
from cpikan.psi.calibration.steps.fit import fit_phase_steps
from cpikan.psi.model.acquisition import Acquisition

NOMINAL_DEG = (0.0, 90.0, 180.0, 270.0, 360.0)
Curve = Callable[[np.ndarray], np.ndarray]
SHAPE = (72, 90)


def bent(curve: Curve, fall: float, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames (5, P) of light that falls off from the middle, their positions, and the steps in degrees as they were."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    y, x = 2 * rows / SHAPE[0] - 1, 2 * columns / SHAPE[1] - 1
    steps = np.array(NOMINAL_DEG) + np.r_[0, rng.normal(0, 2, 4)]
    light = np.exp(-fall * (x * x + y * y))
    phase = 12 * x + 5 * y + 6 * (x * x + y * y) + 0.7 + np.radians(steps)[:, None, None]
    samples = curve(light * (0.45 + 0.4 * np.cos(phase))) + 0.004 * rng.normal(size=(5, *SHAPE))
    position = np.stack([rows.ravel(), columns.ravel()], axis=1).astype(float)
    return np.rint(255 * samples).reshape(5, -1), position, steps


@pytest.mark.parametrize(
    ("curve", "fall"),
    [
        (lambda light: np.tanh(8 * light), 0.1),
        (lambda light: np.tanh(4 * light), 2.0),
        (lambda light: light * (1 - 0.3 * light), 0.3),
    ],
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_steps_are_off_by_no_more_than_twice_what_is_said(curve: Curve, fall: float, seed: int) -> None:
    frames, position, steps = bent(curve, fall, seed)
    fit = fit_phase_steps(frames, position, NOMINAL_DEG)
    off = np.abs((np.degrees(fit.model.steps_rad) - steps + 180) % 360 - 180).max()
    error = np.degrees(fit.step_error_rad.max())
    assert off < 2 * max(error, 0.05)
    assert error < 2.5
    told = {caution.name for caution in fit.warnings}
    assert ("steps-uncertain" in told) == (error > 2.0)


def sample_of(frames: np.ndarray, position: np.ndarray) -> Subsample:
    rows = WholeRows(frames.reshape(1, 5, *SHAPE)[:, :, ::20], np.arange(SHAPE[0])[::20])
    return Subsample(frames[None], position, rows, np.ones(len(position), bool), SHAPE)


@pytest.mark.parametrize(
    ("curve", "told"), [(lambda v: np.log1p(300 * v) / np.log(301), True), (lambda v: v**0.9, False)]
)
def test_ripple_that_no_residual_shows_is_told_and_counts_as_noise(curve: Curve, told: bool) -> None:
    """A logarithmic camera: harmonics that five quarter steps take for the fringe; the ripple is at four times the fringes."""
    frames, position, _ = bent(curve, 1.0)
    acquisition = Acquisition((632.8,), (NOMINAL_DEG,), "nominal")
    found = calibrate(sample_of(frames, position), acquisition, np.inf, CalibrationSettings())
    said = [one.text for one in found.warnings if one.name == "frames-unexplained"]
    assert bool(said) == told
    assert found.ripple_after_mrad is not None
    assert found.ripple_after_mrad[0] is not None
    ripple = found.ripple_after_mrad[0][4]
    if told:
        assert f"a phase ripple of {ripple:.0f} mrad at 4 times the fringes is left" in said[0]
        assert found.sigma_phase_rad[0] > ripple / 1e3 / np.sqrt(2)
    else:
        assert ripple < 10
