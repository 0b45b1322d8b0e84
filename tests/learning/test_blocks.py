"""Subdomains in the solver: exact solutions under every coupling, what is asked for at interfaces, refinement and bad input."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from cpikan.errors import InputError
from cpikan.fields.decomposed import DecomposedField
from cpikan.fields.levelled import LevelledField
from cpikan.fields.protocol import Jet
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.methods.last_layer import LastLayer
from cpikan.learning.objective import make_objective
from cpikan.learning.recipes import Recipe
from cpikan.learning.samplers.points import Points
from cpikan.learning.solution import load_solution
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.strategies.blocks import is_linear_problem
from cpikan.learning.strategies.dissection import solve_dissected
from cpikan.learning.strategies.patchwork import Patchwork
from cpikan.learning.strategies.slab_system import SlabSystem
from cpikan.learning.subdomains import COUPLINGS, Subdomains
from cpikan.physics.interfaces import with_interfaces
from cpikan.physics.outline import circle, difference
from cpikan.physics.problem import Problem, dirichlet, interface, measured, periodic, pinned
from cpikan.physics.regions import box, disc

SMALL = Recipe("small", "one solve of the output layer", (LastLayer(),), hidden=(4,), degree=4)


def found(problem, *counts, recipe="default", more=None, **settings):
    cut = Subdomains(counts, **settings)
    return solve(problem, recipe=recipe, settings=SolveSettings(seconds=1e4, subdomains=cut, **(more or {})))


def quadratic(name="quadratic", region=None):
    """Laplacian u = 2 with u = x^2 + x y: three modes per axis hold it, whatever the subdomains."""

    def exact(x):
        return x[..., 0] ** 2 + x[..., 0] * x[..., 1]

    region = box([0, 0], [2, 1]) if region is None else region
    return Problem(name, region, lambda u, x: u.second[..., 0, :].sum(-1) - 2.0, [dirichlet(exact)], exact)


@pytest.mark.parametrize(("coupling", "levels"), [*((one, 1) for one in COUPLINGS), ("fbpinn", 2)])
def test_every_coupling_finds_a_solution_that_its_series_hold(coupling, levels):
    solution = found(quadratic(), 3, 2, coupling=coupling, modes=3, levels=levels)
    # windows say some things twice: what damping of 1e-13 holds back of them; else rounding of a few hundred rows
    assert solution.metrics["relative_l2"] < (1e-9 if coupling == "fbpinn" else 1e-11)
    assert isinstance(solution.field, LevelledField if levels > 1 else DecomposedField)
    assert solution.metrics["modes"] == [3, 3]
    assert solution.metrics["boxes"] == 6 + (2 * 1 if levels > 1 else 0)
    names = [one["name"] for one in solution.metrics["conditions"]]
    what = {"fbpinn": [], "xpinn": ["value", "slope", "residual"], "cpinn": ["value", "flux"]}[coupling]
    assert names == ["dirichlet", *(f"{one} across {axis}" for axis in "xy" for one in what)]
    assert all(one["violation"] < 1e-8 for one in solution.metrics["conditions"])


def test_one_subdomain_is_the_plain_network():
    """The same draw, alone and as the only part of a decomposition, solved for the same way."""
    recipe = replace(SMALL, hidden=(6,))
    plain = solve("poisson-1d", ScaledCPIKAN([1, 6, 1], 4, ([0.0], [1.0]), start=Start(0)), recipe)
    for coupling in COUPLINGS:
        whole = found("poisson-1d", 1, recipe=recipe, coupling=coupling)
        x = torch.linspace(0, 1, 33, dtype=torch.float64)
        torch.testing.assert_close(whole(x), plain(x), rtol=0, atol=1e-12)


def test_equal_values_and_residuals_alone_leave_a_kink():
    """u'' = 0 with u = 0 at both ends: a hat has equal values and residuals at its tip, which is why xpinn asks for slopes."""
    problem = Problem("rope", box([0], [1]), lambda u, x: u.second[..., 0, 0], [dirichlet(0.0)])
    cut = Subdomains(2, "xpinn")
    names = [one.name for one in cut.coupled(problem).conditions]
    assert names == ["dirichlet", "value across x", "slope across x", "residual across x"]

    class Hat(torch.nn.Module):
        def jet(self, x, second="axes"):
            side = torch.where(x[:, :1] < 0.5, 1.0, -1.0).double()
            return Jet(0.5 - (x - 0.5).abs(), side[..., None], torch.zeros_like(side)[..., None])

    posed = cut.coupled(problem)
    objective = make_objective(posed, Points(8, 2).init(posed)[0])
    with torch.no_grad():
        missed = {name: float(value) for name, value in objective.values(Hat()).items()}
    assert missed["value across x"] < 1e-30
    assert missed["residual across x"] == missed["equation"] == 0
    assert missed["slope across x"] == 0.5 * 2.0**2


def test_first_order_equations_have_no_slopes_to_match():
    def exact(x):
        return torch.sin(3 * x[..., 0])

    problem = Problem(
        "rate", box([-1], [1]), lambda u, x: u.gradient[..., 0, 0] - 3 * torch.cos(3 * x[..., 0]), [pinned([0.0])], exact,
        second="none",
    )  # fmt: skip
    solution = found(problem, 4, coupling="cpinn")
    assert [one["name"] for one in solution.metrics["conditions"]] == ["pinned", "value across x"]
    assert solution.metrics["relative_l2"] < 1e-12
    assert found(problem, 4, modes=16).metrics["relative_l2"] < 1e-9


def test_a_flux_of_the_users_stands_in_for_slopes():
    """(k u')' = 0 with k = 1 and 4 on two halves: what is continuous is k u'."""

    def exact(x):
        t = x[..., 0]
        return torch.where(t < 0.5, 8 * t, 3 + 2 * t) / 5

    def flux(jet, x):
        raise AssertionError("the side of a point is not told by its place")

    region = box([0], [1], breaks={"x": [0.5]})
    conditions = [dirichlet(exact), *interface(region, "x", 0.5, (1.0, 4.0))]
    problem = Problem("two", region, lambda u, x: u.second[..., 0, 0], conditions, exact)
    solution = found(problem, 2, coupling="cpinn", flux=flux)  # not asked for where the break has conditions of its own
    assert solution.metrics["relative_l2"] < 1e-12
    plain = Problem("one", box([0], [1]), lambda u, x: u.second[..., 0, 0], [dirichlet(lambda x: x[..., 0])])
    with pytest.raises(
        InputError, match=r"flux of shape \(1,\) for points of shape \(1, 1\): give one number per axis"
    ):
        found(plain, 2, coupling="cpinn", flux=lambda jet, x: jet.value[..., 0])
    doubled = found(plain, 2, coupling="cpinn", flux=lambda jet, x: 2 * jet.gradient[..., 0, :])
    assert [one["name"] for one in doubled.metrics["conditions"]][2:] == ["flux across x"]
    assert doubled(torch.tensor([[0.3]], dtype=torch.float64)).item() == pytest.approx(0.3, abs=1e-12)


def test_periods_data_and_outputs_are_met_across_subdomains():
    """u' = v, v' = -u on a period, with one value measured: cos and -sin."""

    def exact(x):
        return torch.stack([torch.cos(x[..., 0]), -torch.sin(x[..., 0])], dim=-1)

    def residuals(u, x):
        return {
            "rate of u": u.gradient[..., 0, 0] - u.value[..., 1],
            "rate of v": u.gradient[..., 1, 0] + u.value[..., 0],
        }

    at, region = torch.tensor([[1.0]], dtype=torch.float64), box([0], [2 * math.pi])
    conditions = [*periodic(region), measured(at, torch.cos(at[:, 0])), pinned([0.0], 0.0, output=1)]
    problem = Problem("circle", region, residuals, conditions, exact, outputs=2, second="none")
    for coupling in COUPLINGS:
        assert found(problem, 3, coupling=coupling, modes=16).metrics["relative_l2"] < 1e-8


def test_a_nonlinear_equation_is_solved_by_gauss_newton():
    def exact(x):
        return 2.0 / (1.5 - x[..., 0])

    def residual(u, x):
        return u.gradient[..., 0, 0] - 0.5 * u.value[..., 0] ** 2

    problem = Problem("blow", box([0], [1]), residual, [dirichlet(exact, "x=min")], exact, second="none")
    assert not is_linear_problem(problem)
    assert found(problem, 3, coupling="cpinn", modes=14).metrics["relative_l2"] < 1e-9


def test_curved_regions_are_cut_too():
    region = difference(disc(), circle((0.2, 0.1), 0.35))
    solution = found(quadratic("ring", region), 3, 3, coupling="cpinn", modes=4)
    assert solution.metrics["relative_l2"] < 1e-9
    assert solution.metrics["equation_points"] > 300


def test_halving_finds_a_peak():
    """u = 1 / (x^2 + 0.02^2): intervals beside the peak are halved, those away from it are not."""
    width = 0.02

    def exact(x):
        return width**2 / (x[..., 0] ** 2 + width**2)

    def residual(u, x):
        t = x[..., 0]
        return u.second[..., 0, 0] - width**2 * (6 * t * t - 2 * width**2) / (t * t + width**2) ** 3

    problem = Problem("peak", box([-1], [1]), residual, [dirichlet(exact)], exact)
    solution = found(problem, 2, coupling="cpinn", refine=True)
    cuts = torch.tensor(solution.field.partition.axes[0].cuts)
    assert solution.metrics["relative_l2"] < 1e-8
    lengths = cuts.diff()
    assert lengths[cuts[1:].abs() < width].max() <= 0.1 * lengths.max()


def test_the_elimination_is_the_least_squares_of_the_whole():
    """The system of all subdomains, solved at once by nested dissection and written out."""
    problem = quadratic()
    patches = Patchwork(problem, Subdomains((2, 2), "xpinn"), (3, 3), torch.ones(1, dtype=torch.float64))
    rows = []

    def solved(sets):
        rows.extend(sets)
        return solve_dissected(sets, patches.places)

    step = SlabSystem(patches.series, patches.unit, patches.sets(), solved).step()[1]
    dense, right = [], []
    for one in rows:
        for n, touched in enumerate(one.blocks.tolist()):
            out = torch.zeros(one.residual.shape[1], 4, 9, dtype=torch.float64)
            for number, block in enumerate(touched):
                out[:, block] += one.jacobian[n, number]
            dense.append(out.flatten(1))
            right.append(-one.residual[n])
    wanted = torch.linalg.lstsq(torch.cat(dense), torch.cat(right)[:, None]).solution
    torch.testing.assert_close(step.flatten(), wanted.flatten(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_a_solution_is_saved_and_read(coupling, tmp_path):
    solution = found(quadratic("poisson-2d"), 2, 2, coupling=coupling, modes=3, levels=2 if coupling == "fbpinn" else 1)
    solution.save(tmp_path / "found")
    again = load_solution(tmp_path / "found", solution.problem)
    x = torch.rand(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again(x), solution(x))


@pytest.mark.parametrize("constraints", ["penalty", "augmented-lagrangian", "exact"])
def test_networks_of_subdomains_are_trained_with_interfaces_as_conditions(constraints):
    recipe = replace(SMALL, hidden=(20,))
    solution = found(
        "poisson-1d", 3, coupling="cpinn", recipe=recipe, more={"constraints": constraints, "steps": 3, "rtol": 0.0}
    )
    names = [one["name"] for one in solution.metrics["conditions"]]
    assert names == ["dirichlet", "value across x", "flux across x"]
    # 81 output coefficients on a third of [0, 1], where the solution has less than three half waves: they span it
    assert solution.metrics["boundary_violation"] < 1e-6
    assert solution.metrics["relative_l2"] < 1e-6


def test_bad_input_is_told_in_a_line():
    problem, broken = quadratic(), box([0], [1], breaks={"x": [0.3]})
    kinked = Problem("kinked", broken, lambda u, x: u.second[..., 0, 0], [dirichlet(0.0)])
    cases = [
        (lambda: found(problem, 2, 2, 2), "subdomains 2x2x2 for quadratic, which has 2 axes"),
        (lambda: Subdomains((2, 2), overlap=0.01), "an overlap of 0.01 for fbpinn, whose windows need room"),
        (lambda: Subdomains((2, 2), "cpinn", overlap=0.2), "an overlap of 0.2 for cpinn, whose subdomains meet"),
        (lambda: Subdomains((2, 2), "xpinn", levels=2), "2 levels for xpinn"),
        (
            lambda: found(problem, 2, 2, levels=4),
            "4 levels of 2x2 subdomains, of which the coarsest is one alone after 2",
        ),
        (lambda: Subdomains.read("4by4"), "subdomains '4by4': give a number per axis"),
        (lambda: Subdomains((2, 2), "xpin"), "did you mean 'xpinn'"),
        (lambda: Subdomains((2, 2), flux=lambda jet, x: x), "a flux for fbpinn"),
        (lambda: Subdomains((2, 2), modes=1), "1 modes per axis"),
        (lambda: Subdomains((2, 2), refine=True), "refine halves single intervals"),
        (lambda: found(kinked, 2), "windows are smooth and kinked has breaks"),
        (
            lambda: solve(problem, settings=SolveSettings(subdomains=Subdomains(knots=[[0, 1], [0, 1]]))),
            r"subdomains from \(0.0, 1.0\) on axis 0 do not cover quadratic",
        ),
        (
            lambda: with_interfaces(
                kinked, Subdomains(knots=[[0, 0.5, 1]], coupling="cpinn").partition(kinked), "cpinn"
            ),
            "break x=0.3 lies inside a subdomain",
        ),
        (lambda: found(problem, 2, 2, recipe="trained", modes=4), "modes of subdomains for recipe trained"),
        (
            lambda: found(problem, 2, 2, recipe="trained", more={"loss_mode": "sobolev"}),
            "slopes of residuals take third derivatives, of which windows have none",
        ),
        (lambda: found(problem, 2, 2, more={"start_from": "somewhere"}), "subdomains and a solution to start from"),
    ]
    for call, said in cases:
        with pytest.raises(InputError, match=said) as caught:
            call()
        assert "\n" not in str(caught.value)
