"""What a model is shown: free of absolute heights, of units and of what invalid pixels hold; how its answers are read."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cpikan.errors import InputError
from cpikan.images.features import (
    FeatureSpec,
    FramePatches,
    PatchBatch,
    Planes,
    features,
    noise_unit_nm,
    predict,
    read_answer,
    stack_patches,
)

SPEC = FeatureSpec()


def planes(seed: int = 0, size: int = 40, sigma: float = 5.0) -> Planes:
    draw = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    height = 3.0 * x + 0.02 * y**2 + 120.0 * (x > size // 2) + sigma * torch.randn(size, size, generator=draw)
    valid = torch.rand(size, size, generator=draw) > 0.1
    return Planes(height[None], torch.full((1, size, size), sigma), valid[None])


def unit(value: float = 5.0) -> torch.Tensor:
    return torch.tensor([value])


@given(st.floats(-3000.0, 3000.0))
def test_lifting_the_map_changes_nothing(piston):
    given_planes = planes()
    lifted = given_planes._replace(height_nm=given_planes.height_nm + piston)
    # float32 heights of up to 3300 nm are rounded to 2.4e-4 nm, differences and means to twice that; 8/16 a unit of 5 nm
    assert torch.allclose(features(given_planes, SPEC, unit()), features(lifted, SPEC, unit()), atol=5e-4)


def test_a_unit_of_length_changes_nothing():
    one = planes()
    other = Planes(one.height_nm * 1e-3, one.sigma_nm * 1e-3, one.valid)
    assert torch.allclose(features(one, SPEC, unit()), features(other, SPEC, unit(5e-3)), atol=1e-4)


def test_what_invalid_pixels_hold_is_not_looked_at():
    one = planes()
    holes = torch.where(one.valid, one.height_nm, torch.nan)
    spoilt = Planes(holes, torch.where(one.valid, one.sigma_nm, torch.inf), one.valid)
    shown = features(spoilt, SPEC, unit())
    assert torch.isfinite(shown).all()
    assert torch.equal(shown, features(one, SPEC, unit()))


def test_differences_are_wrapped_and_exact():
    spec = FeatureSpec(periods=(16.0,), means_px=())
    height = torch.tensor([[[0.0, 4.0, 4.0 + 16.0, 19.0]]])
    shown = features(Planes(height, torch.ones_like(height), torch.ones(1, 1, 4, dtype=torch.bool)), spec, unit(1.0))
    assert torch.allclose(shown[0, 0, 0], torch.tensor([4.0, 0.0, -1.0, 0.0]) / 2)  # 8 of 16 make one
    assert (shown[0, 1] == 0).all()  # one row has no row below
    assert torch.equal(shown[0, 3], torch.ones(1, 4))


def test_means_leave_invalid_pixels_out():
    spec = FeatureSpec(periods=(16.0,), means_px=(3,))
    height = torch.tensor([[[1.0, 100.0, 4.0]]])
    valid = torch.tensor([[[True, False, True]]])
    shown = features(Planes(height, torch.ones_like(height), valid), spec, unit(1.0))
    off = torch.tensor([0.0, 0.0, 0.0])  # each valid pixel is alone in its square
    assert torch.allclose(shown[0, 2, 0], off, atol=1e-6)
    whole = features(Planes(height, torch.ones_like(height), valid | True), spec, unit(1.0))
    away = torch.tensor([1.0 - 50.5, 100.0 - 35.0, 4.0 - 52.0])
    assert torch.allclose(whole[0, 2, 0], away / (1 + away.abs() / 8), rtol=1e-5)


def test_phasors_of_wavelengths_are_relative_to_the_guide():
    waves = (632.8, 550.0)
    spec = FeatureSpec(wavelengths_nm=waves, modulation=True)
    one = planes()
    phase = torch.stack([4 * math.pi * one.height_nm / wave + 0.3 for wave in waves], dim=1)
    full = Planes(*one[:3], phase - 2 * math.pi * (phase / (2 * math.pi)).round(), torch.full_like(one.height_nm, 1.5))
    shown = features(full, spec, unit())
    assert shown.shape[1] == spec.channels == SPEC.channels + 5
    valid = one.valid[0]
    # 4 pi h / lambda reaches 20 rad here: float32 keeps 2e-6 of it, twice
    assert torch.allclose(shown[0, -5][valid], torch.tensor(math.cos(0.3)), atol=1e-5)
    assert torch.allclose(shown[0, -4][valid], torch.tensor(math.sin(0.3)), atol=1e-5)
    assert torch.allclose(shown[0, -1][valid], torch.tensor(0.5))
    with pytest.raises(InputError, match="phase_rad"):
        features(one, spec, unit())


def test_features_stay_single_precision_under_autocast():
    one = planes()
    with torch.autocast("cpu", torch.bfloat16):
        shown = features(one, SPEC, unit())
    assert shown.dtype == torch.float32
    assert torch.equal(shown, features(one, SPEC, unit()))


def test_the_unit_is_the_noise_unless_slopes_are_steep():
    draw = torch.Generator().manual_seed(1)
    noise = 5.0 * torch.randn(200, 200, generator=draw)
    sigma, valid = torch.full((200, 200), 5.0), torch.ones(200, 200, dtype=torch.bool)
    assert noise_unit_nm(noise, sigma, valid, 16.0) == pytest.approx(5.0, rel=0.05)
    steep = noise + 400.0 * torch.arange(200.0) + 400.0 * torch.arange(200.0)[:, None]
    # a difference of 400 nm is to be a sixth of 16 units; the median of |N| stands for its spread
    assert noise_unit_nm(steep, sigma, valid, 16.0) == pytest.approx(400.0 / 0.6745 * 6 / 16, rel=0.01)
    assert noise_unit_nm(noise, sigma, ~valid, 16.0) == 1.0


def test_answers_are_corrections_in_sigmas():
    one = planes()
    answer = torch.stack([torch.full((1, 40, 40), value) for value in (0.5, -2.0, 1.0)], dim=1)
    read = read_answer(answer.bfloat16(), one)
    assert torch.allclose(read.height_nm, one.height_nm + 2.5 * one.valid)  # no measurement, no correction
    assert (read.order_logit == -2.0).all()
    assert (read.log_variance == 1.0).all()
    assert torch.equal(predict(lambda shown: answer, one, SPEC, unit()).height_nm, read.height_nm)


def test_gradients_are_finite_where_sigma_is_not():
    one = planes()
    spoilt = one._replace(sigma_nm=torch.where(one.valid, one.sigma_nm, torch.nan))
    answer = torch.zeros(1, 3, 40, 40, requires_grad=True)
    read_answer(answer, spoilt).height_nm[one.valid].sum().backward()
    assert torch.isfinite(answer.grad).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"periods": ()}, "at least one"),
        ({"periods": (0.0,)}, "positive"),
        ({"wavelengths_nm": (-1.0,)}, "positive"),
        ({"means_px": (4,)}, "odd"),
    ],
)
def test_specs_that_make_no_sense(options, message):
    with pytest.raises(InputError, match=message):
        FeatureSpec(**options)


def test_specs_are_told_and_compared():
    spec = FeatureSpec(wavelengths_nm=(632.8, 550.0))
    assert FeatureSpec(**spec.config()) == spec
    spec.check((632.8, 550.0))
    FeatureSpec().check((632.8,))
    with pytest.raises(InputError, match=r"2 wavelengths.*stack has 1"):
        spec.check((632.8,))


def _patch(number: int, *, truth: bool, joints: bool) -> PatchBatch:
    one = planes(number)
    size = one.height_nm.shape[-1]
    frames = FramePatches(
        torch.zeros(1, 1, 4, size, size),
        torch.zeros(1, 1, 4),
        torch.zeros(1, 1, 4, 2),
        torch.zeros(1, 2),
        torch.full((1, 1), 632.8),
    )
    named = torch.tensor([[0, 0, 0, 1, 2, 3, 4, 5]]) if joints else None
    place = torch.tensor([[number, 0, 0]])
    known = one.height_nm if truth else None
    return PatchBatch(one, unit(), unit(), place, known, frames, named)


def test_patches_are_stacked_in_order():
    batch = stack_patches([_patch(0, truth=True, joints=True), _patch(1, truth=False, joints=True)])
    assert len(batch) == 2
    assert torch.isnan(batch.truth_nm[1]).all()
    assert torch.equal(batch.truth_nm[0], batch.planes.height_nm[0])
    assert batch.joints.tolist() == [[0, 0, 0, 1, 2, 3, 4, 5], [1, 1, 0, 1, 2, 3, 4, 5]]
    assert batch.frames.frames_dn.shape[:2] == (2, 1)
    second = batch.part(slice(1, 2))
    assert second.place.tolist() == [[1, 0, 0]]
    assert second.joints is None
    assert np.array_equal(batch.to("cpu").planes.height_nm, batch.planes.height_nm)
    assert stack_patches([_patch(0, truth=False, joints=False)]).truth_nm is None
