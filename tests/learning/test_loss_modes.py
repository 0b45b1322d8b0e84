"""Loss modes: energies, weak forms, slopes of residuals and fresh points; each held to what it says, and bad input."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace

import pytest
import torch
from sampler_contract import SamplerContract, resumed_and_whole
from term_contract import TermContract

from cpikan.cli import main
from cpikan.errors import InputError
from cpikan.fields.constrained import function_jet
from cpikan.fields.functional import parameter_vector
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.losses.kinds import LOSS_MODES, loss_mode_of
from cpikan.learning.losses.loss_mode import LossMode
from cpikan.learning.losses.ritz import Ritz
from cpikan.learning.losses.sobolev import Sobolev
from cpikan.learning.losses.weak import Weak
from cpikan.learning.methods.adam import Adam
from cpikan.learning.methods.geodesic import GeodesicLevenberg
from cpikan.learning.methods.levenberg import Levenberg
from cpikan.learning.methods.quasi_newton import QuasiNewton
from cpikan.learning.objective import linearise_term, make_objective, make_terms
from cpikan.learning.recipes import RECIPES, Recipe
from cpikan.learning.samplers.fresh import FreshPoints
from cpikan.learning.samplers.points import Points
from cpikan.learning.solver import SolveSettings, solve
from cpikan.physics.catalogue import problem
from cpikan.physics.energy import energy_of
from cpikan.physics.exact_conditions import with_exact_conditions
from cpikan.physics.problem import Condition, Problem, dirichlet, neumann
from cpikan.physics.regions import box, disc

# torch warns about its own use of torch.jit when forward-mode derivatives are first asked for
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
SQUARE = box([-1, -1], [1, 1])


def screened(u, x):
    """u_xx + (1 + y) u_yy + u_y - 2 u - sin x: a symmetric form with a factor that varies."""
    second, value = u.second[..., 0, :], u.value[..., 0]
    factor = 1.5 + x[..., 1]
    return second[..., 0] + factor * second[..., 1] + u.gradient[..., 0, 1] - 2 * value - torch.sin(x[..., 0])


PROBLEM = Problem("mine", SQUARE, screened, [dirichlet(0.5)])


class FormContract(TermContract):
    mode = LossMode()

    def make(self):
        posed = self.mode.pose(PROBLEM)
        return make_terms(posed)[0], Points(30, 8, seed=1).init(posed)[0]["equation"]


class TestWeakOnce(FormContract):
    mode = Weak(functions=3, nodes=4, elements=(2, 1))


class TestWeakTwice(FormContract):
    mode = Weak(functions=2, nodes=4, elements=(2, 1), by_parts=2)


class TestSobolev(FormContract):
    mode = Sobolev(0.3)


class TestRitz(FormContract):
    mode = Ritz(nodes=4)


class TestFreshPoints(SamplerContract):
    def make(self):
        return FreshPoints(Points(60, 12, "random", seed=3), every=5)


def sine(x):
    return torch.sin(math.pi * x[..., 0])


def line(**more):
    """-u'' = pi^2 sin(pi x) on [0, 1]."""
    return Problem(
        "line",
        box([0], [1]),
        lambda u, x: u.second[..., 0, 0] + math.pi**2 * sine(x),
        **{"conditions": [dirichlet(0.0)], "exact": sine, **more},
    )


SMALL = Recipe("small", "", (GeodesicLevenberg(12),), hidden=(5, 5), degree=4, exact_values=True)
QUASI = replace(SMALL, stages=(Adam(30, 1e-2), QuasiNewton("ssbroyden", 150)))


@pytest.mark.parametrize(
    ("mode", "recipe", "error"),
    [
        ("strong", SMALL, 1e-4),
        ("weak", SMALL, 1e-4),
        (Weak(by_parts=2), SMALL, 1e-4),
        ("sobolev", SMALL, 1e-4),
        ("ritz", QUASI, 3e-3),
    ],
)
def test_every_mode_solves_poissons_equation(mode, recipe, error):
    found = solve(line(), None, recipe, settings=SolveSettings(1e4, Points(150, 2), loss_mode=mode))
    assert found.metrics["relative_l2"] <= error
    assert found.metrics["boundary_violation"] <= 1e-12
    costs = [record["heldout"] for record in found.history.records]
    assert min(costs) == pytest.approx(found.history.ends[-1].heldout)
    assert found.metrics["heldout_residual"] > 0


def test_an_energy_is_above_that_of_the_truth_by_half_the_squared_error_of_slopes():
    """E(u) - E(u*) = mean |u' - u*'|^2 / 2 for any u with the right values, and so never below zero."""
    posed, ansatz = with_exact_conditions(Ritz(nodes=8).pose(line()))
    objective = make_objective(posed, Points(400, 2).init(posed)[0])
    lowest = -(math.pi**2) / 4
    at = objective.sets["equation"]
    assert float(at.weight.sum()) == pytest.approx(1.0, rel=1e-13)
    for seed in range(4):
        network = ScaledCPIKAN([1, 4, 1], 4, ([0], [1]), start=Start(seed))
        with torch.no_grad():
            slope = ansatz.jet(network.jet(at.points), at.points).gradient[:, 0, 0]
            energy = float(objective.cost(network))
        apart = slope - math.pi * torch.cos(math.pi * at.points[:, 0])
        assert energy - lowest == pytest.approx(0.5 * float(at.weight @ apart.square()), rel=1e-9)
        assert energy > lowest


def test_the_slope_of_a_derived_energy_is_the_weak_form():
    """d/dt E(u + t v) = minus the mean of r v for every v that vanishes on the boundary, whatever the equation's sign."""
    density = energy_of(PROBLEM)
    cubic = Problem("cubic", SQUARE, lambda u, x: -screened(u, x) + u.value[..., 0] ** 3, [dirichlet(0.0)])
    posed = Ritz(nodes=12).pose(PROBLEM)
    at = Points(400, 8).init(posed)[0]["equation"]

    def u(x):
        return (torch.exp(x[:, 0]) * torch.sin(x[:, 1] + 1))[:, None]

    def v(x):
        return ((1 - x[:, 0] ** 2) * (1 - x[:, 1] ** 2) * torch.exp(x[:, 1]))[:, None]

    for one, energy, sign in ((PROBLEM, density, -1.0), (cubic, energy_of(cubic), 1.0)):

        def at_step(t, energy=energy):
            return float(at.weight @ energy(function_jet(lambda x: u(x) + t * v(x), at.points), at.points))

        step = 1e-4
        residual = one.interior(function_jet(u, at.points), at.points)["equation"]
        weak = sign * float(at.weight @ (residual * v(at.points)[:, 0]))
        slope = (at_step(step) - at_step(-step)) / (2 * step)
        assert slope == pytest.approx(weak, rel=1e-6)  # third derivatives of the energy times step^2
        assert abs(weak) > 1e-2


def test_slopes_of_residuals_are_those_of_differences_and_vanish_for_the_truth():
    posed = Sobolev(0.5).pose(line())
    (term, *_), step = make_terms(posed), 1e-5
    at = Points(20, 2).init(posed)[0]["equation"]
    field = ScaledCPIKAN([1, 5, 1], 5, ([0], [1]), start=Start(1))
    plain = replace(term, slopes=())
    with torch.no_grad():
        residual, slope = term.at(field, at)
        ends = [plain.at(field, at._replace(points=at.points + sign * step))[0] for sign in (1, -1)]
        assert torch.equal(residual, plain.at(field, at)[0])
    assert torch.allclose(
        slope, 0.25 * (ends[0] - ends[1]) / (2 * step), rtol=1e-6, atol=1e-5
    )  # 0.5 of half a length of 1

    class Truth:
        jet = staticmethod(lambda x, second: function_jet(lambda p: sine(p)[:, None], x, second))

    # pi^4 times the rounding of a sine
    assert max(float(value.abs().max()) for value in term.at(Truth(), at)) <= 1e-12


@pytest.mark.parametrize("subset", ["all", "output"])
def test_rows_of_slopes_are_those_of_differences_of_rows(subset):
    """By tapes in forward mode, behind an ansatz too."""
    posed, _ = with_exact_conditions(Sobolev(1.0).pose(PROBLEM))
    term, at = make_terms(posed)[0], Points(12, 8).init(posed)[0]["equation"]
    field = ScaledCPIKAN([2, 3, 1], 3, start=Start(1))
    residuals, rows = linearise_term(field, term, at, subset)
    count, step, plain = len(at.points), 1e-5, replace(term, slopes=())
    assert len(residuals) == len(rows) == 3 * count
    for axis in range(2):
        move = step * torch.eye(2, dtype=torch.float64)[axis]
        ends = [linearise_term(field, plain, at._replace(points=at.points + sign * move), subset) for sign in (1, -1)]
        for found, pair in ((residuals, (ends[0][0], ends[1][0])), (rows, (ends[0][1], ends[1][1]))):
            slope = (pair[0] - pair[1]) / (2 * step)
            mine = found[(1 + axis) * count : (2 + axis) * count]
            assert float((mine - slope).abs().max()) <= 1e-6 * float(mine.abs().max())


@pytest.mark.parametrize("mode", ["weak", "ritz"])
def test_a_solve_in_a_mode_goes_on_as_if_it_had_not_been_interrupted(tmp_path, mode):
    recipe = replace(QUASI, stages=(Adam(25, 1e-2), QuasiNewton("bfgs", 20)))
    sampler = FreshPoints(Points(60, 2, "random"), 10) if mode == "ritz" else Points(60, 2)
    resumed, whole = resumed_and_whole(tmp_path, "helmholtz-1d", recipe, points=sampler, loss_mode=mode)
    assert torch.equal(parameter_vector(resumed.field), parameter_vector(whole.field))
    assert resumed.metrics["relative_l2"] == whole.metrics["relative_l2"]


def test_elements_and_cuts_of_the_energy_differ_by_seed_and_from_those_that_judge():
    weak, ritz = Weak(functions=3).pose(line()).form, Ritz().pose(line()).form
    assert not torch.equal(weak.place(60, 0, False).points, weak.place(60, 0, True).points)
    assert weak.place(60, 0, True).tests.shape[2] == 4
    assert not torch.equal(ritz.place(60, 0, False).points, ritz.place(60, 1, False).points)
    assert torch.equal(ritz.place(60, 1, False).points, ritz.place(60, 1, False).points)


def test_a_network_under_an_energy_is_held_by_conditions_where_values_are_no_ends_of_a_box():
    """On a disc: means over even points and a penalty; u = (1 - r^2) / 4 for Laplacian u = -1."""

    def truth(x):
        return 0.25 * (1 - x.square().sum(-1))

    one = Problem("plate", disc(), lambda u, x: u.second[..., 0, :].sum(-1) + 1.0, [dirichlet(0.0)], truth)
    field = ScaledCPIKAN([2, 1], 4, start=Start(1))
    recipe = Recipe("quasi", "", (QuasiNewton("bfgs", 40),))
    found = solve(
        one, field, recipe, settings=SolveSettings(1e4, Points(2000, 100, "sobol"), loss_mode=Ritz(penalty=30))
    )
    # with means over area and edge u there is -du/dn length / area / penalty^2; points of a sequence leave some % of integrals
    assert found.metrics["boundary_violation"] == pytest.approx(0.5 * 2 / 30**2, rel=0.2)
    assert found.metrics["max_error"] <= 3e-3


def test_multipliers_take_the_place_of_a_large_penalty_beside_an_energy():
    """A penalty leaves u = -du/dn ends / length / penalty^2 at the ends; multipliers leave a small share of that."""
    recipe = replace(SMALL, stages=(QuasiNewton("ssbroyden", 100),))
    missed = []
    for constraints in ("penalty", "augmented-lagrangian"):
        settings = SolveSettings(1e4, Points(150, 2), loss_mode=Ritz(penalty=10.0), constraints=constraints)
        missed.append(solve(line(), None, recipe, settings=settings).metrics["boundary_violation"])
    assert missed[0] == pytest.approx(2 * math.pi / 10**2, rel=0.02)  # the next power of 1 / penalty^2
    assert missed[1] <= 0.01 * missed[0]


def test_fresh_points_are_others_every_time_and_those_that_judge_stay():
    one, sampler = problem("poisson-2d"), FreshPoints(Points(40, 8, "random", seed=2), 3)
    sets, state = sampler.init(one)
    objective, seen = make_objective(one, sets), [sets["equation"].points]
    for _ in range(2):
        objective, state = sampler.update(one, objective, ScaledCPIKAN([2, 3, 1], 3), state)
        seen.append(objective.sets["equation"].points)
        assert not torch.equal(objective.sets["dirichlet"].points, sets["dirichlet"].points)
    rows = {tuple(point) for points in seen for point in points.tolist()}
    assert len(rows) == 3 * 40
    held = [sampler.held_out_sampler().init(one)[0]["equation"].points for _ in range(2)]
    assert torch.equal(*held)


def test_the_command_line_takes_a_loss_mode(capsys):
    flags = ["--json", "--recipe", "adam", "--seconds", "0.05"]
    assert main(["solve", "helmholtz-1d", "--loss-mode", "weak", *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["loss_mode"], found["recipe_used"]) == ("weak", "adam")
    assert main(["solve", "helmholtz-1d-k4pi", "--loss-mode", "ritz", *flags]) == 2
    told = capsys.readouterr().err
    assert "its energy has no minimum" in told
    assert told.count("\n") == 1


def test_residual_is_another_word_for_strong():
    assert loss_mode_of("residual") == loss_mode_of("strong") == LossMode()
    assert set(LOSS_MODES) >= {"strong", "residual", "ritz", "weak"}


def diffusing(u, x):
    return u.gradient[..., 0, 1] - u.second[..., 0, 0]


def untouched(u, x):
    return u.second[..., 0, 0].detach() - 1.0


@dataclass
class Elsewhere:
    every: int = 0

    def init(self, problem):
        raise AssertionError

    update = held_out_sampler = init


def waves(rate):
    return lambda u, x: u.second[..., 0, 0] + rate * u.value[..., 0] - 1.0


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: SolveSettings(loss_mode="ritzy").trains, "ritz"),
        (lambda: SolveSettings(loss_mode=3).trains, "loss mode 3: give strong"),
        (lambda: Ritz().pose(Problem("heat", box([0, 0], [1, 1]), diffusing, [])), "no derivative of an energy"),
        (lambda: Ritz().pose(problem("kovasznay")), "several outputs"),
        (lambda: Ritz().pose(Problem("slope", box([0], [1]), waves(0), [neumann(2.0, "x=max")])), "gives slopes"),
        (lambda: Ritz().pose(Problem("level", box([0], [1]), lambda u, x: u.value[..., 0] - 1, [])), "of second order"),
        (lambda: Ritz().pose(Problem("cut", box([0], [1], breaks={"x": [0.5]}), waves(0), [])), "box with breaks"),
        (lambda: Weak().pose(problem("poisson-disc")), "give a box"),
        (lambda: Weak(elements=(2, 2)).pose(line()), "give one number for each"),
        (lambda: Weak(functions=0), "give at least 1"),
        (lambda: Weak(functions=2.5), "whole number"),
        (lambda: Weak(quadrature="simpson"), "gauss-legendre"),
        (lambda: Sobolev(0.0), "give more than 0"),
        (lambda: Ritz(penalty=-1.0), "give more than 0"),
        (lambda: FreshPoints(Points(9, 2), every=0), "at least 1"),
        (lambda: FreshPoints(Points(9, 2, "grid")), "another rule"),
        (lambda: FreshPoints(Elsewhere()), "give Points"),
        (
            lambda: solve(replace(line(), residuals=untouched), ScaledCPIKAN([1, 3, 1], 3, ([0], [1])), "adam"),
            "do not follow the field",
        ),
        (
            lambda: solve(line(), None, Recipe("lm", "", (Levenberg(),)), settings=SolveSettings(loss_mode="ritz")),
            "density without residuals",
        ),
        (
            lambda: solve(line(), None, SMALL, settings=SolveSettings(points=Elsewhere(), loss_mode="weak")),
            "those of a quadrature",
        ),
        (
            lambda: solve(line(), None, RECIPES["adam"], settings=SolveSettings(points="rad", loss_mode="ritz")),
            "those of a quadrature",
        ),
        (
            lambda: solve(
                line(), None, RECIPES["adam"], settings=SolveSettings(balancer="residual-attention", loss_mode="ritz")
            ),
            "is a density",
        ),
    ],
)
def test_bad_input_is_one_line(call, text):
    with pytest.raises(InputError, match=text) as told:
        call()
    assert "\n" not in str(told.value)


def test_point_weights_do_not_go_with_integrals():
    with pytest.raises(InputError, match="integrals over elements"):
        solve(line(), None, SMALL, settings=SolveSettings(balancer="residual-attention", loss_mode="weak"))


@pytest.mark.parametrize(("rate", "bounded"), [(9.0, True), (10.5, False)])
def test_energies_beyond_the_first_eigenvalue_are_refused(rate, bounded):
    """u'' + k u on [0, 1] with u = 0 at both ends has its first eigenvalue at k = pi^2 = 9.87; on a square at twice that."""
    for region, factor in ((box([0], [1]), 1.0), (box([0, 0], [1, 1]), 2.0)):
        one = Problem(
            "waves",
            region,
            lambda u, x, f=factor: u.second[..., 0, :].sum(-1) + f * rate * u.value[..., 0] - 1,
            [dirichlet(0.0)],
        )
        posed, _ = with_exact_conditions(Ritz().pose(one))
        if bounded:
            Ritz().check(posed)
        else:
            with pytest.raises(InputError, match="energy has no minimum"):
                Ritz().check(posed)


def test_an_energy_that_is_not_quadratic_is_not_judged_by_its_curvature():
    one = Problem(
        "well",
        box([0], [1]),
        lambda u, x: u.second[..., 0, 0] + 50 * (u.value[..., 0] - u.value[..., 0] ** 3),
        [dirichlet(0.0)],
    )
    Ritz().check(with_exact_conditions(Ritz().pose(one))[0])


def test_a_condition_with_slopes_of_zero_is_natural_to_an_energy():
    one = Problem("open", box([0], [1]), waves(0), [dirichlet(0.0, "x=min"), neumann(0.0, "x=max")])
    assert Ritz().pose(one).form.kind == "density"
    assert isinstance(one.conditions[0], Condition)
