"""Deep networks: starts that keep values and slopes, and gates behind which a deep network begins as a shallow one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

import cpikan
from cpikan.errors import InputError
from cpikan.fields import chebyshev
from cpikan.fields.gated_ckan import GatedCKAN
from cpikan.fields.residual_ckan import ResidualCKAN
from cpikan.fields.scaled_cpikan import ScaledCPIKAN
from cpikan.fields.start import AFTER_TANH, UNIFORM, Start, critical_decay, shares, slope_gain, variances
from cpikan.learning.balancers.mean_squares import MEAN_SQUARES
from cpikan.learning.methods.geodesic import GeodesicLevenberg
from cpikan.learning.methods.last_layer import LastLayer
from cpikan.learning.recipes import Recipe
from cpikan.learning.samplers.points import Points
from cpikan.learning.solver import SolveSettings, solve
from cpikan.physics.problem import Problem, dirichlet
from cpikan.physics.regions import box

DEEP = (ResidualCKAN, GatedCKAN)
POINTS = 2 * torch.rand(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4)) - 1


def polynomial(k):
    return np.polynomial.chebyshev.Chebyshev.basis(k)


def test_moments_of_slopes_are_the_integrals():
    uniform, after = chebyshev.mean_slopes_uniform(9), chebyshev.mean_slopes_after_tanh(9, 1.3)
    for k in range(1, 10):
        slope = polynomial(k).deriv()
        truth = (slope * slope).integ()
        assert uniform[k - 1] == pytest.approx((truth(1) - truth(-1)) / 2, rel=1e-11)

        def square(z, slope=slope):
            return (slope(np.tanh(z)) / np.cosh(z) ** 2) ** 2 * norm.pdf(z, scale=1.3)

        assert after[k - 1] == pytest.approx(quad(square, -15, 15, epsabs=1e-13, limit=400)[0], rel=1e-9)


@pytest.mark.parametrize("degree", [1, 2, 5, 12])
def test_the_rules_keep_what_they_say(degree):
    size, slope = AFTER_TANH.squares(degree), AFTER_TANH.slopes(degree)
    for rule in ("variance", "critical"):
        found = variances(Start(rule=rule), AFTER_TANH, degree, (7, 3))
        assert found[0] + 7 * found[1:] @ size == pytest.approx(1, abs=1e-13)
    share = shares(Start(rule="critical"), AFTER_TANH, degree)
    assert slope_gain(share, AFTER_TANH) == pytest.approx(1, abs=1e-12)
    assert 7 * variances(Start(rule="critical"), AFTER_TANH, degree, (7, 3))[1:] @ slope == pytest.approx(1, abs=1e-12)
    # Glorot's: the mean of what goes forward and what goes back, each times its side
    found = variances(Start(rule="glorot"), AFTER_TANH, degree, (7, 3))
    assert found[0] == 0
    assert 0.5 * (7 * found[1:] @ size + 3 * found[1:] @ slope) == pytest.approx(1, abs=1e-13)
    # the first layer, behind no sums, is drawn by the variance alone
    first = [variances(Start(rule=rule), UNIFORM, degree, (2, 9)) for rule in ("variance", "critical")]
    assert np.array_equal(*first)


def test_high_degrees_need_a_steeper_decay():
    decays = [critical_decay(AFTER_TANH, degree) for degree in (1, 2, 3, 5, 8, 12)]
    assert all(a < b for a, b in itertools.pairwise(decays))
    assert 2 < decays[3] < 2.5  # the default decay is nearly critical at the default degree


def slopes(layers, rule, degree):
    """Mean square of the slopes of the sums behind so many layers, mean over draws and points."""
    found = []
    for seed in range(3):
        field = ScaledCPIKAN([2, *[32] * layers], degree, start=Start(seed, rule=rule))
        found.append(float(field.jet(POINTS, "none").gradient.square().mean().detach()))
    return sum(found) / len(found)


def test_critical_slopes_neither_die_nor_explode_from_2_to_12_layers():
    shallow, deep = slopes(2, "critical", 8), slopes(12, "critical", 8)
    # a layer of 32 nodes multiplies by 1 with a standard deviation of about sqrt(3 / (3 draws x 32)) = 0.18 at most; over
    # ten layers 0.56 in the logarithm, and three of those are a factor of 5.4
    assert 1 / 5.4 < deep / shallow < 5.4
    # at the same degree the plain rule multiplies by its gain in every layer
    gain = slope_gain(shares(Start(), AFTER_TANH, 8), AFTER_TANH)
    assert gain > 1.5
    assert 1 / 5.4 < slopes(12, "variance", 8) / slopes(2, "variance", 8) / gain**10 < 5.4


@pytest.mark.parametrize("kind", DEEP)
def test_a_deep_network_begins_as_its_shallow_part_to_the_bit(kind):
    shallow = ScaledCPIKAN([2, 6, 1], 4)
    for depth in (2, 5, 12):
        deep = kind([2, *[6] * depth, 1], (4, *[3] * (depth - 1), 4), start=Start(3))
        for layer, own in zip(shallow.layers, (deep.first, deep.output), strict=True):
            layer.load_state_dict(own.state_dict())
        assert torch.equal(deep(POINTS), shallow(POINTS))
        assert all(
            torch.equal(a, b) for a, b in zip(deep.jet(POINTS, "full"), shallow.jet(POINTS, "full"), strict=True)
        )
        assert torch.equal(deep.output_coefficients(), kind([2, 6, 1], 4, start=Start(3)).output_coefficients())
        open_gates = kind([2, *[6] * depth, 1], (4, *[3] * (depth - 1), 4), gate=0.1, start=Start(3))
        assert not torch.equal(open_gates(POINTS), shallow(POINTS))


def gradients(field):
    """The gradient of a residual's mean square, a tensor for each parameter."""
    jet = field.jet(POINTS)
    cost = (jet.second.sum(-1) + jet.value).square().mean()
    names, parameters = zip(*field.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(cost, parameters), strict=True))


@pytest.mark.parametrize("kind", DEEP)
def test_gradients_do_not_change_with_depth_and_every_gate_has_one(kind):
    few = gradients(kind([2, 6, 6, 1], 3))
    for depth in (4, 12):
        many = gradients(kind([2, *[6] * depth, 1], 3))
        outer = [name for name in few if name.startswith(("first", "output"))]
        assert len(outer) == 4
        # the sums are the same and added in the same order, but for those of gates that are closed: exact zeros
        assert all(
            float((many[name] - few[name]).abs().max()) <= 1e-12 * float(few[name].abs().max()) for name in outer
        )
        gates = [float(found.norm()) for name, found in many.items() if name.endswith((".scale", "skip.scale"))]
        moved = [size for size in gates if size > 0]
        assert len(moved) == depth - 1  # skips; what is inside a closed block has none yet
        assert max(moved) < 1e3 * min(moved)


def bump():
    """u'' = f on [0, 1] with u = sin(pi x), zero at both ends."""

    def residual(u, x):
        return u.second[..., 0, 0] + math.pi**2 * torch.sin(math.pi * x[..., 0])

    return Problem("bump", box([0], [1]), residual, [dirichlet(0.0)], lambda x: torch.sin(math.pi * x[..., 0]))


@pytest.mark.parametrize("kind", DEEP)
def test_least_squares_start_a_deep_network_and_steps_open_its_gates(kind):
    found = []
    for stages in ((LastLayer(),), (LastLayer(), GeodesicLevenberg(4))):
        field = kind([1, 4, 4, 4, 1], 3, ([0.0], [1.0]))
        settings = SolveSettings(seconds=600, points=Points(60, 2))
        found.append(solve(bump(), field, Recipe("mine", "", stages, balancer=MEAN_SQUARES), settings=settings))
        gates = torch.stack([p.detach() for name, p in field.named_parameters() if name.endswith("scale")])
        skips = gates if kind is ResidualCKAN else gates[1::2]
        assert bool((skips != 0).all()) == (len(stages) > 1)
    started, stepped = (one.metrics["heldout_relative"] for one in found)
    assert started < 0.2  # of u = 0, by nine drawn features
    assert stepped < 0.5 * started


@pytest.mark.parametrize("kind", DEEP)
@pytest.mark.parametrize("widths", [[2, 1], [2, 4, 5, 1]])
def test_widths_that_a_skip_cannot_join_are_refused(kind, widths):
    with pytest.raises(InputError, match="skips need hidden layers, all of one width; give such as"):
        kind(widths)


def test_an_unknown_rule_is_refused():
    with pytest.raises(InputError, match=r"unknown rule of a start 'glorott'.*did you mean 'glorot'"):
        Start(rule="glorott")
    assert cpikan.MLP([2, 8, 8, 1], start=Start(rule="glorot"))(POINTS).isfinite().all()
