"""Parity: what is even or odd about the middle of a box is found, and forms are so whatever their network is."""

from __future__ import annotations

import math

import pytest
import torch

from cpikan.fields.constrained import ConstrainedField
from cpikan.fields.mapped import MappedCPIKAN
from cpikan.fields.scaled_cpikan import Start
from cpikan.physics.catalogue import problem
from cpikan.physics.exact_conditions import with_exact_conditions
from cpikan.physics.parity import parities
from cpikan.physics.problem import Problem, dirichlet, neumann, periodic
from cpikan.physics.regions import box

REGION = box([0.0, -1.0], [2.0, 3.0], ["x", "y"])


def source(x):  # even about x = 1, odd about y = 1
    return torch.cos(x[..., 0] - 1) * torch.sin(x[..., 1] - 1)


def poisson(extra=None, conditions=None, weight=1.0):
    def residual(u, x):
        more = 0.0 if extra is None else extra(u, x)
        return u.second[..., 0, 0] + weight * u.second[..., 0, 1] - source(x) + more

    return Problem("mine", REGION, residual, [dirichlet(source)] if conditions is None else conditions)


def apart(low, high):
    return [dirichlet(low, ["x=min"]), dirichlet(high, ["x=max"]), dirichlet(source, ["y=min", "y=max"])]


@pytest.mark.parametrize(
    ("one", "signs"),
    [
        (poisson(), {0: (1,), 1: (-1,)}),
        (poisson(conditions=apart(source, source)), {0: (1,), 1: (-1,)}),  # each end's condition is the other's image
        (poisson(conditions=apart(source, 0.0)), {1: (-1,)}),
        (poisson(lambda u, x: u.value[..., 0] ** 3), {0: (1,), 1: (-1,)}),
        (poisson(lambda u, x: u.value[..., 0] ** 2), {0: (1,)}),  # a square is not odd
        (poisson(lambda u, x: u.gradient[..., 0, 0]), {1: (-1,)}),  # transport has a direction
        (poisson(lambda u, x: 1e-6 * x[..., 0]), {}),
        (poisson(conditions=[dirichlet(source, ["x=min", "x=max"]), neumann(0.0, ["y=max"])]), {0: (1,)}),
        (poisson(conditions=[dirichlet(source, ["y=min", "y=max"]), *periodic(REGION, "x")]), {1: (-1,)}),
        (problem("helmholtz-2d-1-4"), {0: (-1,), 1: (-1,)}),
        (problem("poisson-2d"), {0: (1,), 1: (1,)}),
        (problem("burgers"), {0: (-1,)}),
        (problem("kovasznay"), {1: (1, -1, 1)}),  # velocity across, and the others
        (problem("poisson-annulus"), {}),
        (problem("helmholtz-inverse"), {}),
    ],
)
def test_what_is_even_or_odd_is_found(one, signs):
    assert parities(one) == signs


def test_a_form_is_even_or_odd_whatever_its_network_is():
    one = problem("kovasznay")
    posed, ansatz = with_exact_conditions(one, symmetric=True)
    assert ansatz is not None
    assert ansatz.parity == ((1, (1, -1, 1)),)
    field = ConstrainedField(MappedCPIKAN([2, 4, 3], 3, ansatz.point_map, start=Start(3)), ansatz)
    low, high = (torch.tensor(v, dtype=torch.float64) for v in (one.region.lower, one.region.upper))
    x = low + (high - low) * torch.rand(50, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    there = torch.stack([x[:, 0], low[1] + high[1] - x[:, 1]], dim=-1)
    with torch.no_grad():
        here, mirrored = field.jet(x), field.jet(there)
    signs = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    assert torch.allclose(here.value, signs * mirrored.value, atol=1e-12)
    assert torch.allclose(here.gradient[..., 1], -signs * mirrored.gradient[..., 1], atol=1e-11)
    # derivatives are those of the values: a step of h is off by h^2 / 6 of the third one, which is below 1e3 here
    h = 1e-5
    aside = torch.tensor([0.0, h], dtype=torch.float64)
    with torch.no_grad():
        slope = (field(x + aside) - field(x - aside)) / (2 * h)
    assert torch.allclose(here.gradient[..., 1], slope, atol=1e-6)
    assert not any(condition.name.startswith("dirichlet") for condition in posed.conditions)


def test_a_solution_is_within_reach():
    """u = v behind the form: for u = sin(pi x) cos(pi y / 2) the network it asks for is smooth and even, and finite."""
    region = box([-1.0, -1.0], [1.0, 1.0])

    def exact(x):
        return torch.sin(math.pi * x[..., 0]) * torch.cos(math.pi * x[..., 1] / 2)

    def residual(u, x):
        return u.second[..., 0, :].sum(-1) + 1.25 * math.pi**2 * exact(x)

    one = Problem("mine", region, residual, [dirichlet(0.0)], exact)
    _, ansatz = with_exact_conditions(one, symmetric=True)
    assert ansatz is not None
    x = torch.rand(200, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    wanted = exact(x) / ansatz.distance(x)[:, 0]
    turned = exact(-x) / ansatz.distance(-x)[:, 0]
    assert torch.allclose(wanted, turned, rtol=1e-12)
    # about 0 sin(pi x) is pi x, and at the ends (1 - x^2) takes its zero: nowhere is the ratio large
    assert float(wanted.abs().max()) < 2 * math.pi


def test_nothing_is_held_where_nothing_is_even():
    lopsided = poisson(lambda u, x: 1e-6 * x[..., 0])
    found, ansatz = with_exact_conditions(lopsided, symmetric=True)
    assert found is lopsided
    assert ansatz is None
