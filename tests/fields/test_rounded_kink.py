"""A kink where the period closes, rounded by diffusion: the heat equation, derivatives, the file."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from field_contract import TORCH_WARNS
from torch.func import hessian, jacrev, vmap

from cpikan.fields.end_distance import EndDistance
from cpikan.fields.files import load_field, save_field
from cpikan.fields.front_ckan import FrontCKAN
from cpikan.fields.layered import Start
from cpikan.fields.lifted import LiftedField
from cpikan.fields.piecewise import PiecewiseChebyshev
from cpikan.fields.product_chebyshev import ProductChebyshev
from cpikan.fields.rounded_kink import RoundedKink

pytestmark = TORCH_WARNS
LOWER, UPPER, RATE = (0.5, -2.0), (1.5, 4.0), 1e-2  # t, then x with the period 6


def parabola(outputs=1):
    """u = (x - 1)^2 of slope -6 at -2 and 6 at 4: it jumps by -12 where the period closes."""
    series = ProductChebyshev([1, 3], ([list(LOWER)], [list(UPPER)]), networks=1, outputs=outputs)
    table = torch.tensor([4.5, 0.0, 4.5], dtype=torch.float64)  # (3 x^)^2 = 4.5 (1 + T_2)
    series.set_output_coefficients(table[None, :, None].expand(1, 3, outputs).clone())
    return PiecewiseChebyshev(series)


def rounded(jump=(-12.0,), outputs=1):
    table = torch.tensor(jump, dtype=torch.float64)[:, None].expand(-1, outputs).clone()
    return RoundedKink(parabola(outputs).requires_grad_(False), 1, 0, (LOWER, UPPER), [RATE] * outputs, table)


def points(count=60):
    generator = np.random.default_rng(3)
    away = np.concatenate(
        [10 ** generator.uniform(-3, -0.5, count // 2), generator.uniform(0.3, 2.9, count - count // 2)]
    )
    x = np.where(generator.random(count) < 0.5, LOWER[1] + away, UPPER[1] - away)
    return torch.from_numpy(np.stack([generator.uniform(0.55, 1.5, count), x], axis=-1))


def test_what_is_added_solves_the_heat_equation_and_vanishes_at_the_start():
    field, x = rounded(), points()
    jet, plain = field.jet(x), field.series.jet(x)
    added = [one - other for one, other in zip(jet, plain, strict=True)]
    heat = added[1][:, 0, 0] - RATE * added[2][:, 0, 1]
    assert float(heat.abs().max()) < 1e-12 * float(added[1][:, 0, 0].abs().max())
    x[:, 0] = LOWER[0]
    assert torch.equal(field(x), field.series(x))


def test_the_slope_does_not_jump_once_it_has_begun():
    field = rounded()
    ends = torch.tensor([[0.7, LOWER[1]], [0.7, UPPER[1]]], dtype=torch.float64)
    jet = field.jet(ends)
    assert float(jet.gradient[0, 0, 1] - jet.gradient[1, 0, 1]) == pytest.approx(0.0, abs=1e-13)
    assert float(field.series.jet(ends).gradient[:, 0, 1].diff()) == pytest.approx(12.0)
    # in the kink itself the value is that of the convolution with the kernel: 12 sqrt(D t / pi) below
    assert float(field(ends)[0, 0]) == pytest.approx(9 - 12 * math.sqrt(RATE * 0.2 / math.pi), rel=1e-14)


def test_it_is_the_convolution_of_the_kink_with_the_kernel_of_heat():
    field, since = rounded(), 0.6
    s = np.linspace(-1.5, 1.5, 300_001)
    kernel = np.exp(-(s**2) / (4 * RATE * since)) / math.sqrt(4 * math.pi * RATE * since)
    for away in (0.0, 0.05, 0.3):
        truth = np.sum(-6 * np.abs(away - s) * kernel) * (s[1] - s[0]) + 6 * away  # the kink -12 |s| / 2, less itself
        at = torch.tensor([[LOWER[0] + since, LOWER[1] + away]], dtype=torch.float64)
        assert float((field(at) - field.series(at)).squeeze()) == pytest.approx(truth, abs=1e-9)


@pytest.mark.parametrize("second", ["axes", "full", "laplacian", "none"])
def test_derivatives_are_those_of_automatic_differentiation(second):
    field, x = rounded((-12.0, 0.7, 0.2)), points()

    def value(at):
        return field(at[None])[0]

    jet = field.jet(x, second)
    gradient, bend = vmap(jacrev(value))(x), vmap(hessian(value))(x)
    assert torch.allclose(jet.gradient, gradient, atol=1e-12)
    axes = bend.diagonal(dim1=-2, dim2=-1)
    wanted = {"axes": axes, "full": bend, "laplacian": axes.sum(-1), "none": axes[..., :0]}[second]
    assert jet.second.shape == wanted.shape
    assert torch.allclose(jet.second, wanted, rtol=1e-9, atol=1e-9)


def test_it_stays_as_it_is_behind_a_network_in_a_file(tmp_path):
    network = FrontCKAN([2, 3, 2], 3, (LOWER, UPPER), start=Start(1))
    field = LiftedField(network, rounded((-12.0, 0.7), 2), EndDistance(LOWER, UPPER, (((0, False),),) * 2))
    save_field(field, tmp_path / "kink.safetensors")
    again = load_field(tmp_path / "kink.safetensors")
    x = points()
    assert torch.equal(again(x), field(x))
    for one, other in zip(again.jet(x), field.jet(x), strict=True):
        assert torch.equal(one, other)
    assert [name for name, one in again.named_parameters() if one.requires_grad] == [
        name for name, one in field.named_parameters() if one.requires_grad
    ]
