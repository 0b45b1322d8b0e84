"""Stacks that are averaged: phases that moved between them are told by name, noise and what does no harm are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cpikan.pipeline.reconstruction.calibrate import FirstLook, calibrated
from cpikan.pipeline.reconstruction.plan import StackInfo, plan_reconstruction
from cpikan.pipeline.reconstruction.settings import ReconstructSettings
from cpikan.pipeline.stacks.averaged import drift_caution
from cpikan.pipeline.stacks.stack import FrameStack, open_stack
from cpikan.psi.calibration.movement.stack_drift import block_phases, determined, phasors, stack_drift
from cpikan.storage.writers.layout import output_format

STEPS = (0.0, 90.0, 180.0, 270.0)
SHAPE = (120, 200)
Y, X = np.mgrid[: SHAPE[0], : SHAPE[1]] / 100.0
PHASE = 9 * X + 3 * Y * Y


def stacks(folder: Path, drifts: list, noise: float = 2.0, order: str = "wavelength-major") -> FrameStack:
    """Open the mean of stacks of two wavelengths, each moved by a phase in rad."""
    random = np.random.default_rng(8)
    for k, drift in enumerate(drifts):
        waves = np.array([1.0, 0.8])[:, None, None, None]
        angle = waves * PHASE + np.radians(STEPS)[:, None, None] + drift
        frames = 110 + 60 * np.cos(angle) + random.normal(0, noise, angle.shape)
        frames = frames.swapaxes(0, 1) if order == "step-major" else frames
        np.save(folder / f"s{k}.npy", np.rint(frames).clip(0, 255).astype(np.uint8).reshape(-1, *SHAPE))
    told = {"wavelengths": ["633 nm", "506 nm"], "phase_steps": list(STEPS), "order": order}
    return open_stack(folder / "s0.npy", average=[str(folder / f"s{k}.npy") for k in range(1, len(drifts))], **told)


def said(stack: FrameStack):
    return drift_caution(stack, np.array([STEPS] * 2), stack.acquisition.order)


@pytest.mark.parametrize("order", ["wavelength-major", "step-major"])
def test_the_drift_and_what_it_costs_are_told(tmp_path: Path, order: str) -> None:
    with stacks(tmp_path, [0.0, 0.8, -0.4], order=order) as stack:
        caution = said(stack)
    assert caution is not None
    assert caution.name == "stacks-drifted"
    lost = 1 - abs(np.mean(np.exp(1j * np.array([0.0, 0.8, -0.4]))))  # 0.12
    assert "up to 0.80 rad" in caution.text
    assert f"loses {100 * lost:.0f} % of its contrast" in caution.text
    assert "between the 3 stacks" in caution.text


def test_the_order_that_calibration_found_counts(tmp_path: Path) -> None:
    with stacks(tmp_path, [0.0, 0.8], order="step-major") as stack:
        other = stack.in_order("wavelength-major")  # as it was given, and wrong
        caution = drift_caution(other, np.array([STEPS] * 2), "step-major")
    assert caution is not None
    assert "up to 0.80 rad" in caution.text


def test_a_tilt_alone_is_told_too(tmp_path: Path) -> None:
    with stacks(tmp_path, [0.0, 2.4 * (X - X.mean())]) as stack:
        caution = said(stack)
    assert caution is not None
    # at the borders the two lie 2.4 rad apart, and keep cos(1.2); nine blocks of ten lie further in
    lost = float(caution.text.split("loses ")[1].split(" %")[0])
    assert 25 < lost < 100 * (1 - np.cos(1.2))


@pytest.mark.parametrize(("drift", "noise"), [([0.0, 0.0, 0.0], 2.0), ([0.0, 0.0], 30.0), ([0.0, 0.15, -0.1], 2.0)])
def test_noise_and_small_drifts_are_not(tmp_path: Path, drift: list, noise: float) -> None:
    with stacks(tmp_path, drift, noise) as stack:
        assert said(stack) is None


def test_other_fringes_lose_all(tmp_path: Path) -> None:
    with stacks(tmp_path, [0.0, 60 * np.sin(3 * X + 7 * Y)]) as stack:
        caution = said(stack)
    assert caution is not None
    assert float(caution.text.split("loses ")[1].split(" %")[0]) >= 50


def test_calibration_says_it_and_a_single_stack_has_nothing_to_say(tmp_path: Path) -> None:
    settings = ReconstructSettings(device="cpu")
    with stacks(tmp_path, [0.0, 1.0], 1.0) as stack:
        plan = plan_reconstruction(StackInfo.of(stack), settings, output_format("x.npy"), "cpu")
        found = calibrated(stack, settings, plan, FirstLook.at(stack, settings))
        assert "stacks-drifted" in [one.name for one in found.calibration.warnings]
    with stacks(tmp_path, [0.0]) as stack:
        assert stack.averaged == ()
        assert said(stack) is None


def test_phasors_are_those_of_the_frames_and_dead_pixels_count_for_nothing() -> None:
    phase = np.linspace(-3, 3, 50).reshape(5, 10)
    steps = np.array([0.0, 80.0, 200.0, 290.0])
    frames = 10 + 4 * np.cos(phase + np.radians(steps)[:, None, None])
    found = phasors(frames, steps)
    np.testing.assert_allclose(found, 4 * np.exp(1j * phase), atol=1e-12)
    frames[1, 2, 3] = np.nan
    assert phasors(frames, steps)[2, 3] == 0
    assert determined(steps)
    assert not determined(np.array([0.0, 90.0]))
    assert not determined(np.zeros(4))


def test_blocks_without_fringes_are_left_out() -> None:
    random = np.random.default_rng(1)
    noise = random.normal(size=(2, 8, 128)) + 1j * random.normal(size=(2, 8, 128))
    assert block_phases(noise).shape == (2, 0)
    assert stack_drift(block_phases(noise)) is None
    noise[:, :, :64] = 1.0
    assert block_phases(noise).shape == (2, 1)
