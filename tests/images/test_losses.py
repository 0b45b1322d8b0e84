"""Losses against formulas written out, and what all of them promise: parts add up, invalid pixels do nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_scenes import Setting, guess, scene, steady
from scipy.stats import norm
from torch import Tensor

from cpikan.errors import InputError
from cpikan.images.features import PatchBatch, Planes, Prediction, stack_patches
from cpikan.images.losses import LOSSES, AdaptiveLoss, Loss, PixelLoss, build_losses, mean_loss
from cpikan.images.losses.smoothness import Smoothness
from cpikan.images.losses.supervised import Orders


@dataclass(frozen=True)
class Bias(PixelLoss):
    """A loss of this file alone: how far the mean of the log-odds lies off ``level``, over pixels of right order."""

    name: ClassVar[str] = "bias"
    level: float = 0.5

    def value(self, prediction: Prediction, batch: PatchBatch, chosen: Tensor) -> Tensor:
        return (torch.where(chosen, prediction.order_logit, 0.0) - self.level) ** 2


LOSSES_HERE = {**LOSSES, Bias.name: Bias}
NAMES = sorted(LOSSES_HERE)


@pytest.fixture(autouse=True)
def _steady() -> Iterator[None]:
    with steady():
        yield


def one(name: str, **options: object) -> Loss:
    return build_losses({name: dict(options)}, LOSSES_HERE)[0][1]


def spoil(batch: PatchBatch) -> PatchBatch:
    """NaN wherever a pixel is invalid: nothing may look there."""
    planes, invalid = batch.planes, ~batch.planes.valid
    blank = [torch.where(invalid, torch.nan, plane) for plane in planes[:2]]
    assert batch.frames is not None
    assert batch.truth_nm is not None
    light = torch.where(invalid[:, None, None], torch.nan, batch.frames.frames_dn)
    return replace(
        batch,
        planes=Planes(blank[0], blank[1], planes.valid),
        truth_nm=torch.where(invalid, torch.nan, batch.truth_nm),
        frames=replace(batch.frames, frames_dn=light),
    )


@pytest.mark.parametrize("name", NAMES)
class TestContract:
    """What the training engine counts on, for each loss."""

    def test_is_a_loss_of_its_name(self, name: str) -> None:
        loss = one(name)
        assert isinstance(loss, Loss)
        assert loss.name == name
        assert loss.needs <= {"truth", "frames", "joints"}

    def test_values_are_scalars_of_float64_on_the_graph(self, name: str) -> None:
        batch = scene()
        loss, prediction = one(name), guess(batch)
        weight, value = loss.weight(batch), loss.sum(prediction, batch)
        assert weight.dtype == value.dtype == torch.float64
        assert weight.shape == value.shape == ()
        assert weight > 0
        assert value > 0 or name in ("supervised", "calibration")  # likelihoods may be below zero
        gradients = torch.autograd.grad(value, prediction, allow_unused=True)
        assert any(g is not None and g.abs().max() > 0 for g in gradients)

    def test_evaluating_changes_nothing(self, name: str) -> None:
        batch, loss = scene(), one(name)
        prediction = guess(batch)
        first = loss.sum(prediction, batch), loss.weight(batch)
        if isinstance(loss, AdaptiveLoss):
            state = loss.state_dict()
            assert all(torch.equal(value, state[key]) for key, value in one(name).state_dict().items())  # type: ignore[attr-defined]
        assert torch.equal(loss.sum(prediction, batch), first[0])
        assert torch.equal(loss.weight(batch), first[1])

    def test_parts_add_up_to_the_whole(self, name: str) -> None:
        # micro-batches divide by the weight of their group: that needs sums and weights that add
        whole = stack_patches([scene(seed=1), scene(seed=2)])
        halves = [scene(seed=1), scene(seed=2)]
        prediction = guess(whole)
        parts = [Prediction(*(plane[2 * at : 2 * at + 2] for plane in prediction)) for at in (0, 1)]
        weight, value = one(name).weight(whole), one(name).sum(prediction, whole)
        assert torch.equal(sum(one(name).weight(half) for half in halves), weight)
        # pixels are summed in float64, of float32 values that are the same: only the order of summation differs
        torch.testing.assert_close(
            sum(one(name).sum(p, half) for p, half in zip(parts, halves, strict=True)), value, rtol=1e-12, atol=1e-12
        )
        whole_gradient = torch.autograd.grad(value, prediction, allow_unused=True, retain_graph=True)
        split = sum(one(name).sum(p, half) for p, half in zip(parts, halves, strict=True))
        for a, b in zip(whole_gradient, torch.autograd.grad(split, prediction, allow_unused=True), strict=True):
            assert (a is None) == (b is None)
            if a is not None and b is not None:
                torch.testing.assert_close(a, b, rtol=1e-6, atol=0)

    def test_invalid_pixels_do_nothing_whatever_they_hold(self, name: str) -> None:
        batch = scene()
        clean, spoilt = guess(batch), guess(batch)
        with torch.no_grad():
            for plane in spoilt:
                plane[~batch.planes.valid] = torch.nan
        value, other = one(name).sum(clean, batch), one(name).sum(spoilt, spoil(batch))
        assert torch.equal(value, other)
        assert torch.equal(one(name).weight(batch), one(name).weight(spoil(batch)))
        for gradient in torch.autograd.grad(other, spoilt, allow_unused=True):
            if gradient is not None:
                assert gradient.isfinite().all()
                assert (gradient[~batch.planes.valid] == 0).all()

    def test_batch_without_its_data_weighs_nothing(self, name: str) -> None:
        batch = replace(scene(), truth_nm=None, frames=None, joints=None)
        loss, prediction = one(name), guess(batch)
        if not loss.needs:
            return
        assert loss.weight(batch) == 0
        value = loss.sum(prediction, batch)
        assert value == 0
        value.backward()

    def test_no_valid_pixel_is_zero_and_not_nan(self, name: str) -> None:
        batch = scene()
        batch = replace(batch, planes=batch.planes._replace(valid=torch.zeros_like(batch.planes.valid)))
        prediction = guess(batch)
        value = mean_loss(one(name), prediction, batch)
        assert value == 0
        value.backward()

    def test_half_precision_is_not_needed(self, name: str) -> None:
        batch, prediction = scene(), guess(scene())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = one(name).sum(prediction, batch)
        assert torch.equal(inside, one(name).sum(prediction, batch))


def flat(residual_sigmas: torch.Tensor, log_variance: torch.Tensor | float = 0.0) -> tuple[Prediction, PatchBatch]:
    """A batch of zero truth and unit sigma with these residuals (h, w)."""
    zeros = torch.zeros_like(residual_sigmas)[None]
    planes = Planes(zeros, zeros + 1, torch.ones_like(zeros, dtype=torch.bool))
    batch = PatchBatch(planes, torch.ones(1), torch.full((1,), 1e9), torch.zeros((1, 3), dtype=torch.int64), zeros)
    said = torch.as_tensor(log_variance, dtype=zeros.dtype).expand_as(zeros)
    return Prediction(residual_sigmas[None], zeros, said), batch


class TestSupervised:
    def test_without_beta_and_huber_it_is_the_gaussian_likelihood(self) -> None:
        residual, log_variance = torch.randn(2, 8, 8, dtype=torch.float64)
        prediction, batch = flat(residual, log_variance)
        wanted = (
            -norm.logpdf(residual.numpy(), scale=np.exp(log_variance.numpy() / 2)).mean() - math.log(2 * math.pi) / 2
        )
        loss = one("supervised", beta=0.0, huber=1e6)
        assert mean_loss(loss, prediction, batch).item() == pytest.approx(wanted, rel=1e-12)

    def test_beta_one_gives_heights_the_squared_error(self) -> None:
        residual = torch.randn(8, 8, dtype=torch.float64, requires_grad=True)
        prediction, batch = flat(residual, torch.randn(8, 8))
        (gradient,) = torch.autograd.grad(one("supervised", beta=1.0, huber=1e6).sum(prediction, batch), residual)
        torch.testing.assert_close(gradient, residual.detach(), rtol=1e-12, atol=0)

    @pytest.mark.parametrize("name", ["supervised", "calibration"])
    def test_least_value_is_the_true_variance(self, name: str) -> None:
        generator = torch.Generator().manual_seed(1)
        residual = 1.7 * torch.randn(200, 200, generator=generator, dtype=torch.float64)
        grid = torch.linspace(-1, 3, 801)
        values = [one(name).sum(*flat(residual, float(v))) * math.exp(-0.5 * v * (name == "supervised")) for v in grid]
        found = float(grid[int(torch.stack(values).argmin())])
        # the mean of 40000 squares scatters by sqrt(2 / 40000) = 0.7 %; 4 of them, a grid of 0.005, 0.3 % of the Huber core
        assert found == pytest.approx(2 * math.log(1.7), abs=4 * 0.007 + 0.005 + 0.003)

    def test_calibration_moves_no_height(self) -> None:
        batch = scene()
        prediction = guess(batch)
        gradients = torch.autograd.grad(one("calibration").sum(prediction, batch), prediction, allow_unused=True)
        assert gradients[0] is None
        assert gradients[2] is not None

    def test_wrong_orders_do_not_drag(self) -> None:
        batch = scene()
        height = batch.planes.height_nm.clone()
        height[:, 3, 3] += batch.half_wave_nm
        lifted = replace(
            batch, planes=batch.planes._replace(height_nm=height, valid=torch.ones_like(batch.planes.valid))
        )
        for name in ("supervised", "height", "calibration", "multiscale"):
            prediction = guess(lifted)
            gradients = torch.autograd.grad(one(name).sum(prediction, lifted), prediction, allow_unused=True)
            for gradient in gradients:
                if gradient is not None:
                    assert (gradient[:, 3, 3] == 0).all()

    def test_extreme_variances_stay_finite(self) -> None:
        for said in (-1e4, 1e4):
            assert one("supervised").sum(*flat(torch.ones(4, 4), said)).isfinite()


class TestHeight:
    def test_small_is_a_square_and_large_is_linear(self) -> None:
        for residual, wanted in ((1e-3, 0.5e-6), (1e4, 1e4 - 1)):
            prediction, batch = flat(torch.full((4, 4), residual, dtype=torch.float64))
            # sqrt(1 + r^2) - 1 is r^2 / 2 less r^4 / 8, and r - 1 plus 1 / (2 r)
            assert mean_loss(one("height"), prediction, batch).item() == pytest.approx(wanted, rel=1e-6)


class TestOrders:
    def test_is_the_cross_entropy(self) -> None:
        batch = scene()
        height = batch.planes.height_nm.clone()
        wrong = torch.rand(height.shape, generator=torch.Generator().manual_seed(5)) < 0.05
        height = torch.where(wrong, height - batch.half_wave_nm[:, None, None], height)
        batch = replace(batch, planes=batch.planes._replace(height_nm=height))
        logit = torch.randn(height.shape, dtype=torch.float64)
        prediction = Prediction(height, logit, logit)
        chance = 1 / (1 + np.exp(-logit.numpy()))
        entropy = -np.where(wrong.numpy(), np.log(chance), np.log1p(-chance))[batch.planes.valid.numpy()]
        assert mean_loss(Orders(rare=1.0), prediction, batch).item() == pytest.approx(entropy.mean(), rel=1e-12)

    def test_a_constant_logit_ends_at_the_true_log_odds_for_any_weight(self) -> None:
        batch = scene(Setting(size=64))
        height = batch.planes.height_nm.clone()
        height[:, ::8, ::8] += batch.half_wave_nm[:, None, None]
        batch = replace(batch, planes=batch.planes._replace(height_nm=height))
        valid = batch.planes.valid
        share = float(valid[:, ::8, ::8].sum() / valid.sum())
        grid = torch.linspace(-8, 0, 1601)
        for rare in (1.0, 30.0):
            values = [
                Orders(rare).sum(Prediction(height, torch.full_like(height, v), height), batch) for v in grid.tolist()
            ]
            found = float(grid[int(torch.stack(values).argmin())])
            wanted = math.log(share / (1 - share))
            assert found == pytest.approx(wanted, abs=0.006)  # the grid has steps of 0.005


class TestMultiscale:
    def test_levels_are_written_out(self) -> None:
        batch = scene()
        prediction = guess(batch)
        valid = batch.planes.valid.numpy()
        assert batch.truth_nm is not None
        residual = ((prediction.height_nm - batch.truth_nm) / batch.planes.sigma_nm).detach().double().numpy()
        wanted = 0.0
        for weight, block in ((0.2, 4), (0.3, 2), (0.5, 1)):
            level = 0.0
            for n, i, j in np.ndindex(len(valid), 24 // block, 24 // block):
                at = (n, slice(i * block, (i + 1) * block), slice(j * block, (j + 1) * block))
                if valid[at].any():
                    level += valid[at].sum() * (math.sqrt(1 + residual[at][valid[at]].mean() ** 2) - 1)
            wanted += weight * level / valid.sum()
        found = mean_loss(one("multiscale", levels=[0.2, 0.3, 0.5]), prediction, batch).item()
        assert found == pytest.approx(wanted, rel=1e-5)  # float32 residuals: 1e-7 of 1000 nm in 1 nm of sigma

    def test_two_levels_are_the_coarse_and_the_fine(self) -> None:
        batch = scene()
        prediction = guess(batch)
        two = one("multiscale", levels=[0.4, 0.6]).sum(prediction, batch)
        torch.testing.assert_close(
            two, one("multiscale", levels=[0.4, 0.0, 0.6]).sum(prediction, batch), rtol=1e-12, atol=0
        )

    @given(st.integers(1, 13), st.integers(1, 13), st.floats(0.1, 3))
    @settings(max_examples=25, deadline=None)
    def test_a_constant_error_costs_the_same_at_each_level_and_size(
        self, height: int, width: int, error: float
    ) -> None:
        prediction, batch = flat(torch.full((height, width), error, dtype=torch.float64))
        costs = [
            mean_loss(one("multiscale", levels=levels), prediction, batch)
            for levels in ([1, 0, 0], [0, 1, 0], [0, 0, 1])
        ]
        # the same number by sums of other sizes in float64
        torch.testing.assert_close(costs, [costs[2]] * 3, rtol=1e-10, atol=0)


class TestSmoothness:
    def test_steps_are_not_pulled_at_and_noise_is(self) -> None:
        height = torch.zeros(6, 6, dtype=torch.float64)
        height[:, 3:] = 50.0
        height[1, 1] = 0.5
        height.requires_grad_()
        prediction, batch = flat(height)
        (gradient,) = torch.autograd.grad(Smoothness().sum(prediction, batch), height)
        assert (gradient[2:, 2:4] == 0).all()
        # the bump meets four neighbours, each difference over sqrt(2) sigmas: 4 * 0.5 / 2
        assert gradient[1, 1] == pytest.approx(1.0)

    def test_weight_counts_pairs(self) -> None:
        prediction, batch = flat(torch.zeros(5, 7))
        assert Smoothness().weight(batch) == 4 * 7 + 5 * 6
        assert Smoothness().sum(prediction, batch) == 0


class TestNames:
    def test_number_table_and_list(self) -> None:
        built = build_losses(
            {"supervised": 2, "multiscale": [1, 2], "smoothness": {"weight": 0.5, "threshold": 9}, "height": 0}
        )
        assert [(weight, loss.name) for weight, loss in built] == [
            (2.0, "supervised"),
            (1.0, "multiscale"),
            (0.5, "smoothness"),
        ]
        assert built[2][1] == Smoothness(threshold=9)

    @pytest.mark.parametrize(
        ("config", "words"),
        [
            ({"supervized": 1}, "did you mean 'supervised'"),
            ({"smoothness": {"treshold": 1}}, "did you mean 'threshold'"),
            ({"height": -1}, "zero or more"),
            ({"height": True}, "weight"),
            ({"height": "1"}, "weight"),
            ({"height": {"delta": 0}}, "above zero"),
            ({"height": {"delta": float("nan")}}, "above zero"),
            ({"supervised": {"beta": 2}}, "0 to 1"),
            ({"multiscale": [1]}, "w_low"),
            ({"multiscale": [0, 0, 0]}, "w_low"),
            ({"multiscale": {"levels": "123"}}, "w_low"),
            ({"smoothness": {"threshold": 0.5}}, "greater"),
            ({"interface_al": {"growth": 0.5}}, "growth"),
            ({"interface_al": {"every": 1.5}}, "every"),
            ({"interface_al": {"_joints": {}}}, "unknown option"),
            ({"height": 0}, "no loss"),
            ({}, "no loss"),
        ],
    )
    def test_bad_configurations_are_told_in_a_line(self, config: dict[str, object], words: str) -> None:
        with pytest.raises(InputError, match=words) as caught:
            build_losses(config)
        assert "\n" not in str(caught.value)
