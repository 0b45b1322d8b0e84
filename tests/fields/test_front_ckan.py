"""Fronts: stretched coordinates beside the plain ones, and what they are for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from field_contract import LOWER, TORCH_WARNS, UPPER, FieldContract

from cpikan.errors import InputError
from cpikan.fields.front_ckan import Front, FrontCKAN
from cpikan.fields.layered import Start
from cpikan.fields.scaled_cpikan import ScaledCPIKAN

pytestmark = TORCH_WARNS
FRONTS = (Front(0, 0.25, 0.2), Front(1, -1.0, 0.5))


class TestFrontCKAN(FieldContract):
    def make(self, networks=None):
        # small coefficients: float32 in the contract is not to be amplified by a width of a tenth of the box
        return FrontCKAN([2, 4, 3, 2], 3, (LOWER, UPPER), fronts=FRONTS, networks=networks, start=Start(2))


def test_a_stretched_coordinate_keeps_the_ends_and_evens_the_front():
    front, x = Front(0, 0.3, 1e-3), torch.linspace(-1, 1, 4001, dtype=torch.float64, requires_grad=True)
    value, slope, bend = front.stretched(x)
    assert value.detach()[[0, -1]].tolist() == pytest.approx([-1, 1], abs=1e-14)
    (by_autograd,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    (again,) = torch.autograd.grad(by_autograd.sum(), x)
    assert torch.allclose(slope, by_autograd, rtol=1e-12)
    assert torch.allclose(bend, again, rtol=1e-10, atol=1e-10)
    # a front of a thousandth of the axis has more than a sixth of the stretched one within three widths
    inside = (x - 0.3).abs() <= 3e-3
    assert float((value[inside].max() - value[inside].min()).detach()) / 2 > 1 / 6


@pytest.mark.parametrize("width", [1e-1, 1e-2, 1e-3])
def test_a_front_is_a_smooth_function_of_its_stretched_coordinate(width):
    """tanh((x - c) / w): its series in the stretched coordinate falls as fast for every width, that in x does not.

    Its poles lie at c +- i pi w / 2, in the stretched coordinate at a distance of about pi / 2 of asinh: with z over
    ln(4 / w) on either side, the coefficients of degree k fall like exp(-k / ln(4 / w)) or faster.
    """
    front, degree = Front(0, 0.3, width), 60
    z = np.cos(np.pi * (np.arange(400) + 0.5) / 400)
    ticks = np.concatenate([[-1], 0.3 + width * np.sinh(np.linspace(-9, 9, 40_001)), [1]])
    x = torch.from_numpy(np.unique(np.clip(ticks, -1, 1)))
    places = np.interp(z, front.stretched(x)[0].numpy(), x.numpy())
    z = front.stretched(torch.from_numpy(places))[0].numpy()
    truth, missed = np.tanh((places - 0.3) / width), {}
    for name, at in (("stretched", z), ("plain", places)):
        basis = np.polynomial.chebyshev.chebvander(at, degree)
        missed[name] = np.abs(basis @ np.linalg.lstsq(basis, truth, rcond=None)[0] - truth).max()
    assert missed["stretched"] < np.exp(-degree / np.log(4 / width))
    assert missed["plain"] > 10 * missed["stretched"]


def test_without_fronts_it_is_a_scaled_cpikan():
    box = (LOWER, UPPER)
    one, other = FrontCKAN([2, 4, 1], 3, box, start=Start(5)), ScaledCPIKAN([2, 4, 1], 3, box, start=Start(5))
    x = torch.tensor([[0.1, 2.3], [-0.7, 2.1]], dtype=torch.float64)
    assert torch.equal(one(x), other(x))


def test_fronts_that_cannot_be_are_refused():
    with pytest.raises(InputError, match=r"front at 1\.5 of width 0\.1: give a place from -1 to 1"):
        Front(0, 1.5, 0.1)
    with pytest.raises(InputError, match="width above 0"):
        Front(0, 0.0, 0.0)
    with pytest.raises(InputError, match="front on axis 2 of 2: give one from 0 to 1"):
        FrontCKAN([2, 3, 1], 3, fronts=[(2, 0.0, 0.1)])
