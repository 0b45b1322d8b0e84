"""AutoStrategy: a field without being given one: grown where the solution is smooth, marched where it evolves."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cpikan.learning.combinators import Chain, Strategy
from cpikan.learning.methods.method import State
from cpikan.learning.runner import Runner
from cpikan.learning.stop_reason import StopReason
from cpikan.learning.strategies.grow import Grow
from cpikan.learning.strategies.march import March, can_march
from cpikan.learning.strategies.pieces import Pieces, can_piece
from cpikan.physics.regions import corners

_SMOOTH = 1e-6  # relative held-out residual: a network that gets there needs no help
_SHARP = 1e-3  # the same in two axes, where pieces take long


@dataclass(frozen=True)
class AutoStrategy(Chain):
    """Grow a network; for what it does not resolve, march through time or cut an axis into pieces, and keep the better.

    What evolves in time alone is marched first: its slabs are cheap, and a network over a long time finds other branches.
    Where a box has breaks, pieces (or slabs) come first too: no network has a kink. Where a region has re-entrant corners,
    solutions are singular there (Grisvard, Elliptic Problems in Nonsmooth Domains, 1985): a network that does not get far
    is grown again with the singular functions beside it.
    """

    march: March = field(default_factory=March)
    name: str = "auto"

    def init(self, run: Runner) -> State:
        """Begin with the first of the strategies that suit the problem."""
        problem = run.problem
        broken = bool(getattr(problem.region, "breaks", ()))
        other = "march" if can_march(problem) else "pieces" if can_piece(problem) else ""
        if bool(corners(problem.region)):
            order = ["grow to corners", "corners"]
        elif other and (broken or (other == "march" and problem.dimension == 1)):
            order = [other] if broken else [other, "grow"]
        else:
            order = ["grow to march" if other == "march" else "grow", *([other] if other else [])]
        return self.begin(run, {"order": order}, 0)

    def child(self, state: State) -> Strategy:
        """Give the strategy of a number."""
        name = state["order"][state["number"]]
        if name in ("march", "pieces"):
            return replace(self.march, partial=True) if name == "march" else Pieces()
        return Grow(stop_if_stagnant=name.startswith("grow to"), corners=name == "corners")

    def follows(self, run: Runner, state: State, reason: StopReason) -> bool:
        """Tell whether what was done is not enough."""
        rest = state["order"][state["number"] + 1 :]
        grown = state["order"][state["number"]].startswith("grow")
        settled = reason is StopReason.COST and grown  # what is left is noise of the data
        if not rest or run.converged or settled:
            return False
        steady = rest[0] == "pieces" and run.problem.dimension > 1
        return rest[0] == "corners" or run.iterate.relative() > (_SHARP if steady else _SMOOTH)
