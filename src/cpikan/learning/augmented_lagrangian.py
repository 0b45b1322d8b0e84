"""AugmentedLagrangian: a multiplier for every fixed point of a condition, around any method that minimises."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cpikan.errors import InputError
from cpikan.learning.combinators import BestSoFar, Strategy
from cpikan.learning.directions.direction import Direction
from cpikan.learning.methods.method import Method, State, stored
from cpikan.learning.objective import Objective
from cpikan.learning.runner import Runner
from cpikan.learning.stop_reason import StopReason
from cpikan.physics.problem import Problem

_STEPS, _GRADIENT_STEPS = 20, 200  # of the method, from one look at the multipliers to the next
_SETTLED = 1e-8  # change of the multipliers, relative to them, that is none
_BETAS, _TINY = (0.9, 0.999), 1e-8  # of the ascent, as Adam's
Numbers = dict[str, float]
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class AugmentedLagrangian(Strategy):
    """Minimise f + sum_i (lambda_i g_i + mu / 2 g_i^2) / n by a method, f the cost inside, g (n,) residuals of a condition.

    The square is completed, mu / 2 (g + lambda / mu)^2, so that residuals stay residuals and Gauss-Newton methods serve too.
    After ``every`` steps, or where the method stops, lambda += mu g; mu grows by ``growth``, up to ``largest`` times what the
    balancer had found, for conditions whose largest violation has not fallen to ``fall`` of what it was (Hestenes 1969, Powell
    1969; Nocedal and Wright, Numerical Optimization, 2006, 17.4). With an ``ascent`` mu stays, and every step of the method
    is followed by one of Adam up the gradient by lambda, at that rate times mu (Son, Cho and Hwang, AL-PINN, arXiv
    2205.01059: 1 where mu is 2000).
    Measured data, which noise keeps from being met, stay squares. State: ``multipliers`` (rows,), ``penalties`` and
    ``violations`` by the names of conditions, and that of the method. Raises InputError for settings out of range, and for an
    ascent with a method that does not follow the gradient.
    """

    method: Method
    every: int | None = None
    growth: float = 2.0
    fall: float = 0.25
    largest: float = 1e6
    ascent: float | None = None

    def __post_init__(self) -> None:
        if self.every is not None and self.every < 1:
            raise InputError(f"multipliers every {self.every} steps: give at least 1")
        if not (self.growth >= 1 and 0 < self.fall < 1 and self.largest >= 1):
            raise InputError(
                f"penalties that grow by {self.growth} up to {self.largest} where violations do not fall to {self.fall}: give "
                "at least 1, at least 1, and between 0 and 1"
            )
        if self.ascent is None:
            return
        if not self.ascent > 0:
            raise InputError(f"multipliers that climb at rate {self.ascent}: give more than 0")
        if not self.method.follows_gradient:
            raise InputError(
                f"multipliers that climb at every step of {self.method.name}: a saddle point needs a method that follows the "
                "gradient, as recipe adam; or give augmented-lagrangian, without ascent"
            )

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name the method, and what is around it."""
        return f"{self.method.name}, augmented Lagrangian"

    @property
    def steps(self) -> int:
        """Return the steps from one look at the multipliers to the next."""
        if self.ascent is not None:
            return 1
        return self.every or (_GRADIENT_STEPS if self.method.follows_gradient else _STEPS)

    def along(self, direction: Direction) -> AugmentedLagrangian:
        """Follow another direction than the gradient's."""
        return replace(self, method=self.method.along(direction))

    def init(self, run: Runner) -> State:
        """Begin without multipliers, at the penalties that the balancer has found."""
        names = constrained(run.problem)
        objective = run.iterate.objective
        zero = {name: objective.sets[name].points.new_zeros(objective.sets[name].rows) for name in names}
        penalties = {name: _penalty(objective, name) for name in names}
        run.iterate.take(with_multipliers(objective, zero, penalties))
        state: State = {"multipliers": zero, "penalties": penalties, "first": penalties, "since": 0}
        if self.ascent is not None:
            state |= {"mean": zero, "square": zero, "climbed": 0}
        violations = dict.fromkeys(names, math.inf)
        inner = BestSoFar(self.method).init(run)
        return {**state, "violations": violations, "inner": inner, "reason": int(StopReason.RUNNING)}

    def step(self, run: Runner, state: State) -> State:
        """Take a step of the method, or look at the multipliers."""
        _check_fixed(run.iterate.objective, state)
        child = BestSoFar(self.method)
        reason = child.stop(run, state["inner"])
        if reason is StopReason.RUNNING and state["since"] < self.steps:
            return {**state, "inner": child.step(run, state["inner"]), "since": state["since"] + 1}
        if reason in (StopReason.BUDGET, StopReason.DIVERGED):
            return {**state, "reason": int(reason)}
        missed = _missed(run.iterate.objective, run.iterate.field, state)
        state = self._climbed(state, missed) if self.ascent is not None else self._outer(state, missed, reason)
        run.iterate.take(with_multipliers(run.iterate.objective, state["multipliers"], state["penalties"]))
        if self.ascent is None or state["climbed"] % _GRADIENT_STEPS == 0:
            run.iterate.forget_best()  # what was best for other multipliers need not be for these
            run.keep_best()
        inner = child.init(run)["inner"] if reason is not StopReason.RUNNING else stored(state["inner"])["inner"]
        return {**state, "inner": {"inner": inner, "best": run.iterate.best_cost, "since": 0}, "since": 0}

    def close(self, run: Runner, state: State, reason: StopReason) -> StopReason:
        """Put the best state for these multipliers back."""
        return BestSoFar(self.method).close(run, state["inner"], reason)

    def _outer(self, state: State, missed: Tensors, reason: StopReason) -> State:
        """Move the multipliers, raise penalties where violations did not fall, and end where neither helps."""
        before, penalties = state["violations"], state["penalties"]
        found = {name: float(g.abs().max()) for name, g in missed.items()}
        moved = {name: state["multipliers"][name] + penalties[name] * g for name, g in missed.items()}
        settled = {n for n in found if penalties[n] * found[n] <= _SETTLED * float(moved[n].abs().max())}
        still = [name for name in found if name not in settled and not found[name] <= self.fall * before[name]]
        raised, most = dict(penalties), {name: self.largest * first for name, first in state["first"].items()}
        for name in still:
            raised[name] = min(self.growth * penalties[name], most[name])
        spent = all(name in settled or penalties[name] >= most[name] for name in still)
        ended = reason is not StopReason.RUNNING and spent and len(settled) + len(still) == len(found)
        state = {**state, "multipliers": moved, "penalties": raised, "violations": found}
        return {**state, "reason": int(reason)} if ended else state

    def _climbed(self, state: State, missed: Tensors) -> State:
        """Take a step of Adam up the gradient by the multipliers, the residuals themselves."""
        assert self.ascent is not None
        first, second = _BETAS
        count = state["climbed"] + 1
        mean = {name: first * state["mean"][name] + (1 - first) * g for name, g in missed.items()}
        square = {name: second * state["square"][name] + (1 - second) * g.square() for name, g in missed.items()}
        moved = {}
        for name, multiplier in state["multipliers"].items():
            size = (square[name] / (1 - second**count)).sqrt() + _TINY
            moved[name] = multiplier + self.ascent * state["penalties"][name] * mean[name] / (1 - first**count) / size
        return {**state, "multipliers": moved, "mean": mean, "square": square, "climbed": count}


def constrained(problem: Problem) -> tuple[str, ...]:
    """Name the conditions that multipliers can hold; raises InputError where there are none."""
    pairs = zip(problem.condition_names, problem.conditions, strict=True)
    found = tuple(name for name, condition in pairs if condition.data is None)
    if not found:
        what = "no conditions" if not problem.conditions else "measured data alone, which noise keeps from being met"
        raise InputError(f"an augmented Lagrangian for {problem.name}, which has {what}: give constraints='penalty'")
    return found


def with_multipliers(
    objective: Objective, multipliers: Mapping[str, Tensor], penalties: Mapping[str, float]
) -> Objective:
    """Put multipliers and penalties into an objective: mu / n (g + lambda / mu)^2 for every condition."""
    sets, weights = dict(objective.sets), {}
    for name, multiplier in multipliers.items():
        sets[name] = sets[name]._replace(shift=(multiplier / penalties[name])[None])
        weights[name] = (penalties[name] / sets[name].rows) ** 0.5
    return replace(objective, sets=sets).reweighted(weights)


def _penalty(objective: Objective, name: str) -> float:
    """Give the penalty mu that a weight stands for."""
    return objective.weights[name] ** 2 * objective.sets[name].rows


def _check_fixed(objective: Objective, state: State) -> None:
    """Raise InputError where points with multipliers were moved, and the multipliers lost."""
    for name in state["multipliers"]:
        if objective.sets[name].shift is None:
            raise InputError(
                f"the sampler moved the points of {name!r}, where multipliers are: give one that moves the equation's alone, "
                "as rad or r3"
            )


def _missed(objective: Objective, field: nn.Module, state: State) -> Tensors:
    """Evaluate the residuals of the conditions, (rows,), without shift or weight."""
    found = {}
    for term in objective.terms:
        if term.name in state["multipliers"]:
            at = objective.sets[term.name]
            with torch.no_grad():
                found[term.name] = term.at(field, at._replace(shift=None, weight=None))[0]
    return found
