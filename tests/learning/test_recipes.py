"""Every recipe on every kind of problem, for a fixed number of iterations; and what a user is told."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from sampler_contract import unjudged

from cpikan.cli import main
from cpikan.errors import InputError
from cpikan.fields.scaled_cpikan import ScaledCPIKAN, Start
from cpikan.learning.recipes import RECIPES
from cpikan.learning.samplers.points import Points
from cpikan.learning.solver import SolveSettings, solve
from cpikan.physics.catalogue import problem, problems
from cpikan.physics.catalogue.helmholtz import helmholtz_1d
from cpikan.physics.problem import Problem, dirichlet, neumann
from cpikan.physics.regions import box
from cpikan.physics.resonance import near_resonance, nearest_eigenvalues

FIRST = 8  # iterations of a stage: enough to see it work, whatever the machine
# linear and nonlinear, several outputs, unknown coefficients, a region that is no box
KINDS = ("helmholtz-1d", "poisson-disc", "kovasznay", "beam", "reaction-diffusion-inverse")


def short(recipe):
    """The recipe with its stages cut short; those without iterations as they are."""

    def cut(stage):
        names = {"iterations": FIRST, "local": 1}
        return dataclasses.replace(
            stage, **{n: min(getattr(stage, n), most) for n, most in names.items() if hasattr(stage, n)}
        )

    stages = tuple(cut(stage) for stage in recipe.stages)
    return dataclasses.replace(recipe, stages=stages, restarts=0)


# on a given field march and grow are others; every recipe meets two kinds, every kind four recipes or more
ON_FIELDS = sorted(RECIPES.keys() - {"march", "grow"})
PAIRS = [(name, KINDS[(n + step) % len(KINDS)]) for n, name in enumerate(ON_FIELDS) for step in (0, 2)]


@pytest.mark.parametrize(("recipe", "kind"), PAIRS)
def test_every_recipe_lowers_the_residual_of_every_kind_of_problem(recipe, kind):
    one = dataclasses.replace(problem(kind), exact=None)  # nobody looks at the error
    box_ = (one.region.lower, one.region.upper)
    field = ScaledCPIKAN([one.dimension, 4, one.outputs], 3, box_, start=Start(3))
    points = Points(100, 2 if one.dimension == 1 else 48)
    with unjudged():
        found = solve(one, field, short(RECIPES[recipe]), settings=SolveSettings(1e4, points))
    assert found.stop_reason.name not in ("RUNNING", "BAD_START", "TIME", "DIVERGED")
    assert found.stop_reason.text
    ends = [end.heldout for end in found.history.ends]
    first = found.history.records[0]["heldout"]
    assert all(math.isfinite(end) for end in ends)
    assert ends == sorted(ends, reverse=True)  # the best state is kept from stage to stage
    assert ends[-1] <= first
    assert math.isfinite(found.metrics["heldout_residual"])


def test_a_resonant_problem_is_warned_of():
    """On [-1, 1] sin(4 pi x) is an eigenfunction: u = 0 solves the problem as well."""
    bad = helmholtz_1d("resonant", 4 * math.pi, 1.0)
    found = solve(bad, ScaledCPIKAN([1, 4, 1], 6), "last-layer", settings=SolveSettings(1e4, Points(200, 2)))
    (told,) = found.warnings
    assert "resonant is resonant: its eigenvalue nearest to zero is" in told
    assert "\n" not in told
    assert solve("helmholtz-1d-k4pi", recipe="last-layer").warnings == ()
    assert [name for name in problems() if near_resonance(problem(name))] == []


def test_eigenvalues_are_those_of_the_formulas():
    """u'' + k^2 u on [-1, 1] with u = 0 at both ends: k^2 - (n pi / 2)^2; on a square sums of two."""
    kappa = 4.2
    line = Problem("line", box([-1], [1]), _helmholtz(kappa), [dirichlet(0.0)])
    truth = sorted((kappa**2 - (n * math.pi / 2) ** 2 for n in range(1, 30)), key=abs)[:6]
    assert nearest_eigenvalues(line).real == pytest.approx(truth, rel=1e-7)
    square = Problem("square", box([-1, -1], [1, 1]), _helmholtz(kappa), [dirichlet(0.0)])
    pairs = [(n, m) for n in range(1, 12) for m in range(1, 12)]
    truth = sorted((kappa**2 - (n * n + m * m) * math.pi**2 / 4 for n, m in pairs), key=abs)[:6]
    # the last Ritz values of a block are the least converged
    assert abs(nearest_eigenvalues(square)) == pytest.approx([abs(value) for value in truth], rel=1e-3)
    assert near_resonance(line) is None


@pytest.mark.parametrize(
    ("conditions", "region"), [([neumann(0.0)], box([-1], [1])), ([neumann(0.0)], box([-1, 0], [1, 1]))]
)
def test_a_constant_that_is_left_open_is_resonance_too(conditions, region):
    told = near_resonance(Problem("floating", region, _helmholtz(0.0), conditions))
    assert told is not None
    assert "floating is resonant" in told


def _helmholtz(kappa):
    return lambda u, x: u.second[..., 0, :].sum(-1) + kappa**2 * u.value[..., 0] - 1.0


def _bad_shape(u, x):
    return u.second[..., 0, 0].sum()


def _not_finite(u, x):
    return u.second[..., 0, 0] / (0 * x[..., 0])


def mine(residual, conditions=None):
    return Problem("mine", box([-1], [1]), residual, conditions or [dirichlet(0.0)])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: solve(mine(_bad_shape), ScaledCPIKAN([1, 4, 1])), r"residual 'equation' of mine is \(\)"),
        (lambda: solve(mine(_not_finite), ScaledCPIKAN([1, 4, 1])), "not finite at the start"),
        (lambda: solve("beam", ScaledCPIKAN([1, 4, 2]).float()), r"float32: equations .* \.double\(\)"),
        (lambda: solve("helmholtz-1d-k4pi", ScaledCPIKAN([1, 4, 1])), "outside the field's domain"),
        (lambda: ScaledCPIKAN([1, 4, 1], 0), "degree 0"),
        (lambda: ScaledCPIKAN([1, 4, 1], 3, ([1], [1])), "1"),
        (lambda: box([2], [1]), "lower bound first"),
        (lambda: SolveSettings(checkpoint_s=-1.0), "0 or more"),
        (lambda: solve("burgers", recipe="march", settings=SolveSettings(0.01)), "give more than"),
        (lambda: solve("beam", settings=SolveSettings(resume=True)), "name its folder"),
    ],
)
def test_bad_input_is_one_line(call, text):
    with pytest.raises(InputError, match=text) as told:
        call()
    assert "\n" not in str(told.value)


def test_warnings_reach_the_command_line(capsys, monkeypatch):
    import cpikan.physics.catalogue.helmholtz as family

    monkeypatch.setitem(family.PROBLEMS, "helmholtz-1d", lambda: helmholtz_1d("helmholtz-1d", 4 * math.pi, 1.0))
    assert main(["solve", "helmholtz-1d", "--json", "--recipe", "last-layer"]) == 0
    told = capsys.readouterr().err
    assert told.startswith("cpikan: warning: helmholtz-1d is resonant")
    assert told.count("\n") == 1


def test_few_rows_are_warned_of():
    found = solve("beam", ScaledCPIKAN([1, 12, 2], 10), "last-layer", settings=SolveSettings(1e4, Points(40, 2)))
    assert "give twice as many" in found.warnings[0]
    assert torch.isfinite(torch.tensor(found.metrics["heldout_residual"]))


def test_trained_is_wider_where_there_is_more_time_than_a_minute():
    """As many steps of the cube of the parameters: 12 nodes times the sixth root of five minutes are 15.7."""
    asked, posed = RECIPES["trained"], problem("poisson-2d")
    widths = [asked.within(seconds).hidden[0] for seconds in (1, 60, 150, 160, 300, 3600, 1e9)]
    assert widths == [12, 12, 12, 16, 16, 24, 24]
    for settings, nodes in (
        (SolveSettings(300.0), 16),
        (SolveSettings(300.0, steps=5), 12),  # time is no limit then
        (SolveSettings(300.0, subdomains="2x2"), 12),
    ):
        assert settings.applied(asked, posed).hidden == (nodes, nodes)
    assert SolveSettings(300.0).applied(RECIPES["natural-gradient"], posed) is RECIPES["natural-gradient"]


def test_a_solve_has_the_network_that_its_time_is_for():
    small = dataclasses.replace(RECIPES["trained"], hidden=(4, 4), wider_s=1e3)
    found = solve("poisson-2d", recipe=small, settings=SolveSettings(60e3, callback=lambda *_: True))
    assert found.field.network.widths == (2, 8, 8, 1)  # twice as many, in fours
