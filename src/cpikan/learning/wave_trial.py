"""A trial of waves: whether a network that takes them beside the coordinates gets anywhere, and whether one without does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from cpikan.learning.balancers.mean_squares import MEAN_SQUARES
from cpikan.learning.combinators import Sequential
from cpikan.learning.iterate import placed
from cpikan.learning.recipes import Recipe
from cpikan.learning.runner import CLOCKS, Runner
from cpikan.learning.solve_settings import SolveSettings
from cpikan.physics.problem import Problem

_STEPS = 30
_SERVES = 1e-2  # held-out residual, relative to that of u = 0, at which nothing else is tried


class WaveTrial(NamedTuple):
    """A recipe with waves or without, the network that has begun to train by it, None where none has, and the seconds."""

    recipe: Recipe
    network: Any = None
    seconds: float = 0.0


def try_waves(recipe: Recipe, problem: Problem, seed: int, settings: SolveSettings) -> WaveTrial:
    """Leave the waves out of a recipe where its network gets further without them in as many steps.

    A network of waves can be caught where it has learned those and nothing of what is smooth. It is tried alone where its
    residual comes down, and whichever gets further goes on from there. Nothing is tried where steps are counted, and where
    there is a network to begin from.
    """
    given = (settings.start_from, settings.correct, settings.steps)
    if not recipe.waves or any(one is not None for one in given):
        return WaveTrial(recipe)
    now = CLOCKS[settings.clock]
    began, plain = now(), replace(recipe, waves=())
    network, reached = _tried(recipe, problem, seed, settings, began)
    if reached > _SERVES:
        other, without = _tried(plain, problem, seed, settings, began)
        if without < reached:
            recipe, network = plain, other
    return WaveTrial(recipe, network, now() - began)


def _tried(recipe: Recipe, problem: Problem, seed: int, settings: SolveSettings, began: float) -> tuple[Any, float]:
    """Train for a few steps: the network, and the held-out residual of the problem as given, relative to that of u = 0."""
    posed, ansatz = settings.posed(problem, recipe, True)
    network = recipe.network(problem, seed)
    points = recipe.points(problem, sum(p.numel() for p in network.parameters()), seed)
    run = Runner(posed, replace(settings.budget, steps=_STEPS), seed, settings.events)
    run.started = began
    run.place(network, points, recipe.balancer)
    run.run(Sequential(recipe.stages))
    whole = network if ansatz is None else ansatz.whole(network)
    iterate = placed(problem, whole, points, MEAN_SQUARES)[0]
    iterate.keep_best()
    return network, iterate.relative()
