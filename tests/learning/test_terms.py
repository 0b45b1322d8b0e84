"""Terms: an equation, a condition, a period, an energy, and a weak form, written here; Deep Ritz; unknowns."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from term_contract import TermContract, points

from cpikan.errors import InputError
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.balancers.mean_squares import MEAN_SQUARES
from cpikan.learning.methods.adam import Adam
from cpikan.learning.methods.levenberg import Levenberg
from cpikan.learning.methods.quasi_newton import QuasiNewton
from cpikan.learning.methods.variable_projection import VariableProjection
from cpikan.learning.objective import PointSet, Term, linearise_any, make_objective, make_terms
from cpikan.learning.recipes import Recipe
from cpikan.learning.samplers.points import Points
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.unknowns import output_vector, set_output_vector, with_unknowns
from cpikan.physics.problem import Problem, Unknown, dirichlet, measured, periodic
from cpikan.physics.regions import box

SQUARE = box([-1, -1], [1, 1])


def laplace(jet, x):
    return jet.second[..., 0, :].sum(-1) - torch.sin(x[..., 0])


def energy(jet, x):
    return 0.5 * jet.gradient[..., 0, :].square().sum(-1) + torch.sin(x[..., 0]) * jet.value[..., 0]


PROBLEM = Problem("mine", SQUARE, laplace, [dirichlet(0.5), *periodic(SQUARE)])


class TestEquation(TermContract):
    def make(self):
        return make_terms(PROBLEM)[0], PointSet(points())


class TestCondition(TermContract):
    def make(self):
        return make_terms(PROBLEM)[1], PointSet(points(), points(seed=1))


class TestPeriod(TermContract):
    def make(self):
        return make_terms(PROBLEM)[2], PointSet(points(), points(seed=1), points(seed=2))


class TestEnergy(TermContract):
    def make(self):
        return make_terms(replace(PROBLEM, energy=energy))[0], PointSet(points())


class TestEnergyByQuadrature(TermContract):
    def make(self):
        at = points()
        return make_terms(replace(PROBLEM, energy=energy))[0], PointSet(
            at, weight=torch.linspace(0.5, 1, len(at)).double()
        )


@dataclass(frozen=True)
class Hump:
    """A test function that vanishes at the sides of the square."""

    number: int

    def __call__(self, jet, at, partner):
        value = torch.cos(math.pi / 2 * at.points[..., 0]) * torch.sin(self.number * math.pi * at.points[..., 1])
        return {"weak": laplace(jet, at.points) * value}


class TestWeakForm(TermContract):
    """The equation times test functions of one's own, point by point."""

    def make(self):
        return Term("weak", Hump(2), "axes"), PointSet(points())


def test_deep_ritz_solves_poissons_equation():
    """-u'' = pi^2 sin(pi x) on [-1, 1], u = 0 at both ends, by its energy and a penalty.

    With the energy as a mean over a length of 2 and beta^2 / 2 u^2 as a mean over two ends, what is least has u = -du/dn /
    beta^2 there, pi / beta^2; a line through both ends is what it is off by inside. The midpoint rule adds some 1e-5 of u.
    """
    beta = 100.0

    def truth(x):
        return torch.sin(math.pi * x[..., 0])

    def residual(u, x):
        return u.second[..., 0, 0] + math.pi**2 * truth(x)

    def density(u, x):
        return 0.5 * u.gradient[..., 0, 0] ** 2 - math.pi**2 * truth(x) * u.value[..., 0]

    condition = replace(dirichlet(0.0), weight=beta)
    one = Problem("ritz", box([-1], [1]), residual, [condition], truth, energy=density)
    # a network of many waves hides jumps between two points from an energy; one layer of this degree cannot
    field = ScaledCPIKAN([1, 1], 14, start=Start(1))
    recipe = Recipe("ritz", "", (Adam(50, 1e-2), QuasiNewton("ssbroyden", 100, 1e-8)), balancer=MEAN_SQUARES)
    found = solve(one, field, recipe, settings=SolveSettings(1e4, Points(400, 2)))
    assert found.metrics["boundary_violation"] == pytest.approx(math.pi / beta**2, rel=1e-3)
    assert found.metrics["max_error"] <= 2 * math.pi / beta**2
    # the mean of the energy of the truth is -pi^2 / 4; the penalty changes it by a share of the order of 1 / beta^2
    assert found.history.records[-1]["cost"] == pytest.approx(-(math.pi**2) / 4, rel=10 / beta**2)
    with pytest.raises(InputError, match="equation is a density without residuals"):
        solve(one, field, Recipe("mine", "", (Levenberg(),), balancer=MEAN_SQUARES), settings=SolveSettings(1e4))


def decay(name="decay"):
    """u' = -k u with k unknown, from values of exp(-2 x) that were measured at random places."""
    at = torch.rand(24, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def residual(u, x, unknown):
        return u.gradient[..., 0, 0] + unknown["k"] * u.value[..., 0]

    conditions = [measured(at, torch.exp(-2 * at[:, 0]))]
    unknowns = [Unknown("k", 1.0, 2.0)]
    return Problem(
        name, box([0], [1]), residual, conditions, lambda x: torch.exp(-2 * x[..., 0]), second="none", unknowns=unknowns
    )


@pytest.mark.parametrize(
    ("recipe", "close"),
    [
        ("default", 1e-9),
        (Recipe("lm", "", (Levenberg(60),)), 1e-4),
        (Recipe("vp", "", (VariableProjection(20),)), 1e-6),
        (Recipe("qn", "", (QuasiNewton("ssbroyden", 300),)), 1e-4),
    ],
    ids=["default", "levenberg", "varpro", "ssbroyden"],
)
def test_an_unknown_coefficient_is_found(recipe, close):
    field = None if recipe == "default" else ScaledCPIKAN([1, 3, 1], 6, ([0], [1]), start=Start(1))
    found = solve(decay(), field, recipe, settings=SolveSettings(1e4, None if field is None else Points(60, 2)))
    assert found.metrics["coefficients"] == pytest.approx([2.0], rel=close)
    assert found.metrics["coefficients_true"] == [2.0]
    assert found.field.outputs == 1
    assert found.metrics["relative_l2"] <= close


def test_rows_with_an_unknown_are_those_of_reverse_mode():
    one = decay()
    field = with_unknowns(ScaledCPIKAN([1, 3, 1], 6, ([0], [1]), start=Start(1)), one.unknowns)
    objective = make_objective(one, Points(30, 2).init(one)[0])
    truth = [linearise_any(field, term, objective.sets[term.name])[1] for term in objective.terms]
    jacobian = objective.linearise(field).jacobian
    assert float((jacobian - torch.cat(truth)).abs().max()) <= 1e-12 * float(jacobian.abs().max())
    start, step = output_vector(field), 1e-6
    columns = objective.linearise(field, "output").jacobian
    for number in range(len(start)):
        ends = []
        for sign in (1, -1):
            set_output_vector(field, start + sign * step * torch.eye(len(start), dtype=start.dtype)[number])
            ends.append(objective.residuals(field).detach())
        # residuals are of second order in coefficients and unknown: central differences miss rounding over the step alone
        assert torch.allclose(columns[:, number], (ends[0] - ends[1]) / (2 * step), atol=1e-8)


def test_unknowns_survive_a_checkpoint(tmp_path):
    recipe = Recipe("lm", "", (Levenberg(14),))

    def run(steps, **kept):
        field = ScaledCPIKAN([1, 3, 1], 6, ([0], [1]), start=Start(1))
        return solve(decay(), field, recipe, settings=SolveSettings(1e4, Points(60, 2), steps=steps, **kept))

    run(6, checkpoint=tmp_path)
    resumed, whole = run(None, checkpoint=tmp_path, resume=True), run(None)
    assert resumed.metrics["coefficients"] == whole.metrics["coefficients"]
    assert resumed.metrics["iterations"] == whole.metrics["iterations"]
