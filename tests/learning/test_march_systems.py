"""Marching with several outputs, in time alone and with more space axes, against DOP853 and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.integrate import solve_ivp

from cpikan.fields.files import load_field, save_field
from cpikan.fields.piecewise import PiecewiseChebyshev
from cpikan.learning.recipes import Recipe
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.stop_reason import StopReason
from cpikan.learning.strategies.march import Level, March, can_march
from cpikan.physics.evolution import evolution
from cpikan.physics.problem import Condition, Problem, dirichlet, initial, initial_rate
from cpikan.physics.regions import box

LONG = SolveSettings(seconds=1e4)


def marched(problem, *levels, settings=LONG):
    return solve(problem, recipe=Recipe("march", "", (), own=March(tuple(levels))), settings=settings)


def ode(name, slopes, start, end, method="DOP853"):
    """y' = slopes(t, y), a list of expressions that NumPy and torch both know; ``exact`` is SciPy's solution."""
    found = solve_ivp(slopes, (0, end), start, method, rtol=1e-11, atol=1e-13, dense_output=True)
    count = len(start)

    def exact(x):
        return torch.from_numpy(found.sol(x[..., 0].numpy().ravel()).T.copy()).reshape(*x.shape[:-1], count)

    def residual(u, x):
        right = slopes(x[..., 0], [u.value[..., o] for o in range(count)])
        return {f"y{o}": u.gradient[..., o, 0] - right[o] for o in range(count)}

    conditions = [initial(value, output=o) for o, value in enumerate(start)]
    return Problem(name, box([0], [end], ["t"]), residual, conditions, exact, outputs=count, second="none")


CASES = {
    "sir": (lambda t, y: [-0.6 * y[0] * y[1], 0.6 * y[0] * y[1] - y[1] / 3, y[1] / 3], [0.99, 0.01, 0.0], 40),
    "oscillator": (lambda t, y: [2 * y[1], -2 * y[0]], [0.0, 1.0], 40),
    "lorenz": (
        lambda t, y: [10 * (y[1] - y[0]), y[0] * (28 - y[2]) - y[1], y[0] * y[1] - 8 / 3 * y[2]],
        [1, 2, 3.0],
        2,
    ),
    "stiff": (lambda t, y: [-2000 * (y[0] - y[1]), -y[1]], [0.0, 1.0], 2),
}


@pytest.mark.parametrize("name", CASES)
def test_systems_in_time_alone_are_those_of_a_runge_kutta_method(name):
    problem = ode(name, *CASES[name], method="Radau" if name == "stiff" else "DOP853")
    found = marched(problem, Level(1e-8, (1, 14)))
    # errors of single slabs add up, and grow by the factor of the flow (some 1e3 for Lorenz's equations over this time)
    assert found.metrics["relative_l2"] < (1e-4 if name == "lorenz" else 1e-6)


def test_the_default_recipe_marches_what_evolves_in_time_alone():
    problem = ode("predators", lambda t, y: [y[0] - y[0] * y[1], y[0] * y[1] - y[1]], [1.5, 1.0], 9)
    found = solve(problem, settings=LONG)
    assert isinstance(found.field, PiecewiseChebyshev)
    assert found.metrics["relative_l2"] < 1e-8


def test_one_equation_of_second_order_keeps_its_rate():
    """y'' + 9 y = 0 as one equation, to t = 30."""
    problem = Problem(
        "spring",
        box([0], [30], ["t"]),
        lambda u, x: u.second[..., 0, 0] + 9 * u.value[..., 0],
        [initial(1.0), initial_rate(3.0)],
        exact=lambda x: torch.cos(3 * x[..., 0]) + torch.sin(3 * x[..., 0]),
    )
    assert evolution(problem).rates == (0,)
    assert marched(problem, Level(1e-9, (1, 16))).metrics["relative_l2"] < 1e-7


def schroedinger():
    """i u_t + u_xx = 0 on a ring, u = exp(i (3 x - 9 t)) + exp(-i (x + t)) / 3, as two real outputs."""

    def exact(x):
        one, two = 3 * x[..., 0] - 9 * x[..., 1], -x[..., 0] - x[..., 1]
        return torch.stack([torch.cos(one) + torch.cos(two) / 3, torch.sin(one) + torch.sin(two) / 3], -1)

    def residual(u, x):
        return {"re": u.second[..., 0, 0] - u.gradient[..., 1, 1], "im": u.second[..., 1, 0] + u.gradient[..., 0, 1]}

    conditions = [initial(lambda x, o=o: exact(x)[..., o], output=o) for o in (0, 1)]
    for o in (0, 1):
        conditions += [
            Condition(f"v{o}", lambda j, s, o=o: j.value[..., o] - s.partner.value[..., o], ("x=min",), "x"),
            Condition(
                f"s{o}", lambda j, s, o=o: j.gradient[..., o, 0] - s.partner.gradient[..., o, 0], ("x=min",), "x"
            ),
        ]
    region = box([-math.pi, 0], [math.pi, 0.1], ["x", "t"])
    return Problem("ring", region, residual, conditions, exact, outputs=2)


def test_two_outputs_on_a_ring_are_a_complex_wave(tmp_path):
    found = marched(schroedinger(), Level(1e-4, (8, 6)))
    assert found.metrics["relative_l2"] < 1e-3
    save_field(found.field, tmp_path / "field")
    x = torch.tensor([[0.3, 0.2], [-3.0, 0.1]], dtype=torch.float64)
    torch.testing.assert_close(load_field(tmp_path / "field")(x), found.field(x), rtol=0, atol=0)


def test_two_space_axes_get_more_modes_where_the_solution_asks_for_them():
    """u_t = (u_xx + u_yy) / 20 with sin(pi x) sin(3 pi y)."""

    def exact(x):
        rate = 10 * math.pi**2 / 20
        return torch.sin(math.pi * x[..., 0]) * torch.sin(3 * math.pi * x[..., 1]) * torch.exp(-rate * x[..., 2])

    problem = Problem(
        "plate",
        box([0, 0, 0], [1, 1, 0.1], ["x", "y", "t"]),
        lambda u, x: u.gradient[..., 0, 2] - (u.second[..., 0, 0] + u.second[..., 0, 1]) / 20,
        [initial(exact), dirichlet(0.0)],
        exact,
    )
    found = marched(problem, Level(3e-3, (6, 5)))
    assert found.metrics["relative_l2"] < 1e-2
    assert found.field.parts.modes[1] > found.field.parts.modes[0] >= 6  # three half waves need more than one


def test_without_an_axis_t_the_axis_with_conditions_at_its_lower_end_is_time():
    region = box([0], [5])
    both = [dirichlet(1.0, ["x=min"]), dirichlet(0.0, ["x=max"])]
    assert can_march(Problem("start", region, lambda u, x: u.gradient[..., 0, 0] + u.value[..., 0], both[:1]))
    assert not can_march(Problem("ends", region, lambda u, x: u.second[..., 0, 0] + u.value[..., 0], both))
    steady = [dirichlet(0.0, ["x=min"]), dirichlet(0.0, ["y=min"])]
    assert not can_march(Problem("two", box([0, 0], [1, 1]), lambda u, x: u.gradient[..., 0, :].sum(-1) - 1, steady))


def test_time_that_is_up_leaves_what_there_is():
    problem = ode("short", *CASES["sir"])
    found = solve(problem, settings=SolveSettings(seconds=1e-6))
    assert found.stop_reason is StopReason.TIME
    assert found.metrics["relative_l2"] > 1e-3  # it stands still


def test_a_variable_without_a_start_is_not_tied_from_slab_to_slab():
    """w = u_xx is no state: u alone is handed on."""
    problem = Problem(
        "heat",
        box([0, 0], [1, 1], ["x", "t"]),
        lambda u, x: {"heat": u.gradient[..., 0, 1] - u.value[..., 1], "bend": u.value[..., 1] - u.second[..., 0, 0]},
        [initial(lambda x: torch.sin(math.pi * x[..., 0])), dirichlet(0.0)],
        outputs=2,
    )
    assert evolution(problem).values == (0,)
    assert evolution(problem).rates == ()


def test_an_equation_that_divides_by_its_solution_is_judged_by_what_is_finite():
    """An orbit: at u = 0 the equation is not finite, and nothing could be relative to it."""

    def slopes(t, y):
        cubed = (y[0] ** 2 + y[1] ** 2) ** 1.5
        return [y[2], y[3], -y[0] / cubed, -y[1] / cubed]

    found = marched(ode("orbit", slopes, [1.0, 0.0, 0.0, 1.1], 5), Level(1e-4, (1, 10)), Level(1e-8, (1, 14)))
    assert found.metrics["relative_l2"] < 1e-6  # the second level was gone through
