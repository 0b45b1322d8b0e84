"""What the frames say of the acquisition that was given: wavelengths in another order, off, copied; steps in reverse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cpikan.errors import InputError
from cpikan.pipeline.reconstruction.calibrate import calibrate_stack
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.pipeline.stacks.subsample import take_subsample
from cpikan.psi.calibration.calibrate import Calibration, CalibrationSettings
from cpikan.psi.calibration.questioned import is_better
from cpikan.psi.calibration.questions import _is_one_valley
from cpikan.psi.model.acquisition import Acquisition
from cpikan.psi.model.caution import Caution

WAVES = (640.0, 615.0, 690.0)
STEPS = (0.0, 90.0, 180.0, 270.0, 360.0)
SHAPE = (54, 72)


def surface_nm() -> np.ndarray:
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return 1500 * (x * x + 0.7 * y * y) + 500 * x + 1900.0 * (np.hypot(x - 0.2, y + 0.1) < 0.4)


def frames_of(
    waves: tuple[float, ...], seed: int = 3, noise_dn: float = 12.0, surface: np.ndarray | None = None
) -> np.ndarray:
    """Ten-bit frames (L, K, H, W) with a modulation of 400 DN."""
    rng = np.random.default_rng(seed)
    height = surface_nm() if surface is None else surface
    angle = 4 * np.pi * height / np.array(waves)[:, None, None, None] + np.radians(STEPS)[:, None, None]
    return np.rint(520 + 400 * np.cos(angle) + rng.normal(0, noise_dn, angle.shape)).astype(np.uint16)


def found_in(frames: np.ndarray, acquisition: Acquisition) -> Calibration:
    stack = FrameStack.from_array(frames.reshape(-1, *SHAPE), acquisition)
    sample, settings = take_subsample(stack, None), CalibrationSettings()
    return calibrate_stack(sample, acquisition, 1023.0, settings, by_surface=False, may_reorder=True)[0]


def told(waves: tuple[float, ...] = WAVES) -> Acquisition:
    return Acquisition(waves, (STEPS,) * len(waves), "trusted", None, 10)


def names(found: Calibration) -> list[str]:
    return [one.name for one in found.warnings]


def test_a_clean_stack_is_not_questioned() -> None:
    found = found_in(frames_of(WAVES), told())
    assert found.acquisition is None
    assert names(found) == []
    assert found.fit_across_wavelengths == pytest.approx(1, abs=0.1)


def test_wavelengths_in_another_order_are_put_right() -> None:
    found = found_in(frames_of(WAVES), told((690.0, 640.0, 615.0)))
    assert names(found) == ["wavelengths-exchanged"]
    assert found.acquisition is not None
    assert found.acquisition.wavelengths_nm == WAVES
    assert '"640 nm", "615 nm", "690 nm"' in found.warnings[0].text


@pytest.mark.parametrize("error", [0.004, -0.007])
def test_a_wavelength_that_is_off_is_fitted(error: float) -> None:
    told_waves = (WAVES[0], WAVES[1], WAVES[2] * (1 + error))
    found = found_in(frames_of(WAVES), told(told_waves))
    assert names(found) == ["wavelength-off"]
    assert found.acquisition is not None
    # 1 500 pixels of 0.02 rad over 40 to 80 rad: 1e-5; the last search has steps of 2e-5
    assert found.acquisition.wavelengths_nm == pytest.approx(WAVES, rel=1e-4)


def steep_nm() -> np.ndarray:
    """A slope of 6 um, which tilts between wavelengths can stand for, with a little form."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return 3000 * x + 700 * y + 150 * np.sin(3 * x) * y


def test_orders_far_away_that_fit_because_a_wavelength_is_off_are_not_taken() -> None:
    """The frames repeat after 92 um; told 0.1 % wrong the wavelengths seem to tell heights apart beyond that."""
    waves = (540.0, 558.0, 594.0)
    frames = frames_of(waves, noise_dn=6.0, surface=steep_nm())
    found = found_in(frames, told((540.0, 558.0, 594.594)))
    assert set(names(found)) == {
        "range-filled",
        "smooth-errors-removed",
    }  # a tilt between the wavelengths stands for it
    assert any("the shorter one is used" in one.text for one in found.warnings)
    assert found.range_nm is not None
    assert found.range_nm < 20_000
    assert found_in(frames, told(waves)).warnings == ()


def test_a_wavelength_that_is_a_copy_is_refused() -> None:
    frames = frames_of(WAVES)
    frames[2] = frames_of(WAVES, seed=4)[0]
    with pytest.raises(InputError, match=r"1 and 3 .* show the same fringes: the laser did not tune"):
        found_in(frames, told())


def test_frames_of_one_wavelength_in_reverse_are_turned() -> None:
    frames = frames_of(WAVES)
    frames[1] = frames[1, ::-1].copy()
    found = found_in(frames, told())
    assert names(found) == ["steps-reversed"]
    assert found.acquisition is not None
    assert found.acquisition.phase_steps_deg == (STEPS, STEPS[::-1], STEPS)


def test_frames_step_by_step_are_put_in_order() -> None:
    frames = np.ascontiguousarray(frames_of(WAVES).swapaxes(0, 1))
    found = found_in(frames, told())
    assert names(found) == ["frames-step-major"]
    assert found.acquisition == replace(told(), order="step-major")
    assert 'order = "step-major"' in found.warnings[0].text


def test_two_wavelengths_step_by_step_are_put_in_order_where_the_part_is_almost_flat() -> None:
    """As given their phases fit each other, but every frame contradicts its step."""
    surface, waves = surface_nm() / 30, (632.8, 650.0)
    steps = (0.0, 90.0, 180.0, 270.0)
    frames = frames_of(waves, noise_dn=5.0, surface=surface)[:, :4]
    told_two = replace(told(waves), phase_steps_deg=(steps, steps))
    assert names(found_in(frames, told_two)) == []
    mixed = np.ascontiguousarray(frames.swapaxes(0, 1))
    assert "frames-step-major" in names(found_in(mixed, told_two))


def test_known_pistons_give_absolute_heights() -> None:
    pistons = (0.0, 40.0, -75.0)
    rng = np.random.default_rng(5)
    angle = 4 * np.pi * surface_nm() / np.array(WAVES)[:, None, None, None] + np.radians(STEPS)[:, None, None]
    angle = angle + np.radians(pistons)[:, None, None, None]
    frames = np.rint(520 + 400 * np.cos(angle) + rng.normal(0, 6, angle.shape)).astype(np.uint16)
    found = found_in(frames, replace(told(), pistons_deg=pistons))
    assert found.alignment is not None
    assert found.alignment.absolute
    assert found.model.search is not None
    rows = list(found.model.search.order)
    assert found.model.search.piston_turns == pytest.approx(np.array(pistons)[rows] / 360)
    middle = found.alignment.centre_turns * min(WAVES) / 2
    assert middle == pytest.approx((surface_nm().min() + surface_nm().max()) / 2, abs=30)
    unknown = found_in(frames, told())
    assert unknown.alignment is not None
    assert not unknown.alignment.absolute


def noisy_pair() -> tuple[np.ndarray, Acquisition]:
    """Give clean frames of two wavelengths, 0.1 rad, of which the noise puts some pixels at either end of the range."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[-1:1:512j, -1:1:512j]
    form = rng.uniform(0.4, 1) * (x * x + y * y) + rng.uniform(-1, 1) * x * y + rng.uniform(-0.5, 0.5) * x
    height = 3802.24 * (0.9 * form / np.ptp(form) + 0.1 * ((np.abs(x) < 0.3) & (np.abs(y) < 0.3)) - 0.5)
    waves, steps = (632.8, 594.1), (0.0, 90.0, 180.0, 270.0)
    angle = 4 * np.pi * height / np.array(waves)[:, None, None, None] + np.radians(steps)[:, None, None]
    share = 0.5 + 0.35 * np.cos(angle) + np.random.default_rng((1, 3)).normal(0, 0.1 * 0.35 * np.sqrt(2), angle.shape)
    frames = np.clip(np.rint(255 * share), 0, 255).astype(np.uint8)
    return frames.reshape(8, 512, 512), Acquisition(waves, (steps,) * 2, "trusted", None, 8)


def test_noise_that_leaves_orders_open_is_no_other_wavelength() -> None:
    frames, acquisition = noisy_pair()
    sample = take_subsample(FrameStack.from_array(frames, acquisition), None)
    found = calibrate_stack(sample, acquisition, 255.0, CalibrationSettings(), by_surface=False, may_reorder=True)[0]
    assert found.acquisition is None
    assert names(found) == ["wrong-orders"]
    assert not is_better(found)  # a quarter of the orders are open, under whatever acquisition
    assert is_better(replace(found, wrong_order_rate=1e-3))
    assert not is_better(replace(found, wrong_order_rate=1e-3, warnings=(Caution("range-filled", ""),)))


def test_misfits_that_are_all_nothing_are_one_valley() -> None:
    assert _is_one_valley(np.zeros(5), 2)
    assert not _is_one_valley(np.array([0.1, 0.5, 0.1]), 0)
