"""The physics loss against brute force, finite differences and the statistics of its residuals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from loss_scenes import Setting, arguments_rad, guess, scene, steady, surface_nm
from scipy.optimize import lsq_linear

from cpikan.images.losses import mean_loss
from cpikan.images.losses.physics import Physics, frame_misfit, fringe, noise_dn, wave

FINE = Setting(dtype=torch.float64, size=12)


@pytest.fixture(autouse=True)
def _steady() -> Iterator[None]:
    with steady():
        yield


def test_is_the_least_misfit_over_mean_and_modulation() -> None:
    batch = scene(FINE)
    assert batch.frames is not None
    height = guess(batch).height_nm.detach() + 120 * torch.randn(batch.planes.valid.shape)  # so far off that B < 0 too
    found = frame_misfit(height, batch.frames)
    cosines = arguments_rad(batch.frames, height).cos().numpy()
    clamped = 0
    for n, y, x in [(n, y, x) for n in range(2) for y in range(0, 12, 3) for x in range(0, 12, 3)]:
        wanted = 0.0
        for wavelength in range(2):
            design = np.stack([np.ones(4), cosines[n, wavelength, :, y, x]], axis=1)
            light = batch.frames.frames_dn[n, wavelength, :, y, x].numpy()
            fit = lsq_linear(design, light, bounds=([-np.inf, 0], np.inf), method="bvls", tol=1e-14)
            clamped += fit.x[1] == 0
            wanted += 2 * fit.cost
        assert found[n, y, x].item() == pytest.approx(wanted, rel=1e-9)
    assert clamped  # the bound was reached somewhere, or it was not tested


def test_gradient_is_that_of_finite_differences() -> None:
    batch = scene(FINE)
    assert batch.frames is not None
    height = (batch.planes.height_nm + 15 * torch.randn(batch.planes.valid.shape).double()).requires_grad_()
    (gradient,) = torch.autograd.grad(frame_misfit(height, batch.frames).sum(), height)
    step = 1e-3
    with torch.no_grad():
        ahead, behind = (frame_misfit(height + sign * step, batch.frames) for sign in (1, -1))
    # third derivatives are about 1e4 DN^2 (4 pi / 600)^3: 1e-6 / 6 of that; and 1e4 DN^2 rounded to 1e-12 over 2 steps
    torch.testing.assert_close(gradient, (ahead - behind) / (2 * step), rtol=1e-7, atol=1e-6)


def test_a_height_in_float32_gives_the_gradient_of_float64() -> None:
    batch = scene(replace(FINE, dtype=torch.float32))
    assert batch.frames is not None
    height = batch.planes.height_nm + 20_000.0  # 20 um up: 200 rad
    back = 4 * math.pi * 20_000.0 / batch.frames.wavelengths_nm[..., None]
    lifted = replace(batch.frames, step_rad=batch.frames.step_rad - back)
    slopes = []
    for dtype in (torch.float32, torch.float64):
        leaf = height.to(dtype).requires_grad_()
        slopes += torch.autograd.grad(frame_misfit(leaf, lifted).sum(), leaf)
    # float32 knows 60 turns to 4e-6 of a turn, 2e-5 rad, and steps of 400 rad to 3e-5 rad; the slope changes by about
    # 2 B^2 K/2 (4 pi / 633) per rad: 7200 * 2 * 0.02 * 4e-5 = 0.01 DN^2 / nm
    torch.testing.assert_close(slopes[0].double(), slopes[1], rtol=0, atol=0.05)


@pytest.mark.parametrize("frames", [3, 4, 7])
def test_the_truth_has_one_per_degree_of_freedom(frames: int) -> None:
    setting = Setting(size=64, frames=frames)
    batch = scene(setting)
    assert batch.truth_nm is not None
    value = mean_loss(Physics(), guess(batch)._replace(height_nm=batch.truth_nm), batch).item()
    degrees = int(Physics().weight(batch))
    assert degrees == int(batch.planes.valid.sum()) * 2 * (frames - 2)
    # chi-squared scatters by sqrt(2 / dof); the noise found from B^2 of noisy frames is too large by the variance of the phase
    # (2 / K (sigma / B)^2, below 1e-3) and scatters little, being a mean over 81 pixels
    assert value == pytest.approx(1.0, abs=4 * math.sqrt(2 / degrees) + 2e-3)


def test_noise_of_frames_is_found_from_the_sigma_of_heights() -> None:
    for noise in (0.5, 6.0):
        batch = scene(Setting(size=32, noise_dn=noise))
        found = noise_dn(batch)[batch.planes.valid]
        # B^2 of one pixel is too large by 2 / K (sigma / B)^2 = 0.5 % at most, the noise by half of that; over 1800 pixels and
        # two wavelengths it scatters by sqrt(2 / K) sigma / B / 60 = 0.12 %, 4 of them
        assert found.mean().item() == pytest.approx(noise, rel=0.0075)
        assert found.std() < 0.05 * noise


def test_demodulation_is_exact_without_noise() -> None:
    batch = scene(replace(FINE, noise_dn=0.0, tilt_rad_px=0.05))
    assert batch.frames is not None
    assert batch.truth_nm is not None
    for index, wavelength in enumerate(FINE.waves):
        found = fringe(wave(batch.frames, index, torch.float64))
        away = found.phase_rad - 4 * math.pi * batch.truth_nm / wavelength
        torch.testing.assert_close(torch.sin(away / 2), torch.zeros_like(away), rtol=0, atol=1e-10)
        torch.testing.assert_close(found.contrast_dn, torch.full_like(away, FINE.contrast_dn), rtol=1e-10, atol=0)


def test_information_is_one_over_the_variance_of_the_phase() -> None:
    # uneven steps: the variance depends on the phase itself
    setting = Setting(patches=1, size=160, frames=3, noise_dn=1.0, waves=(632.8,), tilt_rad_px=0.0)
    batch = scene(setting)
    assert batch.frames is not None
    assert batch.truth_nm is not None
    step = torch.tensor([0.0, 1.0, 2.5], dtype=torch.float64)
    moved = replace(batch.frames, step_rad=step.expand(1, 1, 3))
    clean = 100 + 60 * arguments_rad(moved, batch.truth_nm).cos()
    noisy = clean + torch.randn(clean.shape, generator=torch.Generator().manual_seed(3))
    found = fringe(wave(replace(moved, frames_dn=noisy.float()), 0))
    away = found.phase_rad - (4 * math.pi / 632.8) * batch.truth_nm
    scaled = torch.asin(torch.sin(away)) * found.information.sqrt()
    # 25600 pixels: the variance scatters by sqrt(2 / 25600) = 0.9 %, 4 of them; noise of B changes it to second order
    assert scaled.var().item() == pytest.approx(1.0, abs=0.04)


def test_pixels_whose_steps_do_not_differ_have_no_weight() -> None:
    batch = scene(Setting(size=16))
    assert batch.frames is not None
    stuck = replace(batch.frames, step_rad=batch.frames.step_rad.clone())
    stuck.step_rad[:, 1] = 0.7  # no frame of the second wavelength moves; tilts of milliradians tell nothing
    batch = replace(batch, frames=replace(stuck, tilt_rad_px=torch.zeros_like(stuck.tilt_rad_px)))
    assert Physics().weight(batch) == batch.planes.valid.sum() * 2
    prediction = guess(batch)
    Physics().sum(prediction, batch).backward()
    assert prediction.height_nm.grad is not None
    assert prediction.height_nm.grad.isfinite().all()


def test_tilts_can_make_some_pixels_open_and_others_not() -> None:
    batch = scene(Setting(size=33, frames=3, waves=(632.8,)))
    assert batch.frames is not None
    # two later frames with a turn of tilt to either side, about the left rim: there and at the right rim all frames coincide
    tilt = torch.zeros_like(batch.frames.tilt_rad_px)
    tilt[:, :, 1, 1], tilt[:, :, 2, 1] = 2 * math.pi / 32, -2 * math.pi / 32
    none = torch.zeros_like(batch.frames.step_rad)
    frames = replace(batch.frames, step_rad=none, tilt_rad_px=tilt, pivot_px=torch.zeros(2, 2))
    usable = wave(frames, 0).usable[0, 0]  # a row
    assert not usable[[0, 32]].any()
    assert usable[8]
    # half-way both later frames are at pi: two arguments for three unknowns
    assert not usable[16]


def test_two_frames_say_nothing_and_that_is_no_error() -> None:
    batch = scene(Setting(frames=2))
    assert Physics().weight(batch) == 0
    value = Physics().sum(guess(batch), batch)
    assert value == 0
    value.backward()


def test_light_needs_no_name() -> None:
    # mean and modulation are eliminated: the minimum stays where it is for any light, dim or bright, though noise scales
    batch = scene(FINE)
    assert batch.frames is not None
    height = batch.planes.height_nm
    brighter = replace(batch.frames, frames_dn=3 * batch.frames.frames_dn + 500)
    torch.testing.assert_close(
        frame_misfit(height, brighter), 9 * frame_misfit(height, batch.frames), rtol=1e-9, atol=1e-9
    )


def test_sigma_of_the_scene_is_that_of_its_phases() -> None:
    # the setting behind these tests: heights of one pixel scatter by what is written into sigma_nm
    setting = Setting(size=64, tilt_rad_px=0.0, waves=(632.8,))
    batch = scene(setting)
    assert batch.frames is not None
    phase = fringe(wave(batch.frames, 0)).phase_rad - (4 * math.pi / 632.8) * surface_nm(2, 64)
    scatter = torch.asin(torch.sin(phase)).std() / (4 * math.pi / 632.8)
    # steps evenly spread: sqrt(2 / K) sigma_I / B
    wanted = math.sqrt(2 / 4) * setting.noise_dn / setting.contrast_dn * 632.8 / (4 * math.pi)
    torch.testing.assert_close(batch.planes.sigma_nm, torch.full_like(batch.planes.sigma_nm, wanted))
    assert scatter.item() == pytest.approx(wanted, rel=4 / math.sqrt(2 * 8192))
