"""Scaled-cPIKAN: the contract, numpy's Chebyshev series, the start, the scaling and bad input."""

from __future__ import annotations

import math

import field_formulas
import numpy as np
import pytest
import torch
from field_contract import LOWER, TORCH_WARNS, UPPER, FieldContract, same
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import chebyshev as npcheb
from scipy.integrate import quad
from scipy.stats import norm
from torch.func import hessian, vmap

from cpikan.errors import InputError
from cpikan.fields import chebyshev
from cpikan.fields.chebyshev_layer import ChebyshevLayer
from cpikan.fields.functional import functional, named_parameters, parameter_vector
from cpikan.fields.parameter_jacobian import parameter_jacobian
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.fields.scaling import AffineScaling

pytestmark = TORCH_WARNS


class TestScaledCPIKAN(FieldContract):
    formula = staticmethod(field_formulas.scaled_cpikan)

    def make(self, networks=None):
        return ScaledCPIKAN([2, 5, 4, 3], 4, (LOWER, UPPER), networks=networks, start=Start(seed=3))


class TestOneLayer(FieldContract):
    compiled = False  # one class of field is compiled once

    def make(self, networks=None):
        return ScaledCPIKAN([2, 1], 5, (LOWER, UPPER), networks=networks)


class TestDegreeOneInside(FieldContract):
    compiled = False

    def make(self, networks=None):
        return ScaledCPIKAN([2, 6, 2], (1, 3), (LOWER, UPPER), networks=networks, start=Start(seed=1))


ENDS = np.array([-1.0, 1.0, 0.0, -0.5, 0.9999, -0.3])


@pytest.mark.parametrize("degree", [1, 2, 3, 7, 40])
def test_polynomials_are_those_of_numpy(degree):
    x = np.concatenate([ENDS, np.random.default_rng(0).uniform(-1, 1, 50)])
    value, first, second = chebyshev.polynomials_jet(torch.from_numpy(x)[:, None], degree)
    assert torch.equal(value, chebyshev.polynomials(torch.from_numpy(x)[:, None], degree))
    for k in range(1, degree + 1):
        series = np.eye(degree + 1)[k]
        # T_k, T_k' and T_k'' are at most 1, k^2 and k^4 / 3 on [-1, 1], at the ends
        for found, order, size in ((value, 0, 1), (first, 1, k**2), (second, 2, max(1, k**4 / 3))):
            truth = npcheb.chebval(x, npcheb.chebder(series, order))
            assert np.abs(found[:, k - 1, 0].numpy() - truth).max() <= 1e-12 * size * k
    ends = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    k = torch.arange(1, degree + 1, dtype=torch.float64)
    at_ends = chebyshev.polynomials_jet(ends, degree)
    sign = torch.stack([torch.ones_like(k), (-1) ** k])
    # whole numbers below 2^53: exact
    assert torch.equal(at_ends[0][..., 0], sign)
    assert torch.equal(at_ends[1][..., 0], sign * torch.stack([k**2, -(k**2)]))
    assert torch.equal(at_ends[2][..., 0], sign * torch.round(k**2 * (k**2 - 1) / 3))


def test_a_layer_is_a_sum_of_numpy_series_and_so_are_its_jets():
    degree, field = 9, ScaledCPIKAN([2, 1], 9, ([0.0, -3.0], [4.0, -2.0]), start=Start(seed=8))
    weight, bias = field.layers[0].weight.detach().numpy(), field.layers[0].bias.item()
    x = np.array([[0.0, -3.0], [4.0, -2.0], [0.0, -2.0], [1.3, -2.2], [3.9, -2.71]])
    scaled = np.stack([x[:, 0] / 2 - 1, 2 * (x[:, 1] + 3) - 1], axis=1)
    series = [np.concatenate([[0.0], weight[axis::2, 0]]) for axis in range(2)]
    jet = field.jet(torch.from_numpy(x), "full")
    value = bias + sum(npcheb.chebval(scaled[:, a], series[a]) for a in range(2))
    assert np.abs(jet.value[:, 0].detach().numpy() - value).max() <= 1e-12
    for a, slope in enumerate((0.5, 2.0)):
        for order, part in ((1, jet.gradient[:, 0, a]), (2, jet.second[:, 0, a, a])):
            truth = slope**order * npcheb.chebval(scaled[:, a], npcheb.chebder(series[a], order))
            assert np.abs(part.detach().numpy() - truth).max() <= 1e-10
    assert not bool(jet.second[:, 0, 0, 1].any())
    assert len(weight) == 2 * degree


@pytest.mark.parametrize("degree", [1, 2, 5, 12])
def test_moments_of_the_polynomials(degree):
    for k in range(1, degree + 1):
        uniform = quad(lambda x, k=k: np.cos(k * np.arccos(x)) ** 2 / 2, -1, 1, limit=200)[0]
        normal = quad(lambda z, k=k: np.cos(k * np.arccos(np.tanh(z))) ** 2 * norm.pdf(z), -10, 10, limit=400)[0]
        assert chebyshev.mean_squares_uniform(degree)[k - 1] == pytest.approx(uniform, abs=1e-7)  # quad's own accuracy
        assert chebyshev.mean_squares_after_tanh(degree)[k - 1] == pytest.approx(normal, abs=1e-7)


@pytest.mark.parametrize("decay", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("degree", [1, 3, 8])
def test_the_start_keeps_the_variance_of_every_layer(degree, decay):
    field = ScaledCPIKAN([2, 64, 64, 64, 64, 64, 1], degree, networks=16, start=Start(seed=4, decay=decay))
    x = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (1, 500, 2)))
    with torch.no_grad():
        for number, layer in enumerate(field.layers):
            x = layer(x if number == 0 else torch.tanh(x))
            # Expectation 1 by construction. The first layer has only 2 inputs, the last 1 output, and the 16 networks
            # share no draws: chi-square of some 16 * 3 independent coefficients at least, so 0.2 standard deviation.
            assert 1 / 2 < float((x * x).mean()) < 2, number


def test_equal_seeds_start_equal_networks():
    one, two, other = (ScaledCPIKAN([2, 4, 1], start=Start(seed)) for seed in (7, 7, 8))
    x = torch.rand(5, 2, dtype=torch.float64)
    assert torch.equal(one(x), two(x))
    assert not torch.equal(one(x), other(x))
    many = ScaledCPIKAN([2, 4, 1], networks=3)(x[None])
    assert not torch.equal(many[0], many[1])


@st.composite
def boxes(draw):
    axes = draw(st.integers(1, 3))
    lower = [draw(st.floats(-1e4, 1e4)) for _ in range(axes)]
    return lower, [low + draw(st.floats(1e-3, 1e4)) for low in lower]


@settings(max_examples=100, deadline=None)
@given(boxes(), st.sampled_from([torch.float32, torch.float64]), st.integers(0, 2**31))
def test_scaling_is_exact_at_the_ends_and_comes_back(box, dtype, seed):
    scaling = AffineScaling(*box).to(dtype)
    lower, upper = scaling.lower, scaling.upper
    if bool((lower >= upper).any()):  # a narrow box far away is empty in float32
        return
    assert torch.equal(scaling(lower), -torch.ones_like(lower))
    assert torch.equal(scaling(upper), torch.ones_like(upper))
    assert torch.equal(scaling.inverse(torch.ones_like(lower)), upper)
    assert torch.equal(scaling.inverse(-torch.ones_like(lower)), lower)
    x = lower + (upper - lower) * torch.rand(20, len(lower), dtype=dtype, generator=torch.Generator().manual_seed(seed))
    scale = torch.maximum(lower.abs(), upper.abs())
    assert bool(((scaling.inverse(scaling(x)) - x).abs() <= 4 * torch.finfo(dtype).eps * scale).all())


def test_scaled_and_physical_residuals_agree():
    # The same coefficients on [-6, 6] and on [-1, 1]: u_xx by x is u_xx by x^ over 36, to round-off.
    wide, unit = (ScaledCPIKAN([1, 6, 1], 4, ([-a], [a]), start=Start(2)) for a in (6.0, 1.0))
    x = torch.linspace(-6, 6, 41, dtype=torch.float64)[:, None]
    assert same(wide.jet(x).second, unit.jet(x / 6).second / 36) <= 1e-13


def test_every_network_has_its_own_box():
    lower, upper = np.array([[0.0, 0.0], [5.0, 1.0]]), np.array([[1.0, 2.0], [9.0, 2.0]])
    field = ScaledCPIKAN([2, 4, 1], 3, (lower, upper), networks=2)
    x = torch.stack([torch.tensor(lower), torch.tensor(upper)], dim=1)
    for n in range(2):
        alone = ScaledCPIKAN([2, 4, 1], 3, (lower[n], upper[n]))
        tensors = {name: p[n] for name, p in field.named_parameters()}
        for a, b in zip(field.jet(x, "full"), functional(alone, "jet")(tensors, x[n], second="full"), strict=True):
            assert same(a[n], b) <= 1e-13


def test_one_layer_converges_spectrally_on_an_analytic_function():
    x = torch.from_numpy(np.cos(np.pi * (np.arange(64) + 0.5) / 64))[:, None]
    errors = []
    for degree in (4, 8, 12):
        field = ScaledCPIKAN([1, 1], degree)
        field.set_output_coefficients(torch.linalg.lstsq(field.features(x).detach(), torch.exp(x)).solution)
        errors.append(float((field(x) - torch.exp(x)).abs().max().detach()))
    # Bernstein: for exp the error of degree n is about 1 / (2^n (n + 1)!): 5e-4, 1e-8 and 4e-14
    assert errors[0] < 2e-3
    assert errors[1] < 5e-8
    assert errors[2] < 1e-12


@pytest.mark.parametrize("networks", [None, 3])
def test_the_parameter_jacobian_is_what_autograd_finds(networks):
    alone = ScaledCPIKAN([2, 5, 4, 2], [3, 4, 2], (LOWER, UPPER))
    field = ScaledCPIKAN([2, 5, 4, 2], [3, 4, 2], (LOWER, UPPER), networks=networks, start=Start(5))
    x = torch.from_numpy(np.random.default_rng(2).uniform(LOWER, UPPER, (networks or 1, 9, 2)))
    x = x[0] if networks is None else x
    value, jacobian = parameter_jacobian(field, x)
    derive = torch.func.jacrev(lambda vector, points: functional(alone)(named_parameters(alone, vector), points))
    expected = (derive if networks is None else vmap(derive))(parameter_vector(field), x)
    assert same(value, field(x)) == 0
    assert same(jacobian, expected) <= 1e-12
    if networks:  # two other networks of this shape
        few = parameter_jacobian(field, x[:2], parameter_vector(field)[1:])
        full = parameter_jacobian(field, torch.cat([x[:1], x[:2]]))
        assert torch.equal(few[0], full[0][1:])
        assert torch.equal(few[1], full[1][1:])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (([2, 1], 0), "degree 0 makes every edge constant: give at least 1"),
        (([2], 3), "widths [2] make no network"),
        (([2, 0, 1], 3), "widths [2, 0, 1] make no network"),
        (([2, 4, 1], [3, 3, 3]), "has 3 numbers for 2 layers"),
        (
            ([2, 1], 3, ([0, 0], [1, 0])),
            "domain from 0 to 0 on axis 1 is empty: give finite bounds, the lower one first",
        ),
        (([2, 1], 3, ([0, 2], [1, 1])), "domain from 2 to 1 on axis 1 is empty"),
        (([2, 1], 3, ([0, 0], [1, math.inf])), "domain from 0 to inf"),
        (([2, 1], 3, ([0], [1])), "domain has 1 axes and the field 2"),
        (([2, 1], 3, ([0, 0], [1])), "bounds of shapes (2,) and (1,)"),
        (([2, 1], 3, (["a", 0], [1, 1])), "is not made of numbers"),
        (([2, 1], 3, ([[0, 0]] * 2, [[1, 1]] * 2)), "domain holds 2 boxes for networks=None"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments, text):
    with pytest.raises(InputError) as caught:
        ScaledCPIKAN(*arguments)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_points_and_networks_are_refused():
    field = ScaledCPIKAN([2, 1])
    with pytest.raises(InputError, match=r"points of shape \(4, 3\) for 2 axes: give \(\.\.\., 2\)"):
        field(torch.zeros(4, 3, dtype=torch.float64))
    with pytest.raises(InputError, match="networks 0"):
        ScaledCPIKAN([2, 1], networks=0)
    with pytest.raises(InputError, match="give at least one of each"):
        ChebyshevLayer(0, 1, 3)


def test_a_laplacian_in_three_dimensions():
    field = ScaledCPIKAN([3, 5, 2], 3, ([0, 0, 0], [1, 2, 3]))
    x = torch.rand(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bend = vmap(hessian(field))(x)
    assert same(field.jet(x, "full").second, bend) <= 1e-10
    assert same(field.jet(x, "laplacian").second, bend.diagonal(dim1=-2, dim2=-1).sum(-1)) <= 1e-10
