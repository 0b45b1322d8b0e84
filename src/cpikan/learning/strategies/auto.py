"""AutoStrategy: a field without being given one: grown where the solution is smooth, marched where it evolves."""

from __future__ import annotations

from dataclasses import dataclass, field

from cpikan.learning.combinators import Chain, Strategy
from cpikan.learning.methods.method import State
from cpikan.learning.runner import Runner
from cpikan.learning.stop_reason import StopReason
from cpikan.learning.strategies.grow import Grow
from cpikan.learning.strategies.march import March, can_march
from cpikan.physics.regions import corners

_SMOOTH = 1e-6  # relative held-out residual: a network that gets there needs no help


@dataclass(frozen=True)
class AutoStrategy(Chain):
    """Grow a network; for an evolution that it does not resolve, march through time, and keep the better of both.

    What evolves in time alone is marched first: its slabs are cheap, and a network over a long time finds other branches.
    Where a region has re-entrant corners, solutions are singular there (Grisvard, Elliptic Problems in Nonsmooth Domains,
    1985): a network that does not get far is grown again with the singular functions beside it.
    """

    march: March = field(default_factory=March)
    name: str = "auto"

    def init(self, run: Runner) -> State:
        """Begin by growing, or by marching where time is the only axis."""
        marches = can_march(run.problem)
        state = {"marches": marches, "corners": not marches and bool(corners(run.problem.region))}
        return self.begin(run, {**state, "first": marches and run.problem.dimension == 1}, 0)

    def child(self, state: State) -> Strategy:
        """Give the strategy of a growing network and the one that follows it, or precedes it."""
        if state["marches"] and state["first"] == (state["number"] == 0):
            return self.march
        if state["number"] == 0 or state["first"]:
            return Grow(stop_if_stagnant=state["marches"] or state["corners"])
        return Grow(corners=True)

    def follows(self, run: Runner, state: State, reason: StopReason) -> bool:
        """Tell whether what was done is not enough."""
        if state["number"]:
            return False
        if state["marches"]:
            return reason is not StopReason.TARGET and run.iterate.relative() > _SMOOTH
        return bool(state["corners"]) and not run.converged
