"""Curricula: one problem after the other, what they share, and weights that move from conditions to the equation."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from sampler_contract import unjudged

from cpikan.cli import main
from cpikan.errors import InputError, ResumeError
from cpikan.fields.functional import parameter_vector
from cpikan.fields.scaled_cpikan import ScaledCPIKAN
from cpikan.learning.balancers.boundary_first import BoundaryFirst
from cpikan.learning.balancers.kernel_traces import KERNEL_TRACES
from cpikan.learning.chain import stage_settings
from cpikan.learning.curriculum import Curriculum, solve_curriculum
from cpikan.learning.methods.adam import Adam
from cpikan.learning.methods.geodesic import GeodesicLevenberg
from cpikan.learning.methods.levenberg import Levenberg
from cpikan.learning.objective import make_objective
from cpikan.learning.recipes import Recipe
from cpikan.learning.runner import Runner
from cpikan.learning.samplers.points import Points
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.stop_reason import StopReason
from cpikan.physics.catalogue import problem
from cpikan.streaming.events import Cancelled
from heard_events import Heard

SMALL = Recipe("small", "", (Adam(30, 1e-2), Levenberg(4)), hidden=(4,), degree=5)
EXACT = Recipe("exact", "", (GeodesicLevenberg(3),), hidden=(3, 3), degree=3, exact_values=True)
THREE = Curriculum.of("helmholtz-1d", "k", (1.0, 2.0, 3.0))


def given(**more):
    return SolveSettings(**{"seconds": 1e4, "points": Points(40, 8), **more})


def solved(lessons, recipe=SMALL, field=None, **more):
    with unjudged():
        return solve_curriculum(lessons, field, recipe, settings=given(**more))


def without_time(history):
    records = [{key: value for key, value in one.items() if key != "seconds"} for one in history.records]
    return records, [(end.stage, end.reason, end.iterations, end.heldout) for end in history.ends]


@pytest.mark.parametrize("recipe", [SMALL, EXACT, "default"])
def test_one_stage_is_the_plain_solve_bit_for_bit(recipe):
    points = {"points": None, "steps": 9} if recipe == "default" else {}  # which grows networks, unless it is to train
    found = solved(Curriculum([problem("helmholtz-1d")]), recipe, **points)
    with unjudged():
        plain = solve("helmholtz-1d", recipe=recipe, settings=given(**points))
    assert torch.equal(parameter_vector(found.field), parameter_vector(plain.field))
    same = ("relative_l2", "heldout_residual", "iterations", "parameters", "collocation_points")
    assert [found.metrics[one] for one in same] == [plain.metrics[one] for one in same]
    assert found.stop_reason is plain.stop_reason
    ends = [f"helmholtz-1d: {end.stage}" for end in plain.history.ends]
    assert [end.stage for end in found.history.ends] == ends


@pytest.mark.parametrize("recipe", [SMALL, EXACT])
def test_each_stage_starts_from_the_last_ones_network(recipe):
    found = solved(THREE, recipe)
    by_hand = None
    for one in THREE.problems:
        with unjudged():
            by_hand = solve(one, recipe=recipe, settings=given(start_from=by_hand))
    assert torch.equal(parameter_vector(found.field), parameter_vector(by_hand.field))
    assert found.problem.name == "helmholtz-1d:k=3.0"
    assert found.metrics["heldout_residual"] == by_hand.metrics["heldout_residual"]
    rows = found.metrics["curriculum"]
    assert [row["problem"] for row in rows] == [f"helmholtz-1d:k={k}" for k in (1.0, 2.0, 3.0)]
    assert rows[-1]["relative_l2"] == found.metrics["relative_l2"]
    for key in ("iterations", "seconds"):
        assert found.metrics[key] == pytest.approx(sum(row[key] for row in rows), rel=1e-12)
    steps = [record["iteration"] for record in found.history.records]
    times = [record["seconds"] for record in found.history.records]
    assert steps == sorted(set(steps))
    assert times == sorted(times)
    assert steps[-1] == found.metrics["iterations"]
    assert found.history.records[0]["stage"].startswith("helmholtz-1d:k=1.0: ")
    assert found.history.records[-1]["stage"].startswith("helmholtz-1d:k=3.0: ")


def test_a_field_of_ones_own_is_trained_first_and_copied_after():
    field = ScaledCPIKAN([1, 4, 1], 5)
    found = solved(THREE, EXACT, field, constraints="penalty")
    again = solved(THREE, EXACT, ScaledCPIKAN([1, 4, 1], 5))  # a field that is given stands behind no form
    assert torch.equal(parameter_vector(found.field), parameter_vector(again.field))
    assert found.field is not field
    assert found.metrics["boundary_violation"] > 0


def test_stages_share_the_steps_and_leave_what_they_do_not_use():
    plenty = replace(SMALL, stages=(Adam(100, 1e-2),))
    assert [row["iterations"] for row in solved(THREE, plenty, steps=20).metrics["curriculum"]] == [6, 7, 7]
    few = replace(SMALL, stages=(Adam(3, 1e-2),))
    assert [row["iterations"] for row in solved(THREE, few, steps=20).metrics["curriculum"]] == [3, 3, 3]
    looked = []

    def once(field, record):  # ends the first stage at its first look, whose steps are the others'
        looked.append(record)
        return len(looked) == 1

    rows = solved(THREE, plenty, steps=100, callback=once).metrics["curriculum"]
    assert [row["iterations"] for row in rows] == [10, 45, 45]
    assert rows[0]["stop_reason"] == "asked"
    done = {"number": 1, "seconds": 3.0, "iterations": 10}  # 6 s and 20 steps are left for two
    share = stage_settings(SolveSettings(seconds=9.0, steps=30), done, 3)
    assert (share.seconds, share.steps) == (3.0, 10)
    late = solved(THREE, plenty, seconds=1e-9)  # no time at all: each takes a step, and the last is what was asked for
    assert late.problem is THREE.problems[-1]
    assert late.stop_reason is StopReason.TIME


def test_one_that_was_finished_says_so(tmp_path):
    lessons, kept = Curriculum.of("helmholtz-1d", "k", (1.0, 2.0)), {"checkpoint": tmp_path, "resume": True}
    first, again = (solved(lessons, steps=steps, **kept) for steps in (2, 8))
    assert again.metrics["iterations"] == first.metrics["iterations"] == 2
    assert not any("had been finished" in text for text in first.warnings)
    assert any("had been finished: nothing was left to do" in text for text in again.warnings)


@pytest.mark.parametrize(("recipe", "call", "done"), [(SMALL, 2, 0), (EXACT, 5, 1), (SMALL, 10, 2)])
def test_a_curriculum_goes_on_from_the_middle(tmp_path, recipe, call, done):
    """Stopped in the first, the second and the last stage: the bits and the history of one that went through."""
    recipe = replace(recipe, stages=(Adam(21, 1e-2), *recipe.stages[-1:]))
    whole = solved(THREE, recipe)
    kept = {"checkpoint": tmp_path / "c", "checkpoint_s": 0.0, "resume": True}
    with pytest.raises(Cancelled):
        solved(THREE, recipe, events=Heard(call), **kept)
    assert (tmp_path / "c" / f"stage-{done + 1}").exists()
    assert not (tmp_path / "c" / f"stage-{done + 2}").exists()
    found = solved(THREE, recipe, **kept)
    assert torch.equal(parameter_vector(found.field), parameter_vector(whole.field))
    assert without_time(found.history) == without_time(whole.history)
    finished = solved(THREE, recipe, **kept)
    assert torch.equal(parameter_vector(finished.field), parameter_vector(whole.field))
    assert without_time(finished.history) == without_time(whole.history)
    for other, more in ((Curriculum(THREE.problems[1:]), {}), (THREE, {"balancer": "gradnorm"})):
        with pytest.raises(ResumeError, match=r"curriculum|balancer"):
            solved(other, recipe, **kept, **more)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Curriculum([]), "a curriculum of no problems: give one and more"),
        (lambda: Curriculum(3), "problems of a curriculum is 3: give problems"),
        (lambda: Curriculum(["helmholtz-1d"]), "a problem of a curriculum is 'helmholtz-1d': give a Problem"),
        (lambda: Curriculum([problem("beam"), problem("helmholtz-1d")]), r"\[\(1, 2\), \(1, 1\)\]: give problems with"),
        (lambda: Curriculum.read("helmholtz-1d", "4pi"), "curriculum '4pi': give a parameter and its values"),
        (lambda: Curriculum.read("helmholtz-1d", "k=1,many"), "'many' is no number"),
        (lambda: Curriculum.read("burgers", "k=1"), "unknown parameter of burgers 'k': allowed are nu, end"),
        (lambda: solve_curriculum("helmholtz-1d"), "curriculum is 'helmholtz-1d': give Curriculum"),
        (lambda: solved(THREE, steps=2), "2 steps for a curriculum of 3 problems: give at least as many"),
    ],
)
def test_what_is_no_curriculum_is_told(make, text):
    with pytest.raises(InputError, match=text) as told:
        make()
    assert "\n" not in str(told.value)


def test_the_command_line_takes_a_curriculum(capsys):
    more = ["--recipe", "adam", "--steps", "6", "--json"]
    assert main(["solve", "helmholtz-1d:kappa=2", "--curriculum", "k=pi,2pi", *more]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["problem"] for row in found["curriculum"]] == [
        f"helmholtz-1d:kappa=2.0,k={k!r}" for k in (math.pi, 2 * math.pi)
    ]
    assert found["iterations"] == 6
    assert main(["solve", "helmholtz-1d", "--curriculum", "pi", *more]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_weights_follow_their_schedule():
    """0.9 of the weight on conditions falls to 0.3 within 20 steps, looked at every 5: the equation has the rest."""
    one = problem("diffusion")
    field = ScaledCPIKAN([2, 3, 1], 3, (one.region.lower, one.region.upper))
    balancer = BoundaryFirst(begin=0.9, end=0.3, steps=20, every=5)
    plain = KERNEL_TRACES.init(make_objective(one, Points(40, 20).init(one)[0]), field)[0].weights
    run = Runner(one)
    run.place(field, Points(40, 20), balancer)
    for share in (0.9, 0.75, 0.6, 0.45, 0.3, 0.3):
        weights = run.iterate.objective.weights
        assert weights["equation"] == pytest.approx(plain["equation"] * math.sqrt(2 * (1 - share)), rel=1e-12)
        for name in one.condition_names:
            assert weights[name] == pytest.approx(plain[name] * math.sqrt(2 * share), rel=1e-12)
        run.run(Adam(5, 1e-3))


def test_weights_have_to_move_from_somewhere():
    with pytest.raises(InputError, match="where no condition is a residual: give constraints penalty"):
        solved(Curriculum([problem("helmholtz-1d")]), EXACT, balancer="boundary-first")
    for settings, text in (
        ({"begin": 1.0}, "shares 1.0 to 0.5 of conditions: give two between 0 and 1"),
        ({"end": 0.0}, "shares 0.99 to 0.0"),
        ({"steps": 0}, "weights that move in 0 steps, every 10: give 1 or more"),
    ):
        with pytest.raises(InputError, match=text):
            BoundaryFirst(**settings)
