"""Solves by several processes (here threads): the result of one process, and what is refused."""

from __future__ import annotations

import pytest
import torch

from cpikan.errors import InputError
from cpikan.learning.solver import SolveSettings, evaluate, solve
from cpikan.learning.solver import test_points as points_of
from cpikan.learning.strategies.blocks import solve_series
from cpikan.learning.strategies.patchwork import Patchwork
from cpikan.learning.subdomains import Subdomains
from cpikan.physics.catalogue import problem as problem_named
from cpikan.physics.problem import Problem, dirichlet, interface, measured, periodic
from cpikan.physics.regions import box
from cpikan.streaming.ranks import ALONE
from thread_ranks import together


def series(problem, size, modes, *counts, **cut):
    """Steps, cost and field of the series that the processes of a group find, and how rough every interval is."""
    problem = problem_named(problem) if isinstance(problem, str) else problem

    def work(ranks):
        unit = torch.ones(problem.outputs, dtype=torch.float64)
        patches = Patchwork(problem, Subdomains(counts, **cut), (modes,) * problem.dimension, unit, ranks)
        steps, cost = solve_series(patches)
        return steps, cost, patches.field(), torch.cat(patches.roughness()), len(patches.places)

    return together(size, work) if size > 1 else [work(ALONE)]


def same(problem, sizes, modes, *counts, **cut):
    """Check that groups of every size find what one process finds, on the same way."""
    problem = problem_named(problem) if isinstance(problem, str) else problem
    steps, cost, field, rough, _ = series(problem, 1, modes, *counts, **cut)[0]
    x = points_of(problem)[::37]
    found = evaluate(field, x)
    for size in sizes:
        for one in series(problem, size, modes, *counts, **cut):
            assert one[0] == steps
            assert one[1] == pytest.approx(cost, rel=1e-8)
            assert float((evaluate(one[2], x) - found).norm() / found.norm()) <= 1e-8
            torch.testing.assert_close(one[3], rough, rtol=1e-6, atol=1e-12)
    return found, x, steps


def kerr():
    """A nonlinear equation on a strip: two Gauss-Newton steps and more, a wall of slopes, a period, values at points."""
    exact = lambda x: torch.sin(torch.pi * x[..., 0]) + x[..., 1] ** 2  # noqa: E731
    region = box([-1, 0], [1, 1], breaks={"y": [0.5]})

    def residual(u, x):
        source = -(torch.pi**2) * torch.sin(torch.pi * x[..., 0]) + 2 + exact(x) ** 3
        return u.second[..., 0, :].sum(-1) + u.value[..., 0] ** 3 - source

    at = torch.tensor([[0.3, 0.2], [-0.4, 0.9], [0.9, 0.6]], dtype=torch.float64)
    conditions = [
        *periodic(region, "x"),
        dirichlet(exact, on=["y=min", "y=max"]),
        *interface(region, "y", 0.5),
        measured(at, exact(at)),
    ]
    return Problem("kerr", region, residual, conditions, exact)


@pytest.mark.parametrize("coupling", ["xpinn", "cpinn", "fbpinn"])
def test_series_of_several_processes_are_those_of_one(coupling):
    same("poisson-2d", [3], 4, 3, 2, coupling=coupling)


def test_series_under_windows_on_a_line():
    same("poisson-1d", [3], 6, 4, coupling="fbpinn")


def test_gauss_newton_with_periods_breaks_and_data():
    problem = kerr()
    found, x, steps = same(problem, [3], 7, 2, 4, coupling="cpinn")
    assert steps > 2
    assert float((found[:, 0] - problem.exact(x)).norm() / problem.exact(x).norm()) < 1e-3


def test_a_boundary_that_cuts_subdomains():
    same("poisson-disc", [2], 4, 3, 3, coupling="cpinn")


def solved(problem, size, recipe="default", **settings):
    def work(ranks):
        return solve(problem, recipe=recipe, settings=SolveSettings(ranks=ranks, **settings))

    return together(size, work)


@pytest.mark.parametrize(("problem", "counts", "modes"), [("poisson-1d", (4,), 10), ("poisson-2d", (4, 2), 5)])
def test_levels_of_windows(problem, counts, modes):
    """Coefficients are not unique, as levels say some things twice; the field and its judgement are."""
    cut = Subdomains(counts, levels=2, modes=modes)
    alone = solve(problem, settings=SolveSettings(subdomains=cut))
    x = points_of(problem_named(problem))[::37]
    wanted = evaluate(alone.field, x)
    for one in solved(problem, 2, subdomains=cut):
        assert float((evaluate(one.field, x) - wanted).norm() / wanted.norm()) <= 1e-8
        assert one.metrics["iterations"] == alone.metrics["iterations"]
        assert one.metrics["heldout_residual"] == pytest.approx(alone.metrics["heldout_residual"], rel=1e-5)
        assert one.trust == alone.trust


def test_what_cannot_be_shared_is_refused():
    with pytest.raises(InputError, match="5 processes for 4 subdomains: start at most 4"):
        solved("poisson-2d", 5, subdomains="2x2")
    with pytest.raises(InputError, match="2 processes for poisson-2d in one piece: give --subdomains"):
        solved("poisson-2d", 2)
    with pytest.raises(InputError, match="networks on 2 levels of subdomains for 2 processes"):
        solved("poisson-2d", 2, recipe="adam", subdomains=Subdomains((4, 4), levels=2))


def test_processes_with_other_plans_are_told_apart():
    def work(ranks):
        cut = Subdomains((2, 2), "cpinn", modes=3 + (ranks.rank == 1))
        return solve("poisson-2d", settings=SolveSettings(subdomains=cut, ranks=ranks))

    with pytest.raises(InputError, match=r"process 1 has another plan than process 0 \(\w{12} and \w{12}\): start all"):
        together(3, work)
