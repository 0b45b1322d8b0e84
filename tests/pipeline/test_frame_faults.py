"""Faults of single frames: what refuses a stack, and what does not."""

from __future__ import annotations

import numpy as np
import pytest

import cpikan
from cpikan.errors import InputError
from cpikan.pipeline.stacks.subsample import take_subsample
from cpikan.psi.model.acquisition import Acquisition
from independent_frames import Faults, make_scene

SHAPE = (80, 100)
FOUR = (0.0, 90.0, 180.0, 270.0)


def stack_of(frames: np.ndarray, waves: tuple[float, ...]) -> cpikan.FrameStack:
    return cpikan.FrameStack.from_array(frames, Acquisition(waves, (FOUR,) * len(waves), "trusted"))


@pytest.mark.parametrize("waves", [(633.0,), (633.0, 590.0)])
def test_a_dark_frame_among_frames_is_refused_by_name(waves: tuple[float, ...]) -> None:
    frames = make_scene(3, SHAPE, waves, FOUR, Faults(read_noise=0.01, aperture=0.8)).frames.copy()
    frames[-1, 2] = np.random.default_rng(0).normal(4, 1, SHAPE).clip(0).astype(np.uint8)
    with pytest.raises(InputError, match=rf"frame .*{len(waves) - 1},2.* is dark .*leave it and its step out"):
        take_subsample(stack_of(frames, waves), None)


@pytest.mark.parametrize("noise_dn", [1.0, 20.0])
@pytest.mark.parametrize("dark", [(2,), (0, 3)])
def test_noisy_dark_frames_are_refused_and_as_many_as_half_of_them(dark: tuple[int, ...], noise_dn: float) -> None:
    rng = np.random.default_rng(0)
    frames = make_scene(3, SHAPE, (633.0,), FOUR, Faults(read_noise=noise_dn / 255)).frames.copy()
    for k in dark:
        frames[0, k] = rng.normal(60, noise_dn, SHAPE).clip(0, 255).astype(np.uint8)
    frames = np.maximum(frames, np.rint(rng.normal(60, noise_dn, frames.shape)).clip(0, 255).astype(np.uint8))
    with pytest.raises(InputError, match=rf"frame .*0,{dark[0]}.* is dark "):
        take_subsample(stack_of(frames, (633.0,)), None)


@pytest.mark.parametrize("exposure", [1.0, 0.45])
def test_narrow_fringes_of_a_short_exposure_are_no_dark_frame(exposure: float) -> None:
    """Samples of neighbours differ as noise does where a fringe is 2.3 pixels wide."""
    x = np.arange(SHAPE[1])[None] + np.zeros(SHAPE)
    light = np.stack([105 + 95 * np.cos(2 * np.pi * 0.43 * x + np.radians(step)) for step in FOUR])
    light[1] *= exposure
    frames = np.rint(light + np.random.default_rng(1).normal(0, 1.5, light.shape)).clip(0, 255).astype(np.uint8)
    take_subsample(stack_of(frames[None], (633.0,)), None)


@pytest.mark.parametrize("fringes", [0.02, 0.3, 1.0, 8.0])
@pytest.mark.parametrize("piston_deg", [0, 90, 180])
def test_a_part_that_is_dark_by_interference_is_no_dark_frame(fringes: float, piston_deg: float) -> None:
    """A flat part is all dark in one of four frames, where background and modulation are nearly equal."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    phase = np.pi * fringes * (x + 0.3 * y * y) + np.radians(piston_deg)
    light = np.stack([105 + 100 * np.cos(phase + np.radians(step)) for step in FOUR])
    frames = np.rint(light + np.random.default_rng(1).normal(0, 1.5, light.shape)).clip(0, 255).astype(np.uint8)
    take_subsample(stack_of(frames[None], (633.0,)), None)
