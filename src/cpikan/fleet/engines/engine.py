"""What runs tasks: asked for room, given tasks one by one, waited for."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from cpikan.fleet.wafer_task import WaferTask


class Answer(NamedTuple):
    """What came of a task: the ``outcome`` as plain data, or None and a ``reason`` where the process that had it is gone."""

    task: WaferTask
    outcome: dict[str, Any] | None
    reason: str = ""


class Engine(Protocol):
    """Runs tasks, each in a process that has no other at that time, so that a death has one cause."""

    about: str  # for people
    memory_mib: float | None  # of each worker, where it has some of its own; None: all share that of this machine

    def free(self) -> int:
        """Count the tasks that can be submitted now."""

    def submit(self, task: WaferTask) -> bool:
        """Begin a task; False where the room for it went away meanwhile."""

    def wait(self, seconds: float) -> list[Answer]:
        """Wait for tasks that end, at most so long; none may have."""

    def abandon(self, name: str) -> bool:
        """Stop a task that runs; no answer will come of it. False where there is none to stop any more."""

    def close(self) -> None:
        """End all that was started."""
