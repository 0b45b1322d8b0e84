"""One task after the other in this process."""

from __future__ import annotations

from dataclasses import asdict

from cpikan.fleet.engines.engine import Answer
from cpikan.fleet.wafer_task import WaferTask, do_wafer


class SerialEngine:
    """Does a task when it is waited for; a stack that ends the process ends the batch, which can be resumed."""

    about = "this process"
    memory_mib: float | None = None

    def __init__(self) -> None:
        self._waiting: list[WaferTask] = []

    def free(self) -> int:
        return 1 - len(self._waiting)

    def submit(self, task: WaferTask) -> bool:
        self._waiting.append(task)
        return True

    def wait(self, seconds: float) -> list[Answer]:
        tasks, self._waiting = self._waiting, []
        return [Answer(task, do_wafer(asdict(task))) for task in tasks]

    def abandon(self, name: str) -> bool:
        found = any(task.name == name for task in self._waiting)
        self._waiting = [task for task in self._waiting if task.name != name]
        return found

    def close(self) -> None:
        self._waiting = []
