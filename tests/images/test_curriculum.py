"""Lower resolution by phasors, and when the next stage begins."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from loss_scenes import Setting, guess, scene, steady, surface_nm

from cpikan.errors import InputError
from cpikan.images.curriculum import Curriculum, decimate, phasor_means
from cpikan.images.features import FeatureSpec, PatchBatch, Planes, features
from cpikan.images.losses import build_losses
from cpikan.images.losses.interface import Interface

HALF_WAVE = 316.4


@pytest.fixture(autouse=True)
def _steady() -> Iterator[None]:
    with steady():
        yield


def blocks(plane: torch.Tensor, factor: int) -> torch.Tensor:
    """Plain means."""
    return torch.nn.functional.avg_pool2d(plane[:, None].double(), factor)[:, 0]


def means(height: torch.Tensor, valid: torch.Tensor, factor: int) -> tuple[torch.Tensor, torch.Tensor]:
    return phasor_means(height, valid, torch.full((len(height), 1, 1), HALF_WAVE), factor)


@pytest.mark.parametrize("factor", [2, 4, 8])
class TestPhasorMeans:
    def test_smooth_noisy_heights_have_their_block_means(self, factor: int) -> None:
        sigma = 5.0
        height = surface_nm(2, 64) + sigma * torch.randn(2, 64, 64) + 20_000
        found, good = means(height, torch.ones_like(height, dtype=torch.bool), factor)
        assert good.all()
        # the mean of phasors is the mean of heights but for third powers of the angle, a = 2 pi sigma / 316 = 0.1: a^3 / 6
        # in rad is 0.01 nm per pixel; slopes of 2 sigma per pixel of noise in their median over 8 x 8 pixels are inside that.
        # Curvature (300 nm * 9 / 63^2 per px^2, over 4 px squared / 2) adds 5 nm, cubed alike. float32 at 20 um: 0.002 nm.
        torch.testing.assert_close(found.double(), blocks(height, factor), rtol=0, atol=0.1)

    def test_a_steep_plane_of_many_half_waves_per_block_does_not_cancel(self, factor: int) -> None:
        y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
        height = (150.0 * x - 90.0 * y + 3.0 * torch.randn(32, 32))[None]
        valid = torch.ones_like(height, dtype=torch.bool)
        found, good = means(height, valid, factor)
        assert good.all()
        torch.testing.assert_close(found.double(), blocks(height, factor), rtol=0, atol=0.1)
        # what became of the same fringes as intensities: at 8 pixels per block nothing is left of their contrast
        intensity = blocks((2 * math.pi * height / HALF_WAVE).cos(), factor)
        assert intensity.std() < {2: 0.6, 4: 0.25, 8: 0.1}[factor] * math.sqrt(0.5)

    def test_pixels_of_wrong_order_do_not_pull(self, factor: int) -> None:
        height = surface_nm(1, 64) + torch.randn(1, 64, 64)
        wrong = height.clone()
        wrong[:, 1::8, 1::8] += HALF_WAVE
        wrong[:, 4::8, 4::8] -= 2 * HALF_WAVE
        valid = torch.ones_like(height, dtype=torch.bool)
        found, good = means(wrong, valid, factor)
        plain = means(height, valid, factor)[0]
        assert good.all()
        torch.testing.assert_close(found, plain, rtol=0, atol=0.5 if factor > 2 else 1.5)

    def test_blocks_half_empty_or_at_odds_do_not_hold(self, factor: int) -> None:
        height = torch.zeros(1, 64, 64)
        height[:, :, :32] = HALF_WAVE * torch.rand(64, 32)  # phasors of any angle
        valid = torch.ones_like(height, dtype=torch.bool)
        valid[:, 32:, 32:] = torch.arange(32) % 4 == 0
        found, good = means(height, valid, factor)
        side = 32 // factor
        # the mean of n random phasors is above 1/2 with chance exp(-n / 4); the slope taken off finds a little more
        assert good[:, :, :side].float().mean() < {2: 0.9, 4: 0.1, 8: 1e-3}[factor]
        assert good[:, :side, side:].all()
        assert not good[:, side:, side:].all()
        assert found.isfinite().all()
        assert (found[~good] == 0).all()


class TestDecimate:
    def test_planes_truth_and_noise(self) -> None:
        batch = scene(Setting(size=64))
        coarse = decimate(batch, 4)
        assert coarse.planes.height_nm.shape == coarse.planes.valid.shape == (2, 16, 16)
        assert coarse.frames is None
        assert coarse.truth_nm is not None
        assert coarse.planes.valid.all()  # of 16 pixels with 90 % valid, hardly ever less than half are
        away = (coarse.planes.height_nm - coarse.truth_nm) / coarse.planes.sigma_nm
        # 512 blocks: their scatter is known to 1 / sqrt(2 * 512), 4 of them
        assert away.std().item() == pytest.approx(1.0, abs=4 / math.sqrt(1024))
        # blocks of 14.4 pixels on average; one over the root of a number that scatters by 1.2 is 1 % more in the mean
        ratio = coarse.planes.sigma_nm.mean() / batch.planes.sigma_nm.mean()
        assert ratio.item() == pytest.approx(1 / math.sqrt(16 * 0.9), rel=0.02)
        assert torch.equal(coarse.half_wave_nm, batch.half_wave_nm)
        assert coarse.unit_nm.shape == (2,)

    def test_invalid_pixels_may_hold_anything(self) -> None:
        batch = scene()
        spoilt = [torch.where(batch.planes.valid, plane, torch.nan) for plane in batch.planes[:2]]
        other = decimate(replace(batch, planes=Planes(spoilt[0], spoilt[1], batch.planes.valid)), 2)
        clean = decimate(batch, 2)
        for a, b in zip(other.planes[:3], clean.planes[:3], strict=True):
            assert torch.equal(a, b)
            assert a.isfinite().all()
        assert features(other.planes, FeatureSpec(), other.unit_nm).isfinite().all()

    def test_full_resolution_is_the_batch_itself(self) -> None:
        batch = scene()
        assert decimate(batch, 1) is batch

    def test_unit_is_that_of_the_coarse_map(self) -> None:
        height = 0.01 * torch.randn(1, 64, 64)
        planes = Planes(height, torch.full_like(height, 0.01), torch.ones_like(height, dtype=torch.bool))
        batch = PatchBatch(
            planes, torch.full((1,), 0.01), torch.full((1,), 300.0), torch.zeros((1, 3), dtype=torch.int64)
        )
        # noise of 16 pixels averaged: a quarter. Slopes there are none, but their median of noise may say a little
        assert decimate(batch, 4).unit_nm.item() == pytest.approx(0.0025, rel=0.1)

    def test_phases_stay_next_to_the_guide(self) -> None:
        spec, batch = FeatureSpec(wavelengths_nm=(632.8, 650.0)), scene(Setting(size=64))
        scale = 4 * math.pi / torch.tensor(spec.wavelengths_nm)[None, :, None, None]
        assert batch.truth_nm is not None
        phase = torch.remainder(scale * batch.planes.height_nm[:, None] + 0.3, 2 * math.pi)
        full = replace(batch, planes=batch.planes._replace(phase_rad=phase, modulation=torch.ones_like(batch.truth_nm)))
        coarse = decimate(full, 4, spec)
        assert coarse.planes.phase_rad is not None
        away = coarse.planes.phase_rad - scale * coarse.planes.height_nm[:, None]
        # 0.3 rad everywhere; heights of 1000 nm in float32 are known to 1e-4 nm, 20 rad to 2e-6 rad
        torch.testing.assert_close(torch.sin(away - 0.3), torch.zeros_like(away), rtol=0, atol=2e-5)
        assert coarse.planes.modulation is not None
        torch.testing.assert_close(coarse.planes.modulation, torch.ones(2, 16, 16))
        with pytest.raises(InputError, match="2 phases at lower resolution for 0"):
            decimate(full, 4)

    def test_joints_name_the_same_blocks(self) -> None:
        image = surface_nm(1, 64)[0]
        height = torch.stack([image[:32, :32], image[:32, 16:48]])
        planes = Planes(height, torch.ones_like(height), torch.ones_like(height, dtype=torch.bool))
        joints = torch.tensor([[0, 1, 0, 16, 0, 0, 32, 16], [0, 1, 3, 18, 3, 2, 20, 14], [0, 1, 0, 17, 0, 0, 32, 15]])
        batch = PatchBatch(
            planes, torch.ones(2), torch.full((2,), 300.0), torch.zeros((2, 3), dtype=torch.int64), joints=joints
        )
        coarse = decimate(batch, 4)
        assert coarse.joints is not None
        # the third is off by a pixel, no blocks meet; of the second whole blocks are left: rows 4..20, columns 20..32 and 4..16
        assert coarse.joints.tolist() == [[0, 1, 0, 4, 0, 0, 8, 4], [0, 1, 1, 5, 1, 1, 4, 3]]
        assert Interface().sum(guess(coarse)._replace(height_nm=coarse.planes.height_nm), coarse) == 0

    def test_sizes_that_do_not_divide_are_refused(self) -> None:
        with pytest.raises(InputError, match="24 x 24 pixels at 1/16: give multiples of 16"):
            decimate(scene(), 16)


class TestCurriculum:
    def test_goes_on_at_a_plateau(self) -> None:
        stages = Curriculum((4, 2, 1), patience=2, least_gain=0.1)
        seen = []
        for step, loss in enumerate([10, 8, 7.5, 7.4, 20, 19, 18.9, 5, 5, 5, 5]):
            seen.append((stages.factor, stages.update(loss, step)))
        # 7.5 and 7.4 are no tenth below 8; 20 is the first at 1/2, 19 and 18.9 no tenth below it; then full resolution for good
        wanted = [(4, False)] * 3 + [(4, True)] + [(2, False)] * 2 + [(2, True)] + [(1, False)] * 4
        assert seen == wanted
        assert stages.last

    def test_goes_on_after_its_steps(self) -> None:
        stages = Curriculum((2, 1), patience=100, most_steps=50)
        assert [stages.update(1 / (step + 1), step) for step in (20, 40, 60)] == [False, False, True]
        later = Curriculum((4, 2, 1), patience=100, most_steps=50)
        assert [later.update(1 / (step + 1), step) for step in (50, 60, 99, 100)] == [True, False, False, True]

    def test_a_loss_that_is_no_number_is_no_gain(self) -> None:
        stages = Curriculum((2, 1), patience=2)
        assert [stages.update(loss, 0) for loss in (math.nan, 1.0, math.nan, math.nan)] == [False, False, False, True]

    def test_likelihoods_below_zero_gain_too(self) -> None:
        stages = Curriculum((2, 1), patience=1, least_gain=0.1)
        assert [stages.update(loss, 0) for loss in (-1.0, -1.2, -1.25)] == [False, False, True]

    def test_resumes_from_json(self) -> None:
        losses = [3, 2, 2, 2, 9, 8, 8, 8, 1]
        whole = Curriculum((4, 2, 1), patience=2)
        wanted = [whole.update(loss, step) for step, loss in enumerate(losses)]
        for cut in range(len(losses)):
            stages = Curriculum((4, 2, 1), patience=2)
            found = [stages.update(loss, step) for step, loss in enumerate(losses[:cut])]
            again = Curriculum((4, 2, 1), patience=2)
            again.load_state_dict(json.loads(json.dumps(stages.state_dict())))
            found += [again.update(loss, step) for step, loss in enumerate(losses) if step >= cut]
            assert found == wanted
        with pytest.raises(InputError, match="another run"):
            Curriculum((1,)).load_state_dict(Curriculum((2, 1)).state_dict() | {"stage": 1})

    def test_losses_on_frames_are_refused(self) -> None:
        with pytest.raises(InputError, match="loss physics under a curriculum: intensities cannot be decimated"):
            Curriculum((2, 1)).check(build_losses({"height": 1, "physics": 1}), 64)
        Curriculum((1,)).check(build_losses({"physics": 1}), 63)
        Curriculum((2, 1)).check(build_losses({"height": 1}), 64, 8)

    def test_patches_too_small_are_refused(self) -> None:
        with pytest.raises(
            InputError, match="patches of 48 pixels under a curriculum that starts at 1/4: give a multiple of 32"
        ):
            Curriculum((4, 2, 1)).check(build_losses({"height": 1}), 48, 8)

    @pytest.mark.parametrize("stages", [(), (2,), (1, 2), (4, 3, 1), (4, 4, 1), (2.0, 1), "21", (0, 1), (2, 1, 1)])
    def test_stages_are_checked(self, stages: object) -> None:
        with pytest.raises(InputError, match="stages"):
            Curriculum(stages)  # type: ignore[arg-type]

    @pytest.mark.parametrize("wrong", [{"patience": 0}, {"patience": 1.5}, {"most_steps": -1}, {"least_gain": 2}])
    def test_numbers_are_checked(self, wrong: dict[str, float]) -> None:
        with pytest.raises(InputError, match=next(iter(wrong))):
            Curriculum(**wrong)  # type: ignore[arg-type]
