"""Runner: the loop of a solve, with its budget, its history, its checkpoint, and the hooks that change the objective."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cpikan.errors import InputError, ResumeError
from cpikan.fields.functional import parameter_vector, set_parameters
from cpikan.fields.piecewise import PiecewiseChebyshev
from cpikan.learning.balancing import Balancer, KernelTraces, MeanSquares
from cpikan.learning.checkpoint import Checkpoint, Saved, or_infinite
from cpikan.learning.combinators import BestSoFar, Sequential, Strategy
from cpikan.learning.methods.method import Method, State, joined_state, split_state, stored
from cpikan.learning.objective import Objective, PointSet, make_objective, make_terms
from cpikan.learning.points import Points, Sampler
from cpikan.learning.stop_reason import StopReason
from cpikan.learning.unknowns import FieldWithUnknowns, is_linear, network_of, output_vector, set_output_vector, zero_output
from cpikan.physics.problem import Problem
from cpikan.storage.atomic import write_text

# steps from one look at the held-out residuals to the next: counted and not timed, so that equal runs end with equal bits
_LOOK_EVERY = 10
_SAME = 1e-6  # relative difference of a cost that rounding on another machine can make


@dataclass(frozen=True)
class Budget:
    """What a solve may use, ``seconds`` and ``steps``, and the relative held-out residual that is small enough.

    At the default ``rtol`` errors are some 1e-10; beyond it rounding takes over.
    """

    seconds: float = 60.0
    steps: int | None = None
    rtol: float = 1e-11

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise InputError(f"time limit {self.seconds} s: give more than 0")
        if self.steps is not None and self.steps < 1:
            raise InputError(f"{self.steps} steps: give at least 1")
        if not self.rtol >= 0:
            raise InputError(f"tolerance {self.rtol} of the residual: give 0 or more")


@dataclass(frozen=True)
class StageEnd:
    """How a stage ended, and the best held-out cost by then."""

    stage: str
    reason: StopReason
    iterations: int
    seconds: float
    heldout: float


@dataclass
class History:
    """What happened: one record every so often (stage, iteration, seconds, cost, heldout), and the ends of stages."""

    records: list[dict[str, Any]] = field(default_factory=list)
    ends: list[StageEnd] = field(default_factory=list)

    def save(self, path: Path | str) -> None:
        """Write one JSON object per line, whole or not at all."""
        lines = [json.dumps(record) for record in self.records]
        lines += [json.dumps({**vars(end), "reason": end.reason.name.lower()}) for end in self.ends]
        write_text(path, "\n".join(lines) + "\n")


@dataclass
class Iterate:
    """A field with what it is fitted to and what it is judged by, and its best state."""

    field: nn.Module
    objective: Objective
    heldout: Objective
    scale: float = 0.0
    best: Tensor | None = None
    best_cost: float = math.inf

    def heldout_cost(self) -> float:
        """Evaluate the cost at points that are not fitted, on the scale of the cost that is."""
        with torch.no_grad():
            return float(self.heldout.cost(self.field))

    def zero_cost(self) -> float:
        """Evaluate the held-out cost of u = 0, where the output can be made zero; else as it is."""
        if not (is_linear(self.field) or isinstance(self.field, PiecewiseChebyshev)):
            return self.heldout_cost()
        before = output_vector(self.field)
        zero_output(self.field)
        cost = self.heldout_cost()
        set_output_vector(self.field, before)
        return cost

    def relative(self) -> float:
        """Give the best held-out residual relative to that of u = 0."""
        return math.sqrt(self.best_cost / self.scale) if self.scale > 0 else 0.0

    def keep_best(self) -> float:
        """Evaluate the held-out cost, and keep the state if it is the best so far."""
        found = self.heldout_cost()
        if found < self.best_cost:
            self.best, self.best_cost = parameter_vector(self.field), found
        return found

    def restore_best(self) -> None:
        """Put the best state back."""
        if self.best is not None:
            set_parameters(self.field, self.best)

    def forget_best(self) -> None:
        """Look for a best state anew."""
        self.best, self.best_cost = None, math.inf

    def take(self, objective: Objective) -> None:
        """Take another objective, with held-out weights to match; the best state is judged by them."""
        ratio = {name: objective.weights[name] / weight for name, weight in self._per_point().items()}
        weights = {name: self.heldout.weights[name] * share for name, share in ratio.items()}
        self.objective, self.heldout = objective, self.heldout.reweighted(weights)
        if any(share != 1 for share in ratio.values()):
            now = parameter_vector(self.field)
            self.scale = self.zero_cost()
            self.restore_best()
            self.best_cost = self.heldout_cost()
            set_parameters(self.field, now)


class Runner:
    """One solve: steps a strategy until it stops or the budget is used up."""

    def __init__(
        self,
        problem: Problem,
        budget: Budget = Budget(),
        seed: int = 0,
        on_progress: Callable[[str], None] | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.problem, self.budget, self.seed = problem, budget, seed
        self._on_progress, self._checkpoint = on_progress, checkpoint
        self.history = History()
        self.iterations = 0
        self.started = time.perf_counter()
        self._iterate: Iterate | None = None
        self._sampler: Sampler | None = None
        self._balancer: Balancer | None = None
        self._hooks: State = {"sampler": {}, "balancer": {}}
        self._state: State | None = None  # of the strategy, as a checkpoint kept it
        self._given = False  # whether the field was, so that it need not be stored as a whole
        self._looked, self._cost = 0, math.inf
        self._stage, self._since, self._since_s = "", 0, 0.0

    @property
    def iterate(self) -> Iterate:
        """The field that is worked on."""
        assert self._iterate is not None
        return self._iterate

    @iterate.setter
    def iterate(self, iterate: Iterate) -> None:
        self._iterate = iterate

    @property
    def placed(self) -> bool:
        """Whether there is a field."""
        return self._iterate is not None

    @property
    def seconds(self) -> float:
        """Seconds used, those before an interruption too."""
        return time.perf_counter() - self.started

    @property
    def left_s(self) -> float:
        """Seconds until the time limit."""
        return self.budget.seconds - self.seconds

    @property
    def converged(self) -> bool:
        """Whether the held-out residual is as small as was asked for."""
        return self.iterate.relative() <= self.budget.rtol

    def place(self, network: nn.Module, sampler: Sampler, balancer: Balancer = KernelTraces()) -> None:
        """Take a field, draw points for it, weigh the terms, and start the record of the best anew."""
        self._sampler, self._balancer = sampler, balancer
        self.iterate = self._placed(network, sampler, balancer)

    def offer(self, network: nn.Module, points: Points) -> None:
        """Take a finished field, with points to look at it, if its held-out residual is relatively the lowest so far."""
        before, self.iterate = self._iterate, self._placed(network, points, MeanSquares())
        self._cost = self.keep_best()
        self._record(self._cost)
        if before is not None and self.iterate.relative() >= before.relative():
            self.iterate = before

    def run(self, strategy: Strategy | Method) -> StopReason:
        """Step a strategy, from where a checkpoint left it, to its end; gives the reason that stands for all."""
        strategy = strategy if isinstance(strategy, Strategy) else Sequential((strategy,))
        state, self._state = strategy.init(self) if self._state is None else self._state, None
        return self._loop(strategy, state, self._write)

    def minimise(self, method: Method) -> StopReason:
        """Step a method as a part of a strategy's step, and leave the best state."""
        inner = BestSoFar(method)
        return self._loop(inner, inner.init(self), lambda state: None)

    def _loop(self, strategy: Strategy, state: State, write: Callable[[State], None]) -> StopReason:
        ended = StopReason.RUNNING
        while ended is StopReason.RUNNING:
            ended = strategy.stop(self, state)
            if ended is StopReason.RUNNING:
                stages, steps = len(self.history.ends), self.iterations
                state = strategy.step(self, state)
                state = self._refreshed(state) if self.iterations > steps else state
                ended = self._used_up()
                if len(self.history.ends) > stages or (self._checkpoint is not None and self._checkpoint.due):
                    write(state)
        write(state)  # as it is, before the best state is put back: with more to use, a solve goes on from here
        return strategy.close(self, state, ended)

    def _used_up(self) -> StopReason:
        if self.left_s < 0:
            return StopReason.TIME
        spent = self.budget.steps is not None and self.iterations >= self.budget.steps
        return StopReason.BUDGET if spent else StopReason.RUNNING

    def _refreshed(self, state: State) -> State:
        """Let sampler and balancer change the objective when it is their turn; a state then forgets what it had cached."""
        before = self.iterate.objective
        for name, hook in (("sampler", self._sampler), ("balancer", self._balancer)):
            if hook is not None and hook.every and self.iterations % hook.every == 0:
                objective, self._hooks[name] = hook.update(
                    self.iterate.objective, self.iterate.field, self._hooks[name]
                )
                self.iterate.take(objective)
        return state if self.iterate.objective is before else stored(state)

    def begin_stage(self, name: str) -> None:
        """Note that a stage begins."""
        self._stage, self._since, self._since_s = name, self.iterations, self.seconds

    def end_stage(self, reason: StopReason) -> None:
        """Note how a stage ended."""
        took = self.seconds - self._since_s
        end = StageEnd(self._stage, reason, self.iterations - self._since, took, self.iterate.best_cost)
        self.history.ends.append(end)

    def step_done(self, cost: float, *, look: bool = False) -> None:
        """Count a step; now and then look at the held-out residuals."""
        self.iterations, self._cost = self.iterations + 1, cost
        if look or self.iterations - self._looked >= _LOOK_EVERY:
            self.look()

    def count(self, steps: int) -> None:
        """Count steps of a part whose field is not yet that of the runner."""
        self.iterations += steps

    def look(self) -> None:
        """Record the costs and keep the best state, once per step."""
        if self.iterations > self._looked:
            self._record(self.keep_best())

    def keep_best(self) -> float:
        """Evaluate the held-out cost, and keep the state if it is the best so far."""
        return self.iterate.keep_best()

    def report_progress(self, text: str) -> None:
        """Tell whoever listens what is being done."""
        if self._on_progress is not None:
            self._on_progress(f"{self._stage}: {text}, {self.seconds:.0f} s")

    def _record(self, heldout: float) -> None:
        self._looked, now = self.iterations, self.seconds
        record = {"stage": self._stage, "iteration": self.iterations, "seconds": now}
        self.history.records.append({**record, "cost": self._cost, "heldout": heldout})
        if self._on_progress is not None:
            self._on_progress(f"{self._stage} {self.iterations}, residual {heldout**0.5:.1e}, {now:.0f} s")

    def _placed(self, network: nn.Module, sampler: Sampler, balancer: Balancer) -> Iterate:
        problem = self.problem
        field = FieldWithUnknowns(network, problem.unknowns) if problem.unknowns else network
        sets, self._hooks["sampler"] = sampler.init(problem)
        objective = make_objective(problem, sets)
        objective.check(field)
        objective, self._hooks["balancer"] = balancer.init(objective, field)
        held, _ = sampler.held_out_sampler().init(problem)
        found = Iterate(field, objective, objective.matched(held, make_terms(problem, fitted=False)))
        found.scale = found.zero_cost()
        return found

    def restore(self, saved: Saved | None, network: nn.Module | None) -> bool:
        """Go back to where a checkpoint was written, whether there is one; ``network`` where one was given.

        Raises ResumeError for a field of another shape and for a problem whose residuals are others.
        """
        self._given = network is not None
        if saved is None:
            return False
        numbers = saved.numbers
        self.started -= numbers["seconds"]
        self.iterations, self._looked, self._cost = numbers["iterations"], numbers["looked"], or_infinite(numbers["cost"])
        self._stage, self._since, self._since_s = numbers["stage"]
        self.history.records = numbers["records"]
        self.history.ends = [StageEnd(**{**end, "reason": StopReason(end["reason"])}) for end in numbers["ends"]]
        state = joined_state(numbers["state"], saved.tensors)
        self._state, self._hooks = state["strategy"], state["hooks"]
        chosen = network if saved.field is None else saved.field
        if chosen is None:
            raise ResumeError("the checkpoint was written with a field of yours: give one of that shape")
        self.iterate = self._restored(chosen, state["iterate"])
        return True

    def _restored(self, network: nn.Module, state: State) -> Iterate:
        problem = self.problem
        field = FieldWithUnknowns(network, problem.unknowns) if problem.unknowns else network
        try:
            field.load_state_dict(state["field"])
        except RuntimeError as failure:
            raise ResumeError("the field is not that of the checkpoint: give one of the same shape") from failure
        objectives = []
        for fitted in (True, False):
            terms, kept = make_terms(problem, fitted=fitted), state["fitted" if fitted else "heldout"]
            if [term.name for term in terms] != list(kept["weights"]):
                raise ResumeError("the problem's conditions are not those of the checkpoint: give the same problem")
            sets = {name: PointSet(**kept["sets"][name]) for name in kept["weights"]}
            objectives.append(Objective(terms, sets, kept["weights"]))
        found = Iterate(field, *objectives, state["scale"], state.get("best"), or_infinite(state["best_cost"]))
        if found.best is not None:
            now = parameter_vector(field)
            found.restore_best()
            cost = found.heldout_cost()
            set_parameters(field, now)
            if not abs(cost - found.best_cost) <= _SAME * found.best_cost + 1e-9 * _SAME * found.scale:
                raise ResumeError(
                    f"the residuals of {self.problem.name} are not those of the checkpoint (cost {cost:.3e} where "
                    f"{found.best_cost:.3e} was written): give the same problem"
                )
        return found

    def resume_hooks(self, sampler: Sampler, balancer: Balancer) -> None:
        """Take sampler and balancer of a solve that goes on."""
        self._sampler, self._balancer = sampler, balancer

    def _write(self, state: State) -> None:
        """Write the checkpoint, if there is one."""
        if self._checkpoint is None or not self.placed:
            return
        numbers, tensors = split_state(
            {"strategy": stored(state), "hooks": self._hooks, "iterate": _iterate_state(self.iterate)}
        )
        head: dict[str, Any] = {
            "seconds": self.seconds,
            "iterations": self.iterations,
            "looked": self._looked,
            "cost": self._cost,
            "stage": [self._stage, self._since, self._since_s],
            "state": numbers,
            "records": self.history.records,
            "ends": [{**vars(end), "reason": int(end.reason)} for end in self.history.ends],
        }
        self._checkpoint.write(head, tensors, None if self._given else network_of(self.iterate.field))


def _iterate_state(iterate: Iterate) -> State:
    """Give an iterate as plain data, without its terms."""
    state: State = {"scale": iterate.scale, "best_cost": iterate.best_cost, "field": dict(iterate.field.state_dict())}
    if iterate.best is not None:
        state["best"] = iterate.best
    for name, objective in (("fitted", iterate.objective), ("heldout", iterate.heldout)):
        sets = {key: _present(at._asdict()) for key, at in objective.sets.items()}
        state[name] = {"weights": dict(objective.weights), "sets": sets}
    return state


def _present(parts: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    return {name: part for name, part in parts.items() if part is not None}
