"""Corrections on top of solutions that stay as they are, alone and as levels of a stack."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from sampler_contract import unjudged

from cpikan.cli import main
from cpikan.errors import InputError, ResumeError
from cpikan.fields.constrained import ConstrainedField
from cpikan.fields.files import load_field, save_field
from cpikan.fields.functional import parameter_vector
from cpikan.fields.scaled_cpikan import ScaledCPIKAN
from cpikan.fields.stacked import StackedField
from cpikan.learning.methods.adam import Adam
from cpikan.learning.methods.geodesic import GeodesicLevenberg
from cpikan.learning.methods.last_layer import LastLayer
from cpikan.learning.methods.levenberg import Levenberg
from cpikan.learning.recipes import Recipe
from cpikan.learning.samplers.points import Points
from cpikan.learning.solution import load_solution
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.stack import StackLevel, solve_stack
from cpikan.learning.subdomains import Subdomains
from cpikan.physics.catalogue import problem
from cpikan.streaming.events import Cancelled
from heard_events import Heard

PLAIN = Recipe("plain", "", (LastLayer(), Levenberg(4)), hidden=(3,), degree=4)
FINER = replace(PLAIN, hidden=(5,), degree=7)
EXACT = Recipe("exact", "", (GeodesicLevenberg(12),), hidden=(3, 3), degree=3, exact_values=True)
BETTER = replace(EXACT, hidden=(5, 5), degree=4)
NAME, POINTS = "helmholtz-1d:k=2", Points(40, 8)


def given(**more):
    return SolveSettings(**{"seconds": 1e4, "points": POINTS, **more})


def solved(recipe=PLAIN, name=NAME, **more):
    with unjudged():
        return solve(name, recipe=recipe, settings=given(**more))


def stacked(levels, **more):
    with unjudged():
        return solve_stack(NAME, levels, settings=given(**more))


def inside(solution):
    return solution.field.network if isinstance(solution.field, ConstrainedField) else solution.field


def test_a_stack_is_the_sum_of_its_levels_and_jets():
    levels = [ScaledCPIKAN([2, 3, 1], 3), ScaledCPIKAN([2, 4, 1], 2)]
    stack, x = StackedField([0.25], *levels), torch.rand(7, 2, dtype=torch.float64)
    torch.testing.assert_close(stack(x), levels[0](x) + 0.25 * levels[1](x), rtol=0, atol=0)
    for second in ("axes", "full", "laplacian", "none"):
        parts = zip(stack.jet(x, second), levels[0].jet(x, second), levels[1].jet(x, second), strict=True)
        for found, first, other in parts:
            torch.testing.assert_close(found, first + 0.25 * other, rtol=0, atol=0)


@pytest.mark.parametrize(("below", "above"), [(PLAIN, FINER), (EXACT, BETTER)])
def test_a_correction_leaves_what_is_below_and_lowers_the_residual(below, above, tmp_path):
    first = solved(below)
    before = parameter_vector(inside(first))
    start, found = (solved(one, correct=first) for one in (replace(above, stages=()), above))
    stack = inside(found)
    assert torch.equal(parameter_vector(inside(first)), before)
    assert torch.equal(parameter_vector(stack.levels[0]), before)
    assert isinstance(found.field, ConstrainedField) is isinstance(first.field, ConstrainedField)
    x = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
    assert torch.equal(start(x), first(x))  # nothing is added yet
    for figure in ("heldout_relative", "relative_l2"):
        assert found.metrics[figure] < 0.5 * start.metrics[figure]
    assert 0 < stack.scales[0] < 1
    assert found.metrics["parameters"] == sum(p.numel() for p in stack.parameters())
    found.save(tmp_path / "found")
    assert torch.equal(load_solution(tmp_path / "found", problem(NAME))(x), found(x))
    again = solved(replace(above, stages=()), correct=tmp_path / "found")  # three levels, the last of them zero
    assert len(inside(again).levels) == 3
    assert torch.equal(again(x), found(x))
    if below is EXACT:
        assert again.metrics["boundary_violation"] < 1e-12


def test_no_step_makes_a_solution_worse():
    """Steps that only harm leave what is below."""
    first = solved()
    wild = replace(FINER, stages=(Adam(12, 50.0),))
    found = solved(wild, correct=first)
    x = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
    assert torch.equal(found(x), first(x))


def test_levels_share_the_steps_and_may_have_windows():
    slow = replace(FINER, stages=(Adam(100, 1e-3),))
    levels = [
        StackLevel(PLAIN),
        StackLevel(slow, subdomains=Subdomains(2)),
        StackLevel(PLAIN, subdomains=Subdomains(2)),
    ]
    found = stacked(levels, steps=20)
    rows = found.metrics["stack"]
    assert [row["iterations"] for row in rows] == [6, 7, 7]
    assert rows[1]["heldout_relative"] >= rows[2]["heldout_relative"]  # by the same points and weights
    assert [end.stage.split(":")[0] for end in found.history.ends] == [
        "level 1",
        "level 1",
        "level 2",
        "level 3",
        "level 3",
    ]
    kinds = [type(level).__name__ for level in inside(found).levels]
    assert kinds == ["ScaledCPIKAN", "DecomposedField", "DecomposedField"]


def test_a_stack_goes_on_from_the_middle(tmp_path):
    levels = [
        StackLevel(replace(PLAIN, stages=(Adam(21, 1e-2),))),
        StackLevel(replace(FINER, stages=(Adam(21, 1e-3),))),
    ]
    whole, kept = stacked(levels), {"checkpoint": tmp_path, "checkpoint_s": 0.0, "resume": True}
    with pytest.raises(Cancelled):
        stacked(levels, events=Heard(4), **kept)
    found = stacked(levels, **kept)
    assert torch.equal(parameter_vector(inside(found)), parameter_vector(inside(whole)))
    with pytest.raises(ResumeError, match="stack"):
        stacked(levels[::-1], **kept)


def test_the_command_line_corrects_a_file(tmp_path, capsys):
    solved(name="helmholtz-1d:k=2.0").save(tmp_path / "first")
    more = ["--recipe", "adam", "--steps", "2", "--json", "--correct", str(tmp_path / "first")]
    assert main(["solve", "helmholtz-1d:k=2", *more]) == 0
    assert json.loads(capsys.readouterr().out)["correct"] == str(tmp_path / "first")
    assert main(["solve", "poisson-1d", *more]) == 2
    assert "is a solution of 'helmholtz-1d:k=2.0', not of 'poisson-1d'" in capsys.readouterr().err


def test_what_cannot_be_corrected_is_told(tmp_path):
    first = solved()
    for make, text in (
        (
            lambda: solved(name="poisson-1d", correct=first),
            "a correction of poisson-1d on top of a solution of helmholtz-1d",
        ),
        (lambda: solved(correct=3), "correct is 3: give a Solution, or the path"),
        (lambda: solved(correct=first, start_from=first), "a solution to correct and one to start from: give one"),
        (lambda: stacked([]), "a stack of no levels: give one and more"),
        (lambda: stacked(["trained"]), "a level is 'trained': give a StackLevel"),
        (
            lambda: stacked([StackLevel(), StackLevel()], steps=1),
            "1 steps for a stack of 2 problems: give at least as many",
        ),
        (lambda: StackedField([], ScaledCPIKAN([1, 1])), "1 levels with 0 scales: give two levels or more"),
        (lambda: StackedField([1], ScaledCPIKAN([1, 1]), ScaledCPIKAN([2, 1])), "levels of different axes or outputs"),
    ):
        with pytest.raises(InputError, match=text) as told:
            make()
        assert "\n" not in str(told.value)
    save_field(StackedField([0.5], ScaledCPIKAN([1, 2, 1]), ScaledCPIKAN([1, 1])), tmp_path / "stack")
    assert load_field(tmp_path / "stack").scales == (0.5,)
