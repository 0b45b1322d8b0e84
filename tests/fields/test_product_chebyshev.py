"""The product series of any number of axes: the contract, NumPy's own evaluation, and more than one output."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from field_contract import LOWER, UPPER, FieldContract

from cpikan.errors import InputError
from cpikan.fields.product_chebyshev import ProductChebyshev


def drawn(modes, domain=None, **settings):
    field = ProductChebyshev(modes, domain, **settings)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        field.coefficients.copy_(torch.randn(field.coefficients.shape, dtype=torch.float64, generator=generator))
    return field


class TestProduct(FieldContract):
    def make(self, networks=None):
        return drawn((4, 3), (LOWER, UPPER), outputs=2, networks=networks)


@pytest.mark.parametrize("modes", [(5,), (4, 3), (3, 2, 4)])
def test_values_are_those_of_numpy(modes):
    field = drawn(modes, outputs=2)
    x = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (9, len(modes))))
    evaluate = {1: np.polynomial.chebyshev.chebval, 2: np.polynomial.chebyshev.chebval2d}
    evaluate[3] = np.polynomial.chebyshev.chebval3d
    for output in range(2):
        table = field.coefficients[:, output].detach().numpy().reshape(modes)
        truth = evaluate[len(modes)](*x.numpy().T, table)
        np.testing.assert_allclose(field(x)[:, output].detach().numpy(), truth, rtol=0, atol=1e-12)


def test_features_times_coefficients_are_the_jet():
    field = drawn((3, 4, 2), outputs=3)
    x = torch.rand(6, 3, dtype=torch.float64)
    for kind in ("axes", "full", "laplacian", "none"):
        jet, features = field.jet(x, kind), field.features_jet(x, kind)
        torch.testing.assert_close(torch.einsum("bf,fo->bo", features.value, field.coefficients), jet.value)
        torch.testing.assert_close(torch.einsum("bfd,fo->bod", features.gradient, field.coefficients), jet.gradient)


def test_axes_without_modes_are_refused():
    with pytest.raises(InputError, match="give whole numbers from 1"):
        ProductChebyshev((3, 0))
