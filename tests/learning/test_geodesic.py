"""Levenberg-Marquardt with geodesic acceleration: its second-order step, its damping, what it refuses, its recipe."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from sampler_contract import unjudged

from cpikan.errors import InputError
from cpikan.fields.constrained import ConstrainedField
from cpikan.fields.functional import functional, named_parameters, parameter_vector, set_parameters
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.balancers.mean_squares import MEAN_SQUARES
from cpikan.learning.iterate import placed
from cpikan.learning.methods.geodesic import GeodesicLevenberg
from cpikan.learning.recipes import RECIPES, Recipe
from cpikan.learning.samplers.points import Points
from cpikan.learning.shared_tape import SharedTape
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.stop_reason import StopReason
from cpikan.learning.trained import trained, widened
from cpikan.learning.unknowns import output_vector, set_output_vector
from cpikan.physics.catalogue import problem
from cpikan.physics.exact_conditions import with_exact_conditions
from cpikan.streaming.events import Cancelled
from heard_events import Heard

POINTS = Points(100, 32)
# torch warns about its own use of torch.jit when forward-mode derivatives are first asked for
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def network(widths=(2, 4, 4, 1), seed=1, ends=((-1.0, -1.0), (1.0, 1.0))):
    return ScaledCPIKAN(list(widths), 3, ends, start=Start(seed))


def objective_of(name="poisson-2d", field=None):
    one = problem(name)
    field = field or network(ends=(one.region.lower, one.region.upper))
    return placed(one, field, POINTS, MEAN_SQUARES)[0].objective, field


def stepped(method, objective, field, steps):
    state, costs = method.init(objective, field), []
    for _ in range(steps):
        state, cost = method.step(objective, field, state)
        costs.append(cost)
    return state, costs


def test_acceleration_is_the_second_derivative_along_the_step():
    """Against forward-mode derivatives of the residuals: a small probe makes the difference quotient theirs."""
    objective, field = objective_of()
    method = GeodesicLevenberg(solve_output=False, bend=1e9)
    residuals, jacobian = objective.linearise(field)
    largest = float((jacobian.mT @ jacobian).diagonal().amax())
    start, damping = parameter_vector(field), 1e-2 * largest
    system = jacobian.mT @ jacobian + damping * torch.eye(jacobian.shape[1], dtype=torch.float64)
    first = torch.linalg.solve(system, -jacobian.mT @ residuals)

    def along(t):
        call = functional(field, "jet")

        class At(torch.nn.Module):
            def jet(self, x, second="axes"):
                return call(named_parameters(field, start + t * first), x, second)

        return objective.residuals(At())

    t = torch.zeros((), dtype=torch.float64)
    slope = lambda s: torch.func.jvp(along, (s,), (torch.ones_like(s),))[1]  # noqa: E731
    second = torch.func.jvp(slope, (t,), (torch.ones_like(t),))[1]
    wanted = first + 0.5 * torch.linalg.solve(system, -jacobian.mT @ second)
    state = method.init(objective, field)
    method.step(objective, field, {**state, "damping": damping})
    moved = parameter_vector(field) - start
    # the quotient over a tenth of the step has an error of third order, a thirtieth of what third derivatives do
    assert (moved - wanted).norm() < 0.1 * (wanted - first).norm()
    assert (wanted - first).norm() > 0.01 * first.norm()


def test_a_linear_problem_takes_one_step():
    """Without hidden layers everything is linear: the output layer is exact at the start, and no step finds more."""
    objective, field = objective_of(field=network((2, 1), ends=problem_ends("poisson-2d")))
    _, costs = stepped(GeodesicLevenberg(), objective, field, 2)
    _, jacobian = objective.linearise(field)
    best = torch.linalg.lstsq(jacobian, -objective.residuals(field).detach(), driver="gelsd").solution
    assert best.norm() < 1e-6 * parameter_vector(field).norm()
    assert costs[1] <= costs[0]


def problem_ends(name):
    one = problem(name)
    return one.region.lower, one.region.upper


@pytest.mark.parametrize("solve_output", [True, False])
def test_the_cost_never_rises(solve_output):
    objective, field = objective_of()
    _, costs = stepped(GeodesicLevenberg(solve_output=solve_output), objective, field, 15)
    assert all(after <= before * (1 + 1e-12) for before, after in itertools.pairwise(costs))
    assert costs[-1] < 0.2 * costs[0]


def test_acceleration_gets_farther_in_as_many_steps():
    """The cost of this start is an order of magnitude lower after 25 steps."""
    costs = {}
    for accelerated in (True, False):
        one, _ = with_exact_conditions(problem("poisson-2d"))
        field = network(ends=problem_ends("poisson-2d"))
        objective = placed(one, field, POINTS, MEAN_SQUARES)[0].objective
        costs[accelerated] = stepped(GeodesicLevenberg(accelerated=accelerated), objective, field, 25)[1][-1]
    assert 5 * costs[True] < costs[False]


def test_a_bad_step_is_damped_and_the_field_stays():
    objective, field = objective_of()
    method = GeodesicLevenberg(bend=0.0)  # no step is straight enough
    state = method.init(objective, field)
    start = parameter_vector(field)
    state, first = method.step(objective, field, state)
    again, second = method.step(objective, field, state)
    assert torch.equal(parameter_vector(field), start)
    assert first == second
    assert again["damping"] == pytest.approx(4 * state["damping"])
    while method.stop(again) is StopReason.RUNNING:
        again, _ = method.step(objective, field, again)
    assert method.stop(again) is StopReason.STALLED
    assert torch.equal(parameter_vector(field), start)


def test_steps_are_counted():
    objective, field = objective_of()
    state, _ = stepped(GeodesicLevenberg(3), objective, field, 3)
    assert GeodesicLevenberg(3).stop(state) is StopReason.BUDGET
    assert GeodesicLevenberg(4).stop(state) is StopReason.RUNNING


def test_a_field_whose_output_is_not_linear_is_refused_or_moved_as_a_whole():
    objective, inner = objective_of()
    bent = Bent(inner)
    with pytest.raises(InputError, match="solve_output=False"):
        GeodesicLevenberg().init(objective, bent)
    _, costs = stepped(GeodesicLevenberg(solve_output=False), objective, bent, 12)
    assert costs[-1] < costs[0]


class Bent(torch.nn.Module):
    networks = None
    dimension, outputs = 2, 1

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)

    def jet(self, x, second="axes"):
        return self.inner.jet(x, second)


def test_the_recipe_trains_two_hidden_layers_behind_exact_walls():
    small = dataclasses.replace(RECIPES["trained"], hidden=(6, 6))
    found = solve("poisson-2d", recipe=small, settings=SolveSettings(1e4, steps=15))
    assert isinstance(found.field, ConstrainedField)
    assert found.metrics["boundary_violation"] < 1e-14
    assert found.metrics["relative_l2"] < 1e-3
    assert found.metrics["output_share"] == pytest.approx(31 / found.metrics["parameters"])
    assert found.metrics["trained"] is (found.metrics["output_share"] <= 0.15)
    assert found.metrics["frozen_over_found"] > 100


@pytest.mark.parametrize("outputs", [1, 2, 3, 7])
def test_the_output_has_its_share_of_the_parameters_whatever_the_number_of_outputs(outputs):
    hidden = RECIPES["trained"].hidden
    given = [2, *hidden, outputs]
    wide = widened(given, 5, 0.15)
    assert (wide[0], wide[-2:]) == (2, given[-2:])

    def share(widths):
        drawn = ScaledCPIKAN(widths, 5)
        return drawn.output_coefficients().numel() / parameter_vector(drawn).numel()

    assert share(wide) <= 0.15
    assert share([2, wide[1] - 1, *wide[2:]]) > 0.15 or wide == given  # no wider than it has to be
    assert (wide == given) == (share(given) <= 0.15)
    assert widened([2, 8, outputs], 5, 0.01) == [2, 8, outputs]


def test_the_recipe_draws_the_wider_network():
    flow = RECIPES["trained"].network(problem("kovasznay"), 0)
    assert flow.widths == (2, 15, 12, 3)
    assert flow.output_coefficients().numel() <= 0.15 * parameter_vector(flow).numel()


def test_a_network_that_is_given_is_compared_with_itself_as_it_was():
    given = network((2, 6, 6, 1), ends=problem_ends("poisson-2d"))
    found = solve("poisson-2d", given, "trained", settings=SolveSettings(1e4, steps=15)).metrics
    assert found["output_share"] == pytest.approx(given.output_coefficients().numel() / found["parameters"])
    again = solve("poisson-2d", given, "trained", settings=SolveSettings(1e4, steps=1)).metrics
    assert again["frozen_over_found"] < 2 < found["frozen_over_found"]  # it begins where the first one ended


def test_a_network_that_learned_nothing_is_not_called_trained():
    one = problem("poisson-2d")
    drawn = network((2, 8, 8, 1), ends=problem_ends("poisson-2d"))
    iterate = placed(one, network((2, 8, 8, 1), ends=problem_ends("poisson-2d")), POINTS, MEAN_SQUARES)[0]
    GeodesicLevenberg().init(iterate.objective, iterate.field)  # solves for the output layer alone
    kept = parameter_vector(iterate.field)
    found = trained(drawn, iterate)
    assert not found["trained"]
    assert found["frozen_over_found"] == pytest.approx(1, rel=1e-3)
    assert torch.equal(parameter_vector(iterate.field), kept)
    set_parameters(iterate.field, kept)


def test_an_interrupted_training_ends_with_the_same_bits(tmp_path):
    recipe = Recipe("mine", "", (GeodesicLevenberg(12),), hidden=(4, 4), degree=3, exact_values=True)
    settings = {"seconds": 1e4, "checkpoint_s": 0.0}
    kept = {"checkpoint": tmp_path, "resume": True, **settings}
    with unjudged():
        whole = solve("poisson-2d", recipe=recipe, settings=SolveSettings(**settings))
        with pytest.raises(Cancelled):
            solve("poisson-2d", recipe=recipe, settings=SolveSettings(events=Heard(1), **kept))
        resumed = solve("poisson-2d", recipe=recipe, settings=SolveSettings(**kept))
    assert torch.equal(parameter_vector(whole.field), parameter_vector(resumed.field))
    assert whole.metrics["iterations"] == resumed.metrics["iterations"]


class Apart(GeodesicLevenberg):
    """The method with every evaluation of its own."""

    def place(self, objective, field):
        return objective


@pytest.mark.parametrize("name", ["burgers", "kovasznay", "allen-cahn", "reaction-diffusion-inverse"])
def test_a_shared_tape_is_the_objective_for_any_output_coefficients(name):
    """Periods, several outputs and unknown coefficients among them; to rounding."""
    one = problem(name)
    network_ = ScaledCPIKAN([one.dimension, 4, one.outputs], 3, (one.region.lower, one.region.upper), start=Start(1))
    iterate = placed(one, network_, Points(60, 24), MEAN_SQUARES)[0]
    objective, field = iterate.objective, iterate.field
    shared = SharedTape(objective, field)
    for change in (0.0, 0.3, -0.2):
        set_output_vector(field, output_vector(field) + change)
        for subset in ("output", "all", "output"):
            ours, plain = shared.linearise(field, subset), objective.linearise(field, subset)
            size = float(plain.jacobian.abs().max())
            assert torch.allclose(ours.jacobian, plain.jacobian, rtol=0, atol=1e-13 * size)
            assert torch.allclose(
                ours.residuals, plain.residuals, rtol=0, atol=1e-12 * float(plain.residuals.abs().max())
            )
        assert float(shared.cost(field)) == pytest.approx(float(objective.cost(field).detach()), rel=1e-12)


def test_a_step_evaluates_the_hidden_layers_twice_and_ends_where_it_did(monkeypatch):
    """Once for the acceleration and once at its end; five times where nothing is shared."""
    counts = {}
    for kind in (GeodesicLevenberg, Apart):
        objective, field = objective_of()
        method, hidden, calls = kind(), field.chain()[0], []
        state = method.init(objective, field)
        state, _ = method.step(objective, field, state)
        plain = type(hidden).basis_streams

        def counted(layer, x, hidden=hidden, calls=calls, plain=plain):
            calls.extend([1] if layer is hidden else [])
            return plain(layer, x)

        monkeypatch.setattr(type(hidden), "basis_streams", counted)
        while True:  # until a step is taken
            calls.clear()
            before, at = state["damping"], parameter_vector(field)
            state, cost = method.step(objective, field, state)
            if state["damping"] < before and not torch.equal(at, parameter_vector(field)):
                break
        monkeypatch.setattr(type(hidden), "basis_streams", plain)
        counts[kind] = len(calls), cost
    terms = len(objective.terms)
    assert counts[GeodesicLevenberg][0] == 2 * terms
    assert counts[Apart][0] == 5 * terms
    assert counts[GeodesicLevenberg][1] == pytest.approx(counts[Apart][1], rel=1e-9)
