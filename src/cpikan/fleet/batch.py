"""A batch: every stack of a list by one recipe, on an engine, with a ledger and rows of results."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from cpikan.errors import InputError
from cpikan.fleet.engines.engine import Answer, Engine
from cpikan.fleet.ledger import DEAD, DONE, Ledger
from cpikan.fleet.limits import overall
from cpikan.fleet.progress import StackProgress, progress_path, read_progress
from cpikan.fleet.recipe import Recipe
from cpikan.fleet.sources import Source
from cpikan.fleet.wafer_task import WaferTask
from cpikan.storage.atomic import free_bytes
from cpikan.streaming.events import Cancelled, Events

MAPS, REPORTS = "maps", "reports"
_OF_MEMORY = 0.8  # of what is available at the start
_WAIT_S = 1.0
_BUSY_S = 180.0  # a worker that was cut off hears of it within a minute, and has half of one to end


@dataclass(frozen=True)
class BatchSettings:
    """``attempts`` a stack has; ``threads`` of each task; ``memory_mib`` for all that run at once (None: most of what there
    is); ``limit_s`` for one attempt (None: any time); ``command``: what was asked, for the rows;
    ``anew``: maps that are there are made again; ``tells``: how far stacks are can be asked, by `Batch.progress`."""

    attempts: int = 3
    threads: int = 1
    memory_mib: float | None = None
    limit_s: float | None = None
    command: str = ""
    anew: bool = False
    tells: bool = False


class _Running(NamedTuple):
    """A task that runs, the memory it was granted, and since when."""

    task: WaferTask
    memory_mib: float
    begun_s: float


class Batch:
    """One run over ``sources`` into ``folder``; the ``ledger`` says what is done already.

    Stacks that are done, from frames that nobody has written to since, are passed over. One that cannot be measured is dead at
    once; one whose task fails or dies is tried again, behind the others, until its attempts are spent. `run` does a list;
    `add` and `step` do what comes as it comes. ``deliver`` is given a row of results whenever one is new.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        ledger: Ledger,
        engine: Engine,
        settings: BatchSettings,
        deliver: Callable[[dict[str, Any]], None] = lambda row: None,
    ) -> None:
        self._folder, self._recipe, self._ledger = folder, recipe, ledger
        self._engine, self._settings, self._deliver = engine, settings, deliver
        self._waiting: deque[tuple[WaferTask, float | None]] = deque()  # with the memory one asked for, if it did
        here_mib = _OF_MEMORY * psutil.virtual_memory().available / 2**20
        self._given_mib = engine.memory_mib or settings.memory_mib or here_mib  # one task takes no more
        self._running: dict[str, _Running] = {}  # by name
        self._sources: dict[str, Source] = {}
        self._attempts: dict[str, int] = {}
        self._busy_s: dict[str, float] = {}  # since when another process is at the map
        self._largest_bytes = 0
        self._slots = max(1, engine.free())
        self.unchanged = 0

    def run(self, sources: Sequence[Source], events: Events) -> None:
        """Do what is not done; raises `Cancelled`, and InputError where the disk or the engine has no room for one stack."""
        self.add(sources)
        events.progress("wafers", 0, len(sources))
        while self.left:
            self.step(_WAIT_S)
            done = len(sources) - self.left
            events.progress("wafers", done, len(sources))
            if events.cancelled():
                raise Cancelled(f"{done} of {len(sources)} wafers are done: go on with --resume")

    def add(self, sources: Iterable[Source]) -> None:
        """Take up stacks behind those that wait; one that waits or runs already is not taken twice."""
        busy = {task.name for task, _ in self._waiting} | self._running.keys()
        for one in sources:
            if one.name not in busy:
                self._sources[one.name] = one
                self._attempts.pop(one.name, None)
                self._busy_s.pop(one.name, None)
                self._waiting.append((self._task(one), None))

    @property
    def left(self) -> int:
        """Count the stacks that wait or run."""
        return len(self._waiting) + len(self._running)

    @property
    def running(self) -> frozenset[str]:
        """Name the stacks that run."""
        return frozenset(self._running)

    def progress(self, name: str) -> StackProgress:
        """Tell how far a stack is that runs; from any thread."""
        return read_progress(progress_path(self._map(name)))

    def cancel(self, name: str) -> None:
        """Give a stack up, whether it waits or runs; the ledger hears nothing of it."""
        self._waiting = deque(one for one in self._waiting if one[0].name != name)
        if self._running.pop(name, None) is not None:
            self._engine.abandon(name)
        self._untold(name)

    def step(self, seconds: float, *, begin: bool = True) -> list[str]:
        """Begin what there is room for, wait for what ends, at most so long; name the stacks that are settled."""
        while begin and self._waiting:
            task, asked = self._waiting[0]
            memory = asked or self._share_mib()
            if not self._may_begin(memory):
                break
            if not self._engine.submit(replace(task, memory_mib=memory)):
                break
            self._waiting.popleft()
            self._running[task.name] = _Running(task, memory, time.monotonic())
        settled = []
        for answer in [*self._engine.wait(seconds), *self._too_slow()]:
            self._running.pop(answer.task.name)
            self._untold(answer.task.name)
            again = self._settled(answer)
            if again is None:
                settled.append(answer.task.name)
            else:
                self._waiting.append(again)
        return settled

    def _share_mib(self) -> float:
        """Give the memory of one task where all workers have one; workers may join later."""
        if self._engine.memory_mib is not None:
            return self._engine.memory_mib
        self._slots = max(self._slots, self._engine.free() + len(self._running))
        return self._given_mib / self._slots

    def _too_slow(self) -> Iterator[Answer]:
        """Stop the tasks that took longer than they may: a stack that hangs must not keep a worker."""
        now, limit = time.monotonic(), self._settings.limit_s
        for name, one in list(self._running.items()):
            if limit is not None and now - one.begun_s > limit and self._engine.abandon(name):
                yield Answer(one.task, None, f"it took more than {limit:g} s")

    def _task(self, source: Source) -> WaferTask:
        """Put together what is asked of a stack."""
        recipe, page = self._recipe, self._folder / REPORTS / f"{source.name}.html"
        output = self._map(source.name)
        for path in (output, page) if recipe.report else (output,):
            path.parent.mkdir(parents=True, exist_ok=True)
        return WaferTask(
            name=source.name,
            source=source.path,
            output=str(output),
            reconstruct={"hash_frames": True, **recipe.reconstruct},
            evaluate=None if recipe.evaluate is None else dict(recipe.evaluate),
            wafer=None if recipe.wafer is None else dict(recipe.wafer),
            report=str(page) if recipe.report else "",
            threads=self._settings.threads,
            stamp=self._ledger.stamp(source.name),
            anew=self._settings.anew,
            tells=self._settings.tells,
        )

    def _untold(self, name: str) -> None:
        """Remove what a process that was killed has left of how far it was."""
        if self._settings.tells:
            progress_path(self._map(name)).unlink(missing_ok=True)

    def _map(self, name: str) -> Path:
        return self._folder / MAPS / f"{name}.{self._recipe.format}"

    def _may_begin(self, memory_mib: float) -> bool:
        """Tell whether a worker, the memory and the disk have room for one more."""
        if self._engine.free() < 1:
            return False
        if not self._running:
            self._check_disk(1)
            return True
        taken = sum(one.memory_mib for one in self._running.values())
        if self._engine.memory_mib is None and taken + memory_mib > self._given_mib * (1 + 1e-9):
            return False
        return free_bytes(self._folder) > self._largest_bytes * (len(self._running) + 1)

    def _check_disk(self, tasks: int) -> None:
        free, needed = free_bytes(self._folder), self._largest_bytes * tasks
        if free < needed:
            raise InputError(
                f"{self._folder} has {free >> 20} MiB left and the next stack needs some {needed >> 20}: make room, then go on "
                "with --resume"
            )

    def _settled(self, answer: Answer) -> tuple[WaferTask, float | None] | None:
        """Take an answer into the ledger; give the task that is to be tried again, with its memory, if there is one."""
        task, found = answer.task, answer.outcome or {"state": "failed", "reason": answer.reason}
        self._largest_bytes = max(self._largest_bytes, int(found.get("disk_bytes", 0)))
        state = found["state"]
        if state == "crowded":
            if found["memory_mib"] <= self._given_mib:
                return task, found["memory_mib"]
            state, found = "refused", found | {"reason": self._too_large(found["memory_mib"])}
        if state == "busy":  # that is no fault of the stack
            if time.monotonic() - self._busy_s.setdefault(task.name, time.monotonic()) < _BUSY_S:
                return task, None
            state = "failed"
        if state == "unchanged":
            self.unchanged += 1
            self._tell(task.name)  # limits may be others than before
            return None
        attempts = self._attempts[task.name] = self._attempts.get(task.name, 0) + 1
        if state == "failed" and attempts < self._settings.attempts:
            return task, None
        keep = {
            key: value
            for key, value in found.items()
            if key not in ("name", "state", "reason", "memory_mib", "disk_bytes")
        }
        self._ledger.add(
            {
                "name": task.name,
                "source": task.source,
                "state": DONE if state == "done" else DEAD,
                "reason": found.get("reason", ""),
                "attempts": attempts,
                **keep,
                "signature": self._sources[task.name].signature,
            }
        )
        self._tell(task.name)
        return None

    def _tell(self, name: str) -> None:
        self._deliver(self._row(self._sources[name], self._ledger.entries[name]))

    def _too_large(self, memory_mib: float) -> str:
        return (
            f"it needs {memory_mib:.0f} MiB and there are {self._given_mib:.0f}: give more memory, or fewer band rows"
        )

    def measured(self) -> dict[str, float | None]:
        """Collect the names of all figures that wafers of this run have, with a value of one of them."""
        entries = [self._ledger.entries[name] for name in self._sources if name in self._ledger.entries]
        return {name: value for entry in entries for name, value in entry.get("figures", {}).items()}

    def rows(self) -> list[dict[str, Any]]:
        """Make the rows of results of the stacks of this run, judged by the limits of the recipe."""
        found = []
        for name, source in self._sources.items():
            entry = self._ledger.entries.get(name)
            if entry is not None:
                found.append(self._row(source, entry))
        return found

    def _row(self, source: Source, entry: Mapping[str, Any]) -> dict[str, Any]:
        limits, values = self._recipe.limits, entry.get("figures", {})
        verdicts = limits.judge(values)
        figures = {
            name: {
                "value": values.get(name),
                "low": bound.low if (bound := limits.by_name.get(name)) else None,
                "high": bound.high if bound else None,
                "verdict": verdicts.get(name),
            }
            for name in {**values, **verdicts}
        }
        made = entry["state"] == DONE
        page = self._folder / REPORTS / f"{source.name}.html"
        return {
            "key": sha256(f"{self._recipe.digest()} {self._folder.resolve()} {source.name}".encode()).hexdigest(),
            **{key: entry.get(key) for key in ("name", "source", "state", "reason", "started", "ended", "seconds")},
            **source.identity,
            **{key: entry.get("facts", {}).get(key) for key in ("frames_sha256", "method", "version", "host")},
            "map": str(self._map(source.name)) if made else None,
            "report": str(page) if made and self._recipe.report else None,
            "verdict": overall(verdicts) if made else None,
            "command": self._settings.command,
            "warnings": entry.get("warnings", ()),
            "figures": figures,
        }
