"""Curriculum: a problem by way of easier ones, each starting from the network of the one before."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from cpikan.errors import InputError, check_type
from cpikan.learning.history import History, StageEnd
from cpikan.learning.recipes import Recipe, recipe_named
from cpikan.learning.solution import Solution, load_solution
from cpikan.learning.solver import SolveSettings, described, solve
from cpikan.learning.stop_reason import StopReason
from cpikan.physics.catalogue import number, problem
from cpikan.physics.problem import Problem
from cpikan.streaming.run_store import RunStore

_SAME = (*("points", "sampler_every", "balancer", "direction", "batch", "constraints", "loss_mode"), "restarts")
_LEAST_S = 1e-3  # for a stage, where those before have used up all the time: it takes one step
State = dict[str, Any]


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
    count = len(curriculum.problems)
    if settings.steps is not None and settings.steps < count:
        raise InputError(f"{settings.steps} steps for a curriculum of {count} problems: give at least as many")
    recipe = recipe if count == 1 else replace(recipe, own=None)
    store = _store(curriculum, field, recipe, seed, settings)
    with nullcontext() if store is None else store:
        state, solution = _begun(curriculum, store)
        finished = state["number"] == count
        while state["number"] < count:
            given = _stage(settings, state, count, solution)
            if solution is None:
                solution = solve(curriculum.problems[0], field, recipe, seed=seed, settings=given)
            else:  # behind a form that holds values only if the field before was
                later = recipe if field is None else replace(recipe, exact_values=False)
                solution = solve(curriculum.problems[state["number"]], None, later, seed=seed, settings=given)
            state = _after(state, solution)
            if store is not None:
                store.save(state, {"solution": solution.save})
    assert solution is not None
    if finished:
        text = f"the curriculum in {settings.checkpoint} had been finished: nothing was left to do"
        solution = replace(solution, warnings=(*solution.warnings, text))
    return _whole(solution, state)


def _begun(curriculum: Curriculum, store: RunStore | None) -> tuple[State, Solution | None]:
    """Give what is done, and the last solution: from a checkpoint, or nothing."""
    saved = None if store is None else store.saved
    if saved is None:
        return {"number": 0, "seconds": 0.0, "iterations": 0, "records": [], "ends": [], "stages": []}, None
    done = saved.state["number"]
    return saved.state, load_solution(saved.files["solution"], curriculum.problems[done - 1])


def _stage(settings: SolveSettings, state: State, count: int, before: Solution | None) -> SolveSettings:
    """Give the settings of the next problem: its share of what is left, its start, and its folder."""
    left = count - state["number"]
    steps = None if settings.steps is None else max(1, (settings.steps - state["iterations"]) // left)
    folder = None if settings.checkpoint is None else Path(settings.checkpoint, f"stage-{state['number'] + 1}")
    seconds = max(_LEAST_S, (settings.seconds - state["seconds"]) / left)
    found = replace(settings, seconds=seconds, steps=steps, checkpoint=folder)
    return found if before is None else replace(found, start_from=before)


def _after(state: State, solution: Solution) -> State:
    """Add a solution to what is done."""
    name, found, history = solution.problem.name, solution.metrics, solution.history
    records = [
        {
            **record,
            "stage": f"{name}: {record['stage']}",
            "iteration": record["iteration"] + state["iterations"],
            "seconds": record["seconds"] + state["seconds"],
        }
        for record in history.records
    ]
    ends = [{**asdict(end), "stage": f"{name}: {end.stage}", "reason": int(end.reason)} for end in history.ends]
    figures = {key: found[key] for key in ("relative_l2", "heldout_relative", "seconds", "iterations")}
    stage = {"problem": name, **figures, "stop_reason": solution.stop_reason.name.lower()}
    return {
        "number": state["number"] + 1,
        "seconds": state["seconds"] + found["seconds"],
        "iterations": state["iterations"] + found["iterations"],
        "records": [*state["records"], *records],
        "ends": [*state["ends"], *ends],
        "stages": [*state["stages"], stage],
    }


def _whole(solution: Solution, state: State) -> Solution:
    """Give the last solution with the history of all, and what all took."""
    ends = [StageEnd(**{**end, "reason": StopReason(end["reason"])}) for end in state["ends"]]
    took = {"seconds": state["seconds"], "iterations": state["iterations"]}
    took["steps_per_second"] = took["iterations"] / took["seconds"]
    metrics = {**solution.metrics, **took, "curriculum": state["stages"]}
    return replace(solution, history=History(state["records"], ends), metrics=metrics)


def _store(
    curriculum: Curriculum, field: nn.Module | None, recipe: Recipe, seed: int, settings: SolveSettings
) -> RunStore | None:
    """Open where it is kept which problems are solved, with all that must be equal when they are gone on with."""
    if settings.checkpoint is None:
        return None
    problems = [(one.name, one.region, one.outputs) for one in curriculum.problems]
    asked = {name: described(getattr(settings, name)) for name in _SAME}
    shape = None if field is None else [list(p.shape) for p in field.parameters()]
    identity = {"curriculum": described(problems), "recipe": described(recipe), "seed": seed, "field": shape, **asked}
    return RunStore(settings.checkpoint, identity, resume=settings.resume)
