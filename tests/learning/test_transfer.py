"""Transfer: a copy of a network on another region, which says there what it said, and what cannot be taken over."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sampler_contract import unjudged

from cpikan.cli import main
from cpikan.errors import InputError, ResumeError
from cpikan.fields.functional import parameter_vector
from cpikan.fields.kinds import FIELDS, make_field
from cpikan.fields.scaled_cpikan import ScaledCPIKAN
from cpikan.learning.methods.adam import Adam
from cpikan.learning.methods.geodesic import GeodesicLevenberg
from cpikan.learning.methods.levenberg import Levenberg
from cpikan.learning.recipes import Recipe
from cpikan.learning.samplers.points import Points
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.transfer import transferred
from cpikan.physics.catalogue import problem
from cpikan.streaming.events import Cancelled
from heard_events import Heard

PLAIN = Recipe("plain", "", (Levenberg(3),), hidden=(4,), degree=5)
STILL = replace(PLAIN, name="still", stages=())  # takes no step: what is judged is the start
EXACT = Recipe("exact", "", (GeodesicLevenberg(2),), hidden=(4, 4), degree=3, exact_values=True)
POINTS = Points(40, 8)


def solved(name, recipe=PLAIN, **settings):
    with unjudged():
        return solve(name, recipe=recipe, settings=SolveSettings(seconds=1e4, points=POINTS, **settings))


@pytest.mark.parametrize(("name", "recipe"), [("helmholtz-1d:k=2", PLAIN), ("helmholtz-1d:k=2", EXACT)])
def test_transfer_to_the_same_problem_keeps_the_residual(name, recipe, tmp_path):
    """Bit for bit, from a file too: neither the parameters nor the box have changed."""
    first = solved(name, recipe)
    first.save(tmp_path / "first")
    for start in (first, tmp_path / "first"):
        again = solved(name, replace(recipe, stages=()), start_from=start)
        assert torch.equal(parameter_vector(again.field), parameter_vector(first.field))
        figures = ["heldout_residual", "relative_l2", "boundary_violation"]
        assert [again.metrics[one] for one in figures] == [first.metrics[one] for one in figures]
        if recipe is EXACT:  # against a network drawn anew, whose output layer is solved for: equal to rounding
            frozen = [one.metrics["frozen_over_found"] for one in (again, first)]
            assert frozen[0] == pytest.approx(frozen[1], rel=1e-6)
            assert frozen[0] > 1.01
    assert again.metrics["iterations"] == 0
    assert first.metrics["heldout_residual"] != solved(name, replace(recipe, stages=())).metrics["heldout_residual"]


def test_values_held_with_slopes_are_taken_over_behind_the_functions_of_a_period():
    posed = replace(problem("allen-cahn", end=0.1), exact=None)
    small = replace(EXACT, stages=(GeodesicLevenberg(1),), hidden=(3,))
    first = solved(posed, small, constraints="exact")
    again = solved(posed, replace(small, stages=()), constraints="exact", start_from=first)
    assert torch.equal(parameter_vector(again.field), parameter_vector(first.field))
    assert again.metrics["heldout_residual"] == first.metrics["heldout_residual"]


@pytest.mark.parametrize("kind", FIELDS)
def test_a_network_on_another_region_says_what_it_said_in_scaled_coordinates(kind):
    before = problem("diffusion", half=2.0)
    after = problem("diffusion", half=3.0, end=4.0)
    field = make_field(kind, [2, 4, 4, 1], 3, ([-2, 0], [2, 1]), seed=1)
    held = replace(solved("helmholtz-1d", STILL), problem=before, field=field)
    found = transferred(held, after, None)
    assert found.scaling.config() == {"lower": [-3.0, 0.0], "upper": [3.0, 4.0]}
    unit = torch.rand(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    inside = [one.region.inside(unit.numpy(), clustered=False) for one in (before, after)]
    # scaled coordinates differ by rounding, which derivatives up to 1e3 may carry on
    assert np.allclose(
        *[f(torch.from_numpy(x)).detach() for f, x in zip((field, found), inside, strict=True)], atol=1e-12
    )
    assert not set(map(id, found.parameters())) & set(map(id, field.parameters()))
    with torch.no_grad():
        next(found.parameters()).add_(1.0)
    assert field.scaling.config()["upper"] == [2.0, 1.0]
    assert not torch.equal(next(field.parameters()), next(found.parameters()))


def test_a_box_that_is_larger_than_its_region_moves_with_it():
    before, after = problem("helmholtz-1d"), problem("helmholtz-1d", upper=3.0)  # [-1, 1] to [-1, 3]
    held = replace(solved("helmholtz-1d", STILL), problem=before, field=ScaledCPIKAN([1, 3, 1], 3, ([-2], [1.5])))
    assert transferred(held, after, None).scaling.config() == {"lower": [-3.0], "upper": [4.0]}


def test_a_start_trains_a_network_by_the_default_recipe_and_helps():
    """A third of the wave number later a Levenberg step is nearer to the goal than after as many from a drawn start."""
    first = solved("helmholtz-1d:k=2", replace(PLAIN, stages=(Levenberg(12),)))
    recipe = replace(PLAIN, stages=(Levenberg(4),))
    warm, cold = solved("helmholtz-1d:k=2.1", recipe, start_from=first), solved("helmholtz-1d:k=2.1", recipe)
    assert warm.metrics["heldout_residual"] < 0.1 * cold.metrics["heldout_residual"]
    with unjudged():
        own = solve("helmholtz-1d:k=2.1", settings=SolveSettings(start_from=first, steps=2))
    assert own.field.widths == first.field.widths  # instead of the networks that the recipe grows


def test_a_solve_from_a_start_is_resumed_with_that_start_alone(tmp_path):
    first = solved("helmholtz-1d:k=2")
    recipe = replace(PLAIN, stages=(Adam(30, 1e-2),))
    whole = solved("helmholtz-1d", recipe, start_from=first)
    kept = {"checkpoint": tmp_path / "c", "checkpoint_s": 0.0, "resume": True}
    with pytest.raises(Cancelled):
        solved("helmholtz-1d", recipe, start_from=first, events=Heard(2), **kept)
    with pytest.raises(ResumeError, match="start"):
        solved("helmholtz-1d", recipe, start_from=solved("helmholtz-1d:k=3"), **kept)
    resumed = solved("helmholtz-1d", recipe, start_from=first, **kept)
    assert torch.equal(parameter_vector(resumed.field), parameter_vector(whole.field))


def test_what_cannot_be_taken_over_is_told():
    line = solved("helmholtz-1d", STILL)
    plane = solved("poisson-2d", STILL)
    held = solved("poisson-2d", replace(EXACT, stages=(), hidden=(3,)))
    two = solved("beam", STILL)
    marched = replace(line, field=torch.nn.Linear(1, 1))
    for name, recipe, start, text in (
        ("poisson-2d", PLAIN, line, "helmholtz-1d has 1 inputs and 1 outputs, poisson-2d has 2 and 1: start from"),
        ("helmholtz-1d", PLAIN, two, "the solution of beam has 1 inputs and 2 outputs, helmholtz-1d has 1 and 1"),
        (
            "poisson-2d",
            PLAIN,
            held,
            "holds values by its form, and this solve of poisson-2d does not: give recipe trained",
        ),
        ("poisson-2d", EXACT, plane, "does not hold values by its form, and this solve of poisson-2d does: give"),
        (
            "helmholtz-1d",
            PLAIN,
            marched,
            "the solution of helmholtz-1d is a Linear, which is no single network: start from",
        ),
        ("helmholtz-1d", PLAIN, 3, "start_from is 3: give a Solution, or the path"),
        ("helmholtz-1d", PLAIN, "/nowhere/at/all", "no file /nowhere/at/all.json"),
    ):
        with pytest.raises(InputError, match=text) as told:
            solved(name, recipe, start_from=start)
        assert "\n" not in str(told.value)
    with pytest.raises(InputError, match="a field and a solution to start from: give one"):
        solve("helmholtz-1d", ScaledCPIKAN([1, 3, 1]), PLAIN, settings=SolveSettings(start_from=line))


def test_the_command_line_starts_from_a_file(tmp_path, capsys):
    solved("helmholtz-1d:k=2").save(tmp_path / "first")
    more = ["--start-from", str(tmp_path / "first"), "--recipe", "adam", "--steps", "2", "--json"]
    assert main(["solve", "helmholtz-1d:k=pi", *more]) == 0
    told = capsys.readouterr().out
    assert f'"problem": "helmholtz-1d:k={math.pi!r}"' in told
    assert '"start_from": "' in told
    assert main(["solve", "poisson-2d", *more]) == 2
    assert main(["solve", "helmholtz-1d", "--field", "mlp", *more]) == 2
    told = capsys.readouterr().err.splitlines()
    assert "1 inputs and 1 outputs" in told[0]
    assert "--field and --start-from: give one" in told[1]
