"""Checkpoints: a solve that was interrupted or killed ends with the bits of one that was not; others are refused."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import pytest
import torch
from sampler_contract import unjudged

from cpikan.cli import main
from cpikan.errors import InputError
from cpikan.fields.functional import parameter_vector
from cpikan.fields.piecewise import PiecewiseChebyshev
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.methods.adam import Adam
from cpikan.learning.methods.last_layer import LastLayer
from cpikan.learning.methods.levenberg import Levenberg
from cpikan.learning.methods.quasi_newton import UPDATES, QuasiNewton
from cpikan.learning.methods.soap import Soap
from cpikan.learning.methods.variable_projection import VariableProjection
from cpikan.learning.recipes import Recipe
from cpikan.learning.samplers.points import Points
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.strategies import auto
from cpikan.learning.strategies.auto import AutoStrategy
from cpikan.learning.strategies.grow import Grow
from cpikan.learning.strategies.march import Level, March
from cpikan.physics.catalogue import problem
from cpikan.physics.problem import Problem, dirichlet
from cpikan.physics.regions import box
from cpikan.streaming.events import Cancelled
from cpikan.streaming.run_store import RunStore
from forked import fork_that_tells
from heard_events import Heard

POINTS = Points(60, 2)


def network(seed=1):
    return ScaledCPIKAN([1, 4, 1], 5, start=Start(seed))


def both(tmp_path, recipe, name="helmholtz-1d", *, field=network, calls=(2, 4), **options):
    """The field of a solve that went through, and of one that was stopped at those calls and resumed each time."""
    settings = {"seconds": 1e4, "checkpoint_s": 0.0, **options}
    posed = replace(problem(name), exact=None)  # a reference takes longer than these solves, and nobody looks at it
    kept = {"checkpoint": tmp_path / "c", "resume": True, **settings}
    with unjudged():
        whole = solve(posed, field(), recipe, settings=SolveSettings(**settings))
        for call in calls:
            with pytest.raises(Cancelled):
                solve(posed, field(), recipe, settings=SolveSettings(events=Heard(call), **kept))
        return whole, solve(posed, field(), recipe, settings=SolveSettings(**kept))


def same(whole, resumed):
    assert torch.equal(parameter_vector(whole.field), parameter_vector(resumed.field))
    assert whole.metrics["iterations"] == resumed.metrics["iterations"]
    assert whole.stop_reason is resumed.stop_reason

    def without_time(history):
        records = [{k: v for k, v in one.items() if k != "seconds"} for one in history.records]
        return records, [(end.stage, end.reason, end.iterations, end.heldout) for end in history.ends]

    assert without_time(whole.history) == without_time(resumed.history)


STAGES = [
    (Adam(50, 1e-2),),
    (Soap(50, 1e-2, frequency=7),),
    *((QuasiNewton(update, 50),) for update in UPDATES),
    (Levenberg(25),),
    (VariableProjection(12),),
    (Adam(25, 1e-2), QuasiNewton("ssbroyden", 20), LastLayer(), Levenberg(4)),
]


@pytest.mark.parametrize("stages", STAGES, ids=lambda stages: "-".join(stage.name for stage in stages))
def test_an_interrupted_solve_ends_with_the_same_bits(tmp_path, stages):
    same(*both(tmp_path, Recipe("mine", "", stages), points=POINTS))


def test_a_nonlinear_problem_too(tmp_path):
    recipe = Recipe("mine", "", (VariableProjection(4), QuasiNewton("bfgs", 12)))
    points = Points(40, 24)

    def field():
        return ScaledCPIKAN([2, 3, 1], 3, ([-1, 0], [1, 1]))

    same(*both(tmp_path, recipe, "burgers", field=field, points=points, calls=(1, 1)))


def test_a_stage_that_went_past_the_goal_is_gone_on_with(tmp_path):
    """The goal is looked at between stages: what a later stage reached must not end an earlier one on resuming."""
    recipe = Recipe("mine", "", (Adam(12, 1e-3), Levenberg(25), Adam(5)))

    def field():
        return ScaledCPIKAN([1, 4, 1], 14, start=Start(1))

    whole, resumed = both(tmp_path, recipe, "poisson-1d", field=field, points=Points(120, 2), calls=(16,), rtol=0.15)
    same(whole, resumed)
    assert [end.stage for end in resumed.history.ends] == ["adam", "levenberg-marquardt"]


def test_new_starts_are_counted_and_the_best_is_kept(tmp_path):
    """Far too small a network is stuck at once: all starts are used, wherever the solve was stopped."""
    recipe = Recipe("mine", "", (Adam(15, 1e-2), Levenberg(60, patience=2)))
    points = Points(40, 2)

    def field():
        return ScaledCPIKAN([1, 1, 1], 2, start=Start(4))

    one, *_ = both(tmp_path / "a", recipe, field=field, points=points, calls=())
    whole, resumed = both(tmp_path / "b", recipe, field=field, points=points, restarts=2, calls=(3, 20, 20))
    same(whole, resumed)
    stages = [end.stage for end in whole.history.ends]
    assert stages == ["adam", "levenberg-marquardt"] * 3
    lowest = min(end.heldout for end in whole.history.ends)
    assert lowest <= one.history.ends[-1].heldout
    # the field is that of the lowest end, whichever it was
    assert whole.metrics["heldout_residual"] <= one.metrics["heldout_residual"] * 1.5
    assert min(r["heldout"] for r in whole.history.records) == pytest.approx(lowest, rel=1e-12)


@pytest.mark.parametrize(
    ("recipe", "name", "calls"),
    [
        (Recipe("grow", "", (), own=Grow(parameters=200)), "poisson-1d", (3, 3)),
        (
            Recipe("auto", "", (), own=AutoStrategy(March((Level(1e-1, (5, 4)), Level(1e-2, (6, 5)))))),
            "allen-cahn",
            (8,),
        ),
    ],
    ids=["grow", "auto"],
)
def test_recipes_that_make_their_own_network_go_on_at_the_level(tmp_path, recipe, name, calls, monkeypatch):
    # networks that are not kept need not be large
    monkeypatch.setattr(auto, "Grow", functools.partial(Grow, parameters=100))
    whole, resumed = both(tmp_path, recipe, name, field=lambda: None, calls=calls)
    same(whole, resumed)
    assert isinstance(resumed.field, PiecewiseChebyshev) is (name == "allen-cahn")
    # what a level before had done is not done again: it is in the history once
    assert len(resumed.history.records) == len(whole.history.records)


SCRIPT = """
    import os, signal, sys
    from dataclasses import replace
    import torch
    from cpikan.learning.methods.adam import Adam
    from cpikan.learning.samplers.points import Points
    from cpikan.learning.methods.quasi_newton import QuasiNewton
    from cpikan.learning.recipes import Recipe
    from cpikan.learning.solver import SolveSettings, solve
    torch.set_num_threads(1)
    recipe = Recipe("mine", "", (Adam(30, 1e-2), QuasiNewton("ssbroyden", 40)), hidden=(4,), degree=5)
    class Killer:
        def __init__(self, call):
            self.calls = call
        def progress(self, stage, done, of, **figures):
            self.calls -= 1
            if self.calls == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        def cancelled(self):
            return False
    def run(folder, call):
        settings = SolveSettings(1e4, Points(60, 2), Killer(call), folder, True, 0.02)
        solve("helmholtz-1d", None, recipe, settings=settings)
    # what is imported and loaded once need not be by every child
    short = replace(recipe, stages=(Adam(1, 1e-2), QuasiNewton("ssbroyden", 1)))
    solve("helmholtz-1d", None, short, settings=SolveSettings(1e4))
    for given in sys.argv[1:]:
        folder, call = given.rsplit(":", 1)
        child = os.fork()
        if child == 0:
            run(folder, int(call))
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_killed_solve_ends_with_the_same_bits(tmp_path):
    """SIGKILL in both stages, with the last checkpoint some iterations old; every process is a fresh fork."""
    runs = [
        f"{tmp_path / folder}:{call}" for folder, call in (("killed", 2), ("killed", 3), ("killed", 0), ("whole", 0))
    ]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), *runs], stdout=subprocess.PIPE, text=True, check=True
    )
    assert [int(code) for code in done.stdout.split()] == [-signal.SIGKILL, -signal.SIGKILL, 0, 0]
    ends = []
    for folder in ("killed", "whole"):
        path = tmp_path / folder
        state = json.loads((path / "checkpoint.json").read_text())["state"]
        same_keys = [state["iterations"], *(state["iterate"][key] for key in ("best_cost", "scale", "fitted"))]
        ends.append([*same_keys, [{**one, "seconds": 0} for one in state["records"]]])
    assert ends[0] == ends[1]
    assert ends[0][0] == 70


@pytest.mark.parametrize("stages", [(Adam(50),), (Grow(),)], ids=["adam", "grow"])
def test_a_solve_whose_steps_are_used_up_takes_no_further_one(tmp_path, stages):
    settings = SolveSettings(1e4, steps=3, checkpoint=tmp_path, resume=True)
    recipe = Recipe("r", "", stages) if isinstance(stages[0], Adam) else Recipe("r", "", (), own=stages[0])
    with unjudged():
        first, again = (solve("helmholtz-1d", recipe=recipe, settings=settings) for _ in range(2))
    assert first.metrics["iterations"] == again.metrics["iterations"] == 3
    assert torch.equal(parameter_vector(first.field), parameter_vector(again.field))
    assert [r["iteration"] for r in again.history.records] == [r["iteration"] for r in first.history.records]
    assert any("nothing was left to do" in text for text in again.warnings)


def test_more_seconds_go_on_where_time_was_up(tmp_path):
    recipe = Recipe("mine", "", (QuasiNewton("bfgs", 120),))
    whole = solve("helmholtz-1d", network(), recipe, settings=SolveSettings(1e4, POINTS))
    kept = {"points": POINTS, "checkpoint": tmp_path, "resume": True}
    first = solve("helmholtz-1d", network(), recipe, settings=SolveSettings(1e-6, **kept))
    assert first.stop_reason.name == "TIME"
    assert first.metrics["iterations"] == 0  # no step fits into a microsecond
    same(whole, solve("helmholtz-1d", network(), recipe, settings=SolveSettings(1e4, **kept)))
    again = solve("helmholtz-1d", network(), recipe, settings=SolveSettings(1e4, **kept))
    same(whole, again)
    assert again.warnings[-1].endswith("had been finished: nothing was left to do")


def _other(factor):
    def residual(u, x):
        return u.second[..., 0, 0] - factor * torch.sin(x[..., 0])

    return Problem("other", box([-1], [1]), residual, [dirichlet(0.0)])


RECIPE = Recipe("mine", "", (Adam(25, 1e-2),))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"problem": "poisson-1d"}, 'problem was "other", now "poisson-1d"'),
        ({"problem": _other(2.0)}, "residuals of other are not those of the checkpoint"),
        ({"recipe": "lbfgs"}, 'recipe was "mine", now "lbfgs"'),
        ({"recipe": Recipe("mine", "", (Adam(26, 1e-2),))}, "recipe's settings"),
        ({"seed": 1}, "seed was 0, now 1"),
        ({"points": Points(61, 2)}, "points.interior was 60, now 61"),
        ({"field": ScaledCPIKAN([1, 5, 1], 5)}, "field.config.* was"),
        ({"resume": False}, "holds a checkpoint: add --resume"),
    ],
)
def test_another_solve_is_refused_by_name(tmp_path, change, text):
    asked = {"problem": _other(1.0), "field": network(), "recipe": RECIPE, "seed": 0, "points": POINTS, "resume": True}

    def run(problem, field, recipe, seed, points, resume):
        settings = SolveSettings(1e4, points, checkpoint=tmp_path, resume=resume)
        return solve(problem, field, recipe, seed=seed, settings=settings)

    run(**asked)
    with pytest.raises(InputError, match=text):
        run(**{**asked, "field": network(), **change})


@pytest.mark.parametrize("damage", ["json", "half", "tensors", "gone"])
def test_a_damaged_checkpoint_is_told(tmp_path, damage):
    settings = SolveSettings(1e4, POINTS, checkpoint=tmp_path, resume=True)
    solve("helmholtz-1d", network(), RECIPE, settings=settings)
    path = tmp_path / "checkpoint.json"
    tensors = tmp_path / f"tensors-{json.loads(path.read_text())['turn']}.safetensors"
    if damage == "json":
        path.write_text("{}")
    elif damage == "half":
        path.write_text(path.read_text()[: len(path.read_text()) // 2])
    elif damage == "tensors":
        tensors.write_bytes(tensors.read_bytes()[:-20])
    else:
        tensors.unlink()
    with pytest.raises(InputError, match="damaged"):
        solve("helmholtz-1d", network(), RECIPE, settings=settings)


def _hold(folder):
    with RunStore(folder, {}, resume=True):
        print("held", flush=True)
        time.sleep(600)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a fork holds the folder")
def test_a_folder_that_another_process_solves_in_is_refused(tmp_path, capsys):
    asked = ["solve", "poisson-1d", "--recipe", "last-layer", "--checkpoint", str(tmp_path / "c")]
    with fork_that_tells(lambda: _hold(tmp_path / "c")) as told:
        assert told.readline() == "held\n"
        assert main(asked) == 2
        assert "another run is writing here" in capsys.readouterr().err
    assert main(asked) == 0  # the lock goes with the process that held it


def test_the_command_line_keeps_and_resumes(tmp_path, capsys):
    asked = ["solve", "poisson-1d", "--json", "--checkpoint", str(tmp_path / "c")]
    assert main(asked) == 0
    first = json.loads(capsys.readouterr().out)
    assert main([*asked, "--resume"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["relative_l2"] == first["relative_l2"]
    assert again["iterations"] == first["iterations"]
    assert main(asked) == 2
    assert "add --resume" in capsys.readouterr().err
    assert main([*asked, "--resume", "--seed", "7"]) == 2
    assert "seed was 0, now 7" in capsys.readouterr().err
    assert main(["solve", "poisson-1d", "--resume"]) == 2
    assert "name its folder" in capsys.readouterr().err
    assert main([*asked[:-1], str(tmp_path / "many"), "--seeds", "2"]) == 0
    assert {path.name for path in (tmp_path / "many").iterdir()} == {"seed-0", "seed-1"}
