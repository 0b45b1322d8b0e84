"""Singular functions at corners: the contract, harmonic, zero on both sides, and what they are for."""

from __future__ import annotations

import math

import pytest
import torch
from field_contract import LOWER, UPPER, FieldContract

from cpikan.errors import InputError
from cpikan.fields.corner import CornerField, Place
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.fields.tensor_chebyshev import TensorChebyshev

CORNER = Place((0.25, 1.5), math.pi, 1.6 * math.pi)  # below the box of the contract, its cut further down


def enriched(outputs=2):
    field = CornerField(ScaledCPIKAN([2, 4, outputs], 3, (LOWER, UPPER), start=Start(1)), [CORNER])
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        field.singular.copy_(torch.randn(field.singular.shape, dtype=torch.float64, generator=generator))
    return field


class TestCornerField(FieldContract):
    batches = False

    def make(self, networks=None):
        return enriched()


def test_the_functions_are_harmonic_and_vanish_on_both_sides():
    field = CornerField(TensorChebyshev((1, 1)), [Place((0.0, 0.0), math.pi / 2, 1.5 * math.pi)])
    with torch.no_grad():
        field.singular.fill_(1.0)
    inside = torch.tensor([[-0.3, 0.4], [-0.5, -0.5], [0.7, -0.1]], dtype=torch.float64)
    jet = field.jet(inside)
    assert float(jet.value.detach().abs().min()) > 0.01
    assert float(jet.second.detach().sum(-1).abs().max()) <= 1e-12 * float(jet.second.detach().abs().max())
    sides = torch.tensor([[0.0, 0.6], [0.8, 0.0]], dtype=torch.float64)
    # the sine of a whole multiple of pi up to 8 pi
    assert float(field(sides).detach().abs().max()) < 1e-13
    assert float(field(torch.zeros(1, 2, dtype=torch.float64)).detach().abs().max()) < 1e-15


def test_the_first_function_is_that_of_the_l():
    field = CornerField(TensorChebyshev((1, 1)), [Place((0.0, 0.0), math.pi / 2, 1.5 * math.pi)])
    with torch.no_grad():
        field.singular[0] = 1.0
    x = torch.tensor([[-0.3, 0.4], [-0.5, -0.5], [0.7, -0.1]], dtype=torch.float64)
    turn = torch.remainder(torch.atan2(x[:, 1], x[:, 0]) - math.pi / 2, 2 * math.pi)
    wanted = x.norm(dim=1) ** (2 / 3) * torch.sin(2 / 3 * turn)
    torch.testing.assert_close(field(x)[:, 0], wanted, rtol=1e-13, atol=1e-13)


def test_fields_that_cannot_be_enriched_are_refused():
    with pytest.raises(InputError, match="no re-entrant corner"):
        CornerField(TensorChebyshev((2, 2)), [])
    with pytest.raises(InputError, match="give a single field of two axes"):
        CornerField(ScaledCPIKAN([3, 4, 1], 3), [CORNER])
