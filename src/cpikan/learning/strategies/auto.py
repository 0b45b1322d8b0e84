"""Find: a field for a problem without being given one: grown where the solution is smooth, marched where it is not."""

from __future__ import annotations

from dataclasses import dataclass, field

from cpikan.learning.grow import Grow
from cpikan.learning.march import March, can_march
from cpikan.learning.run import Run
from cpikan.learning.stop_reason import StopReason
from cpikan.physics.regions import corners

_SMOOTH = 1e-6  # relative held-out residual: a network that gets there needs no help


@dataclass(frozen=True)
class Find:
    """Grow a network; for an evolution that it does not resolve, march through time, and keep the better of both.

    Where a region has re-entrant corners, solutions are singular there (Grisvard, Elliptic Problems in Nonsmooth Domains,
    1985): a network that does not get far is grown again with the singular functions beside it.
    """

    march: March = field(default_factory=March)
    name: str = "find"

    def run(self, run: Run) -> StopReason:
        """Both, as needed."""
        if not can_march(run.problem):
            reason = run.part(Grow(hopeless=bool(corners(run.problem.region))))
            again = corners(run.problem.region) and (run.went_on or not run.at_goal())
            return run.part(Grow(corners=True)) if again else reason
        reason = run.part(Grow(hopeless=True))
        if not run.went_on and (reason is StopReason.TARGET or run.relative() <= _SMOOTH):
            return reason
        return run.part(self.march)
