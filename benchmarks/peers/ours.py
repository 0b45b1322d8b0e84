"""Recipes of this package, and a plain multilayer perceptron by its self-scaled Broyden method, in processor seconds."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cpikan.fields.module_field import ModuleField
from cpikan.learning.recipes import recipe_named
from cpikan.learning.solver import SolveSettings, solve
from cpikan.physics.problem import Problem
from pde_watch import TOLERANCES, watched
from peers.clock import TIMES, errors
from peers.problems import problem_named

_WIDTH, _LAYERS = 32, 4


def recipe(name: str, seconds: float, seed: int, recipe: str) -> dict[str, Any]:
    """Solve by a recipe."""
    return _solved(problem_named(name), None, recipe, seconds, seed)


def perceptron(name: str, seconds: float, seed: int) -> dict[str, Any]:
    """Train 4 x 32 tanh on the scaled box by Adam, then self-scaled Broyden (Urban et al. 2025): recipe ssbroyden."""
    one = problem_named(name)
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Linear(one.dimension, _WIDTH), nn.Tanh()]
    for _ in range(_LAYERS - 1):
        layers += [nn.Linear(_WIDTH, _WIDTH), nn.Tanh()]
    net = nn.Sequential(*layers, nn.Linear(_WIDTH, one.outputs))
    return _solved(one, ModuleField(net, (one.region.lower, one.region.upper)), "ssbroyden", seconds, seed)


def _solved(one: Problem, field: Any, recipe: str, seconds: float, seed: int) -> dict[str, Any]:
    solve("poisson-2d", settings=SolveSettings(seconds=2, clock="processor"))  # kernels are compiled here
    with watched(one) as clock:
        solution = solve(one, field, recipe, seed=seed, settings=SolveSettings(seconds=seconds, clock="processor"))
    found = solution.summary()
    if field is None and recipe_named(recipe).exact_values:
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
