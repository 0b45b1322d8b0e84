"""solve: stated errors on known problems, reasons, rollback, determinism, and bad input."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from posed_least_squares import equations

import cpikan
from cpikan.errors import InputError
from cpikan.fields.corner import CornerField
from cpikan.fields.functional import parameter_vector
from cpikan.fields.piecewise import PiecewiseChebyshev
from cpikan.fields.protocol import Jet
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.fields.tensor_chebyshev import TensorChebyshev
from cpikan.learning import runner
from cpikan.learning.baseline import collocation_baseline
from cpikan.learning.methods.adam import Adam
from cpikan.learning.methods.last_layer import LastLayer
from cpikan.learning.methods.levenberg import Levenberg
from cpikan.learning.methods.quasi_newton import QuasiNewton
from cpikan.learning.objective import LinearSystem, linearise_any, make_objective
from cpikan.learning.qr_equations import QREquations, StackedQR
from cpikan.learning.recipes import RECIPES, Recipe
from cpikan.learning.robust import SQUARES
from cpikan.learning.runner import Runner
from cpikan.learning.samplers.points import Points
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.stop_reason import StopReason
from cpikan.learning.strategies.grow import Grow
from cpikan.physics.catalogue import problem
from cpikan.physics.problem import Problem, dirichlet
from cpikan.physics.regions import box

LONG = SolveSettings(seconds=1e4)  # no test ends by the clock: a busy machine must not change what is found
KEYS = {
    *("problem", "relative_l2", "max_error", "seconds", "iterations", "collocation_points", "parameters"),
    *("heldout_residual", "boundary_violation", "steps_per_second", "stop_reason", "seed"),
}


# a tenth of what is measured with a quiet machine is left as room for rounding, not for luck
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("helmholtz-1d", 1e-10),
        ("helmholtz-1d-k4pi", 1e-10),
        ("poisson-1d", 1e-10),
        ("beam", 1e-9),
        ("poisson-2d", 1e-9),
        ("poisson-disc", 1e-9),
        ("advection", 1e-9),
        ("reaction-diffusion", 1e-9),
    ],
)
def test_the_default_recipe_reaches_its_error(name, error):
    solution = solve(name, settings=LONG)
    assert solution.metrics["relative_l2"] <= error
    assert solution.stop_reason.converged
    assert solution.metrics["boundary_violation"] <= 1e3 * error
    assert solution.warnings == ()
    assert not isinstance(solution.field, PiecewiseChebyshev)  # a network resolves them: no march


def test_the_same_domain_a_hundred_times_as_wide_is_the_same_problem():
    recipe = Recipe("small", "", (), own=Grow(parameters=600))
    errors = [
        solve(name, recipe=recipe, settings=LONG).metrics["relative_l2"] for name in ("diffusion", "diffusion-600")
    ]
    assert max(errors) <= 1e-8
    assert max(errors) <= 10 * min(errors)


def test_coefficients_are_found():
    found = solve("diffusion-inverse", settings=SolveSettings(1e4, rtol=1e-7)).metrics
    assert found["coefficients"][0] == pytest.approx(0.1, rel=1e-6)


# one hidden layer, no last-layer step: each nonlinear method has to move, and says why it stopped
@pytest.mark.parametrize("recipe", ["levenberg-marquardt", "ssbroyden", "ssbfgs", "bfgs", "lbfgs", "paper"])
def test_every_recipe_lowers_the_residual(recipe):
    field = ScaledCPIKAN([1, 6, 1], 6, start=Start(1))
    before = parameter_vector(field)
    solution = solve("helmholtz-1d", field, recipe, settings=SolveSettings(1e4, steps=30))
    assert solution.field is field
    assert not torch.equal(before, parameter_vector(field))
    costs = [record["cost"] for record in solution.history.records]
    assert min(costs) < costs[0]
    assert solution.history.ends
    assert all(end.reason.text for end in solution.history.ends)


def test_levenberg_alone_solves_helmholtz():
    field = ScaledCPIKAN([1, 8, 1], 12)
    stages = Recipe("mine", "", (Levenberg(150),))
    assert solve("helmholtz-1d", field, stages, settings=LONG).metrics["relative_l2"] < 1e-4


def test_equal_seeds_give_equal_bits_and_others_do_not():
    recipe = Recipe("small", "", (), own=Grow(parameters=150))
    first, again, other = (solve("poisson-2d", recipe=recipe, seed=s, settings=LONG) for s in (3, 3, 4))
    assert torch.equal(parameter_vector(first.field), parameter_vector(again.field))
    assert first.metrics["relative_l2"] == again.metrics["relative_l2"]
    assert parameter_vector(first.field).shape != parameter_vector(other.field).shape or not torch.equal(
        parameter_vector(first.field), parameter_vector(other.field)
    )


def test_a_new_problem_takes_few_lines():
    def residual(u, x):  # u'' + u^3 = f with u = x e^x
        truth = x[..., 0] * torch.exp(x[..., 0])
        return u.second[..., 0, 0] + u.value[..., 0] ** 3 - (x[..., 0] + 2) * torch.exp(x[..., 0]) - truth**3

    def exact(x):
        return x[..., 0] * torch.exp(x[..., 0])

    mine = cpikan.Problem("mine", box([-1], [1]), residual, [dirichlet(exact)], exact)
    solution = cpikan.solve(mine)
    assert solution.metrics["relative_l2"] < 1e-10
    assert set(solution.summary()) >= KEYS


def test_a_field_of_the_users_is_solved_in_place():
    field = ScaledCPIKAN([1, 20, 1], 12, start=Start(2))
    solution = solve("helmholtz-1d", field)
    assert solution.field is field
    assert solution.metrics["relative_l2"] < 1e-9
    assert solution.history.ends[0].stage == "last layer"


def _nan_beyond(limit):
    """Linear, but not finite once u' is large: steps that are too long meet it."""

    def residual(u: Jet, x):
        slope = u.gradient[..., 0, 0]
        return torch.where(slope.abs() > limit, torch.nan, u.second[..., 0, 0] + torch.sin(3 * x[..., 0]))

    return Problem("trap", box([-1], [1]), residual, [dirichlet(0.0)], lambda x: x[..., 0])


def test_adam_rolls_back_from_what_is_not_finite():
    field = ScaledCPIKAN([1, 6, 1], 5)
    field.set_output_coefficients(torch.zeros_like(field.output_coefficients()))
    run = Runner(_nan_beyond(0.5))
    run.place(field, Points(100, 2))
    reason = run.run(Adam(400, rate=0.5, clip=None))
    assert reason == StopReason.DIVERGED
    assert math.isfinite(run.iterate.heldout_cost())
    assert bool(torch.isfinite(parameter_vector(field)).all())
    assert run.iterate.best_cost == pytest.approx(run.iterate.heldout_cost(), rel=1e-12)


@pytest.mark.parametrize("stage", [QuasiNewton("ssbroyden", 200), Levenberg(50), LastLayer()])
def test_others_step_around_what_is_not_finite(stage):
    field = ScaledCPIKAN([1, 6, 1], 5)
    field.set_output_coefficients(torch.zeros_like(field.output_coefficients()))
    run = Runner(_nan_beyond(0.6))
    run.place(field, Points(100, 2))
    before = run.iterate.heldout_cost()
    reason = run.run(stage)
    assert reason != StopReason.RUNNING
    assert run.iterate.heldout_cost() <= before
    assert bool(torch.isfinite(parameter_vector(field)).all())


def test_the_best_state_at_held_out_points_stays():
    """Few points and many parameters: the fit goes on to fall when the held-out residual rises again."""
    field = ScaledCPIKAN([1, 10, 1], 10, start=Start(5))
    run = Runner(problem("helmholtz-1d"))
    run.place(field, Points(12, 2, "random"))
    run.run(Levenberg(200, patience=20))
    costs = [record["heldout"] for record in run.history.records]
    assert run.iterate.heldout_cost() == pytest.approx(min([*costs, run.iterate.best_cost]), rel=1e-9)
    assert run.iterate.heldout_cost() < max(costs)


def test_time_is_a_reason():
    solution = solve("helmholtz-1d", recipe="ssbroyden", settings=SolveSettings(seconds=1e-6))
    assert solution.stop_reason == StopReason.TIME
    assert solution.metrics["iterations"] == 0  # no step is kept that ends beyond the limit


@pytest.mark.parametrize("steps", [1, 17, 40])  # of 30 of Adam, then self-scaled Broyden
def test_steps_are_a_budget_over_all_stages(steps):
    recipe = Recipe("mine", "", (Adam(30, 1e-2), QuasiNewton("ssbroyden", 100)), hidden=(6,), degree=6)
    solution = solve("helmholtz-1d", recipe=recipe, settings=SolveSettings(1e4, steps=steps))
    assert solution.metrics["iterations"] == steps
    assert solution.stop_reason == StopReason.BUDGET
    assert [end.stage for end in solution.history.ends] == ["adam", "ssbroyden"][: 1 + (steps > 30)]
    assert sum(end.iterations for end in solution.history.ends) == steps


def test_a_tolerance_ends_a_solve_once_it_is_met():
    """Levels go on until the held-out residual, relative to that of u = 0, is below: the one before was above."""
    met = {}
    for rtol in (1e-3, 1e-10):
        solution = solve("helmholtz-1d", settings=SolveSettings(1e4, rtol=rtol))
        assert solution.stop_reason == StopReason.TARGET
        met[rtol] = solution.metrics["iterations"], solution.metrics["heldout_residual"]
    assert met[1e-3][0] < met[1e-10][0]
    assert met[1e-3][1] > met[1e-10][1]


def _box_with(*values):
    """Laplace on a square with one condition per value, all of one name."""
    names = ("x=min", "x=max", "y=min", "y=max")
    conditions = [dirichlet(value, [names[n]]) for n, value in enumerate(values)]
    return Problem("square", box([0, 0], [1, 1]), lambda u, x: u.second[..., 0, :].sum(-1), conditions)


def test_the_boundary_violation_is_of_each_condition_and_not_of_all_of_its_name():
    """The zero field misses u = 1 and u = 3 by just that, each with its own weight."""
    field = ScaledCPIKAN([2, 3, 1], 3, ([0, 0], [1, 1]))
    field.set_output_coefficients(torch.zeros_like(field.output_coefficients()))
    nothing = Recipe("nothing", "", ())
    found = solve(_box_with(1.0, 3.0, 0.0), field, nothing, settings=SolveSettings(points=Points(60, 40)))
    assert found.metrics["boundary_violation"] == pytest.approx(3.0, rel=1e-14)


@pytest.mark.parametrize("stage", [Adam(3), QuasiNewton("bfgs", 2), Levenberg(1), LastLayer()])
def test_a_stage_of_few_iterations_leaves_a_record(stage):
    field = ScaledCPIKAN([1, 6, 1], 6, start=Start(1))
    found = solve("helmholtz-1d", field, Recipe("short", "", (stage,)), settings=SolveSettings(points=Points(60, 2)))
    last = found.history.records[-1]
    assert last["iteration"] == found.metrics["iterations"] <= 3
    assert last["stage"] == stage.name
    assert math.isfinite(last["cost"])
    assert math.isfinite(last["heldout"])


def test_history_is_json_lines(tmp_path):
    solution = solve("beam")
    solution.history.save(tmp_path / "h.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "h.jsonl").read_text().splitlines()]
    assert lines[0].keys() == {"stage", "iteration", "seconds", "cost", "heldout"}
    assert lines[-1]["reason"] == solution.stop_reason.name.lower()


def test_rows_of_the_tape_are_those_of_reverse_mode():
    for name in ("kovasznay", "wave", "advection"):
        one = problem(name)
        field = ScaledCPIKAN([2, 4, 3, one.outputs], [3, 2, 4], (one.region.lower, one.region.upper))
        rows = make_objective(one, Points(20, 16).init(one)[0])
        residuals, jacobian = rows.linearise(field)
        plain = [linearise_any(field, term, rows.sets[term.name]) for term in rows.terms]
        assert torch.allclose(residuals, torch.cat([r for r, _ in plain]), atol=1e-10)
        truth = torch.cat([j for _, j in plain])
        assert float((jacobian - truth).abs().max()) <= 1e-12 * float(truth.abs().max())
        last = rows.linearise(field, "output")[1]
        # the constant comes first among the features, and last among the parameters of a layer
        own = jacobian[:, -last.shape[1] :]
        own = torch.cat([own[:, -one.outputs :], own[:, : -one.outputs]], dim=1)
        assert float((last - own).abs().max()) <= 1e-12 * float(truth.abs().max())
        assert torch.allclose(rows.residuals(field), residuals, atol=1e-10)


def test_a_singular_corner_is_solved_with_its_functions_and_not_without():
    plain = solve("poisson-lshape", recipe=Recipe("plain", "", (), own=Grow(parameters=600)), settings=LONG)
    found = solve("poisson-lshape", settings=LONG)
    assert isinstance(found.field, CornerField)
    assert found.metrics["relative_l2"] < 1e-9
    assert plain.metrics["relative_l2"] > 1e-3


def test_linear_problems_are_told_from_others():
    for name, linear in (("wave", True), ("acoustic", True), ("burgers", False), ("kovasznay", False), ("beam", True)):
        one = problem(name)
        assert make_objective(one, Points(20, 16).init(one)[0]).affine(one.outputs) is linear


def test_stacked_qr_solves_and_qr_steps_are_those_of_normal_equations():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(40, 12, dtype=torch.float64, generator=generator)
    b = torch.randn(40, dtype=torch.float64, generator=generator)
    found = StackedQR.of(a, 1e-14).solve(b)
    assert torch.allclose(found, torch.linalg.lstsq(a, b[:, None]).solution[:, 0], atol=1e-12)
    exact, normal = QREquations.of(LinearSystem(b, a)), equations(b[None], a[None], SQUARES)
    damping, metric = torch.tensor([0.1], dtype=torch.float64), normal.diagonal
    assert torch.allclose(exact.step(damping, metric)[0], normal.step(damping, metric)[0], atol=1e-12)


def test_any_field_with_a_jet_is_solved():
    field = TensorChebyshev([14, 14], ([0, 0], [1, 1]))
    found = solve("poisson-2d", field, "levenberg-marquardt", settings=SolveSettings(1e4, Points(500, 160), steps=60))
    assert found.metrics["relative_l2"] < 1e-8


def test_collocation_stands_beside():
    found = collocation_baseline(problem("reaction-diffusion"), 28)
    assert found is not None
    assert found["relative_l2"] < 1e-9
    assert collocation_baseline(problem("poisson-disc")) is None
    assert collocation_baseline(problem("diffusion-inverse")) is None
    # spectral: error falls by orders when nodes are doubled
    coarse, fine = (collocation_baseline(problem("poisson-3d-mixed"), n) for n in (4, 8))
    assert coarse is not None
    assert fine is not None
    assert fine["relative_l2"] < 1e-3 * coarse["relative_l2"]


def test_too_few_rows_are_warned_of():
    field = ScaledCPIKAN([1, 10, 1], 10)
    found = solve("helmholtz-1d", field, "last-layer", settings=SolveSettings(1e4, Points(40, 2)))
    assert "give twice as many" in found.warnings[0]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: solve("helmholtz-1d", recipe="papper"), "did you mean 'paper'"),
        (lambda: solve("poisson-4d"), "unknown problem"),
        (lambda: solve("helmholtz-1d", ScaledCPIKAN([2, 4, 1])), "give 1 and 1"),
        (lambda: solve("helmholtz-1d", ScaledCPIKAN([1, 4, 1], networks=2)), "single one"),
        (lambda: solve("helmholtz-1d", ScaledCPIKAN([1, 4, 1]).float()), "double"),
        (lambda: solve("diffusion-600", ScaledCPIKAN([2, 4, 1])), "outside the field's domain"),
        (lambda: solve("helmholtz-1d", settings=SolveSettings(seconds=0)), "more than 0"),
        (lambda: solve("helmholtz-1d", settings=SolveSettings(steps=0)), "at least 1"),
        (lambda: solve("helmholtz-1d", settings=SolveSettings(rtol=-1.0)), "0 or more"),
        (lambda: solve(_nan_beyond(-1.0), ScaledCPIKAN([1, 4, 1])), "not finite at the start"),
    ],
)
def test_bad_input_is_told(call, text):
    with pytest.raises(InputError, match=text):
        call()


def test_the_doors_open():
    assert cpikan.ScaledCPIKAN is ScaledCPIKAN
    assert "burgers" in cpikan.problems()
    assert cpikan.problem("beam").outputs == 2
    assert np.isfinite(cpikan.solve("beam").metrics["relative_l2"])


def test_a_callback_gets_the_field_and_may_end_the_solve():
    heard = []

    def callback(field, record):
        heard.append((float(field(torch.zeros(1, 1, dtype=torch.float64)).detach()), record))
        return len(heard) == 3

    found = solve("poisson-1d", recipe="adam", settings=SolveSettings(1e4, callback=callback))
    assert found.stop_reason is StopReason.ASKED
    assert [record for _, record in heard] == found.history.records
    assert len(heard) == 3
    assert found.metrics["iterations"] == heard[-1][1]["iteration"] < 100
    assert len({value for value, _ in heard}) > 1  # the field as it is then
    with pytest.raises(InputError, match="give a function of"):
        SolveSettings(callback="print")  # type: ignore[arg-type]


def test_a_callback_gets_the_solution_where_walls_are_exact():
    walls = torch.tensor([[0.0, 0.3], [0.7, 1.0]], dtype=torch.float64)
    heard = []
    small = replace(RECIPES["trained"], hidden=(4, 4), degree=3)
    callback = lambda field, record: heard.append(float(field(walls).detach().abs().max()))  # noqa: E731
    solve("poisson-2d", recipe=small, settings=SolveSettings(1e4, steps=2, callback=callback))
    assert heard
    assert max(heard) < 1e-15  # u = 0 there, whatever the network


def test_seconds_are_those_of_the_clock(monkeypatch):
    ticks = iter(range(10_000))
    monkeypatch.setitem(runner.CLOCKS, "processor", lambda: float(next(ticks)))
    found = solve("poisson-1d", recipe="adam", settings=SolveSettings(50.0, clock="processor"))
    assert found.stop_reason is StopReason.TIME
    assert 50 < found.metrics["seconds"] < 100  # a second each time that somebody looks
    assert found.metrics["seconds"] == int(found.metrics["seconds"])


def test_what_was_asked_for_and_has_no_effect_is_told():
    pieces = replace(RECIPES["pieces"], stages=(Adam(1),))
    one = replace(problem("poisson-1d"), exact=None)

    def told(recipe, **settings):
        return " ".join(solve(one, recipe=recipe, settings=SolveSettings(1e4, steps=1, **settings)).warnings)

    assert "recipe pieces finds a field of its own: with a field, or a sampler" in told(pieces, constraints="penalty")
    assert "restarts without effect: recipe pieces" in told(pieces, restarts=2)
    assert "of its own" not in told(pieces)
