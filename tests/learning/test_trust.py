"""Trust: right solutions are believed, wrong and open ones are not, and the reason says what it is."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from cpikan.fields.protocol import Jet
from cpikan.learning.balancers.mean_squares import MEAN_SQUARES
from cpikan.learning.iterate import placed
from cpikan.learning.recipes import Recipe
from cpikan.learning.samplers.points import Points
from cpikan.learning.solution import Solution
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.strategies.grow import Grow
from cpikan.learning.trust.assess import assess
from cpikan.learning.trust.verdict import Evidence, judge
from cpikan.learning.violations import violations
from cpikan.physics.problem import Problem, Unknown, dirichlet, initial, interface, measured, neumann
from cpikan.physics.regions import box

LONG = SolveSettings(seconds=1e4)  # no test ends by the clock


def grown(problem: Problem, parameters: int = 700) -> Solution:
    """Solve by growing to so many parameters: the same whatever the machine's speed."""
    return solve(problem, recipe=Recipe("small", "", (), own=Grow(parameters=parameters)), settings=LONG)


def oscillator(end: float) -> Problem:
    return Problem(
        "oscillator",
        box([0], [end], ["t"]),
        lambda u, x: u.second[..., 0, 0] + 9 * u.value[..., 0],
        [initial(2.0), neumann(0.0, ["t=min"])],
        exact=lambda x: 2 * torch.cos(3 * x[..., 0]),
    )


def transport(*inflow) -> Problem:
    """u_t + 2 u_x = 0 on [0, 1] x [0, 1/2]."""

    def truth(x):
        return torch.sin(3 * (x[..., 0] - 2 * x[..., 1]))

    return Problem(
        "transport",
        box([0, 0], [1, 0.5], ["x", "t"]),
        lambda u, x: u.gradient[..., 0, 1] + 2 * u.gradient[..., 0, 0],
        [initial(truth), *(dirichlet(truth, [part]) for part in inflow)],
        exact=truth,
        second="none",
    )


def eigen(*more) -> Problem:
    """u'' + k u = 0 with u = 0 at both ends of [0, 2]: k = (pi / 2)^2."""
    return Problem(
        "eigen",
        box([0], [2]),
        lambda u, x, k: u.second[..., 0, 0] + k["k"] * u.value[..., 0],
        [dirichlet(0.0), *more],
        exact=lambda x: torch.sin(math.pi / 2 * x[..., 0]),
        unknowns=[Unknown("k", 2.0, math.pi**2 / 4)],
    )


@pytest.mark.parametrize(
    "problem", [oscillator(4.0), transport("x=min"), eigen(neumann(-math.pi / 2, ["x=min"]))], ids=lambda p: p.name
)
def test_right_solutions_are_believed(problem):
    found = grown(problem)
    assert found.metrics["relative_l2"] < 1e-5
    assert found.trust == "converged", found.trust_reason
    assert found.warnings == ()


class Root(nn.Module):
    """u = sqrt(2 t + 1) + miss."""

    outputs, dimension, networks = 1, 1, None

    def __init__(self, miss: float) -> None:
        super().__init__()
        self.miss = nn.Parameter(torch.tensor(miss, dtype=torch.float64))

    def forward(self, x):
        return torch.sqrt(2 * x + 1) + self.miss

    def jet(self, x, second="axes"):
        return Jet(self(x), 1 / torch.sqrt(2 * x + 1)[..., None], x.new_zeros(len(x), 1, 0))


@pytest.mark.parametrize(("miss", "word"), [(1e-6, "converged"), (0.1, "not converged")])
def test_what_has_no_residual_for_zero_can_be_judged(miss, word):
    """u' = 1 / u, which is not finite for u = 0."""
    posed = Problem(
        "root",
        box([0], [1]),
        lambda u, x: u.gradient[..., 0, 0] - 1 / u.value[..., 0],
        [dirichlet(1.0, ["x=min"])],
        second="none",
    )
    iterate = placed(posed, Root(miss), Points(60, 2), MEAN_SQUARES)[0]
    iterate.keep_best()
    verdict, _ = assess(posed, iterate, (), violations(iterate.field, iterate.heldout))
    assert verdict.word == word, verdict.reason


def test_breaks_without_conditions_are_no_open_places():
    """v = k u', v' = 0 with k = 2 below 0.4 and 0.5 above: both outputs go on, and the slope of u jumps."""
    region = box([0], [1], breaks={"x": [0.4]})

    def residual(u, x):
        k = torch.where(x[..., 0] <= 0.4, 2.0, 0.5)
        return {"flux": u.value[..., 1] - k * u.gradient[..., 0, 0], "balance": u.gradient[..., 1, 0]}

    walls = [dirichlet(0.0, ["x=min"]), dirichlet(1.4, ["x=max"])]
    found = solve(Problem("mixed", region, residual, walls, outputs=2, second="none"), settings=LONG)
    assert found.trust == "converged", found.trust_reason


def test_breaks_are_no_open_places():
    """(k u')' = 0 with k = 2 below 0.4 and 0.5 above: the slope jumps, nothing is open."""
    region = box([0], [1], breaks={"x": [0.4]})
    posed = Problem(
        "conductors",
        region,
        lambda u, x: u.second[..., 0, 0],
        [dirichlet(0.0, ["x=min"]), dirichlet(1.4, ["x=max"]), *interface(region, "x", 0.4, (2.0, 0.5))],
        exact=lambda x: torch.where(x[..., 0] <= 0.4, x[..., 0], 0.4 + 4 * (x[..., 0] - 0.4)) * 1.4 / 2.8,
    )
    found = solve(posed, settings=LONG)
    assert found.metrics["relative_l2"] < 1e-9
    assert found.trust == "converged", found.trust_reason


def test_a_wrong_solution_is_not_believed():
    """48 radians behind 433 coefficients at most: the residual is small beside that of zero, the error is not."""
    found = grown(oscillator(150.0))
    assert found.metrics["relative_l2"] > 0.1
    assert found.trust == "not converged"


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (transport(), "other functions satisfy equation and conditions as well: the solution near x = "),
        (eigen(), "the solution is zero"),
        (
            Problem(
                "walls", box([0, 0], [1, 2]), lambda u, x: u.second[..., 0, :].sum(-1) - x[..., 0] + 0.5, [neumann(0.0)]
            ),
            "is a condition missing",
        ),
    ],
    ids=["no inflow", "eigenvalue", "slopes alone"],
)
def test_what_has_no_single_solution_is_undetermined(problem, text):
    found = grown(problem)
    assert found.trust == "undetermined"
    assert text in found.trust_reason


def decaying(modes: int, noise: float = 0.0, seed: int = 3) -> Problem:
    """u_t = a u_xx - b u from 200 values: one mode in x knows a and b only together, two know both."""
    a, b = 0.2, 0.7

    def truth(x):
        terms = [
            torch.sin(n * math.pi * x[..., 0]) * torch.exp(-(a * n * n * math.pi**2 + b) * x[..., 1]) / n
            for n in range(1, modes + 1)
        ]
        return sum(terms[1:], terms[0])

    def residual(u, x, k):
        return u.gradient[..., 0, 1] - k["a"] * u.second[..., 0, 0] + k["b"] * u.value[..., 0]

    random = np.random.default_rng(seed)
    at = torch.from_numpy(random.random((200, 2)) * [1, 0.5])
    values = truth(at) + noise * torch.from_numpy(random.standard_normal(200))
    return Problem(
        "decaying",
        box([0, 0], [1, 0.5], ["x", "t"]),
        residual,
        [initial(truth), dirichlet(0.0), measured(at, values, weight=0.3 if noise else 1.0)],
        exact=truth,
        unknowns=[Unknown("a", 0.1, a), Unknown("b", 0.1, b)],
    )


def test_coefficients_that_data_know_have_small_errors():
    found = grown(decaying(2), 250)
    errors = np.abs(np.subtract(found.metrics["coefficients"], [0.2, 0.7]))
    assert errors.max() < 1e-3
    # errors of a fit without noise are systematic: the standard errors say their size, not their distribution
    assert (errors < 30 * np.array(found.metrics["standard_errors"])).all()
    assert found.trust == "converged", found.trust_reason


def test_coefficients_that_data_leave_open_are_named():
    found = grown(decaying(1), 250)
    assert found.trust == "undetermined"
    assert "a by" in found.trust_reason
    assert "b by" in found.trust_reason
    assert found.warnings == (found.trust_reason,)


def test_a_coefficient_that_does_not_enter_has_no_error():
    at = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)[:, None]
    posed = Problem(
        "idle",
        box([0], [1]),
        lambda u, x, k: u.second[..., 0, 0] - 2 * torch.exp(x[..., 0]) + 0 * k["idle"] * u.value[..., 0],
        [measured(at, 2 * torch.exp(at[:, 0]))],
        unknowns=[Unknown("idle", 1.0)],
    )
    found = grown(posed)
    assert found.metrics["standard_errors"] == [None]
    assert found.trust == "undetermined"
    assert "idle by 1" in found.trust_reason


GOOD = {"size": 1.0, "residual": 1e-6, "noise": 0.0, "missed": ("wall", 1e-6), "estimate": 1e-6, "bound": 1e-4}


@pytest.mark.parametrize(
    ("change", "word", "text"),
    [
        ({}, "converged", "estimated at 1e-04 %, at worst 0.01 %"),
        ({"residual": 0.3}, "not converged", "the residual is 30 %"),
        ({"missed": ("wall", 0.02)}, "not converged", "condition 'wall' is missed by 2 %"),
        ({"estimate": 0.02}, "not converged", "the error at 2 %"),
        ({"bound": 0.02}, "not converged", "may hide an error of 2 %"),
        ({"change": 0.5, "expected": 0.1}, "converged", "estimated"),  # the check sees all of it
        ({"unseen": 0.2}, "not converged", "no level before"),
        ({"unseen": 0.2, "change": 0.5, "expected": 0.1}, "not converged", "changed by 50 %"),
        ({"unseen": 0.2, "change": 0.5, "expected": 1e-4}, "converged", "estimated"),
        ({"seams": 0.02}, "not converged", "jumps between its pieces add up to 2 %"),
        ({"seams": 1e-4, "amplification": 30.0}, "converged", "estimated"),
        ({"seams": 1e-4, "amplification": 300.0}, "not converged", "no level before"),
        ({"bound": math.nan}, "not converged", "not finite"),
        ({"amplification": 1e9}, "undetermined", "change by 1e-09"),
        (
            {"amplification": 1e9, "estimate": 2.0},
            "not converged",
            "the error at 200 %: more time; other functions satisfy",
        ),
        ({"open": "k is open", "residual": 0.3}, "not converged", "the residual is 30 %"),
        ({"size": 0.0}, "undetermined", "the solution is zero"),
        ({"size": 0.0, "residual": 1.0}, "not converged", "zero, which does not satisfy"),
        ({"bound": 0.02, "noise": 0.05}, "not converged", "measured values are missed by up to 5 %"),
        ({"open": "k is open"}, "undetermined", "k is open"),
        ({"detour": True}, "undetermined", "there may be other solutions"),
        ({"detour": True, "bound": 0.02}, "not converged", "may hide an error of 2 %"),
    ],
)
def test_every_verdict_has_its_reason(change, word, text):
    found = judge(Evidence(**{**GOOD, **change}))
    assert found.word == word
    assert text in found.reason
