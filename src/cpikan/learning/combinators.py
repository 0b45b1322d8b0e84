"""Combinators: the best state of a method, strategies one after the other, and new starts.

A strategy is like a method, but works on a runner: it may exchange field and objective, and sees the time that is left. Its
state is plain data too, so that a solve goes on from a checkpoint where it was.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from cpikan.errors import InputError
from cpikan.fields.functional import parameter_vector, set_parameters
from cpikan.fields.layered import Start
from cpikan.learning.methods.method import Method, State
from cpikan.learning.objective import Objective
from cpikan.learning.stop_reason import OutOfTime, StopReason
from cpikan.learning.unknowns import network_of

if TYPE_CHECKING:
    from cpikan.learning.runner import Runner

_STUCK = (
    *(StopReason.GRADIENT, StopReason.STEP, StopReason.COST, StopReason.STALLED, StopReason.DIVERGED),
    *(StopReason.LINE_SEARCH, StopReason.HELD_OUT),
)
FAR = 1e-4  # residual relative to that of u = 0, above which an end is a local minimum and not rounding
_APART = 7919  # between seeds of starts, so that those of neighbouring solves differ


class Strategy(ABC):
    """Work on a runner: ``init``, then ``step`` while ``stop`` says RUNNING and the budget lasts, then ``close``."""

    name: str

    @abstractmethod
    def init(self, run: Runner) -> State:
        """Make the state at the start."""

    @abstractmethod
    def step(self, run: Runner, state: State) -> State:
        """Advance the strategy by one step."""

    def stop(self, run: Runner, state: State) -> StopReason:
        """Tell whether the strategy is over, and why."""
        return StopReason(state["reason"])

    def close(self, run: Runner, state: State, reason: StopReason) -> StopReason:
        """Leave the runner in the best state; return the reason of the whole strategy."""
        return reason


@dataclass(frozen=True)
class BestSoFar(Strategy):
    """Let a method work on the field, look at held-out residuals now and then, and leave the best state of all looks.

    A cost that is not finite brings the best state back. Where it is ``watched``, a step that is not done when the time is
    used up is undone, and none begins that would take longer than the time left: as long as the shorter of the last two.
    """

    method: Method
    watched: bool = True

    @property
    def name(self) -> str:  # type: ignore[override]
        """Return the name of the method."""
        return self.method.name

    def init(self, run: Runner) -> State:
        """Begin with the field as it is."""
        if run.iterate.best is None:
            run.keep_best()
        return self._begun(run, {"inner": None, "best": run.iterate.best_cost, "since": 0})

    def step(self, run: Runner, state: State) -> State:
        """Take a step of the method, and look; begin it where there was no time for that."""
        if state["inner"] is None:
            return self._begun(run, state)
        field, method, since = run.iterate.field, self.method, state["since"]
        before, begun = parameter_vector(field), run.seconds
        try:
            inner, cost = method.step(self._objective(run), field, state["inner"])
        except OutOfTime:
            set_parameters(field, before)
            run.end_early()
            return state
        if not math.isfinite(cost):
            run.iterate.restore_best()
        moved = not torch.equal(before, parameter_vector(field))
        run.step_done(cost, look=method.look_every == 1 and moved)
        if method.patience is not None and moved:
            since = 0 if run.iterate.best_cost < state["best"] else since + 1
        took = [*state.get("_took", []), run.seconds - begun][-2:]
        if self.watched and len(took) > 1 and min(took) > run.left_s:
            run.end_early()
        return {"inner": inner, "best": run.iterate.best_cost, "since": since, "_took": took}

    def stop(self, run: Runner, state: State) -> StopReason:
        """Stop with the method, or when the method's patience is over."""
        if self.method.patience is not None and state["since"] >= self.method.patience:
            return StopReason.HELD_OUT
        return StopReason.RUNNING if state["inner"] is None else self.method.stop(state["inner"])

    def _begun(self, run: Runner, state: State) -> State:
        before = parameter_vector(run.iterate.field)
        try:
            return {**state, "inner": self.method.init(self._objective(run), run.iterate.field)}
        except OutOfTime:
            set_parameters(run.iterate.field, before)
            run.end_early()
            return state

    def _objective(self, run: Runner) -> Objective:
        return replace(run.iterate.objective, watch=run.watch) if self.watched else run.iterate.objective

    def close(self, run: Runner, state: State, reason: StopReason) -> StopReason:
        """Put the best state back."""
        run.look()
        run.iterate.restore_best()
        return reason


class Chain(Strategy):
    """Strategies one after the other: ``child`` gives the present one, ``follows`` decides whether there is a next one."""

    @abstractmethod
    def child(self, state: State) -> Strategy:
        """Give the strategy of ``state["number"]``."""

    @abstractmethod
    def follows(self, run: Runner, state: State, reason: StopReason) -> bool:
        """Tell whether another child follows the one that has just ended."""

    def ended(self, run: Runner, state: State, reason: StopReason) -> State:
        """Note that the child has ended."""
        return state

    def finish(self, run: Runner, state: State, reason: StopReason) -> StopReason:
        """Leave the best state of all children; return the reason of the whole chain."""
        return reason

    def begin(self, run: Runner, state: State, number: int) -> State:
        """Begin the child with ``number``."""
        state = {**state, "number": number, "reason": int(StopReason.RUNNING)}
        return {**state, "inner": self.child(state).init(run)}

    def init(self, run: Runner) -> State:
        """Begin with the first child."""
        return self.begin(run, {}, 0)

    def step(self, run: Runner, state: State) -> State:
        """Take a step of the child, or go on to the next."""
        child = self.child(state)
        reason = child.stop(run, state["inner"])
        if reason is StopReason.RUNNING:
            return {**state, "inner": child.step(run, state["inner"])}
        reason = child.close(run, state["inner"], reason)
        state = self.ended(run, {**state, "inner": {}}, reason)
        if self.follows(run, state, reason):
            return self.begin(run, state, state["number"] + 1)
        return {**state, "reason": int(self.finish(run, state, reason))}

    def close(self, run: Runner, state: State, reason: StopReason) -> StopReason:
        """End the child where it was interrupted."""
        if state["reason"] == StopReason.RUNNING:
            reason = self.child(state).close(run, state["inner"], reason)
            reason = self.finish(run, self.ended(run, state, reason), reason)
        return reason


class Sequential(Chain):
    """Stages in turn, each noted in the history; ends early where the residual is as small as was asked for."""

    name = "stages"

    def __init__(self, stages: tuple[Method | Strategy, ...]) -> None:
        self._stages = tuple(stage if isinstance(stage, Strategy) else BestSoFar(stage) for stage in stages)

    def child(self, state: State) -> Strategy:
        """Give a stage."""
        return self._stages[state["number"]]

    def init(self, run: Runner) -> State:
        """Begin with the first stage; without stages there is nothing to do."""
        return super().init(run) if self._stages else {"reason": int(StopReason.BUDGET)}

    def begin(self, run: Runner, state: State, number: int) -> State:
        """Begin a stage."""
        run.begin_stage(self._stages[number].name)
        return super().begin(run, state, number)

    def ended(self, run: Runner, state: State, reason: StopReason) -> State:
        """Note the end of a stage."""
        run.end_stage(reason)
        return state

    def follows(self, run: Runner, state: State, reason: StopReason) -> bool:
        """Go on unless the goal is reached or the start was bad."""
        done = reason in (StopReason.BAD_START, StopReason.TARGET) or run.converged
        return not done and state["number"] + 1 < len(self._stages)


class Restarts(Chain):
    """A strategy from new starts where it ends stuck far from the goal; points and weights stay, and the best is kept."""

    name = "restarts"

    def __init__(self, strategy: Strategy, restarts: int) -> None:
        self._strategy, self._restarts = strategy, restarts

    def child(self, state: State) -> Strategy:
        """Give the strategy."""
        return self._strategy

    def begin(self, run: Runner, state: State, number: int) -> State:
        """Draw the coefficients anew from another seed but for the first start."""
        if number:
            network_of(run.iterate.field).restart(Start(run.seed + _APART * number))
            run.iterate.forget_best()
        return super().begin(run, {"ends": [], **state}, number)

    def ended(self, run: Runner, state: State, reason: StopReason) -> State:
        """Put the best state aside."""
        cost = run.iterate.best_cost
        best = min((end[0] for end in state["ends"]), default=None)
        state = {**state, "ends": [*state["ends"], [cost, int(reason)]]}
        if self._restarts and (best is None or cost < best):
            state["best"] = {name: t.detach().clone() for name, t in run.iterate.field.state_dict().items()}
        return state

    def follows(self, run: Runner, state: State, reason: StopReason) -> bool:
        """Start anew where a solve is stuck far from the goal, in a field that can be drawn anew."""
        stuck = reason in _STUCK and run.iterate.relative() > FAR and run.left_s > 0
        return state["number"] < self._restarts and stuck and hasattr(network_of(run.iterate.field), "restart")

    def finish(self, run: Runner, state: State, reason: StopReason) -> StopReason:
        """Leave the best state of all starts; return the reason of the best start."""
        cost, reason_of_best = min(state["ends"], key=lambda end: end[0])
        if len(state["ends"]) > 1:
            run.iterate.field.load_state_dict(state["best"])
            run.iterate.best, run.iterate.best_cost = parameter_vector(run.iterate.field), cost
        return StopReason(reason_of_best)


def check_restarts(restarts: int) -> None:
    """Raise InputError for a number below zero."""
    if restarts < 0:
        raise InputError(f"{restarts} restarts: give 0 or more")
