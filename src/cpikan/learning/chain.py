"""A chain of solves: each from the solution before it, under one limit of time and steps, in one checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cpikan.errors import InputError
from cpikan.learning.history import History, StageEnd
from cpikan.learning.solution import Solution, load_solution
from cpikan.learning.solve_settings import SolveSettings
from cpikan.learning.stop_reason import StopReason
from cpikan.physics.problem import Problem
from cpikan.streaming.run_store import RunStore

_LEAST_S = 1e-3  # for a link, where those before have used up all the time: it takes one step
# of the settings of a whole chain: what must be equal when it is gone on with
ASKED = ("points", "sampler_every", "balancer", "direction", "batch", "constraints", "loss_mode", "restarts")
State = dict[str, Any]


@dataclass(frozen=True)
class Chain:
    """Solves in turn, by ``solve(number, before, settings)``, of ``problems``; ``names`` stand before stages in the history.

    Of the seconds and the steps that are left each takes an equal share with those behind it, so that what one does not use
    is the others'. ``what`` is the chain for messages and the key of its figures in the metrics.
    """

    what: str
    problems: tuple[Problem, ...]
    names: tuple[str, ...]
    solve: Callable[[int, Solution | None, SolveSettings], Solution]

    def check(self, settings: SolveSettings) -> None:
        """Raise InputError for fewer steps than links."""
        count = len(self.problems)
        if settings.steps is not None and settings.steps < count:
            raise InputError(f"{settings.steps} steps for a {self.what} of {count} problems: give at least as many")

    def run(self, settings: SolveSettings, store: RunStore | None) -> Solution:
        """Solve what is not yet done, and give the last solution with the history of all."""
        count = len(self.problems)
        with nullcontext() if store is None else store:
            state, solution = self._begun(store)
            finished = state["number"] == count
            while state["number"] < count:
                number = state["number"]
                solution = self.solve(number, solution, stage_settings(settings, state, count))
                state = _after(state, solution, self.names[number])
                if store is not None:
                    store.save(state, {"solution": solution.save})
        assert solution is not None
        if finished:
            text = f"the {self.what} in {settings.checkpoint} had been finished: nothing was left to do"
            solution = replace(solution, warnings=(*solution.warnings, text))
        return _whole(solution, state, self.what)

    def _begun(self, store: RunStore | None) -> tuple[State, Solution | None]:
        """Give what is done, and the last solution: from a checkpoint, or nothing."""
        saved = None if store is None else store.saved
        if saved is None:
            return {"number": 0, "seconds": 0.0, "iterations": 0, "records": [], "ends": [], "stages": []}, None
        return saved.state, load_solution(saved.files["solution"], self.problems[saved.state["number"] - 1])


def stage_settings(settings: SolveSettings, state: State, count: int) -> SolveSettings:
    """Give the settings of the next solve: its share of what is left, and its folder."""
    left = count - state["number"]
    steps = None if settings.steps is None else max(1, (settings.steps - state["iterations"]) // left)
    folder = None if settings.checkpoint is None else Path(settings.checkpoint, f"stage-{state['number'] + 1}")
    seconds = max(_LEAST_S, (settings.seconds - state["seconds"]) / left)
    return replace(settings, seconds=seconds, steps=steps, checkpoint=folder)


def _after(state: State, solution: Solution, name: str) -> State:
    """Add a solution to what is done."""
    found, history = solution.metrics, solution.history
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
    stage = {"problem": solution.problem.name, **figures, "stop_reason": solution.stop_reason.name.lower()}
    return {
        "number": state["number"] + 1,
        "seconds": state["seconds"] + found["seconds"],
        "iterations": state["iterations"] + found["iterations"],
        "records": [*state["records"], *records],
        "ends": [*state["ends"], *ends],
        "stages": [*state["stages"], stage],
    }


def _whole(solution: Solution, state: State, what: str) -> Solution:
    """Give the last solution with the history of all, and what all took."""
    ends = [StageEnd(**{**end, "reason": StopReason(end["reason"])}) for end in state["ends"]]
    took = {"seconds": state["seconds"], "iterations": state["iterations"]}
    took["steps_per_second"] = took["iterations"] / took["seconds"]
    metrics = {**solution.metrics, **took, what: state["stages"]}
    return replace(solution, history=History(state["records"], ends), metrics=metrics)
