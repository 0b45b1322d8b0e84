"""Augmented Lagrangian: multipliers are those of Karush, Kuhn and Tucker, conditions are met, and no bit is lost on the way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_checkpoint import both, same

from cpikan.errors import InputError
from cpikan.fields.functional import parameter_vector
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning import solve_settings
from cpikan.learning.augmented_lagrangian import AugmentedLagrangian, with_multipliers
from cpikan.learning.balancers.kinds import balancer_named
from cpikan.learning.balancers.mean_squares import MEAN_SQUARES
from cpikan.learning.combinators import BestSoFar
from cpikan.learning.methods.adam import Adam
from cpikan.learning.methods.geodesic import GeodesicLevenberg
from cpikan.learning.methods.last_layer import LastLayer
from cpikan.learning.methods.levenberg import Levenberg
from cpikan.learning.methods.quasi_newton import QuasiNewton
from cpikan.learning.objective import PointSet, linearise_any, make_objective
from cpikan.learning.recipes import CONSTRAINTS, Recipe
from cpikan.learning.runner import Budget, Runner
from cpikan.learning.samplers.fresh import FreshPoints
from cpikan.learning.samplers.points import Points
from cpikan.learning.solution import load_solution
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.stop_reason import StopReason
from cpikan.physics.catalogue import problem
from cpikan.physics.problem import Condition, Problem, dirichlet, measured, neumann
from cpikan.physics.regions import box

LINE = box([-1], [1])
POINTS = Points(30, 2)


def fitted():
    """Fit exp(x) by a quintic that has to be 1, 2 and of slope 0 at the ends: the data say otherwise."""

    def residual(u, x):
        return u.value[..., 0] - torch.exp(x[..., 0])

    ends = [dirichlet(1.0, "x=min", name="left"), dirichlet(2.0, "x=max", name="right"), neumann(0.0, "x=max")]
    return Problem("fit", LINE, residual, ends)


def line(seed=1):
    return ScaledCPIKAN([1, 1], 5, start=Start(seed))


def solved(one, strategy, steps, sampler=POINTS, field=None):
    run = Runner(one, Budget(1e4, steps))
    run.place(line() if field is None else field, sampler, MEAN_SQUARES)
    return run, run.run(strategy)


def multipliers(run):
    """The multipliers of every condition, from the shift and the weight of its residuals."""
    objective = run.iterate.objective
    return {
        name: at.shift[0] * objective.weights[name] ** 2 * at.rows
        for name, at in objective.sets.items()
        if at.shift is not None
    }


def karush_kuhn_tucker(one, field):
    """Solve min |r|^2 / 2 subject to the conditions as one linear system: parameters, and multipliers in the mean of n."""
    objective = make_objective(one, POINTS.init(one)[0])
    objective, _ = MEAN_SQUARES.init(objective, field)
    start = parameter_vector(field)
    r, jacobian = objective.only("equation").linearise(field)
    g, c = objective.only(*one.condition_names).reweighted(dict.fromkeys(one.condition_names, 1.0)).linearise(field)
    system = torch.cat([torch.cat([jacobian.mT @ jacobian, c.mT], 1), torch.cat([c, c.new_zeros(len(c), len(c))], 1)])
    found = torch.linalg.solve(system, torch.cat([-(jacobian.mT @ r), -g]))
    return start + found[: len(start)], found[len(start) :]  # every condition here has one point


@pytest.mark.parametrize(
    ("method", "steps", "close"),
    [
        (Levenberg(10_000), 200, 1e-6),
        (LastLayer(10_000), 200, 1e-6),
        (GeodesicLevenberg(solve_output=False), 200, 1e-6),
    ],
    ids=lambda one: getattr(one, "name", None),
)
def test_a_quadratic_programme_has_its_multipliers(method, steps, close):
    one = fitted()
    place, wanted = karush_kuhn_tucker(one, line())
    run, _ = solved(one, AugmentedLagrangian(method, every=8), steps)
    found = torch.cat(list(multipliers(run).values()))
    assert float((found - wanted).abs().max()) < close * float(wanted.abs().max())
    assert float((parameter_vector(run.iterate.field) - place).abs().max()) < close * float(place.abs().max())


def test_the_outer_loop_ends_by_itself():
    run, reason = solved(fitted(), AugmentedLagrangian(Levenberg(10_000)), None)
    assert reason is not StopReason.BUDGET
    assert run.iterations < 2000


def test_violations_are_those_of_the_penalty_method_at_first_and_vanish():
    """The penalty's minimiser misses the conditions by lambda / mu: multipliers do away with that at the same penalty."""
    one, missed = fitted(), {}
    for strategy in (Levenberg(60), AugmentedLagrangian(Levenberg(10_000), growth=1.0)):
        run, _ = solved(one, strategy, 200)
        missed[type(strategy).__name__] = furthest(run)
    assert missed["AugmentedLagrangian"] < 1e-4 * missed["Levenberg"]


@torch.no_grad()
def furthest(run):
    """The largest violation of any condition."""
    terms = [term for term in run.iterate.objective.terms if not term.inside]
    return max(float(t.at(run.iterate.field, run.iterate.heldout.sets[t.name])[0].abs().max()) for t in terms)


class GaussPoints(Points):
    """Gauss-Legendre points for the energy."""

    def init(self, problem):
        sets, state = super().init(problem)
        nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(20))
        return {**sets, "equation": PointSet(nodes[:, None], weight=weights)}, state


def test_multipliers_of_an_energy_are_the_flux_through_the_wall():
    """Ritz and Poisson: the first variation of int (u'^2 / 2 - f u) + sum lambda u / n is 0 where lambda / n = -du/dn.

    u = (1 - x^2)(1 + x + x^3) has the outward slopes 2 and -6 at -1 and 1.
    """

    def source(x):
        return 2.0 + 20 * x[..., 0] ** 3

    one = Problem(
        "ritz",
        LINE,
        lambda u, x: u.second[..., 0, 0] + source(x),
        [dirichlet(0.0)],
        energy=lambda u, x: 0.5 * u.gradient[..., 0, 0].square() - source(x) * u.value[..., 0],
    )
    run, _ = solved(one, AugmentedLagrangian(QuasiNewton("bfgs", 10_000), every=10), 110, GaussPoints(20, 2))
    flux = multipliers(run)["dirichlet"] / 2
    assert torch.allclose(flux, torch.tensor([-2.0, 6.0], dtype=torch.float64), atol=1e-4)


def test_the_square_that_is_completed_has_the_gradient_of_the_lagrangian():
    one, field = problem("burgers"), ScaledCPIKAN([2, 3, 1], 3, ([-1, 0], [1, 1]), start=Start(2))
    objective = make_objective(one, Points(20, 12).init(one)[0])
    names = one.condition_names
    generator = torch.Generator().manual_seed(1)
    given = {n: torch.randn(objective.sets[n].rows, generator=generator, dtype=torch.float64) for n in names}
    penalties = {n: 3.0 + k for k, n in enumerate(names)}
    shifted = with_multipliers(objective, given, penalties)
    total = objective.only("equation").cost(field)
    for term in objective.terms[1:]:
        g = term.at(field, objective.sets[term.name])[0]
        total = total + (given[term.name] * g + penalties[term.name] / 2 * g**2).mean()
    wanted = torch.cat([part.flatten() for part in torch.autograd.grad(total, list(field.parameters()))])
    assert torch.allclose(shifted.gradient(field)[1], wanted, rtol=1e-11, atol=1e-12)
    system = shifted.linearise(field)  # and so has the linear system
    assert torch.allclose(system.jacobian.mT @ system.residuals, wanted, rtol=1e-10, atol=1e-11)
    for term in shifted.terms:
        r, _ = linearise_any(field, term, shifted.sets[term.name])
        assert torch.allclose(r * shifted.weights[term.name], shifted.only(term.name).linearise(field).residuals)


def test_penalties_rise_only_where_the_violation_has_not_fallen():
    strategy = AugmentedLagrangian(Levenberg(), growth=3.0, fall=0.5, largest=4.0)
    one = torch.ones(2, dtype=torch.float64)
    state = {
        "multipliers": {"a": one, "b": one},
        "penalties": {"a": 2.0, "b": 2.0},
        "first": {"a": 1.0, "b": 1.0},
        "violations": {"a": 1.0, "b": 1.0},
        "reason": 0,
    }
    found = strategy._outer(state, {"a": 0.49 * one, "b": -0.51 * one}, StopReason.RUNNING)
    assert found["penalties"] == {"a": 2.0, "b": 4.0}  # 6 is beyond the largest
    assert torch.equal(found["multipliers"]["a"], one + 2 * 0.49 * one)
    assert torch.equal(found["multipliers"]["b"], one - 2 * 0.51 * one)
    assert found["violations"] == {"a": 0.49, "b": 0.51}


def test_multipliers_that_climb_meet_the_conditions_closer_than_squares_do():
    missed = {}
    for strategy in (Adam(400, 0.03), AugmentedLagrangian(Adam(400, 0.03), ascent=0.02)):
        run, _ = solved(fitted(), strategy, 300)
        missed[type(strategy).__name__] = furthest(run)
    assert missed["AugmentedLagrangian"] < 0.5 * missed["Adam"]
    wanted = karush_kuhn_tucker(fitted(), line())[1]
    assert torch.equal(torch.cat(list(multipliers(run).values())).sign(), wanted.sign())


@pytest.mark.parametrize(
    "strategy",
    [
        AugmentedLagrangian(Levenberg(60), every=5),
        AugmentedLagrangian(Adam(40, 1e-2), every=7),
        AugmentedLagrangian(Adam(40, 1e-2), ascent=0.01),
    ],
    ids=["levenberg", "adam", "ascent"],
)
def test_an_interrupted_solve_ends_with_the_same_bits(tmp_path, strategy):
    same(*both(tmp_path, Recipe("mine", "", (strategy,)), points=Points(40, 2), calls=(2, 3), steps=40))


def test_the_settings_choose_how_conditions_are_held():
    recipe = Recipe("mine", "", (Adam(30, 1e-2), BestSoFar(Adam(9))), hidden=(3,), degree=3)
    for name in CONSTRAINTS:
        settings = SolveSettings(1e4, Points(40, 20), constraints=name)
        applied = settings.applied(recipe, problem("poisson-2d"))
        assert applied.exact_values is (name in ("exact", "symmetric"))
    assert [type(stage) for stage in recipe.holding("augmented-lagrangian").stages] == [AugmentedLagrangian] * 2
    assert list(recipe.holding("augmented-lagrangian").methods()) == list(recipe.methods())
    with pytest.raises(InputError, match="needs a method that follows the gradient"):
        replace(recipe, stages=(Levenberg(3),)).holding("al-pinn")
    found = solve(
        "poisson-2d", recipe=recipe, settings=SolveSettings(1e4, constraints="augmented-lagrangian", steps=20)
    )
    assert found.history.ends[0].stage == "adam, augmented Lagrangian"


class Restless(Points):
    """Move the points of a condition, where multipliers are."""

    every = 2

    def update(self, problem, objective, field, state):
        name = problem.condition_names[0]
        return objective.replace_points(name, objective.sets[name]._replace(shift=None)), state


def noisy():
    at = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
    return replace(fitted(), conditions=[measured(at, torch.exp(at[:, 0]))])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: AugmentedLagrangian(Adam(), every=0), "every 0 steps: give at least 1"),
        (lambda: AugmentedLagrangian(Adam(), growth=0.5), "grow by 0.5"),
        (lambda: AugmentedLagrangian(Adam(), fall=1.0), "between 0 and 1"),
        (lambda: AugmentedLagrangian(Adam(), ascent=0.0), "rate 0.0: give more than 0"),
        (lambda: AugmentedLagrangian(Levenberg(), ascent=1.0), "needs a method that follows the gradient"),
        (lambda: solved(noisy(), AugmentedLagrangian(Adam()), 3), "measured data alone"),
        (lambda: solved(replace(fitted(), conditions=[]), AugmentedLagrangian(Adam()), 3), "which has no conditions"),
        (
            lambda: solved(fitted(), AugmentedLagrangian(Adam(), every=3), 9, Restless(30, 2)),
            "moved the points of 'left'",
        ),
        (lambda: Recipe("mine", "", ()).holding("hard"), "unknown way to hold conditions 'hard'"),
    ],
)
def test_bad_settings_and_problems_are_one_line(make, text):
    with pytest.raises(InputError, match=text) as told:
        make()
    assert "\n" not in str(told.value)


def test_a_balancer_that_goes_on_weighing_is_refused():
    recipe = Recipe("mine", "", (Adam(5),))
    settings = SolveSettings(1.0, balancer="gradnorm", constraints="augmented-lagrangian")
    with pytest.raises(InputError, match="GradNorm with an augmented Lagrangian, whose penalties"):
        settings.applied(recipe, problem("poisson-2d"))
    replace(settings, balancer=balancer_named("mean-squares", problem("poisson-2d"))).applied(
        recipe, problem("poisson-2d")
    )


def test_multipliers_are_not_lost_in_silence_where_points_move():
    with pytest.raises(
        InputError, match="the sampler moved the points of 'left', where multipliers are: give one that"
    ):
        solved(fitted(), AugmentedLagrangian(Adam(50)), 3, FreshPoints(Points(30, 2, "random")))


def test_data_that_were_measured_stay_squares():
    one = replace(fitted(), conditions=[dirichlet(1.0, "x=min"), *noisy().conditions])
    run, _ = solved(one, AugmentedLagrangian(Levenberg(), every=4), 30)
    assert set(multipliers(run)) == {"dirichlet"}
    assert isinstance(one.conditions[1], Condition)


def test_exact_is_asked_for_and_refused_where_there_is_nothing_to_hold():
    small, settings = Recipe("mine", "", (Levenberg(2),)), SolveSettings(1e4, Points(30, 2), constraints="exact")
    mine = line()
    given = solve("poisson-1d", mine, small, settings=settings)
    assert given.metrics["boundary_violation"] < 1e-13
    assert given.field.network is mine
    nothing = replace(fitted(), conditions=noisy().conditions)
    with pytest.raises(InputError, match="no condition of fit can be held by the form of the solution"):
        solve(nothing, recipe=small, settings=settings)


def test_the_form_of_the_solution_is_made_once(monkeypatch):
    calls, make = [], solve_settings.with_exact_conditions
    monkeypatch.setattr(
        solve_settings, "with_exact_conditions", lambda *given, **how: calls.append(given) or make(*given, **how)
    )
    solve(fitted(), line(), Recipe("r", "", (Adam(1),)), settings=SolveSettings(1e4, constraints="exact"))
    assert len(calls) == 1


def test_a_solution_with_slopes_held_is_saved_and_loaded(tmp_path):
    small, one = (
        Recipe("mine", "", (Levenberg(2),), hidden=(3,), degree=2),
        replace(fitted(), conditions=[neumann(1.0)]),
    )
    found = solve(one, recipe=small, settings=SolveSettings(1e4, Points(30, 2), constraints="exact"))
    assert found.metrics["boundary_violation"] < 1e-13
    again = load_solution(found.save(tmp_path / "s"), one)
    x = torch.rand(5, 1, dtype=torch.float64)
    assert torch.equal(again(x), found(x))
