"""Recipes of this package, and a plain multilayer perceptron by its self-scaled Broyden method, in processor seconds."""

from __future__ import annotations

from typing import Any

import torch

from cpikan.errors import InputError
from cpikan.fields.mlp import MLP
from cpikan.learning.recipes import recipe_named
from cpikan.learning.samplers.points import Points
from cpikan.learning.solver import SolveSettings, solve
from cpikan.physics.problem import Problem
from pde_watch import TOLERANCES, watched
from peers.clock import TIMES, errors
from peers.problems import problem_named

_HIDDEN = [32] * 4
_POINTS = Points(1200, 400)  # with twice as many per parameter 40 seconds end before the first steps of Broyden


def recipe(name: str, seconds: float, seed: int, recipe: str) -> dict[str, Any]:
    """Solve by a recipe."""
    return _solved(problem_named(name), None, recipe, seconds, seed)


def perceptron(name: str, seconds: float, seed: int) -> dict[str, Any]:
    """Train 4 x 32 tanh on the scaled box, with exact walls, by Adam, then self-scaled Broyden (Urban et al. 2025)."""
    one = problem_named(name)
    torch.manual_seed(seed)
    net = MLP([one.dimension, *_HIDDEN, one.outputs], domain=(one.region.lower, one.region.upper))
    try:
        return _solved(one, net, "ssbroyden", seconds, seed, constraints="exact", points=_POINTS)
    except InputError:  # of an inverse problem nothing can be held
        return _solved(one, net, "ssbroyden", seconds, seed, points=_POINTS)


def _solved(one: Problem, field: Any, recipe: str, seconds: float, seed: int, **settings: Any) -> dict[str, Any]:
    solve("poisson-2d", settings=SolveSettings(seconds=2, clock="processor"))  # kernels are compiled here
    with watched(one) as clock:
        given = SolveSettings(seconds=seconds, clock="processor", **settings)
        solution = solve(one, field, recipe, seed=seed, settings=given)
    found = solution.summary()
    if settings or recipe_named(recipe).exact_values:
        clock.errors.clear()  # they are those of the network, without the ansatz around it
    row = {
        **errors(one, found["relative_l2"], found.get("coefficients", [])),
        "best_l2": min([found["relative_l2"], *(error for _, error in clock.errors)]),
        "cpu_seconds": found["seconds"],
        "iterations": found["iterations"],
        "parameters": found["parameters"],
        "trust": solution.trust,
    }
    return row | {column: clock.reached(tolerance) for column, tolerance in zip(TIMES, TOLERANCES, strict=True)}
