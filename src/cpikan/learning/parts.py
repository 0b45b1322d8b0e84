"""Parts: stages, and parts of stages, in the order in which they begin; which of them are done when a solve is resumed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from cpikan.learning.stop_reason import StopReason


@dataclass
class Parts:
    """Stages and parts of stages in the order in which they begin: which are done, which is open, and its state.

    ``late`` is one that ran out of time and can be continued with more of it.
    """

    done: dict[int, tuple[StopReason, int]] = field(default_factory=dict)
    next: int = 0
    open: int = -1
    late: tuple[int, int] | None = None
    kept: tuple[int, dict[str, Any]] | None = None

    @classmethod
    def of(cls, numbers: dict[str, Any], state: dict[str, Any], tensors: dict[str, Tensor]) -> Parts:
        """As ``numbers`` wrote them."""
        done = {number: (StopReason(reason), after) for number, reason, after in numbers["done"]}
        return cls(done, kept=(numbers["open"], {**state, **tensors}) if numbers["open"] >= 0 else None)

    def numbers(self) -> dict[str, Any]:
        """What JSON holds."""
        done = [[number, int(reason), after] for number, (reason, after) in self.done.items()]
        return {"done": done, "open": self.open}

    def begin(self, time_left: bool) -> tuple[int, StopReason | None]:
        """The number of the next part, and why it ended where it has; one that was late is done when the run goes on."""
        if self.late is not None and time_left:
            self.done[self.late[0]] = (StopReason.TIME, self.late[1])
            self.late = None
        number = self.next
        if number in self.done:
            reason, self.next = self.done[number]
            return number, reason
        self.next += 1
        return number, None

    @property
    def went_on(self) -> bool:
        """Whether a part that has yet to be come to again had begun."""
        begun = [*self.done, -1 if self.kept is None else self.kept[0]]
        return max(begun) >= self.next

    def resumes(self, number: int) -> bool:
        """Whether this part, or a part of it, is the one that was interrupted."""
        return self.kept is not None and self.kept[0] >= number

    def take(self) -> dict[str, Any]:
        """The state of the open part."""
        if self.kept is None or self.kept[0] != self.open:
            return {}
        state, self.kept = self.kept[1], None
        return state
