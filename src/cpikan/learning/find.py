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
            reason = Grow(hopeless=bool(corners(run.problem.region))).run(run)
            return Grow(corners=True).run(run) if corners(run.problem.region) and not run.at_goal() else reason
        reason = Grow(hopeless=True).run(run)
        if reason is StopReason.TARGET or run.relative() <= _SMOOTH:
            return reason
        return self.march.run(run)
