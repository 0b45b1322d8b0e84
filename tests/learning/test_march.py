"""Marching through time: sharp evolutions, second order in time, rings; who may march, and when it stops."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import pytest
import torch

from cpikan.errors import InputError
from cpikan.fields.piecewise import PiecewiseChebyshev
from cpikan.learning.recipes import RECIPES, Recipe
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.stop_reason import StopReason
from cpikan.learning.strategies import auto
from cpikan.learning.strategies.auto import AutoStrategy
from cpikan.learning.strategies.grow import Grow
from cpikan.learning.strategies.march import Level, March, can_march
from cpikan.learning.strategies.slab import Place, Slab
from cpikan.physics.catalogue import problem, reaction
from cpikan.physics.evolution import evolution
from cpikan.physics.problem import Problem, dirichlet, initial, neumann
from cpikan.physics.regions import box

LONG = SolveSettings(seconds=1e4)


def marched(problem, *levels, settings=LONG):
    return solve(problem, recipe=Recipe("march", "", (), own=March(tuple(levels))), settings=settings)


@pytest.fixture
def fewer_modes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A reference of 512 cosines: right to 4 / (512 pi^2) = 8e-4 at the kink of the start alone, and to 1e-9 once t > 0.08."""
    monkeypatch.setattr(reaction, "_MODES", 512)
    reaction._allen_cahn_path.cache_clear()
    yield
    reaction._allen_cahn_path.cache_clear()


@pytest.mark.usefixtures("fewer_modes")
@pytest.mark.parametrize(
    ("name", "error"),
    # the tolerance bounds a series' tail relative to the largest value; errors of the order of it may add up over slabs
    [("allen-cahn", 1e-2), ("reaction-diffusion", 1e-4), ("diffusion", 1e-3), ("advection", 1e-3)],
)
def test_the_coarse_level_resolves_sharp_and_smooth_evolutions(name, error):
    found = marched(name, Level(1e-3 if name == "allen-cahn" else 1e-4, (8, 6)))
    assert isinstance(found.field, PiecewiseChebyshev)
    assert found.metrics["relative_l2"] < error
    assert found.stop_reason is StopReason.COST


def test_a_wave_of_second_order_goes_through_slabs():
    assert marched("wave", Level(1e-6, (10, 8))).metrics["relative_l2"] < 1e-4


def test_intervals_gather_where_the_solution_is_steep():
    found = marched("burgers", Level(1e-4, (8, 6)))
    assert found.metrics["relative_l2"] < 1e-3
    boxes = found.field.parts.scaling
    width, middle = (boxes.upper - boxes.lower)[:, 0], ((boxes.upper + boxes.lower) / 2)[:, 0]
    late = boxes.lower[:, 1] > 0.5
    assert float(width[late].min()) < 0.02  # the layer is nu wide: 0.003
    assert float(width[late & (middle.abs() > 0.5)].min()) > 0.1


def test_slopes_at_walls_are_conditions_too():
    """u_t = u_xx with u_x given at one end and u at the other: u = exp(-pi^2 t / 4) cos(pi x / 2)."""

    def residual(u, x):
        return u.gradient[..., 0, 1] - u.second[..., 0, 0]

    def exact(x):
        return torch.exp(-(math.pi**2) / 4 * x[..., 1]) * torch.cos(math.pi / 2 * x[..., 0])

    region = box([0, 0], [1, 1], ["x", "t"])
    conditions = [neumann(0.0, ["x=min"]), dirichlet(0.0, ["x=max"]), initial(exact)]
    found = marched(Problem("bar", region, residual, conditions, exact), Level(1e-6, (10, 8)))
    assert found.metrics["relative_l2"] < 1e-6


def test_a_finer_level_is_kept_and_a_worse_one_is_not():
    coarse = marched("reaction-diffusion", Level(1e-3, (6, 5)))
    both = marched("reaction-diffusion", Level(1e-3, (6, 5)), Level(1e-6, (10, 8)))
    back = marched("reaction-diffusion", Level(1e-6, (10, 8)), Level(1e-3, (6, 5)))
    assert both.metrics["relative_l2"] < 0.1 * coarse.metrics["relative_l2"]
    # sums over points go in another order where memory lies otherwise
    assert back.metrics["heldout_residual"] == pytest.approx(both.metrics["heldout_residual"], rel=1e-6)


def test_problems_of_another_kind_are_refused_by_name():
    assert can_march(problem("burgers"))
    for name in ("poisson-2d", "poisson-disc", "kovasznay", "reaction-diffusion-inverse", "helmholtz-1d"):
        assert not can_march(problem(name))
    with pytest.raises(InputError, match="poisson-2d cannot be marched: give a box with an axis t"):
        marched("poisson-2d", Level(1e-3, (8, 6)))


def test_the_default_recipe_marches_where_networks_do_not_resolve(monkeypatch):
    # no network resolves it: small ones take less time to show it
    monkeypatch.setattr(auto, "Grow", functools.partial(Grow, parameters=100))
    recipe = Recipe("auto", "", (), own=AutoStrategy(March((Level(1e-3, (8, 6)),))))
    assert isinstance(solve("burgers", recipe=recipe, settings=LONG).field, PiecewiseChebyshev)
    assert isinstance(RECIPES["default"].own, AutoStrategy)


def test_a_soliton_radiates_no_waves_that_take_the_steps():
    """KdV as w = u_xx: what the intervals do not hold makes waves whose rates grow by the cube of their number. Refined in time
    first, this took 66 slabs and was wrong by 1.5 %."""
    region = box([-6, 0], [6, 0.4], ["x", "t"])

    def shape(x):
        return 2 / torch.cosh(x[..., 0] - 4 * x[..., 1] + 1) ** 2

    def exact(x):
        return torch.stack([shape(x), 4 * shape(x) - 3 * shape(x) ** 2], dim=-1)

    def residual(u, x):
        move = u.gradient[..., 0, 1] + 6 * u.value[..., 0] * u.gradient[..., 0, 0] + u.gradient[..., 1, 0]
        return {"move": move, "bend": u.value[..., 1] - u.second[..., 0, 0]}

    def slope(x):
        return -2 * shape(x) * torch.tanh(x[..., 0] - 4 * x[..., 1] + 1)

    conditions = [initial(shape), dirichlet(shape), neumann(slope, ["x=max"])]
    found = marched(Problem("soliton", region, residual, conditions, exact, outputs=2), Level(1e-3, (8, 6)))
    assert found.metrics["relative_l2"] < 5e-3
    assert len(found.field.parts.scaling.lower[:, 1].unique()) <= 12


def test_tails_at_the_start_are_those_of_what_is_known_there():
    """Of u = x + t^2 T_5(x) and w, which nothing at the start binds: all of w and the second part of u are left out."""
    region = box([-1, 0], [1, 2], ["x", "t"])

    def residual(u, x):
        return {"move": u.gradient[..., 0, 1] - u.value[..., 1], "bend": u.value[..., 1] - u.second[..., 0, 0]}

    posed = Problem("bent", region, residual, [initial(0.0), dirichlet(0.0)], outputs=2)
    slab = Slab(Place(posed, evolution(posed), 0, torch.tensor([-1.0, 1.0]), 0.0, 2.0, (6, 3)), torch.ones(2))
    table = torch.zeros(1, 6, 3, 2, dtype=torch.float64)
    table[0, 1, 0, 0] = 1.0
    table[0, 5, :, 0] = torch.tensor([1.5, 2.0, 0.5])  # (1 + t^)^2 with t^ = t - 1
    table[0, 5, 0, 1] = 7.0
    slab.series.set_output_coefficients(table.flatten(1, 2))
    at_start, everywhere = slab.tails(torch.ones(2), start=True), slab.tails(torch.ones(2))
    assert [float(tail) for tail in at_start] == pytest.approx([0.0, 0.0], abs=1e-13)
    assert [float(tail) for tail in everywhere] == pytest.approx([7.0, 2.0], abs=1e-12)
    table[0, 5, 1, 0] = 0.0
    slab.series.set_output_coefficients(table.flatten(1, 2))
    assert [float(tail) for tail in slab.tails(torch.ones(2), start=True)] == pytest.approx([2.0, 0.0], abs=1e-12)
