"""Growing: constants as numbers, first guesses where zero is a trap, and what is said where the next level does not fit."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cpikan.fields.scaled_cpikan import ScaledCPIKAN
from cpikan.learning.balancers.mean_squares import MEAN_SQUARES
from cpikan.learning.iterate import placed
from cpikan.learning.recipes import Recipe
from cpikan.learning.runner import Budget, Runner
from cpikan.learning.samplers.points import Points
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.stop_reason import StopReason
from cpikan.learning.strategies.constants import without_constants
from cpikan.learning.strategies.grow import Grow, Size, data_left, expected_s, level_size
from cpikan.learning.strategies.ridge_start import directions, sharpened
from cpikan.physics.catalogue import problem as problem_named
from cpikan.physics.problem import Condition, Problem, Side, Unknown, dirichlet, initial, measured
from cpikan.physics.regions import box

LONG = SolveSettings(seconds=1e4)


def grown(problem, parameters, settings=LONG):
    return solve(problem, recipe=Recipe("mine", "", (), own=Grow(parameters=parameters)), settings=settings)


def two_coefficients():
    """u_t = a u_xx + b u_x with a = 0.2, b = -0.5: two decaying modes that move, 200 clean values."""
    a, b = 0.2, -0.5

    def truth(x):
        parts = [torch.sin(n * (x[..., 0] + b * x[..., 1])) * torch.exp(-a * n * n * x[..., 1]) for n in (1, 3)]
        return parts[0] + 0.5 * parts[1]

    def residual(u, x):
        moved = u.value[..., 1] * u.second[..., 0, 0] + u.value[..., 2] * u.gradient[..., 0, 0]
        return u.gradient[..., 0, 1] - moved

    points = torch.rand(200, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    region = box([0, 0], [1, 1], ["x", "t"])
    return Problem("moving", region, residual, [measured(points, truth(points))], outputs=3, constants={1: a, 2: b})


def test_coefficients_that_are_outputs_are_found_as_numbers():
    found = grown(two_coefficients(), 500)
    assert found.metrics["coefficients"] == pytest.approx([0.2, -0.5], abs=1e-4)
    values = found.field(torch.rand(20, 2, dtype=torch.float64)).detach()
    assert float((values[:, 1:].amax(dim=0) - values[:, 1:].amin(dim=0)).max()) == 0.0


def test_a_problem_without_its_constants_has_the_same_residuals():
    problem = two_coefficients()
    less = without_constants(problem)
    assert (less.outputs, [one.name for one in less.unknowns]) == (1, ["output 1", "output 2"])
    x = torch.rand(7, 2, dtype=torch.float64)
    field = ScaledCPIKAN([2, 5, 3], [1, 4], ([0, 0], [1, 1]))
    jet = field.jet(x)
    flat = jet._replace(gradient=jet.gradient.clone(), second=jet.second.clone())
    flat.gradient[:, 1:], flat.second[:, 1:] = 0.0, 0.0
    torch.testing.assert_close(less.interior(flat, x)["equation"], problem.interior(flat, x)["equation"])
    side = Side(x, torch.zeros_like(x), data=torch.zeros(7, dtype=torch.float64))
    torch.testing.assert_close(less.conditions[0].residual(flat, side), problem.conditions[0].residual(flat, side))


def test_an_unknown_function_is_found_from_data_though_zero_is_stationary():
    """(a u')' with both unknown: a u'' = f with a = 2 + x from values of u = sin 2 x and a at the left end."""

    def residual(v, x):
        return v.value[..., 1] * v.second[..., 0, 0] + (2 + x[..., 0]) * 4 * torch.sin(2 * x[..., 0])

    points = torch.linspace(0, 2, 60, dtype=torch.float64)[:, None]
    problem = Problem(
        "a",
        box([0], [2]),
        residual,
        [measured(points, torch.sin(2 * points[:, 0])), dirichlet(2.0, ["x=min"], output=1)],
        exact=lambda x: torch.stack([torch.sin(2 * x[..., 0]), 2 + x[..., 0]], -1),
        outputs=2,
    )
    assert grown(problem, 300).metrics["relative_l2"] < 1e-3


@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_levels_end_where_data_have_nothing_left_but_noise(noise):
    """u'' + k u = 0 with k = 4 from values of cos 2 x: exact data lead on to rounding, noisy ones need two levels."""
    points = torch.linspace(0, 3, 80, dtype=torch.float64)[:, None]
    drawn = torch.randn(80, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    problem = Problem(
        "spring",
        box([0], [3]),
        lambda u, x, unknown: u.second[..., 0, 0] + unknown["k"] * u.value[..., 0],
        [measured(points, torch.cos(2 * points[:, 0]) + noise * drawn)],
        unknowns=[Unknown("k", 3.0, 4.0)],
    )
    found = grown(problem, 1000)
    if noise:
        assert (found.history.ends[-1].reason, found.stop_reason) == (StopReason.COST, StopReason.COST)
        assert found.field.layers[-1].degree == 20
        assert found.metrics["coefficients"][0] == pytest.approx(4, abs=0.1)
        alone = solve(problem, settings=LONG)  # nor are pieces tried for it
        assert (alone.stop_reason, type(alone.field)) == (StopReason.COST, ScaledCPIKAN)
    else:
        assert found.metrics["coefficients"][0] == pytest.approx(4, abs=1e-9)


def test_what_neighbours_share_of_a_misfit_is_no_noise():
    """Values of |x - 1| plus noise at x = 0 ... 3, against u = 0 and against the values themselves."""
    points = torch.linspace(0, 3, 400, dtype=torch.float64)[
        torch.randperm(400, generator=torch.Generator().manual_seed(1))
    ]
    noise = 0.1 * torch.randn(400, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for values, size, low, high in ((noise, 0.1, -0.15, 0.15), ((points - 1).abs() + noise, 1.0, 0.9, 1.0)):
        problem = Problem("mine", box([0], [3]), lambda u, x: u.second[..., 0, 0], [measured(points[:, None], values)])
        field = ScaledCPIKAN([1, 2, 1], 3, ([0], [3]))
        field.set_output_coefficients(torch.zeros_like(field.output_coefficients()))
        misfit, shared = data_left(problem, placed(problem, field, Points(8, 2), MEAN_SQUARES)[0])
        assert misfit == pytest.approx(size, rel=0.1)
        assert low < shared < high
    free = Problem("mine", box([0], [3]), lambda u, x: u.second[..., 0, 0], [dirichlet(0.0)])
    assert all(math.isnan(one) for one in data_left(free, placed(free, field, Points(8, 2), MEAN_SQUARES)[0]))


def test_an_eigenvalue_with_a_normalisation_is_found():
    """-u'' = m u on [0, 2], zero at the ends, u'(0) = 1: m = (pi / 2)^2 from a start of 2."""
    middle = torch.tensor([[0.0]], dtype=torch.float64)
    problem = Problem(
        "string",
        box([0], [2]),
        lambda u, x, unknown: u.second[..., 0, 0] + unknown["m"] * u.value[..., 0],
        [dirichlet(0.0), Condition("slope", lambda j, s: j.gradient[..., 0, 0] - 1, at=middle)],
        unknowns=[Unknown("m", 2.0, math.pi**2 / 4)],
    )
    assert grown(problem, 200).metrics["coefficients"][0] == pytest.approx(math.pi**2 / 4, rel=1e-6)


def test_what_is_expected_of_a_level_follows_the_last_two():
    assert expected_s([[1000.0, 2.0]], 2000) == pytest.approx(16.0)  # the cube, where nothing else is known
    assert expected_s([[500.0, 0.5], [1000.0, 2.0]], 2000) == pytest.approx(2 * 2**2.3)  # a square, and a little more
    assert expected_s([[500.0, 2.0], [1000.0, 2.0]], 2000) == pytest.approx(8.0)  # never below the square


def test_a_smaller_level_is_taken_where_the_largest_does_not_fit_and_none_is_named():
    problem = problem_named("helmholtz-2d-1-4")
    state = {"metric": None, "degree": 22, "times": [[507.0, 1.0]], "done": 3, "reason": int(StopReason.RUNNING)}

    def strategy_in(seconds):
        return Grow(), Runner(problem, Budget(seconds))

    grow, run = strategy_in(1000.0)
    assert grow._next(run, state) == Size(33, 32)
    grow, run = strategy_in(8.0)  # 9 s are expected of degree 32: (1057 / 507)^3
    assert 27 <= grow._next(run, state).degree < 32
    grow, run = strategy_in(1.5)
    assert grow.stop(run, state) is StopReason.NEXT_LEVEL
    assert "judged not to fit" in StopReason.NEXT_LEVEL.text


def test_the_largest_network_is_used_where_the_next_degree_would_be_too_large():
    state = {"metric": None, "degree": 22, "times": [[507.0, 1.0]], "done": 3, "reason": int(StopReason.RUNNING)}
    run = Runner(problem_named("helmholtz-2d-1-4"), Budget(1e6))
    assert Grow(parameters=900)._next(run, state) == Size(30, 29)
    assert Grow(parameters=600).stop(run, state) is StopReason.BUDGET


def test_a_near_solution_that_varies_along_one_axis_takes_few_directions_and_points():
    found = solve("helmholtz-2d-1-4", settings=SolveSettings(seconds=1e4, rtol=1e-8))
    # degree 32 at both axes has 1057 coefficients, and twice as many residuals; a quarter of the waves are along x
    assert found.metrics["parameters"] < 0.6 * 1057
    assert found.metrics["collocation_points"] - 360 <= 1000  # without those of the walls
    assert found.metrics["relative_l2"] < 1e-8


def test_only_a_metric_of_a_near_solution_takes_directions_off():
    problem, metric = problem_named("helmholtz-2d-1-4"), np.diag([1 / 16, 1.0])
    assert level_size(problem, 32, metric, trusted=True).nodes == 16  # nearly half of 33: 1.9 times a quarter
    assert level_size(problem, 32, metric).nodes == 33
    assert level_size(problem, 32, np.eye(2), trusted=True).nodes == 33


def test_a_sharpened_metric_keeps_its_axes_and_lays_directions_nearer_to_the_steep_one():
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    assert sharpened(turn @ np.diag([1.0, 4.0]) @ turn.T) == pytest.approx(turn @ np.diag([0.5, 4.0]) @ turn.T)
    metric = np.diag([1 / 16, 1.0])
    plain, sharp = (directions(9, 2, np.random.default_rng(1), one) for one in (metric, sharpened(metric)))
    assert (np.abs(sharp[:, 1]) > np.abs(plain[:, 1])).all()


def test_points_of_data_keep_the_degrees_of_the_table():
    region = box([0, 0], [1, 1], ["x", "t"])
    points = torch.rand(9, 2, dtype=torch.float64)
    problem = Problem(
        "data", region, lambda u, x: u.gradient[..., 0, 1], [measured(points, points[:, 0]), initial(0.0)]
    )
    state = {"metric": None, "degree": 22, "times": [[507.0, 1.0]], "done": 3, "reason": int(StopReason.RUNNING)}
    assert Grow().stop(Runner(problem, Budget(8.0)), state) is StopReason.NEXT_LEVEL


@pytest.mark.parametrize(
    ("done", "gain", "best", "reason"),
    [
        (2, 2.6, 4e-3, StopReason.STALLED),  # a level of what is not smooth
        (2, 100.0, 4e-3, StopReason.RUNNING),
        (2, 100.0, 2e-2, StopReason.STALLED),
        (2, 2.6, 5e-5, StopReason.RUNNING),  # near: a further level may get there
        (1, 2.6, 4e-3, StopReason.RUNNING),
    ],
)
def test_networks_give_way_to_what_follows_where_levels_gain_little(done, gain, best, reason):
    run = SimpleNamespace(converged=False)
    assert Grow(stop_if_stagnant=True)._reason(run, done, gain, best) is reason
    assert Grow()._reason(run, done, gain, best) is StopReason.RUNNING
