"""The tensor Chebyshev field: the contract, numpy's series, fits on grids with weights and holes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from field_contract import LOWER, UPPER, FieldContract, same
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import chebyshev as npcheb

from cpikan.errors import InputError
from cpikan.fields.tensor_chebyshev import TensorChebyshev
from cpikan.fields.tensor_fit import fit_grid


def drawn(modes, domain, networks=None, seed=0):
    field = TensorChebyshev(modes, domain, networks=networks)
    coefficients = field.output_coefficients()
    generator = torch.Generator().manual_seed(seed)
    field.set_output_coefficients(torch.randn(coefficients.shape, dtype=torch.float64, generator=generator))
    return field


class TestTensorChebyshev(FieldContract):
    def make(self, networks=None):
        return drawn((4, 6), (LOWER, UPPER), networks)


class TestOneModeOnAnAxis(FieldContract):
    compiled = False

    def make(self, networks=None):
        return drawn((1, 3), (LOWER, UPPER), networks)


def centres(height, width):
    return [torch.arange(n, dtype=torch.float64) + 0.5 for n in (height, width)]


def test_values_and_jets_are_those_of_numpy_also_at_the_corners():
    field = drawn((7, 5), ([-1.0, 0.0], [1.0, 4.0]))
    c = field.coefficients.detach().numpy()
    x = np.array([[-1.0, 0.0], [1.0, 4.0], [-1.0, 4.0], [0.3, 1.7], [-0.99, 3.1]])
    scaled = (x[:, 0], x[:, 1] / 2 - 1)
    jet = field.jet(torch.from_numpy(x), "full")
    for orders, found in (
        ((0, 0), jet.value[:, 0]),
        ((1, 0), jet.gradient[:, 0, 0]),
        ((0, 1), jet.gradient[:, 0, 1]),
        ((2, 0), jet.second[:, 0, 0, 0]),
        ((1, 1), jet.second[:, 0, 0, 1]),
        ((0, 2), jet.second[:, 0, 1, 1]),
    ):
        series = npcheb.chebder(npcheb.chebder(c, orders[0], axis=0), orders[1], axis=1)
        truth = npcheb.chebval2d(*scaled, series) / 2 ** orders[1]
        assert np.abs(found.detach().numpy() - truth).max() <= 1e-10


@pytest.mark.parametrize("networks", [None, 3])
def test_the_grid_is_the_field_at_its_points(networks):
    field = drawn((5, 4), ([0.0, 0.0], [30.0, 40.0]), networks)
    y, x = centres(30, 40)
    points = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1)
    values = field(points if networks is None else points[None])[..., 0]
    assert same(field.grid(y, x), values) <= 1e-13


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**31), st.booleans())
def test_a_fit_recovers_the_field_it_was_given(m0, m1, seed, weighted):
    field = drawn((m0, m1), ([0.0, 0.0], [40.0, 50.0]), 3, seed)
    z = field.grid(*centres(40, 50)).detach()
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(z.shape, dtype=torch.float64, generator=generator) + 0.1
    weights[torch.rand(z.shape, generator=generator) < 0.3] = 0
    holes = torch.where(weights > 0, z, torch.nan)
    fit = fit_grid(holes, (m0, m1), weights=weights) if weighted else fit_grid(z, (m0, m1))
    # exact data: the error is rounding (1e-16) times the condition of the normal equations (some hundreds), times 49
    assert same(fit.field.coefficients, field.coefficients) <= 1e-10
    assert torch.equal(fit.pixels, (weights > 0).sum((-2, -1)) if weighted else torch.full((3,), 2000))
    assert float(fit.chi2.max()) <= 1e-18


def test_a_weighted_fit_is_the_least_squares_of_numpy():
    rng = np.random.default_rng(9)
    z, w = rng.normal(size=(25, 31)), rng.uniform(0, 2, (25, 31))
    w[5:15, 8:20] = 0
    fit = fit_grid(torch.from_numpy(z), (4, 5), weights=torch.from_numpy(w))
    y, x = (2 * (np.arange(n) + 0.5) / n - 1 for n in (25, 31))
    basis = np.einsum("yi,xj->yxij", npcheb.chebvander(y, 3), npcheb.chebvander(x, 4)).reshape(-1, 20)
    root = np.sqrt(w).ravel()
    truth, rest, _, _ = np.linalg.lstsq(basis * root[:, None], z.ravel() * root, rcond=None)
    assert np.abs(fit.field.coefficients.detach().numpy().ravel() - truth).max() <= 1e-10
    assert float(fit.chi2) == pytest.approx(rest[0], rel=1e-12)
    assert int(fit.pixels) == (w > 0).sum()


def test_equal_weights_are_no_weights():
    z = torch.randn(2, 20, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain, weighted = fit_grid(z, (5, 6)), fit_grid(z, (5, 6), weights=torch.full_like(z, 3.0))
    assert same(plain.field.coefficients, weighted.field.coefficients) <= 1e-11
    assert torch.allclose(3 * plain.chi2, weighted.chi2)


def test_a_tile_without_pixels_stays_invalid_and_harms_no_other():
    z = drawn((3, 3), ([0.0, 0.0], [20.0, 20.0]), 3).grid(*centres(20, 20)).detach()
    weights = torch.ones_like(z)
    weights[1] = 0
    fit = fit_grid(z, (3, 3), weights=weights)
    assert fit.pixels.tolist() == [400, 0, 400]
    assert bool(fit.field.coefficients[1].isnan().all())
    assert same(fit.field.grid(*centres(20, 20))[::2], z[::2]) <= 1e-12


def test_modes_without_support_stay_small_instead_of_exploding():
    # All pixels in one corner, a 5 x 5 patch, for 8 x 8 modes: the normal equations are singular.
    z = torch.full((40, 40), 7.0, dtype=torch.float64)
    weights = torch.zeros_like(z)
    weights[:5, :5] = 1
    fit = fit_grid(z, (8, 8), weights=weights, ridge=1e-8)
    assert bool(fit.field.coefficients.isfinite().all())
    assert float(fit.field.coefficients.detach().abs().max()) < 100
    assert float(fit.chi2) < 1e-3


def test_float32_values_are_fitted_in_float64():
    z = drawn((3, 4), ([0.0, 0.0], [20.0, 20.0])).grid(*centres(20, 20)).detach()
    fit = fit_grid(z.float(), (3, 4))
    assert fit.field.coefficients.dtype == torch.float64
    assert same(fit.field.grid(*centres(20, 20)), z) <= 3e-7  # the rounding of the values, averaged


@pytest.mark.parametrize(
    ("values", "modes", "weights", "text"),
    [
        (torch.zeros(5), (2, 2), None, r"values of shape \(5,\), weights None"),
        (torch.zeros(5, 6), (2, 2), torch.zeros(6, 5), r"values of shape \(5, 6\), weights \(6, 5\)"),
        (torch.zeros(5, 6), (6, 2), None, r"modes \[6, 2\] for 5 x 6 pixels"),
        (torch.zeros(5, 6), (0, 2), None, r"modes \[0, 2\]: give two whole numbers from 1"),
        (torch.zeros(5, 6), (2, 2, 2), None, "give two whole numbers"),
    ],
)
def test_bad_input_to_a_fit_is_refused(values, modes, weights, text):
    with pytest.raises(InputError, match=text):
        fit_grid(values, modes, weights=weights)


def test_bad_domains_are_refused():
    with pytest.raises(InputError, match="domain has 3 axes"):
        TensorChebyshev((2, 2), ([0, 0, 0], [1, 1, 1]))
    with pytest.raises(InputError, match="domain holds 2 boxes"):
        TensorChebyshev((2, 2), ([[0, 0]] * 2, [[1, 1]] * 2))
    with pytest.raises(InputError, match="networks 0"):
        TensorChebyshev((2, 2), networks=0)
