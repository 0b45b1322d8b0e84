"""Stack: a solution and corrections on top of it, level by level, each trained while those below stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from cpikan.errors import InputError, check_type
from cpikan.learning.balancers.balancer import Balancer
from cpikan.learning.chain import ASKED, Chain
from cpikan.learning.recipes import Recipe, recipe_named
from cpikan.learning.samplers.sampler import Sampler
from cpikan.learning.solution import Solution
from cpikan.learning.solver import SolveSettings, described, solve
from cpikan.learning.subdomains import Subdomains
from cpikan.physics.catalogue import problem as problem_named
from cpikan.physics.problem import Problem
from cpikan.streaming.run_store import RunStore

_APART = 15_485_863  # between seeds of levels, so that those of neighbouring solves differ


@dataclass(frozen=True)
class StackLevel:
    """How a level is found: its recipe, and what stands in the settings of a solve by the same names."""

    recipe: Recipe | str = "trained"
    subdomains: Subdomains | str | Sequence[int] | None = None
    points: Sampler | str | None = None
    balancer: Balancer | str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Return what replaces the settings of the whole."""
        given = {one.name: getattr(self, one.name) for one in fields(self)[1:]}
        return {name: value for name, value in given.items() if value is not None}


def solve_stack(
    problem: Problem | str,
    levels: Sequence[StackLevel],
    *,
    seed: int = 0,
    settings: SolveSettings | None = None,
) -> Solution:
    """Solve a problem by the first level, then correct the solution by the others in turn (`corrected`).

    The field is the sum of all levels. Of the seconds and steps that are left each level takes an equal share with those
    above it. Stages of the history have the numbers of levels before their own, ``stack`` of the metrics the figures after
    each; a checkpoint has a folder for every level. Raises InputError as `solve`, for no levels, and fewer steps than levels.
    """
    check_type("levels", levels, Sequence, "levels, as [StackLevel(), StackLevel('soap', (1, 4))]")
    for one in levels:
        check_type("a level", one, StackLevel, "a StackLevel, as StackLevel('soap', (1, 4))")
    if not levels:
        raise InputError("a stack of no levels: give one and more, the first from scratch")
    settings = SolveSettings() if settings is None else settings
    check_type("settings", settings, SolveSettings, "SolveSettings(...)")
    posed = problem_named(problem) if isinstance(problem, str) else problem

    def one_level(number: int, before: Solution | None, given: SolveSettings) -> Solution:
        level = levels[number]
        given = replace(given, **level.settings) if before is None else replace(given, correct=before, **level.settings)
        return solve(posed, None, level.recipe, seed=seed + _APART * number, settings=given)

    names = tuple(f"level {number + 1}" for number in range(len(levels)))
    chain = Chain("stack", (posed,) * len(levels), names, one_level)
    chain.check(settings)
    return replace(chain.run(settings, _store(posed, levels, seed, settings)), seed=seed)


def _store(problem: Problem, levels: Sequence[StackLevel], seed: int, settings: SolveSettings) -> RunStore | None:
    """Open where it is kept which levels are solved, with all that must be equal when they are gone on with."""
    if settings.checkpoint is None:
        return None
    asked = [
        {"recipe": described(recipe_named(one.recipe) if isinstance(one.recipe, str) else one.recipe)}
        | {name: described(value) for name, value in one.settings.items()}
        for one in levels
    ]
    whole = {name: described(getattr(settings, name)) for name in (*ASKED, "subdomains")}
    identity = {"stack": asked, "problem": problem.name, "region": described(problem.region), "seed": seed, **whole}
    return RunStore(settings.checkpoint, identity, resume=settings.resume)
