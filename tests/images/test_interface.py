"""Agreement of neighbouring patches: cropping, wrapping, counting, and multipliers that end where theory says."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_scenes import guess, scene, steady
from torch import Tensor

from cpikan.errors import InputError
from cpikan.images.features import PatchBatch, Planes, Prediction
from cpikan.images.losses import mean_loss
from cpikan.images.losses.interface import Interface, InterfaceAL


@pytest.fixture(autouse=True)
def _steady() -> Iterator[None]:
    with steady():
        yield


def strip(left: Tensor, right: Tensor, shared: int, half_wave: float = 300.0) -> tuple[Prediction, PatchBatch]:
    """Two patches (h, w) side by side that share ``shared`` columns, sigma 2 nm."""
    height = torch.stack([left, right])
    count, width = left.shape
    planes = Planes(height.detach(), torch.full_like(height, 2.0).detach(), torch.ones_like(height, dtype=torch.bool))
    batch = PatchBatch(
        planes,
        torch.ones(2),
        torch.full((2,), half_wave),
        torch.tensor([[7, 40, 100], [7, 40, 100 + width - shared]]),
        joints=torch.tensor([[0, 1, 0, width - shared, 0, 0, count, shared]]),
    )
    return Prediction(height, torch.zeros_like(height), torch.zeros_like(height)), batch


class TestInterface:
    def test_patches_cut_from_one_map_agree(self) -> None:
        image = torch.randn(8, 20)
        prediction, batch = strip(image[:, :12], image[:, 8:], 4)
        assert Interface().weight(batch) == 8 * 4
        assert Interface().sum(prediction, batch) == 0

    def test_only_the_overlap_counts_and_by_its_own_pixels(self) -> None:
        image = torch.randn(8, 20, dtype=torch.float64)
        for width in (2, 4, 8):
            left, right = image[:, :12], image[:, 12 - width : 24 - width].clone()
            right = torch.nn.functional.pad(right, (0, 12 - right.shape[1]))
            right[:, :width] += 6.0
            right[:, width:] += 1e3
            prediction, batch = strip(left, right, width)
            # 3 sigmas everywhere on the overlap, whatever its width
            assert mean_loss(Interface(), prediction, batch).item() == pytest.approx(9.0, rel=1e-12)

    def test_invalid_pixels_are_not_shared(self) -> None:
        image = torch.zeros(8, 20)
        prediction, batch = strip(image[:, :12], image[:, 8:] + 2.0, 4)
        valid = batch.planes.valid.clone()
        valid[0, :4, 8:], valid[1, 7, :4] = False, False
        batch = replace(batch, planes=batch.planes._replace(valid=valid))
        assert Interface().weight(batch) == 3 * 4
        assert Interface().sum(prediction, batch) == 3 * 4

    @given(st.integers(-5, 5), st.floats(-140, 140))
    @settings(max_examples=30, deadline=None)
    def test_whole_half_waves_do_not_count(self, turns: int, offset: float) -> None:
        image = torch.zeros(4, 10, dtype=torch.float64)
        prediction, batch = strip(image[:, :6], image[:, 4:] + 300.0 * turns + offset, 2)
        # 1500 nm in float64 are known to 2e-13
        apart = 2 * math.sqrt(mean_loss(Interface(), prediction, batch).item())
        assert apart == pytest.approx(abs(offset), rel=1e-12, abs=1e-12)

    def test_gradient_draws_patches_together(self) -> None:
        left = torch.zeros(4, 6, requires_grad=True)
        right = torch.full((4, 6), 301.0, requires_grad=True)
        prediction, batch = strip(left, right, 2)
        a, b = torch.autograd.grad(Interface().sum(prediction, batch), (left, right))
        # 1 nm beyond a half wave: 2 d / sigma^2 = 2 * 1 / 4
        assert (b[:, :2] == 0.5).all()
        assert (a[:, 4:] == -0.5).all()
        assert (b[:, 2:] == 0).all()

    def test_rows_and_columns_of_both_windows(self) -> None:
        batch, image = scene(), torch.randn(40, 40)
        corners = [(3, 5), (10, 0)]
        height = torch.stack([image[y : y + 24, x : x + 24] for y, x in corners])
        batch = replace(batch, joints=torch.tensor([[0, 1, 7, 0, 0, 5, 17, 19], [1, 0, 0, 5, 7, 0, 17, 19]]))
        assert Interface().sum(Prediction(height, height, height), batch) == 0
        assert Interface().weight(batch) > 0


def toy(a: Tensor, b: Tensor, loss: InterfaceAL, rounds: int) -> tuple[Tensor, Tensor, PatchBatch]:
    """Least of (x - a)^2 / 2 + (y - b)^2 / 2 under x = y, every round solved exactly; sigma is 2 nm, so D = (x - y) / 2."""
    x, y = a.clone(), b.clone()
    _, batch = strip(x, y, a.shape[1], half_wave=1e9)
    for _ in range(rounds):
        key = next(iter(loss.multipliers()), None)
        multiplier = torch.zeros_like(a) if key is None else loss.multipliers()[key].to(a)
        penalty = loss.state_dict()["schedule"][0, 0] if key is not None else torch.tensor(loss.penalty).double()
        # x - a = -(m + p D) / 2 and y - b = (m + p D) / 2, so D = (a - b - m) / (2 + p)
        pull = multiplier + penalty * (a - b - multiplier) / (2 + penalty)
        x, y = (a - pull / 2).requires_grad_(), (b + pull / 2).requires_grad_()
        prediction, batch = strip(x, y, a.shape[1], half_wave=1e9)
        value = loss.sum(prediction, batch) + ((x - a) ** 2).sum() / 2 + ((y - b) ** 2).sum() / 2
        slopes = torch.autograd.grad(value, (x, y))
        loss.after_step(prediction, batch)
        for slope in slopes:  # the closed form is the minimum of what the loss says: multipliers are kept in float32
            torch.testing.assert_close(
                slope, torch.zeros_like(slope), rtol=0, atol=1e-5 * float((a - b).abs().max() + 1)
            )
    return x.detach(), y.detach(), batch


class TestAugmentedLagrangian:
    @given(st.integers(0, 1000), st.floats(0.1, 4))
    @settings(max_examples=15, deadline=None)
    def test_multipliers_of_a_quadratic_are_found_point_by_point(self, seed: int, penalty: float) -> None:
        generator = torch.Generator().manual_seed(seed)
        a, b = 10 * torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
        loss = InterfaceAL(penalty=penalty, growth=2.0, most=64.0, every=1)
        x, y, _ = toy(a, b, loss, 30)
        (multiplier,) = loss.multipliers().values()
        # stationarity of (x - a)^2 / 2 + m (x - y) / 2 at x = (a + b) / 2: m = a - b, of either sign; float32 multipliers
        torch.testing.assert_close(multiplier.double(), a - b, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(x, (a + b) / 2, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(y, x, rtol=1e-5, atol=1e-4)

    def test_one_multiplier_for_all_would_cancel(self) -> None:
        a = torch.tensor([[10.0, -10.0]], dtype=torch.float64)
        loss = InterfaceAL(every=1)
        toy(a, -a, loss, 20)
        (multiplier,) = loss.multipliers().values()
        assert multiplier.mean().abs() < 1e-4
        assert multiplier.abs().min() > 19.9

    def test_order_of_the_patches_does_not_matter(self) -> None:
        left, right = torch.randn(4, 6), torch.randn(4, 6)
        prediction, batch = strip(left, right, 2)
        turned = replace(batch.part(torch.tensor([1, 0])), joints=torch.tensor([[0, 1, 0, 0, 0, 4, 4, 2]]))
        other = Prediction(*(plane.flip(0) for plane in prediction))
        loss = InterfaceAL(every=0)
        loss.update(prediction, batch)
        loss.update(other, turned)  # at the same penalty: that grows after the second
        assert len(loss.multipliers()) == 1
        (multiplier,) = loss.multipliers().values()
        torch.testing.assert_close(multiplier, 2 * (left[:, 4:] - right[:, :2]) / 2)
        torch.testing.assert_close(loss.sum(prediction, batch), loss.sum(other, turned))

    def test_follows_after_so_many_steps_and_never_without(self) -> None:
        loss = InterfaceAL(every=3)
        prediction, batch = strip(torch.zeros(4, 6), torch.full((4, 6), 2.0), 2)
        for visit in range(1, 7):
            loss.after_step(prediction, batch)
            (multiplier,) = loss.multipliers().values()
            # D = -1 at a penalty of 1 twice: it grows after the second update, since nothing has become better
            assert (multiplier == {0: 0, 1: -1, 2: -2}[visit // 3]).all()
        assert loss.state_dict()["schedule"][0].tolist() == [2.0, 1.0, 0.0]

    def test_evaluating_changes_nothing(self) -> None:
        loss = InterfaceAL(every=1)
        prediction, batch = strip(torch.zeros(4, 6, requires_grad=True), torch.full((4, 6), 2.0), 2)
        assert torch.equal(loss.sum(prediction, batch), loss.sum(prediction, batch))
        assert not loss.multipliers()
        loss.after_step(prediction, batch)
        state = loss.state_dict()
        assert torch.equal(loss.sum(prediction, batch), loss.sum(prediction, batch))
        assert all(torch.equal(value, state[name]) for name, value in loss.state_dict().items())
        assert state["multipliers"].all()

    def test_never_without_steps_that_count(self) -> None:
        loss = InterfaceAL(every=0)
        prediction, batch = strip(torch.zeros(4, 6), torch.ones(4, 6), 2)
        loss.after_step(prediction, batch)
        assert not loss.multipliers()

    def test_penalty_grows_only_where_agreement_does_not(self) -> None:
        loss = InterfaceAL(every=0, penalty=1.0, growth=4.0, most=10.0, shrink=0.5)
        for apart, penalty in ((8.0, 1.0), (3.0, 1.0), (2.0, 4.0), (2.0, 10.0), (2.0, 10.0)):
            prediction, batch = strip(torch.zeros(4, 6), torch.full((4, 6), apart), 2)
            loss.update(prediction, batch)
            assert loss.state_dict()["schedule"][0, 0] == penalty

    def test_state_is_tensors_and_comes_back(self) -> None:
        batch, loss = scene(), InterfaceAL(every=0)
        loss.update(guess(batch), batch)
        prediction, other = strip(torch.zeros(4, 6), torch.ones(4, 6), 2)
        loss.update(prediction, other)
        state = loss.state_dict()
        assert all(isinstance(value, Tensor) for value in state.values())
        again = InterfaceAL(every=0)
        again.load_state_dict({name: value.clone() for name, value in state.items()})
        assert all(torch.equal(again.state_dict()[name], value) for name, value in state.items())
        assert torch.equal(again.sum(prediction, other), loss.sum(prediction, other))
        InterfaceAL().load_state_dict(InterfaceAL().state_dict())

    def test_damaged_state_is_refused(self) -> None:
        batch, loss = scene(), InterfaceAL(every=0)
        loss.update(guess(batch), batch)
        state = loss.state_dict()
        with pytest.raises(InputError, match="damaged"):
            InterfaceAL().load_state_dict({**state, "multipliers": state["multipliers"][:-1]})

    def test_a_diverged_answer_does_not_spoil_multipliers(self) -> None:
        loss = InterfaceAL(every=0)
        prediction, batch = strip(torch.full((4, 6), torch.nan), torch.zeros(4, 6), 2)
        loss.update(prediction, batch)
        assert all(value.isfinite().all() for value in loss.multipliers().values())
