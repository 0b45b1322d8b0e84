"""Windows of time: fronts, points in them, lifts that hold the start, and networks that train one after the other."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from cpikan.errors import InputError
from cpikan.fields.front_ckan import Front
from cpikan.fields.functional import parameter_vector
from cpikan.fields.time_windows import TimeWindows
from cpikan.learning.recipes import RECIPES, Recipe
from cpikan.learning.runner import Budget, Runner
from cpikan.learning.samplers.front_points import FrontPoints
from cpikan.learning.samplers.points import Points
from cpikan.learning.solution import load_solution
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.stop_reason import StopReason
from cpikan.learning.strategies.fronts import fronts_of, merged
from cpikan.learning.strategies.line_series import line_series
from cpikan.learning.strategies.window import Window
from cpikan.learning.strategies.windows import Windows, can_window
from cpikan.learning.trained import nodes_within
from cpikan.physics.catalogue import problem
from cpikan.physics.evolution import evolution
from cpikan.physics.exact_conditions import with_exact_conditions
from cpikan.physics.problem import Problem, initial, neumann, periodic
from cpikan.physics.regions import box
from cpikan.streaming.events import Cancelled
from heard_events import Heard

# torch warns about its own use of torch.jit when forward-mode derivatives are first asked for
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
NAME = "reaction-diffusion"  # its values at the walls change in time
SMALL = Windows(hidden=(4, 4), degree=3, first=0.5, failed=1.0, steps=12)


def series(function, low=-1.0, high=1.0, tolerance=1e-12):
    return line_series(lambda x: np.stack([function(x)], axis=-1), low, high, tolerance)


@pytest.fixture(scope="module")
def found():
    return solve(NAME, recipe=Recipe("small", "", (), own=SMALL), settings=SolveSettings(1e4))


def test_a_series_in_pieces_has_the_values_and_derivatives():
    line = series(lambda x: np.tanh((x - 0.2) / 0.01), -1.0, 3.0)
    x = line.places(7)
    t = np.tanh((x - 0.2) / 0.01)
    assert np.abs(line.derivatives(0, 7)[..., 0] - t).max() < 1e-11
    # a derivative of a series of 16 terms on h / 2 multiplies its error by at most 15^2 / (h / 2)
    narrow = np.diff(line.knots).min()
    assert np.abs(line.derivatives(1, 7)[..., 0] - (1 - t * t) / 0.01).max() < 1e-11 * 225 * 2 / narrow
    assert narrow < 0.02 < 0.4 < np.diff(line.knots).max()


def test_rounding_is_not_halved_for_ever():
    noise = np.random.default_rng(1)
    line = series(lambda x: np.sin(x) + 1e-11 * noise.standard_normal(len(x)))
    assert len(line.knots) < 100


def test_fronts_are_found_with_their_widths():
    both = series(lambda x: np.tanh((x - 0.3) / 0.004) - 0.5 * np.tanh((x + 0.5) / 0.02))
    first, second = fronts_of(both, 0)
    assert (first.axis, first.centre, first.width) == (0, pytest.approx(0.3, abs=1e-3), pytest.approx(0.004, rel=0.02))
    assert (second.centre, second.width) == (pytest.approx(-0.5, abs=5e-3), pytest.approx(0.02, rel=0.05))
    assert fronts_of(series(lambda x: np.sin(math.pi * x)), 0) == []
    wide = series(lambda x: np.tanh((x - 7) / 0.04), 0.0, 20.0)  # scaled: half the axis is 1
    (one,) = fronts_of(wide, 1)
    assert (one.axis, one.centre, one.width) == (1, pytest.approx(-0.3, abs=1e-3), pytest.approx(0.004, rel=0.02))


def test_a_rounded_kink_is_a_front_and_a_ripple_is_none():
    kink = series(lambda x: np.sqrt((x + 1) ** 2 + 0.01**2))
    (front,) = fronts_of(kink, 0)
    assert front.centre == pytest.approx(-1, abs=1e-9)
    assert 0.003 < front.width < 0.03
    assert fronts_of(series(lambda x: x + 1e-3 * np.sin(200 * x)), 0) == []


def test_a_wave_is_no_row_of_fronts():
    """Ten slopes as steep as a front of width 0.07 ask for no coordinates; one does, and so do ten of a sharper wave."""
    assert fronts_of(series(lambda x: np.sin(5 * math.pi * x)), 0) == []
    (one,) = fronts_of(series(lambda x: np.tanh(x / 0.07)), 0)
    assert one.width == pytest.approx(0.07, rel=0.05)
    assert len(fronts_of(series(lambda x: np.sin(20 * math.pi * x)), 0)) == 6


def test_known_fronts_stand_for_others_like_them():
    known = (Front(0, 0.0, 0.01), Front(0, 0.5, 0.05))
    assert merged(known, [Front(0, 0.004, 0.006)]) is known
    assert merged(known, [Front(0, 0.5, 0.001)]) == (Front(0, 0.5, 0.001), Front(0, 0.0, 0.01))  # far sharper
    assert Front(0, -0.6, 0.02) in merged(known, [Front(0, -0.6, 0.02)])
    assert Front(1, 0.0, 0.01) in merged(known, [Front(1, 0.0, 0.01)])  # another axis
    assert len(merged(known, [Front(0, c, 0.03) for c in np.linspace(-1, -0.1, 9)])) == 6


def test_points_are_as_dense_in_a_front_as_outside():
    box_ = problem("burgers")
    front = Front(0, 0.0, 0.003)
    sampler = FrontPoints(600, 80, "chebyshev", 1, fronts=(front,))
    inside = sampler.init(box_)[0]["equation"].points
    plain = Points(600, 80, "chebyshev", 1).init(box_)[0]
    z = (inside[:, 0] + front.stretched(inside[:, 0])[0]) / 2
    # the mean coordinate has the distribution of the plain one without fronts; the table has steps h = 24 / 400 of asinh, and
    # linear interpolation is off by h^2 / 8 of it, a seventh of the axis to one of asinh
    assert torch.allclose(z.sort().values, plain["equation"].points[:, 0].sort().values, atol=1e-4)
    assert torch.equal(inside[:, 1], plain["equation"].points[:, 1])
    assert (
        float((inside[:, 0].abs() < 0.01).double().mean())
        > 0.05
        > float((plain["equation"].points[:, 0].abs() < 0.01).double().mean())
    )
    held = sampler.held_out_sampler()
    assert held.fronts == (front,)
    assert not np.isin(held.init(box_)[0]["equation"].points[:, 0].numpy(), inside[:, 0].numpy()).any()
    walls = sampler.init(box_)[0]["dirichlet"].points
    assert torch.equal(walls[:, 0].abs(), torch.ones_like(walls[:, 0]))


def test_a_lift_has_the_values_of_the_exact_ansatz():
    one = problem(NAME)
    window = Window(one, evolution(one), None, 0.0, 1.5)
    _, ansatz = with_exact_conditions(dataclasses.replace(one, region=window.box))
    x = torch.rand(200, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    low, high = (torch.tensor(v, dtype=torch.float64) for v in (window.box.lower, window.box.upper))
    x = low + (high - low) * x
    assert torch.allclose(window.lift(x), ansatz.lift(x), atol=1e-12)
    assert torch.allclose(window.distance(x), ansatz.distance(x), atol=1e-15)
    jet, truth = window.lift.jet(x), ansatz.jet(ansatz_zero(x), x)
    assert torch.allclose(jet.gradient, truth.gradient, atol=1e-10)
    assert torch.allclose(jet.second, truth.second, atol=1e-8)


def ansatz_zero(x):
    from cpikan.fields.protocol import Jet

    return Jet(x.new_zeros(len(x), 1), x.new_zeros(len(x), 1, 2), x.new_zeros(len(x), 1, 2))


def heat(rate, start):
    """A heat equation on x from -1 to 1, periodic."""
    region = box([-1.0, 0.0], [1.0, 1.0], ["x", "t"])

    def residual(u, x):
        return 2 * u.gradient[..., 0, 1] - 2 * rate * u.second[..., 0, 0]

    return Problem("heat", region, residual, [initial(start), *periodic(region)])


def hump(x):  # of slopes 1 and -3 at the ends, which the period makes a kink of -4 falling to the right
    return (1 - x[..., 0] ** 2) * (1 + x[..., 0] / 2)


def test_a_start_that_misses_a_condition_begins_with_layers():
    one = heat(1.0, hump)
    fronts = Window(one, evolution(one), None, 0.0, 0.1).starting_fronts()
    assert {(f.axis, f.centre) for f in fronts} == {(0, -1.0), (0, 1.0), (1, -1.0)}
    other = problem("burgers")  # has no kink at its walls
    assert Window(other, evolution(other), None, 0.0, 0.1).starting_fronts() == []


def test_a_narrow_kink_is_rounded_as_diffusion_does():
    one = heat(1e-4, hump)
    window = Window(one, evolution(one), None, 0.0, 0.1)
    assert window.lift.diffusivity == pytest.approx((1e-4,), rel=1e-14)
    assert window.even == ()
    # the layers are twice the root of D t wide, a quarter into the window
    widths = [(front.axis, front.centre, front.width) for front in window.starting_fronts()][:2]
    assert widths == [(0, -1.0, pytest.approx(2 * math.sqrt(2.5e-6))), (0, 1.0, pytest.approx(2 * math.sqrt(2.5e-6)))]
    x = torch.linspace(-1, 1, 41, dtype=torch.float64)
    times = torch.tensor([0.0, 0.05], dtype=torch.float64)
    at = torch.cartesian_prod(x, times).reshape(41, 2, 2)
    assert torch.allclose(window.lift(at[:, 0])[:, 0], hump(at[:, 0]), atol=1e-12)
    later = at[[0, -1], 1]
    with torch.no_grad():
        value, jet = window.lift(later), window.lift.jet(later)
    assert float(jet.gradient[:, 0, 0].diff()) == pytest.approx(0.0, abs=1e-11)
    assert float(value[0, 0]) == pytest.approx(4 * math.sqrt(1e-4 * 0.05 / math.pi), rel=1e-10)


def test_a_lift_follows_what_the_equation_does_at_every_place():
    """Allen-Cahn's reaction is its sharp half: with it, and its kink rounded, what is left is of the size of the diffusion."""
    one = problem("allen-cahn")
    window = Window(one, evolution(one), None, 0.0, 0.1)
    assert window.even == (0,)
    assert not window.posed.conditions
    x = torch.linspace(-1, 1, 101, dtype=torch.float64)
    late = torch.stack([x, torch.full_like(x, 0.1)], dim=-1)
    # 1e-4 times u_xx and twice the slope squared times what the flow bends by, ten to twenty in all; 5 (u - u^3) is up to 1.9
    with torch.no_grad():
        left = one.interior(window.lift.jet(late), late)["equation"]
    assert float(left.abs().max()) < 2e-3
    early = torch.stack([x, torch.zeros_like(x)], dim=-1)
    assert torch.allclose(window.lift(early)[:, 0], x**2 * torch.cos(math.pi * x), atol=1e-12)
    (layer,) = window.starting_fronts()
    assert (layer.axis, layer.centre) == (0, -1.0)  # of the cosine
    assert layer.width == pytest.approx(1 - math.cos(2 * math.pi * math.sqrt(2.5e-6)))
    other = problem("burgers")  # holds values at its walls, which a flow would not
    still = Window(other, evolution(other), None, 0.0, 0.1).lift
    assert torch.allclose(still(late)[:, 0], -torch.sin(math.pi * x), atol=1e-12)


def test_a_network_on_an_even_axis_holds_its_conditions():
    one = heat(1.0, lambda x: torch.cos(math.pi * x[..., 0]))
    run = Runner(one, Budget(1e4))
    strategy = dataclasses.replace(SMALL, steps=5, first=1.0, failed=1e9)
    strategy.step(run, strategy.init(run))
    field = run.iterate.field
    assert not torch.equal(field.parts[0].network(torch.rand(2, 2).double()), torch.zeros(2, 1))
    at = torch.tensor([[0.3, 0.7], [-0.3, 0.7], [1.7, 0.7]], dtype=torch.float64)
    ends = torch.tensor([[-1.0, 0.2], [1.0, 0.2]], dtype=torch.float64)
    with torch.no_grad():
        value, jet = field.parts[0].network(at), field.jet(ends)
    assert torch.allclose(value, value[:1].expand(3, 1), atol=1e-12)
    assert torch.allclose(jet.value[0], jet.value[1], atol=1e-12)
    assert torch.allclose(jet.gradient[..., 0], torch.zeros(2, 1).double(), atol=1e-11)


def test_points_of_an_even_axis_are_even_in_the_mean_of_cosine_and_fronts():
    one = problem("allen-cahn")
    front = Front(0, 0.2, 0.01)
    sampler = FrontPoints(600, 0, "chebyshev", 1, fronts=(front,), even=(0,))
    at = sampler.init(one)[0]["equation"]
    assert float(at.points[:, 0].min()) >= 0
    cosine = torch.cos(math.pi * at.points[:, 0])
    mean = (cosine + front.stretched(cosine)[0]) / 2
    plain = Points(600, 0, "chebyshev", 1).init(one)[0]["equation"].points[:, 0]
    assert torch.allclose(mean.sort().values, plain.sort().values, atol=1e-4)  # that of the table, as above
    # weights make means over the points those over x, with and without fronts: three quarters of the half axis are above 1/4
    # (of the cosine 85 % are). 600 points of a low-discrepancy set, a quarter of them about the front; 300 random ones
    for chosen in (sampler, dataclasses.replace(sampler, fronts=()), sampler.held_out_sampler()):
        drawn = chosen.init(one)[0]["equation"]
        share = float((drawn.weight.square() * (drawn.points[:, 0] > 0.25)).mean())
        assert share == pytest.approx(0.75, abs=0.02 if chosen.rule == "chebyshev" else 0.07)


def test_each_window_begins_where_the_one_before_ends(found):
    field = found.field
    assert isinstance(field, TimeWindows)
    assert len(field.parts) == 2
    x = torch.linspace(-5, 10, 50, dtype=torch.float64)
    edge = torch.stack([x, torch.full_like(x, 1.5)], dim=-1)
    assert torch.allclose(field.parts[0](edge), field.parts[1](edge), atol=1e-11)
    assert found.metrics["boundary_violation"] < 1e-11
    still = solve(
        NAME,
        recipe=Recipe("none", "", (), own=dataclasses.replace(SMALL, steps=1, first=1.0, failed=1e9)),
        settings=SolveSettings(1e4),
    )
    assert found.metrics["relative_l2"] < 0.5 * still.metrics["relative_l2"]


def test_the_figures_are_those_of_the_worst_window(found):
    metrics, windows = found.metrics, found.metrics["windows"]
    assert [(one["begin"], one["end"]) for one in windows] == [(0.0, 1.5), (1.5, 3.0)]
    assert metrics["frozen_over_found"] == min(one["frozen_over_found"] for one in windows)
    assert metrics["trained"] == all(one["trained"] for one in windows)
    networks = sum(p.numel() for part in found.field.parts for p in part.network.parameters())
    assert metrics["parameters"] == networks  # the lifts are data
    assert metrics["iterations"] >= sum(one["steps"] for one in windows)


def test_it_is_saved_and_loaded_to_the_bit(found, tmp_path):
    found.save(tmp_path / "w")
    back = load_solution(tmp_path / "w")
    x = np.random.default_rng(2).uniform([-5, 0], [10, 3.5], (200, 2))
    assert np.array_equal(back(x), found(x))
    assert back.metrics["windows"] == found.metrics["windows"]


def test_a_solve_goes_on_at_the_next_window(found, tmp_path):
    recipe = Recipe("small", "", (), own=SMALL)
    events = Heard(cancel_at=found.metrics["windows"][0]["steps"] + 4)
    with pytest.raises(Cancelled):
        solve(NAME, recipe=recipe, settings=SolveSettings(1e4, events=events, checkpoint=tmp_path, checkpoint_s=0))
    resumed = solve(NAME, recipe=recipe, settings=SolveSettings(1e4, checkpoint=tmp_path, resume=True))
    assert torch.equal(parameter_vector(resumed.field), parameter_vector(found.field))
    assert resumed.metrics["windows"] == found.metrics["windows"]


def test_steps_are_those_of_all_windows_together():
    posed = dataclasses.replace(problem(NAME), exact=None)
    recipe = Recipe("small", "", (), own=dataclasses.replace(SMALL, steps=None, failed=1e-9))
    found = solve(posed, recipe=recipe, settings=SolveSettings(1e4, steps=3))
    assert found.metrics["iterations"] == 3
    assert found.stop_reason is StopReason.BUDGET
    assert len(found.metrics["windows"]) == 1  # taken as it is, since there is no step left for a shorter one


def test_each_window_is_in_the_history_and_the_callback_may_end_there(found):
    assert len(found.history.records) == 2
    assert all(math.isfinite(one["cost"]) for one in found.history.records)
    seen = []

    def callback(field, record):
        seen.append((type(field), record["iteration"]))
        return True

    ended = solve(NAME, recipe=Recipe("small", "", (), own=SMALL), settings=SolveSettings(1e4, callback=callback))
    assert ended.stop_reason is StopReason.ASKED
    assert seen == [(TimeWindows, found.history.records[0]["iteration"])]


def test_a_window_that_does_not_train_is_halved():
    one = problem("burgers")
    strategy = dataclasses.replace(SMALL, steps=1, first=1.0, failed=0.03)
    run = Runner(one, Budget(1e4))
    state = strategy.step(run, strategy.init(run))
    assert state["windows"] == []
    assert (state["now"], state["length"]) == (0.0, 0.5)
    assert not run.placed
    # and is taken as it is where no shorter one is allowed
    short = {**state, "length": 1 / 64}
    taken = strategy.step(run, short)
    assert taken["now"] == 1 / 64
    assert len(taken["windows"]) == 1


def test_a_window_that_is_far_off_after_its_first_steps_is_given_up():
    one = problem("burgers")
    strategy = dataclasses.replace(SMALL, steps=120, first=1.0, failed=0.03)
    run = Runner(one, Budget(1e4))  # of which a third is time to look for fronts
    state = strategy.step(run, strategy.init(run))
    assert state["length"] == 0.5
    assert run.iterations == 40


def test_a_window_takes_no_more_steps_than_its_goal_needs():
    """The goal is an error: the root mean square residual times the length, of the size of what the window begins with."""
    one = problem(NAME)
    run = Runner(one, Budget(1e4))
    strategy = dataclasses.replace(SMALL, goal=1e-3, steps=60)
    state = strategy.step(run, strategy.init(run))
    (record,) = state["windows"]
    assert record["added"] <= 1e-3
    assert record["steps"] < 60
    part = run.iterate.field.parts[0]
    window = Window(one, evolution(one), None, 0.0, 1.5)
    held = strategy.points(run, window, part.network, ()).held_out_sampler()
    at = held.init(window.posed)[0]["equation"].points
    with torch.no_grad():
        residual = one.interior(part.jet(at), at)["equation"]
        size = window.lift(at).square().mean().sqrt()
    assert record["added"] == pytest.approx(1.5 * float(residual.square().mean().sqrt() / size), rel=1e-9)


def test_a_window_at_its_goal_early_is_followed_by_a_longer_one():
    strategy = dataclasses.replace(SMALL, goal=0.5, first=0.25)
    run = Runner(problem(NAME), Budget(1e4))
    state = strategy.step(run, strategy.init(run))
    assert state["now"] == 0.75
    assert state["length"] == 1.5


def test_a_window_that_crawls_near_its_goal_is_left_as_it_is():
    """What gets better by less than the factor in a hundred steps, and here nothing could, ends after these; not far off."""

    def taken(**more):
        run = Runner(problem(NAME), Budget(1e4))
        strategy = dataclasses.replace(SMALL, first=1.0, steps=104, failed=1e9, **more)
        return strategy.step(run, strategy.init(run))["windows"][0]

    free = taken(goal=0.0, crawl=1e9)
    assert free["steps"] == 104
    assert taken(goal=0.5 * free["added"], crawl=1e9)["steps"] == 101
    assert taken(goal=0.5 * free["added"], crawl=1.0)["steps"] == 104


def test_the_whole_is_tried_and_cut_into_windows_where_it_fails():
    strategy = dataclasses.replace(SMALL, steps=1, first=0.25, failed=1e9, whole=0.03)
    run = Runner(problem("burgers"), Budget(1e4))
    state = strategy.init(run)
    assert state["length"] == 1.0
    state = strategy.step(run, state)
    assert (state["length"], state["windows"]) == (0.25, [])
    assert strategy.step(run, state)["now"] == 0.25  # where another limit holds
    # not where there is no time for the first steps of four more, each of which takes a twentieth of it
    clock = iter(np.arange(0.0, 10.0, 0.05))
    run = Runner(problem("burgers"), Budget(1.0))
    run._clock = lambda: float(next(clock))
    run.started = 0.0
    assert len(strategy.step(run, {"now": 0.0, "length": 1.0, "windows": []})["windows"]) == 1


def test_networks_are_narrower_for_a_shorter_time():
    assert nodes_within((12, 12), 60.0, 60.0) == nodes_within((12, 12), 900.0, 60.0) == (12, 12)
    # steps take the sixth power of the nodes: in a ninth of the time 12 / 9^(1/6) = 8.3
    assert nodes_within((12, 12), 60.0 / 9, 60.0) == (8, 8)
    assert nodes_within((12, 12), 1e-6, 60.0) == nodes_within((12, 12), -0.1, 60.0) == (4, 4)
    assert nodes_within((3, 12), 1e-6, 60.0) == (3, 4)
    longer = RECIPES["trained"].within(600.0)
    assert longer.evolving is not None
    assert (longer.evolving.hidden, longer.evolving.hidden_s) == (longer.hidden, 600.0)


@pytest.mark.parametrize(
    ("name", "serves"),
    [
        ("burgers", True),
        ("allen-cahn", True),
        (NAME, True),
        ("kovasznay", False),
        ("wave", False),
        ("diffusion-inverse", False),
    ],
)
def test_windows_serve_what_evolves_along_one_axis(name, serves):
    assert can_window(problem(name)) is serves


def test_trained_marches_what_evolves():
    """In windows where one network fails; as one network where something is asked for that is of one alone."""
    small = dataclasses.replace(RECIPES["trained"], hidden=(4, 4), degree=3)
    own = dataclasses.replace(SMALL, first=0.25, steps=1, failed=1e9, whole=0.03)
    recipe = dataclasses.replace(small, evolving=own)
    found = solve("burgers", recipe=recipe, settings=SolveSettings(1e4, steps=8))
    assert isinstance(found.field, TimeWindows)
    assert found.metrics["windows"][0]["end"] <= 0.25
    alone = solve("burgers", recipe=recipe, settings=SolveSettings(1e4, steps=2, points=Points(60, 20)))
    assert not isinstance(alone.field, TimeWindows)
    steady = solve("poisson-2d", recipe=recipe, settings=SolveSettings(1e4, steps=1))
    assert "windows" not in steady.metrics


def test_a_tail_at_an_end_asks_for_no_layer():
    """A slope of 1e-4 of the largest at an end that asks for none is nothing to be resolved, whatever the values there."""
    region = box([-1.0, 0.0], [1.0, 1.0], ["x", "t"])

    def start(x):
        return torch.exp(-((x[..., 0] / 0.3) ** 2))  # slope 3e-4 of its largest at the ends, where it is 1.5e-5

    def residual(u, x):
        return u.gradient[..., 0, 1] - u.second[..., 0, 0]

    one = Problem("heat", region, residual, [initial(start), neumann(0.0, ["x=min"]), neumann(0.0, ["x=max"])])
    assert Window(one, evolution(one), None, 0.0, 0.1).starting_fronts() == []


@pytest.mark.parametrize("name", ["kovasznay", "wave", "diffusion-inverse"])
def test_what_does_not_evolve_is_refused(name):
    with pytest.raises(InputError, match=f"{name} cannot be trained in windows: give a box with an axis t"):
        solve(name, recipe=RECIPES["windows"], settings=SolveSettings(1e4))


def test_weights_are_volumes():
    """A mean with them is that of even points: the front is worth its volume, not its points."""
    one = problem("burgers")
    at = FrontPoints(4000, 80, "sobol", 1, fronts=(Front(0, 0.0, 0.003), Front(1, -1.0, 0.1))).init(one)[0]["equation"]
    inside = (at.points[:, 0].abs() < 0.05).double()
    assert float(inside.mean()) > 0.25
    weights = at.weight.square()
    assert float(weights.mean()) == pytest.approx(1.0)
    # 4000 points of a low-discrepancy set, a quarter of them inside: the share 0.05 to a hundredth of it
    assert float((weights * inside).mean()) == pytest.approx(0.05, rel=1e-2)
