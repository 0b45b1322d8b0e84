"""An engine whose task ends when a test lets it go, and the queue of a service on it."""

from __future__ import annotations

from pathlib import Path

from cpikan.fleet.batch import Batch, BatchSettings
from cpikan.fleet.engines.engine import Answer
from cpikan.fleet.ledger import Ledger
from cpikan.fleet.recipe import Recipe
from cpikan.fleet.service.jobs import Jobs
from cpikan.fleet.wafer_task import WaferTask

RECIPE = Recipe(format="npy")


class Held:
    """An engine of one slot whose task ends when it is let go."""

    about = "a test"
    memory_mib = None

    def __init__(self) -> None:
        self.task: WaferTask | None = None
        self.go = False
        self.done: list[str] = []

    def free(self) -> int:
        return int(self.task is None)

    def submit(self, task: WaferTask) -> bool:
        self.task = task
        return True

    def wait(self, seconds: float) -> list[Answer]:
        if self.task is None or not self.go:
            return []
        task, self.task = self.task, None
        self.done.append(task.source)
        if task.source.endswith("bad"):
            return [Answer(task, {"state": "refused", "reason": "no frames"})]
        return [Answer(task, {"state": "done", "figures": {"a": 1.0}, "warnings": ["w"], "stamp": "s"})]

    def abandon(self, name: str) -> bool:
        assert self.task is not None
        assert self.task.name == name
        self.task = None
        return True

    def close(self) -> None:
        pass


def service(folder: Path, engine: Held, most: int = 3) -> tuple[Jobs, Ledger]:
    ledger = Ledger.open(folder, RECIPE, resume=(folder / "ledger.jsonl").exists(), overwrite=False)
    return Jobs(
        folder, Batch(folder, RECIPE, ledger, engine, BatchSettings(memory_mib=100.0, tells=True)), ledger, most
    ), ledger
