"""Pieces: layers, coefficients that jump, unknowns and data, on steady problems and evolutions."""

from __future__ import annotations

import math

import pytest
import torch

from cpikan.errors import InputError
from cpikan.fields.piecewise import PiecewiseChebyshev
from cpikan.fields.protocol import Jet
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.strategies import pieces
from cpikan.learning.strategies.slabs import first_knots
from cpikan.learning.strategies.viscosity import viscous
from cpikan.physics.collocation import collocate
from cpikan.physics.problem import Condition, Problem, Unknown, dirichlet, initial, interface, measured
from cpikan.physics.regions import box

LONG = SolveSettings(seconds=1e4)


def error(problem, recipe="default"):
    return solve(problem, recipe=recipe, settings=LONG).metrics["relative_l2"]


def two_conductors(low=2.0, high=0.5, at=0.4):
    """(k u')' = 0 from 1 to 3 on [0, 1] with k = low below ``at`` and high above: straight lines of one flux."""
    region = box([0], [1], breaks={"x": [at]})
    flux = 2.0 / (at / low + (1 - at) / high)

    def exact(x):
        below = 1 + flux / low * x[..., 0]
        return torch.where(x[..., 0] < at, below, 3 - flux / high * (1 - x[..., 0]))

    conditions = [dirichlet(1.0, ["x=min"]), dirichlet(3.0, ["x=max"]), *interface(region, "x", at, (low, high))]
    return Problem("two conductors", region, lambda u, x: u.second[..., 0, 0], conditions, exact)


def test_a_coefficient_that_jumps_leaves_a_kink_of_the_right_flux():
    found = solve(two_conductors(), settings=LONG)
    assert isinstance(found.field, PiecewiseChebyshev)
    assert found.metrics["relative_l2"] < 1e-12
    assert all(one["violation"] < 1e-10 for one in found.metrics["conditions"])
    assert collocate(two_conductors()) is None  # one polynomial has no kink


def test_data_that_jump_bend_the_solution_without_a_condition():
    """u'' = 1 below 0.25, -3 above: value and slope are equal at the break though none was said."""
    region = box([0], [1], breaks={"x": [0.25]})

    def exact(x):
        t = x[..., 0]
        return torch.where(t < 0.25, t * t / 2, 1 / 32 + (t - 0.25) / 4 - 1.5 * (t - 0.25) ** 2)

    right = torch.where
    problem = Problem(
        "load",
        region,
        lambda u, x: u.second[..., 0, 0] - right(x[..., 0] < 0.25, 1.0, -3.0),
        [dirichlet(exact)],
        exact,
    )
    assert error(problem) < 1e-12


def test_an_interface_in_two_axes_and_one_in_time():
    """k (u_xx + u_yy) = 0 with a kink at x = 1 / 2, and heat that passes from one bar to another."""
    region = box([0, 0], [1, 1], breaks={"x": [0.5]})
    sinh, cosh = math.sinh(math.pi / 2), math.cosh(math.pi / 2)

    def exact(x):
        away = math.pi * (x[..., 0] - 0.5)
        above = sinh * torch.cosh(away) + cosh / 3 * torch.sinh(away)
        return torch.where(away < 0, torch.sinh(away + math.pi / 2), above) * torch.sin(math.pi * x[..., 1])

    def residual(u, x):
        return u.second[..., 0, :].sum(-1)

    conditions = [dirichlet(exact), *interface(region, "x", 0.5, (1.0, 3.0))]
    assert error(Problem("plates", region, residual, conditions, exact)) < 1e-6

    bars = box([0, 0], [2, 0.1], ["x", "t"], breaks={"x": [1.0]})

    def steady(x):
        return torch.where(x[..., 0] < 1, 2 * x[..., 0], 2 + (x[..., 0] - 1) / 2)

    def heat(u, x):
        return u.gradient[..., 0, 1] - torch.where(x[..., 0] < 1, 1.0, 4.0) * u.second[..., 0, 0]

    ends = [initial(steady), dirichlet(steady), *interface(bars, "x", 1.0, (1.0, 4.0))]
    assert error(Problem("bars", bars, heat, ends, steady), "march") < 1e-9


def test_layers_get_short_intervals():
    """-e u'' + u = 0 with u = 1 at both ends, e = 1e-6: layers of a thousandth."""
    width = 1e-3

    def exact(x):
        return torch.exp(-x[..., 0] / width) + torch.exp((x[..., 0] - 1) / width)

    problem = Problem(
        "layers", box([0], [1]), lambda u, x: u.value[..., 0] - width**2 * u.second[..., 0, 0], [dirichlet(1.0)], exact
    )
    found = solve(problem, recipe="pieces", settings=LONG)
    assert found.metrics["relative_l2"] < 1e-8
    lengths = (found.field.parts.scaling.upper - found.field.parts.scaling.lower)[:, 0]
    assert float(lengths.min()) < 5 * width
    assert float(lengths.max()) > 0.1


def test_unknown_coefficients_and_data_in_pieces():
    """u'' = -m u, u(0) = 0, u'(0) = 3 and values of sin 3 x: m = 9 from a start of 4."""
    points = torch.linspace(0.2, 1.9, 11, dtype=torch.float64)[:, None]
    problem = Problem(
        "string",
        box([0], [2]),
        lambda u, x, unknown: u.second[..., 0, 0] + unknown["m"] * u.value[..., 0],
        [
            dirichlet(0.0, ["x=min"]),
            Condition("slope", lambda j, s: j.gradient[..., 0, 0] - 3, ("x=min",)),
            measured(points, torch.sin(3 * points[:, 0])),
        ],
        exact=lambda x: torch.sin(3 * x[..., 0]),
        unknowns=[Unknown("m", 4.0, 9.0)],
    )
    found = solve(problem, recipe="pieces", settings=LONG)
    assert found.metrics["coefficients"] == pytest.approx([9.0], rel=1e-8)
    assert found.metrics["relative_l2"] < 1e-8


def test_breaks_are_parts_with_two_sides_and_refused_where_they_are_not():
    region = box([0, -1], [1, 1], ["x", "y"], breaks={"y": [0.25]})
    assert region.parts[-1] == "y=0.25"
    assert "y=0.25" not in region.walls
    points, normals = region.on("y=0.25", torch.rand(5, 1).numpy())
    assert (points[:, 1] == 0.25).all()
    assert (normals == [0, 1]).all()
    with pytest.raises(InputError, match="give a place inside the box"):
        box([0], [1], breaks={"x": [1.0]})
    with pytest.raises(InputError, match="one axis in space"):
        box([0, 0], [1, 1], breaks={"x": [0.5], "y": [0.5]})
    with pytest.raises(InputError, match="unknown axis of a break"):
        box([0], [1], breaks={"z": [0.5]})
    with pytest.raises(InputError, match="unknown break of the region"):
        interface(region, "y", 0.5)
    with pytest.raises(InputError, match="one condition for each"):
        Problem("both", region, lambda u, x: u.value[..., 0], [dirichlet(0.0, ["y=0.25", "x=min"])])


def test_knots_go_through_breaks_and_fill_what_is_between():
    assert first_knots(0.0, 1.0, [0.1], 4).tolist() == pytest.approx([0.0, 0.1, 0.325, 0.55, 0.775, 1.0])
    assert first_knots(0.0, 1.0, [], 2).tolist() == [0.0, 0.5, 1.0]


def test_pieces_are_refused_elsewhere_by_name():
    with pytest.raises(InputError, match="poisson-disc cannot be solved in pieces"):
        solve("poisson-disc", recipe="pieces", settings=LONG)


def held_front(width=0.05):
    """A front of a bistable equation that a weak load alone holds at 0.3: least squares from a smooth start end with others."""

    def exact(x):
        return torch.tanh((x[..., 0] - 0.3) / width)

    def residual(u, x):
        v = u.value[..., 0]
        return width**2 * u.second[..., 0, 0] - 2 * v * (v * v - 1) - 0.1 * (v - exact(x))

    return Problem("held front", box([-1], [1]), residual, [dirichlet(exact)], exact)


def test_a_front_is_reached_from_a_more_viscous_problem_and_not_called_the_only_one(monkeypatch):
    monkeypatch.setitem(pieces._LEVELS, 1, ((1e-5, 10),))
    found = solve(held_front(), recipe="pieces", settings=LONG)
    assert found.metrics["relative_l2"] < 1e-4
    assert found.trust == "undetermined"
    assert "more viscous" in found.trust_reason
    monkeypatch.setattr(pieces, "from_viscous", lambda *given: None)
    assert error(held_front(), "pieces") > 0.1


def test_viscosity_bends_the_equation_alone():
    plain = held_front()
    stronger = viscous(plain, 4.0)
    x = torch.tensor([[0.2], [-0.7]], dtype=torch.float64)
    jet = Jet(*(torch.randn(2, 1, *shape, dtype=torch.float64) for shape in ((), (1,), (1,))))
    bent = jet._replace(second=4.0 * jet.second)
    assert torch.equal(stronger.residuals(jet, x), plain.residuals(bent, x))
    assert stronger.conditions == plain.conditions


def test_many_waves_along_the_other_axis_are_followed(monkeypatch):
    """sin(8 pi y) on [-1, 1] takes 8 pi modes and some: Chebyshev coefficients are Bessel functions J_n(8 pi), below 1e-3 from
    n = 36 on."""
    monkeypatch.setitem(pieces._LEVELS, 2, ((1e-3, 8),))

    def exact(x):
        return torch.sin(math.pi * x[..., 0]) * torch.sin(8 * math.pi * x[..., 1])

    def residual(u, x):
        return u.second[..., 0, :].sum(-1) + u.value[..., 0] - (1 - 65 * math.pi**2) * exact(x)

    waves = Problem("waves", box([-1, -1], [1, 1]), residual, [dirichlet(exact)], exact)
    found = solve(waves, recipe="pieces", settings=LONG)
    assert found.metrics["relative_l2"] < 1e-3
