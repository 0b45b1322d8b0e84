"""Axes of symmetry, and the flow of an evolution at every place by itself."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from cpikan.physics.catalogue import problem
from cpikan.physics.local_flow import LocalFlow
from cpikan.physics.problem import Problem, dirichlet, initial, neumann, periodic
from cpikan.physics.regions import box
from cpikan.physics.symmetry import ends_of, even_axes

REGION = box([-1.0, 0.0], [3.0, 1.0], ["x", "t"])


def heat(u, x):
    return u.gradient[..., 0, 1] - 0.1 * u.second[..., 0, 0]


def bump(x):  # even about the middle, 1
    return torch.cos(0.5 * math.pi * (x[..., 0] - 1))


def posed(residual=heat, start=bump, conditions=None, **more):
    return Problem(
        "mine", REGION, residual, [initial(start), *(periodic(REGION) if conditions is None else conditions)], **more
    )


def full(u, x):
    return u.gradient[..., 0, 1] - 0.1 * u.second[..., 0, 0, 0] + u.second[..., 0, 0, 1] * (x[..., 0] - 1)


@pytest.mark.parametrize(
    ("one", "axes"),
    [
        (posed(), (0,)),
        (posed(conditions=[neumann(0.0, on=["x=min", "x=max"])]), (0,)),
        (posed(full, second="full"), (0,)),  # u_xt changes its sign, and so does x - 1
        (posed(lambda u, x: full(u, x) + u.second[..., 0, 0, 1], second="full"), ()),
        (posed(start=lambda x: bump(x) + 1e-6 * x[..., 0]), ()),
        (posed(lambda u, x: heat(u, x) + u.value[..., 0] * u.gradient[..., 0, 0]), ()),  # transport has a direction
        (posed(lambda u, x: heat(u, x) - x[..., 0]), ()),
        (posed(conditions=[dirichlet(0.0, on=["x=min", "x=max"])]), ()),
        (posed(conditions=[neumann(1.0, on=["x=min", "x=max"])]), ()),
        (posed(conditions=[]), ()),  # nothing says that slopes vanish at the ends
        (dataclasses.replace(problem("burgers")), ()),
        (problem("allen-cahn"), (0,)),
        (problem("poisson-1d"), ()),
    ],
)
def test_axes_are_even_where_data_and_equation_are(one, axes):
    assert even_axes(one) == axes


def test_conditions_at_ends_are_told_from_those_of_the_start():
    one = posed()
    assert [ends_of(one, condition, [0]) for condition in one.conditions] == [False, True, True]
    walls = Problem("plane", box([0, 0], [1, 1]), lambda u, x: u.second.sum((-1, -2)), [dirichlet(0.0)])
    assert [ends_of(walls, dirichlet(0.0), axes) for axes in ([0], [0, 1])] == [False, True]


def test_the_local_flow_is_the_equation_without_space():
    """u_t = 2 t u - u^2 + D u_xx of a constant c: its reciprocal follows a linear equation, solved by quadrature."""

    def residual(u, x):
        value = u.value[..., 0]
        return 3 * (u.gradient[..., 0, 1] - u.second[..., 0, 0] - 2 * value + value**2)

    flow = LocalFlow(posed(residual), 1)
    x = torch.tensor([[0.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    start = torch.tensor([[0.5], [3.0]], dtype=torch.float64)
    times = torch.tensor([0.2, 0.5, 1.0], dtype=torch.float64)
    found = flow.along(x, start, times)
    growth = torch.exp(2 * times)[:, None, None]  # the logistic equation of rate 2 and limit 2
    truth = 2 * start * growth / (2 + start * (growth - 1))
    # Runge and Kutta's error of a step h is h^5 / 120 times the fifth derivative, below 2^5 6^... here: h = 0.0625 at most
    assert torch.allclose(found, truth, rtol=1e-5)
    assert not torch.allclose(found[-1], start, rtol=0.1)


def test_the_local_flow_of_a_system_solves_for_all_rates():
    def residuals(u, x):
        rate, value = u.gradient[..., 1], u.value
        return {
            "sum": rate[..., 0] + rate[..., 1] - value[..., 0] - u.second[..., 0, 0],
            "difference": rate[..., 0] - rate[..., 1] - x[..., 1],
        }

    one = Problem("two", REGION, residuals, [initial(bump, output=0), initial(bump, output=1)], outputs=2)
    value = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    at = torch.tensor([[0.3, 0.5]], dtype=torch.float64)
    assert torch.allclose(LocalFlow(one, 1).rate(at, value), torch.tensor([[0.75, 0.25]], dtype=torch.float64))


@pytest.mark.parametrize(
    "residual",
    [
        lambda u, x: u.second[..., 0, 0] - u.value[..., 0],  # no rate
        lambda u, x: u.gradient[..., 0, 1] ** 2 - u.value[..., 0],  # not linear in it
        lambda u, x: u.gradient[..., 0, 1] - 1e6 * u.value[..., 0] ** 3,  # leaves what is finite
        lambda u, x: {"a": u.gradient[..., 0, 1], "b": u.value[..., 0]},  # two equations of one output
    ],
)
def test_no_flow_where_the_equation_does_not_say_the_rate(residual):
    x, value = torch.zeros(3, 2, dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64)
    assert LocalFlow(posed(residual), 1).along(x, value, torch.tensor([0.5, 1.0])) is None
