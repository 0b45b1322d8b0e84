"""Variable projection against SciPy and finite differences; dual Levenberg-Marquardt; restarts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cpikan.errors import InputError
from cpikan.fields.functional import parameter_vector
from cpikan.fields.random_feature import RandomFeatureCKAN
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.methods.levenberg import Levenberg
from cpikan.learning.methods.variable_projection import Projected, VariableProjection
from cpikan.learning.objective import LinearSystem
from cpikan.learning.qr_equations import DualQREquations, QREquations, factored
from cpikan.learning.recipes import Recipe
from cpikan.learning.runner import Runner
from cpikan.learning.samplers.points import Points
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.stop_reason import StopReason
from cpikan.physics.catalogue import problem

D = torch.float64


def placed(name="helmholtz-1d", widths=(1, 3, 1), degree=4):
    one = problem(name)
    field = ScaledCPIKAN(list(widths), degree, (one.region.lower, one.region.upper), start=Start(2))
    run = Runner(one)
    run.place(field, Points(60, 2))
    return run, Projected(run.iterate.objective, field)


def test_the_cost_is_that_of_the_best_coefficients():
    run, projected = placed()
    inner = parameter_vector(run.iterate.field)[projected.inner]
    cost = float(projected.cost(inner[None]))
    residuals, jacobian = run.iterate.objective.linearise(run.iterate.field, "output")
    best = torch.linalg.lstsq(jacobian, residuals[:, None], driver="gelsd").solution
    # no coefficient is better: what a least-squares step could gain is rounding
    assert float((jacobian @ best).norm()) <= 1e-9 * float(residuals.norm())
    assert cost == pytest.approx(0.5 * float(residuals.square().sum()), rel=1e-12)


def test_the_gradient_is_that_of_the_projected_cost():
    """Kaufman's Jacobian leaves out a term that is orthogonal to the residuals: the gradient is exact."""
    run, projected = placed()
    inner = parameter_vector(run.iterate.field)[projected.inner][None]
    gradient = projected.linearise(inner).gradient[0]
    step = 1e-5
    for index in range(inner.shape[1]):
        ends = []
        for sign in (1, -1):
            moved = inner.clone()
            moved[0, index] += sign * step
            ends.append(float(projected.cost(moved)))
        # central differences: third derivatives times step^2, and rounding of the cost over the step
        slope = (ends[0] - ends[1]) / (2 * step)
        assert abs(slope - float(gradient[index])) <= 1e-5 * float(gradient.norm())


def test_it_needs_far_fewer_iterations_than_the_whole_problem():
    counts = []
    for stage in (Levenberg(120), VariableProjection(60)):
        field = ScaledCPIKAN([1, 4, 1], 10, start=Start(0))
        run = Runner(problem("helmholtz-1d"))
        run.place(field, Points(200, 2))
        run.run(stage)
        reached = [r["iteration"] for r in run.history.records if r["heldout"] < 1e-6 * run.iterate.scale]
        counts.append(reached[0] if reached else 10**6)
    assert counts[1] <= 60
    assert counts[1] < 0.5 * counts[0]


def test_nonlinear_problems_lower_the_residual_too():
    field = ScaledCPIKAN([2, 4, 1], 4, ([-1, 0], [1, 1]))
    run = Runner(problem("burgers"))
    run.place(field, Points(150, 60))
    before = run.iterate.heldout_cost()
    assert run.run(VariableProjection(15)) is not StopReason.BAD_START
    assert run.iterate.heldout_cost() < 0.2 * before


def test_what_it_does_not_take():
    run = Runner(problem("helmholtz-1d"))
    run.place(RandomFeatureCKAN([1, 8, 1], 3), Points(60, 2))
    with pytest.raises(InputError, match="use recipe last-layer"):
        run.run(VariableProjection())


@given(st.integers(0, 10_000), st.integers(1, 12), st.floats(-8, 2))
@settings(deadline=None)
def test_the_dual_step_is_that_of_the_primal_form(seed, rows, exponent):
    generator = torch.Generator().manual_seed(seed)
    jacobian = torch.randn(rows, 13, dtype=D, generator=generator) * torch.logspace(-2, 2, 13, dtype=D)
    residuals = torch.randn(rows, dtype=D, generator=generator)
    found = factored(LinearSystem(residuals, jacobian))
    assert isinstance(found, DualQREquations)
    primal = QREquations.of(LinearSystem(residuals, jacobian))
    damping = torch.tensor([10.0**exponent], dtype=D)
    (step, finite), (other, _) = found.step(damping, found.diagonal), primal.step(damping, primal.diagonal)
    assert bool(finite)
    assert torch.allclose(found.gradient, primal.gradient)
    # both are backward stable; the primal system has condition sqrt(largest / damping)
    scale = found.diagonal[0].sqrt()
    close = 1e-13 * (1 + 13 / 10**exponent) ** 0.5 * (1 + float((scale * other[0]).norm()))
    assert float((scale * (step - other)[0]).norm()) <= 100 * close
    # and solve what they should: (J'J + m D) step = -J'r
    left = jacobian.mT @ (jacobian @ step[0]) + damping * found.diagonal[0] * step[0]
    assert float(((left + found.gradient[0]) / scale).norm()) <= 1e-9 * (1 + float((found.gradient[0] / scale).norm()))


def test_more_parameters_than_rows_are_fitted_in_the_dual_form():
    field = ScaledCPIKAN([1, 10, 1], 10, start=Start(5))
    run = Runner(problem("helmholtz-1d"))
    run.place(field, Points(30, 2))
    residuals, jacobian = run.iterate.objective.linearise(field)
    assert isinstance(factored(LinearSystem(residuals, jacobian)), DualQREquations)
    first = float(residuals.square().sum())
    run.run(Levenberg(60, patience=1000))
    assert min(r["cost"] for r in run.history.records) < 1e-12 * first  # fewer rows than parameters: all can vanish


def test_a_stuck_start_is_left_for_a_new_one():
    """One node of degree 2 cannot: every start ends stuck, all that are allowed are tried, and the best stays."""
    stages = Recipe("mine", "", (Levenberg(30, patience=2),), restarts=3)
    field = ScaledCPIKAN([1, 1, 1], 2, start=Start(4))
    found = solve("helmholtz-1d", field, stages, settings=SolveSettings(1e4, Points(40, 2)))
    costs = [end.heldout for end in found.history.ends]
    assert len(costs) == 4
    assert len(set(costs)) > 1
    once = SolveSettings(1e4, Points(40, 2), restarts=0)
    alone = solve("helmholtz-1d", ScaledCPIKAN([1, 1, 1], 2, start=Start(4)), stages, settings=once)
    assert len(alone.history.ends) == 1
    assert alone.history.ends[0].heldout == costs[0]
    run = Runner(problem("helmholtz-1d"))
    run.place(ScaledCPIKAN([1, 1, 1], 2, start=Start(4)), Points(40, 2))
    run.iterate.field.load_state_dict(found.field.state_dict())
    assert run.iterate.heldout_cost() == pytest.approx(min(costs), rel=1e-12)


def test_a_start_that_got_there_is_not_left():
    stages = Recipe("mine", "", (Levenberg(200),), restarts=3)
    found = solve("poisson-1d", ScaledCPIKAN([1, 4, 1], 10), stages, settings=SolveSettings(1e4, Points(120, 2)))
    assert len(found.history.ends) == 1
    with pytest.raises(InputError, match="give 0 or more"):
        SolveSettings(restarts=-1)
