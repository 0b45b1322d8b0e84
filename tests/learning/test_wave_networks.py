"""Networks that take the waves of the data beside the coordinates: what they are like, what they gain, and where they go."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sampler_contract import unjudged

from cpikan.errors import InputError
from cpikan.fields.constrained import ConstrainedField
from cpikan.fields.embedded import EmbeddedField
from cpikan.fields.embeddings import WaveEmbedding
from cpikan.fields.functional import parameter_vector
from cpikan.fields.scaled_cpikan import ScaledCPIKAN
from cpikan.learning import solver, wave_trial
from cpikan.learning.methods.geodesic import GeodesicLevenberg
from cpikan.learning.recipes import RECIPES
from cpikan.learning.samplers.points import Points
from cpikan.learning.solution import load_solution
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.wave_trial import WaveTrial, try_waves
from cpikan.physics.problem import Problem, dirichlet, initial
from cpikan.physics.regions import box
from cpikan.physics.waves import known_waves

SHORT = replace(RECIPES["trained"], name="short", stages=(GeodesicLevenberg(4),), hidden=(4, 4), degree=3, wider_s=None)
POINTS = Points(60, 12)


def waves(count=5.0, name="waves"):
    """u'' + u = f of so many waves along y, of one along x, with values that are not zero on walls."""

    def exact(x):
        return torch.sin(math.pi * x[..., 0] / 2) * torch.sin(math.pi * count * x[..., 1] / 2) + 0.3 * x[..., 0]

    def residual(u, x):
        wave = exact(x) - 0.3 * x[..., 0]
        factor = (math.pi / 2) ** 2 * (1 + count**2)
        return u.second[..., 0, :].sum(-1) + u.value[..., 0] - (1 - factor) * wave - 0.3 * x[..., 0]

    return Problem(name, box([0.0, 0.0], [2.0, 4.0]), residual, [dirichlet(exact)], exact)


def run(problem, recipe=SHORT, **settings):
    with unjudged():
        counted = {"points": POINTS, "restarts": 0, "steps": 1000}  # where steps are counted, nothing is tried before
        given = SolveSettings(seconds=1e4, **(counted | settings))
        return solve(problem, recipe=recipe, settings=given)


def test_a_network_has_the_waves_and_holds_no_values_at_their_ends():
    field = run(waves()).field
    assert isinstance(field, ConstrainedField)
    assert field.ansatz.free == (1,)
    assert isinstance(field.network, EmbeddedField)
    assert field.network.embedding.config()["waves"] == [[1, 5.0]]
    assert field.network.field.widths[0] == 4
    assert [layer.degree for layer in field.network.field.chebyshev_layers()] == [2, 3, 3]
    x = torch.tensor([[0.0, 1.3], [2.0, 3.1], [0.7, 0.0]], dtype=torch.float64)
    off = (field(x).detach()[:, 0] - waves().reference_values(x)[:, 0]).abs()
    assert off[:2].max() < 1e-13  # the walls of x are held
    assert off[2] > 1e-6


def test_few_waves_and_recipes_without_them_leave_the_coordinates_alone():
    assert isinstance(run(waves(3.0)).field.network, ScaledCPIKAN)
    natural = replace(RECIPES["natural-gradient"], stages=(GeodesicLevenberg(1),), hidden=(3, 3), degree=3)
    assert isinstance(run(waves(), natural).field.network, ScaledCPIKAN)


def test_with_waves_as_many_steps_get_somewhere():
    """The same nodes, points and steps; without waves none of the crests is found in as many."""
    k = (7 * math.pi, 5 * math.pi)

    def exact(x):
        return torch.sin(k[0] * x[..., 0]) * torch.sin(k[1] * x[..., 1])

    def residual(u, x):
        return u.second[..., 0, :].sum(-1) + (k[0] ** 2 + k[1] ** 2) * exact(x)

    posed = Problem("both", box([-1.0, -1.0], [1.0, 1.0]), residual, [dirichlet(exact)], exact)
    recipe = replace(SHORT, stages=(GeodesicLevenberg(30),), hidden=(8, 8), degree=5)
    found, without = (
        run(posed, one, points=Points(1300, 60)).metrics["relative_l2"]
        for one in (recipe, replace(recipe, wave_degree=None))
    )
    assert found < 1e-2
    assert without > 0.5


@pytest.mark.parametrize(("with_waves", "without", "chosen"), [(1e-3, None, True), (0.3, 0.2, False), (0.3, 0.4, True)])
def test_what_gets_further_in_a_trial_goes_on(monkeypatch, with_waves, without, chosen):
    """The one without waves is trained where the other one has not come down alone."""
    known = known_waves(waves())
    recipe, tried = replace(SHORT, waves=known), []

    def residual(recipe, *_):
        tried.append(recipe.waves)
        return recipe.waves, with_waves if recipe.waves else without

    monkeypatch.setattr(wave_trial, "_tried", residual)
    found = try_waves(recipe, waves(), 0, SolveSettings())
    assert found.recipe.waves == found.network == (known if chosen else ())
    assert tried == ([known] if without is None else [known, ()])
    assert found.seconds > 0
    for settings in (SolveSettings(steps=5), SolveSettings(start_from=Path("a")), SolveSettings(correct=Path("a"))):
        assert try_waves(recipe, waves(), 0, settings) == (recipe, None, 0.0)
    assert try_waves(SHORT, waves(), 0, SolveSettings()) == (SHORT, None, 0.0)
    assert len(tried) == (1 if without is None else 2)


def test_a_network_that_was_tried_goes_on_from_there(monkeypatch):
    recipe = replace(SHORT, stages=(), waves=known_waves(waves()))
    network = recipe.network(waves(), 5)
    monkeypatch.setattr(solver, "try_waves", lambda *_: WaveTrial(recipe, network, 40.0))
    with unjudged():
        found = solve(waves(), recipe=recipe, settings=SolveSettings(points=POINTS))
    assert found.field.network is network
    assert 40 < found.metrics["seconds"] < 60


def test_values_are_held_everywhere_where_that_is_asked_for():
    field = run(waves(), constraints="exact").field
    assert field.ansatz.free == ()
    assert isinstance(field.network, EmbeddedField)
    x = torch.tensor([[0.7, 0.0], [0.7, 4.0], [0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(field(x).detach(), waves().reference_values(x), rtol=0, atol=1e-13)
    symmetric = replace(
        waves(), residuals=lambda u, x: u.second[..., 0, :].sum(-1) - torch.cos(5 * math.pi * x[..., 0])
    )
    symmetric = replace(symmetric, conditions=[dirichlet(0.0)], exact=None)
    assert not isinstance(run(symmetric, constraints="symmetric").field.network, EmbeddedField)
    assert isinstance(run(waves(), constraints="penalty").field, EmbeddedField)  # nothing is held, waves are there


def test_an_evolution_with_waves_has_one_network_in_all_of_time():
    def residual(u, x):
        return u.gradient[..., 0, 1] - 1e-3 * u.second[..., 0, 0]

    start = initial(lambda x: torch.sin(8 * math.pi * x[..., 0]))
    heat = Problem("heat", box([0.0, 0.0], [1.0, 1.0], ["x", "t"]), residual, [start, dirichlet(0.0)])
    field = run(heat, points=None).field
    assert isinstance(field.network, EmbeddedField)
    assert field.network.embedding.waves == ((0, 4.0),)


def test_a_solution_with_waves_is_read_started_from_and_corrected(tmp_path):
    first = run(waves())
    first.save(tmp_path / "first")
    x = torch.from_numpy(np.random.default_rng(2).random((9, 2))) * 2
    again = load_solution(tmp_path / "first", waves())
    assert torch.equal(again(x), first(x))
    assert again.field.ansatz.free == (1,)
    for given in (first, tmp_path / "first"):
        with unjudged():
            on = run(waves(), replace(SHORT, stages=()), start_from=given if given is first else again)
        assert torch.equal(parameter_vector(on.field), parameter_vector(first.field))
    better = run(waves(), correct=first)
    assert better.metrics["heldout_residual"] < first.metrics["heldout_residual"]


def test_a_start_keeps_its_own_waves_in_a_problem_of_others():
    """From five waves to nine: the network is that of the start, and the box of the waves moves with it."""
    moved = run(waves(9.0, "more"), replace(SHORT, stages=()), start_from=run(waves()))
    assert moved.field.network.embedding.waves == ((1, 5.0),)
    few = run(waves(9.0, "more"), replace(SHORT, stages=()), start_from=run(waves(2.0)))
    assert isinstance(few.field.network, ScaledCPIKAN)
    with pytest.raises(InputError, match=r"leaves the ends of 1 axes to its residuals.* those of 0: solve both with"):
        run(waves(), start_from=run(waves()), constraints="exact")


def test_a_solve_with_waves_is_resumed_to_the_bit(tmp_path):
    whole = run(waves(), checkpoint=tmp_path / "whole")
    run(waves(), steps=2, checkpoint=tmp_path / "half")
    rest = run(waves(), checkpoint=tmp_path / "half", resume=True)
    assert torch.equal(parameter_vector(rest.field), parameter_vector(whole.field))


def test_subdomains_have_their_own_networks_without_waves():
    cut = run(waves(), subdomains="2x2", points=None, steps=1, constraints="penalty")
    assert not any(isinstance(part, WaveEmbedding) for part in cut.field.modules())
