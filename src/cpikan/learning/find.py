"""Find: a field for a problem without being given one: grown where the solution is smooth, marched where it is not."""

from __future__ import annotations

from dataclasses import dataclass, field

from cpikan.learning.grow import Grow
from cpikan.learning.march import March, can_march
from cpikan.learning.run import Run
from cpikan.learning.stop_reason import StopReason

_SMOOTH = 1e-6  # relative held-out residual: a network that gets there needs no help


@dataclass(frozen=True)
class Find:
    """Grow a network; for an evolution that it does not resolve, march through time, and keep the better of both."""

    march: March = field(default_factory=March)
    name: str = "find"

    def run(self, run: Run) -> StopReason:
        """Both, as needed."""
        if not can_march(run.problem):
            return Grow().run(run)
        reason = Grow(hopeless=True).run(run)
        if reason is StopReason.TARGET or run.relative() <= _SMOOTH:
            return reason
        return self.march.run(run)
