"""Curriculum: a problem by way of easier ones, each starting from the network of the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from cpikan.errors import InputError, check_type
from cpikan.learning.chain import ASKED, Chain
from cpikan.learning.recipes import Recipe, recipe_named
from cpikan.learning.solution import Solution
from cpikan.learning.solver import SolveSettings, described, solve
from cpikan.physics.catalogue import number, problem
from cpikan.physics.problem import Problem
from cpikan.streaming.run_store import RunStore


@dataclass(frozen=True)
class Curriculum:
    """Problems of rising difficulty, the one that is asked for last: Krishnapriyan et al., NeurIPS (2021).

    Raises InputError for none, and for problems of different numbers of coordinates or outputs.
    """

    problems: tuple[Problem, ...]

    def __post_init__(self) -> None:
        check_type("problems of a curriculum", self.problems, Sequence, "problems, the easiest first")
        object.__setattr__(self, "problems", tuple(self.problems))
        for one in self.problems:
            check_type("a problem of a curriculum", one, Problem, "a Problem, as cpikan.problem(name) makes it")
        if not self.problems:
            raise InputError("a curriculum of no problems: give one and more, the easiest first")
        shapes = [(one.dimension, one.outputs) for one in self.problems]
        if len(set(shapes)) > 1:
            raise InputError(f"a curriculum of problems with (axes, outputs) {shapes}: give problems with equal ones")

    @classmethod
    def of(cls, name: str, parameter: str, values: Sequence[float]) -> Curriculum:
        """Take a problem of the catalogue with one parameter at one value after the other."""
        return cls(tuple(problem(name, **{parameter: value}) for value in values))

    @classmethod
    def read(cls, name: str, text: str) -> Curriculum:
        """Read PARAMETER=VALUE,VALUE,... of a problem, as k=pi,2pi,4pi; raises InputError for another form."""
        parameter, equal, values = text.partition("=")
        if not equal:
            raise InputError(
                f"curriculum {text!r}: give a parameter and its values, the last as asked for: k=pi,2pi,4pi"
            )
        return cls.of(name, parameter.strip(), [number(value) for value in values.split(",")])


def solve_curriculum(
    curriculum: Curriculum,
    field: nn.Module | None = None,
    recipe: Recipe | str = "default",
    *,
    seed: int = 0,
    settings: SolveSettings | None = None,
) -> Solution:
    """Solve one problem after the other, and give the solution of the last with the history of all.

    The first begins as `solve` does, each other with the network before it (`transferred`). Of the seconds and the steps
    that are left each takes an equal share with those behind it, so that what one does not use is the others'. With more than
    one problem a recipe trains a network, whatever it does without. Stages of the history have the names of the problems
    before their own, ``curriculum`` of the metrics the figures of each. A callback that returns True ends a stage. A
    checkpoint has a folder for every problem. Raises InputError as `solve`, and for fewer steps than problems.
    """
    check_type("curriculum", curriculum, Curriculum, "Curriculum([...]), or Curriculum.of(name, parameter, values)")
    settings = SolveSettings() if settings is None else settings
    check_type("settings", settings, SolveSettings, "SolveSettings(...)")
    recipe = recipe_named(recipe) if isinstance(recipe, str) else recipe
    recipe = recipe if len(curriculum.problems) == 1 else replace(recipe, own=None, evolving=None)

    def one(number: int, before: Solution | None, given: SolveSettings) -> Solution:
        posed = curriculum.problems[number]
        if before is None:
            return solve(posed, field, recipe, seed=seed, settings=given)
        # behind a form that holds values only if the field before was
        later = recipe if field is None else replace(recipe, exact_values=False)
        return solve(posed, None, later, seed=seed, settings=replace(given, start_from=before))

    chain = Chain("curriculum", curriculum.problems, tuple(each.name for each in curriculum.problems), one)
    chain.check(settings)
    return chain.run(settings, _store(curriculum, field, recipe, seed, settings))


def _store(
    curriculum: Curriculum, field: nn.Module | None, recipe: Recipe, seed: int, settings: SolveSettings
) -> RunStore | None:
    """Open where it is kept which problems are solved, with all that must be equal when they are gone on with."""
    if settings.checkpoint is None:
        return None
    problems = [(one.name, one.region, one.outputs) for one in curriculum.problems]
    asked = {name: described(getattr(settings, name)) for name in ASKED}
    shape = None if field is None else [list(p.shape) for p in field.parameters()]
    identity = {"curriculum": described(problems), "recipe": described(recipe), "seed": seed, "field": shape, **asked}
    return RunStore(settings.checkpoint, identity, resume=settings.resume)
