"""Layers on devices of their own: the numbers of one device, and where everything lies."""

from __future__ import annotations

import copy

import pytest
import torch

from cpikan.errors import InputError
from cpikan.fields.placed_layers import PlacedLayers
from cpikan.fields.scaled_cpikan import ScaledCPIKAN

BOX = ([0.0, -1.0], [2.0, 1.0])


def placed(devices):
    field = ScaledCPIKAN([2, 5, 4, 3], 4, BOX)
    return field, PlacedLayers(copy.deepcopy(field), devices)


@pytest.mark.parametrize("second", ["axes", "full", "laplacian", "none"])
def test_values_derivatives_and_gradients_are_those_of_one_device(second):
    devices = ["cpu", torch.device("cpu", 0), "cpu"]
    if torch.cuda.is_available():
        devices[1] = "cuda"
    field, other = placed(devices)
    x = torch.rand(7, 2, generator=torch.Generator().manual_seed(0)).double() * 2 - torch.tensor([0.0, 1.0]).double()
    alone, apart = field.jet(x, second), other.jet(x, second)
    for wanted, found in zip(alone, apart, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(other(x), field(x), rtol=1e-13, atol=1e-13)
    for jet in (alone, apart):
        (jet.value.square().sum() + jet.gradient.square().sum() + jet.second.square().sum()).backward()
    for one, two in zip(field.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(two.grad.cpu(), one.grad, rtol=1e-11, atol=1e-11)


def test_every_layer_lies_on_its_device_and_works_there():
    """The device meta has shapes and no numbers: what it is given is on it, or there is an error."""
    _, other = placed(["cpu", "meta", "meta"])
    kinds = [{p.device.type for p in layer.parameters()} for layer in other.field.chain()]
    assert kinds == [{"cpu"}, {"meta"}, {"meta"}]
    jet = other.jet(torch.zeros(6, 2).double())
    assert [(part.device.type, tuple(part.shape)) for part in jet] == [
        ("meta", (6, 3)),
        ("meta", (6, 3, 2)),
        ("meta", (6, 3, 2)),
    ]


def test_another_number_of_devices_is_refused():
    with pytest.raises(InputError, match="2 devices for 3 layers: give one each"):
        placed(["cpu", "cpu"])
