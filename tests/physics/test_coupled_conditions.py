"""Conditions that couple points: integrals, one pinned value, jumps; their Jacobians are those of finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from cpikan.errors import InputError
from cpikan.fields.functional import parameter_vector, set_parameters
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.augmented_lagrangian import AugmentedLagrangian
from cpikan.learning.balancers.kinds import BALANCERS, balancer_named
from cpikan.learning.methods.last_layer import LastLayer
from cpikan.learning.objective import linearise_any, make_objective
from cpikan.learning.recipes import Recipe
from cpikan.learning.samplers.points import Points
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.unknowns import output_vector, set_output_vector
from cpikan.physics.outline import circle, difference
from cpikan.physics.problem import Condition, Problem, dirichlet, integral, interface, neumann, pinned
from cpikan.physics.region_quadrature import quadrature
from cpikan.physics.regions import LShape, box, disc

BROKEN = box([0, 0], [1, 2], breaks={"x": [0.4]})
LONG = SolveSettings(seconds=1e4)


def square(jet, x):
    return jet.value[..., 0] ** 2 * (1 + x[..., 0])


CONDITIONS = {
    "integral": integral(BROKEN, 0.7, nodes=5),
    "of a square": integral(BROKEN, 1.0, square, nodes=4),
    "over a part": integral(BROKEN, 0.2, lambda jet, x: jet.gradient[..., 0, 1], on="y=max", nodes=4),
    "pinned": pinned((0.3, 1.1), 2.0),
    "jump of value": interface(BROKEN, "x", 0.4, jumps=(lambda x: x[..., 1], 0.5))[0],
    "jump of flux": interface(BROKEN, "x", 0.4, (2.0, 3.0), jumps=(0.0, 0.5))[1],
}


def posed(*conditions, region=BROKEN):
    return Problem("mine", region, lambda u, x: u.second[..., 0, :].sum(-1) - 1.0, list(conditions))


def start(condition):
    one = posed(condition)
    field = ScaledCPIKAN([2, 3, 3, 1], 3, (one.region.lower, one.region.upper), start=Start(2))
    objective = make_objective(one, Points(9, 12).init(one)[0])
    return objective.only(objective.terms[1].name), field


@pytest.mark.parametrize("name", CONDITIONS)
def test_jacobians_are_those_of_finite_differences(name):
    objective, field = start(CONDITIONS[name])
    for subset, position, put in (
        ("all", parameter_vector, set_parameters),
        ("output", output_vector, set_output_vector),
    ):
        residuals, jacobian = objective.linearise(field, subset)
        assert torch.allclose(residuals, objective.residuals(field).detach(), rtol=1e-12, atol=1e-13)
        place, ends, step = position(field), [], 1e-6
        direction = torch.randn(len(place), dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        for sign in (1, -1):
            put(field, place + sign * step * direction)
            ends.append(objective.residuals(field).detach())
        put(field, place)
        # third derivatives times step^2, and rounding of the residuals over the step
        torch.testing.assert_close(jacobian @ direction, (ends[0] - ends[1]) / (2 * step), rtol=1e-6, atol=1e-8)
    term = objective.terms[0]
    for found, wanted in zip(
        linearise_any(field, term, objective.sets[term.name]), objective.linearise(field), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", sorted(BALANCERS.keys() - {"causal"}))  # which weighs equations alone
def test_every_balancer_weighs_an_integral(name):
    region = box([0, 0], [1, 2], ["x", "t"])
    one = posed(integral(region, 0.7, nodes=5), dirichlet(0.0), region=region)
    field = ScaledCPIKAN([2, 3, 1], 3, (region.lower, region.upper), start=Start(2))
    objective = make_objective(one, Points(30, 12).init(one)[0])
    assert objective.only("integral").residuals(field).shape == (1,)
    balancer = balancer_named(name, one)
    found, state = balancer.init(objective, field)
    found, _ = balancer.update(found, field, state)
    assert math.isfinite(float(found.cost(field).detach()))
    assert found.weights["integral"] > 0


def slopes_alone(*conditions):
    """u'' = f between ends with slopes: u = cos(pi x) and any constant."""
    region = box([0], [1])
    ends = [neumann(0.0), *conditions]
    return Problem(
        "free",
        region,
        lambda u, x: u.second[..., 0, 0] + math.pi**2 * torch.cos(math.pi * x[..., 0]),
        ends,
        exact=lambda x: torch.cos(math.pi * x[..., 0]) + 0.5,
    )


@pytest.mark.parametrize(
    "condition", [pinned([0.25], math.sqrt(0.5) + 0.5), integral(box([0], [1]), 0.5)], ids=["pinned", "integral"]
)
def test_one_condition_fixes_the_constant_of_a_solution_with_slopes(condition):
    recipe = Recipe("mine", "", (LastLayer(),), hidden=(), degree=14)
    found = solve(slopes_alone(condition), recipe=recipe, settings=SolveSettings(1e4, constraints="penalty"))
    assert found.metrics["relative_l2"] < 1e-9
    assert found.metrics["boundary_violation"] < 1e-9
    free = solve(slopes_alone(), recipe=recipe, settings=SolveSettings(1e4, constraints="penalty"))
    assert free.metrics["relative_l2"] > 1e-3


def test_the_default_recipe_takes_integrals_and_multipliers_hold_them():
    one = slopes_alone(integral(box([0], [1]), 0.5))
    found = solve(one, settings=LONG)
    assert found.metrics["relative_l2"] < 1e-9
    assert found.trust == "converged"
    recipe = Recipe("mine", "", (AugmentedLagrangian(LastLayer(500)),), hidden=(), degree=14)
    held = solve(one, recipe=recipe, settings=SolveSettings(1e4, Points(60, 2), steps=60))
    assert held.metrics["relative_l2"] < 1e-9


@pytest.mark.parametrize(
    ("region", "on", "measure"),
    [
        (box([0, -1, 2], [2, 1, 5]), None, 12.0),
        (box([0, -1, 2], [2, 1, 5]), "z=max", 4.0),
        (box([0], [2]), "x=max", 1.0),
        (disc(2.0), None, 4 * math.pi),
        (disc(2.0), "outer", 4 * math.pi),
        (LShape(), None, 3.0),
        (difference(box([0, 0], [2, 1]), circle((0.9, 0.5), 0.3)), None, 2 - 0.09 * math.pi),
        (difference(box([0, 0], [2, 1]), circle((0.9, 0.5), 0.3)), "circle", 0.6 * math.pi),
    ],
)
def test_quadrature_is_that_of_the_measure_and_of_polynomials(region, on, measure):
    points, weights = quadrature(region, 12, on)
    assert weights.sum() == pytest.approx(measure, rel=1e-10)
    assert (weights > 0).all()
    assert region.contains(points).all() or on is not None
    finer, more = quadrature(region, 20, on)
    values = [w @ (p[:, 0] ** 4 - 2 * p[:, -1] ** 3) for p, w in ((points, weights), (finer, more))]
    assert values[0] == pytest.approx(values[1], rel=1e-8, abs=1e-8)


def test_the_moment_of_a_disc():
    points, weights = quadrature(disc(2.0), 12)
    assert weights @ points[:, 0] ** 2 == pytest.approx(math.pi * 2.0**4 / 4, rel=1e-10)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: integral(BROKEN, 1.0, on="left"), "part of the boundary"),
        (lambda: integral(BROKEN, 1.0, nodes=0), "0 nodes of a quadrature"),
        (lambda: Condition("c", square, mix=torch.ones(1, 3)), "mixes 0 points"),
        (lambda: Condition("c", square, at=torch.zeros(2, 2), mix=torch.ones(1, 3)), r"mixes 2 points by \(1, 3\)"),
        (lambda: posed(pinned((3.0, 0.0))), "1 of 1 points lie outside"),
    ],
)
def test_bad_conditions_are_one_line(make, text):
    with pytest.raises(InputError, match=text) as told:
        make()
    assert "\n" not in str(told.value)
