"""Runner: the loop of a solve, with its budget, its history, its checkpoint, and the hooks that change the objective."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cpikan.errors import InputError, ResumeError, unknown_name
from cpikan.fields.decomposed import DecomposedField
from cpikan.fields.files import load_field, save_field
from cpikan.learning.balancers.balancer import Balancer
from cpikan.learning.balancers.kernel_traces import KERNEL_TRACES
from cpikan.learning.balancers.mean_squares import MEAN_SQUARES
from cpikan.learning.combinators import BestSoFar, Sequential, Strategy
from cpikan.learning.history import History, StageEnd
from cpikan.learning.iterate import Iterate, placed, restored
from cpikan.learning.methods.method import Method, State, stored
from cpikan.learning.samplers.points import Points
from cpikan.learning.samplers.sampler import Sampler
from cpikan.learning.share import WHOLE, Share
from cpikan.learning.shared_objective import collected
from cpikan.learning.stop_reason import OutOfTime, StopReason
from cpikan.learning.trust.levels import Level, noted
from cpikan.learning.unknowns import network_of, unknowns_of
from cpikan.physics.problem import Problem
from cpikan.streaming.events import SILENT, Events, report
from cpikan.streaming.ranks import ALONE, Ranks
from cpikan.streaming.run_store import RunStore

# steps from one look at the held-out residuals to the next: counted and not timed, so that equal runs end with equal bits
_LOOK_EVERY = 10
# multiplications a second on one core: more than any has, so that what is refused would not have fitted
_FASTEST = 1e11
CLOCKS: Mapping[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}
# called with the network as it is and a record of the history; True ends the solve
Callback = Callable[[nn.Module, dict[str, Any]], "bool | None"]


@dataclass(frozen=True)
class Budget:
    """What a solve may use, ``seconds`` and ``steps``, and the relative held-out residual that is small enough.

    At the default ``rtol`` errors are some 1e-10; beyond it rounding takes over. ``clock`` says what seconds are (`CLOCKS`):
    those on the wall, or those of the processor, all threads together.
    """

    seconds: float = 60.0
    steps: int | None = None
    rtol: float = 1e-11
    clock: str = "wall"

    def __post_init__(self) -> None:
        if self.clock not in CLOCKS:
            raise unknown_name("clock", str(self.clock), CLOCKS)
        if not self.seconds > 0:
            raise InputError(f"time limit {self.seconds} s: give more than 0")
        if self.steps is not None and self.steps < 1:
            raise InputError(f"{self.steps} steps: give at least 1")
        if not self.rtol >= 0:
            raise InputError(f"tolerance {self.rtol} of the residual: give 0 or more")


class Runner:
    """One solve: steps a strategy until it stops or the budget is used up."""

    def __init__(
        self,
        problem: Problem,
        budget: Budget = Budget(),
        seed: int = 0,
        events: Events = SILENT,
        store: RunStore | None = None,
        callback: Callback | None = None,
        *,
        ranks: Ranks = ALONE,
    ) -> None:
        self.problem, self.budget, self.seed, self.ranks = problem, budget, seed, ranks
        self._events, self._store = events, store
        self._callback, self._asked = callback, False
        self.history = History()
        self.iterations = 0
        self._clock = CLOCKS[budget.clock]
        self.started = self._now()
        self._iterate: Iterate | None = None
        self.levels: tuple[Level, ...] = ()  # left behind, the latest last
        self.figures: dict[str, Any] = {}  # that a strategy adds to the metrics
        self._sampler: Sampler | None = None
        self._balancer: Balancer | None = None
        self._hooks: State = {"sampler": {}, "balancer": {}}
        self._state: State | None = None  # of the strategy, as a checkpoint kept it
        self._late = False  # whether the next step would not fit into the time that is left
        self._share = WHOLE  # of a field of subdomains that is trained
        self._given = False  # whether the field was, so that it need not be stored as a whole
        self._looked, self._cost = 0, math.inf
        self._stage, self._since, self._since_s = "", 0, 0.0

    @property
    def iterate(self) -> Iterate:
        """Return the iterate that the strategy works on."""
        assert self._iterate is not None
        return self._iterate

    @iterate.setter
    def iterate(self, iterate: Iterate) -> None:
        if self._iterate is not None and self._iterate.best is not None and iterate is not self._iterate:
            self.levels = noted(self.levels, self.problem, self._iterate)
        self._iterate = iterate

    @property
    def placed(self) -> bool:
        """Tell whether the run has an iterate yet."""
        return self._iterate is not None

    @property
    def seconds(self) -> float:
        """Return the seconds used, those before an interruption too."""
        return self._now() - self.started

    @property
    def left_s(self) -> float:
        """Return the seconds until the time limit."""
        return self.budget.seconds - self.seconds

    def _now(self) -> float:
        """Read the clock: of several processes that of the first, so that all decide alike."""
        return self.ranks.first(self._clock())

    @property
    def _due(self) -> bool:
        """Tell whether the state is to be saved now."""
        return self._store is not None and bool(self.ranks.first(self._store.due))

    def watch(self, operations: float = 0.0) -> None:
        """Raise OutOfTime where the time is used up, or too short for so many operations."""
        if self.left_s < operations / (_FASTEST * torch.get_num_threads()):
            raise OutOfTime

    def end_early(self) -> None:
        """End the run as one whose time is used up: what comes next takes longer than the time that is left."""
        self._late = True

    @property
    def spent(self) -> bool:
        """Tell whether time or steps are used up, or the callback has asked for an end."""
        return self._used_up() is not StopReason.RUNNING

    @property
    def converged(self) -> bool:
        """Tell whether the relative held-out residual is within the budget's ``rtol``."""
        return self.iterate.relative() <= self.budget.rtol

    def place(self, network: nn.Module, sampler: Sampler, balancer: Balancer = KERNEL_TRACES) -> None:
        """Take a field, draw points for it, weigh the terms, and start the record of the best anew."""
        self._sampler, self._balancer = sampler, balancer
        self.iterate, self._hooks = placed(self.problem, network, sampler, balancer, self.ranks)
        self._divide()

    def _divide(self) -> None:
        """Share the points of a field of subdomains among the processes."""
        network = network_of(self.iterate.field)
        if self.ranks.size == 1 or not isinstance(network, DecomposedField):
            return
        places = torch.tensor([box.position for box in network.partition], dtype=torch.float64)
        self._share = Share(self.ranks, places, split=True)
        self.iterate.share_out(self._share)

    def offer(
        self, network: nn.Module, points: Points, unknowns: Tensor | None = None, *, detour: bool = False
    ) -> None:
        """Take a finished field, judged at ``points``, if its held-out residual is relatively the lowest so far.

        ``detour`` tells that other problems led to it (`Iterate`).
        """
        before, self.iterate = self._iterate, placed(self.problem, network, points, MEAN_SQUARES, self.ranks)[0]
        self.iterate.detour = detour
        beside = unknowns_of(self.iterate.field)
        if unknowns is not None and beside is not None:
            beside.data.copy_(unknowns)
        self.note()
        if before is not None and self.iterate.relative() >= before.relative():
            self.iterate = before

    def note(self) -> None:
        """Keep and record a field that a strategy has put in place as a whole: its cost is the held-out one."""
        self._cost = self.keep_best()
        self._record(self._cost)

    def run(self, strategy: Strategy | Method) -> StopReason:
        """Step a strategy, from where a checkpoint left it, to its end; gives the reason that stands for all."""
        strategy = strategy if isinstance(strategy, Strategy) else Sequential((strategy,))
        resumed = self._state is not None
        state, self._state = strategy.init(self) if self._state is None else self._state, None
        # a solve that had used up what it may takes no further step
        ended = self._used_up() if resumed or self._late else StopReason.RUNNING
        reason = self._loop(strategy, state, self._write, ended)
        if not self._share.alone:
            self.iterate.unite(self._share)
        return reason

    def minimise(self, method: Method) -> StopReason:
        """Step a method as a part of a strategy's step, and leave the best state."""
        inner = BestSoFar(method, watched=False)  # the strategy knows what fits
        state = inner.init(self)
        return self._loop(inner, state, lambda state: None, StopReason.TIME if self._late else StopReason.RUNNING)

    def _loop(self, strategy: Strategy, state: State, write: Callable[[State], None], ended: StopReason) -> StopReason:
        while ended is StopReason.RUNNING:
            ended = strategy.stop(self, state)
            if ended is StopReason.RUNNING:
                stages, steps = len(self.history.ends), self.iterations
                state = strategy.step(self, state)
                state = self._refreshed(state) if self.placed and self.iterations > steps else state
                ended = self._used_up()
                if len(self.history.ends) > stages or self._due:
                    write(state)
        write(state)  # as it is, before the best state is put back: with more to use, a solve goes on from here
        return strategy.close(self, state, ended)

    def _used_up(self) -> StopReason:
        if self._asked:
            return StopReason.ASKED
        if self.left_s < 0 or self._late:
            return StopReason.TIME
        spent = self.budget.steps is not None and self.iterations >= self.budget.steps
        return StopReason.BUDGET if spent else StopReason.RUNNING

    def _refreshed(self, state: State) -> State:
        """Let sampler and balancer change the objective when due; the state's cached values are dropped then.

        Several processes each have the whole field for it, and all of its points, and share what came of it anew.
        """
        hooks = (self._sampler, self._balancer)
        if not any(hook is not None and hook.every and self.iterations % hook.every == 0 for hook in hooks):
            return state
        if not self._share.alone:
            self.iterate.unite(self._share)
        before = self.iterate.objective
        self._refresh()
        changed = self.iterate.objective is not before
        if not self._share.alone:
            self.iterate.share_out(self._share)
        return stored(state) if changed else state

    def _refresh(self) -> None:
        iterate, before, sampler, balancer = self.iterate, self.iterate.objective, self._sampler, self._balancer
        if sampler is not None and sampler.every and self.iterations % sampler.every == 0:
            kept = self._hooks["balancer"]
            bare = before if balancer is None else balancer.lifted(before, kept)
            found, self._hooks["sampler"] = sampler.update(self.problem, bare, iterate.field, self._hooks["sampler"])
            if found is not bare:
                if balancer is not None:
                    found, self._hooks["balancer"] = balancer.moved(before, found, kept)
                iterate.take(found)
        if balancer is not None and balancer.every and self.iterations % balancer.every == 0:
            changed = balancer.update(iterate.objective, iterate.field, self._hooks["balancer"])
            self._hooks["balancer"] = changed[1]
            iterate.take(changed[0])

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

    def report_progress(self, **figures: float) -> None:
        """Tell the caller how many of its seconds the solve has used; raises Cancelled where the caller wants no more."""
        stage = f"{self.problem.name}, seed {self.seed}"
        report(self._events, stage, min(self.seconds, self.budget.seconds), self.budget.seconds, **figures)

    def _record(self, heldout: float) -> None:
        self._looked, now = self.iterations, self.seconds
        record = {"stage": self._stage, "iteration": self.iterations, "seconds": now}
        self.history.records.append({**record, "cost": self._cost, "heldout": heldout})
        if self._callback is not None and self._callback(
            network_of(self.iterate.field), dict(self.history.records[-1])
        ):
            self._asked = True
        self.report_progress(residual=heldout**0.5)

    def resume(
        self, network: nn.Module | None, sampler: Sampler | None = None, balancer: Balancer | None = None
    ) -> bool:
        """Go back to where the store's state was saved, whether there is one; ``network`` where one was given.

        Raises ResumeError for a field of another shape and for a problem whose residuals are others.
        """
        self._given, self._sampler, self._balancer = network is not None, sampler, balancer
        saved = None if self._store is None else self._store.saved
        if saved is None:
            return False
        state = saved.state
        self.started -= state["seconds"]
        self.iterations, self._looked, self._cost = state["iterations"], state["looked"], state["cost"]
        self._stage, self._since, self._since_s = state["stage"]
        self.history.records = state["records"]
        self.history.ends = [StageEnd(**{**end, "reason": StopReason(end["reason"])}) for end in state["ends"]]
        self._state, self._hooks = state["strategy"], state["hooks"]
        self.levels = tuple(Level(**level) for level in state.get("levels", ()))
        chosen = deepcopy(load_field(saved.files["field"])) if "field" in saved.files else network
        if chosen is None:
            raise ResumeError("the checkpoint was written with a field of yours: give one of that shape")
        self.iterate = restored(self.problem, chosen, state["iterate"], self.ranks)
        self._divide()
        return True

    def _write(self, state: State) -> None:
        """Save the state, if there is a store."""
        if self._store is None or not self.placed:
            return
        network = network_of(self.iterate.field)
        self.iterate.collect(self._share)
        whole = {
            "seconds": self.seconds,
            "iterations": self.iterations,
            "looked": self._looked,
            "cost": self._cost,
            "stage": [self._stage, self._since, self._since_s],
            "records": self.history.records,
            "ends": [{**vars(end), "reason": int(end.reason)} for end in self.history.ends],
            "strategy": collected(stored(state), self._share),
            "hooks": self._hooks,
            "levels": [level.state() for level in self.levels],
            "iterate": self.iterate.state(),
        }
        if self.ranks.rank == 0:
            self._store.save(whole, {} if self._given else {"field": lambda path: save_field(network, path)})
