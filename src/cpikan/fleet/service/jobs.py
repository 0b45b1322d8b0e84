"""Jobs of the service: accepted into a bounded queue on disk, done by a batch in a thread of its own."""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from cpikan.errors import InputError
from cpikan.fleet.batch import Batch
from cpikan.fleet.ledger import DONE, Ledger
from cpikan.fleet.progress import StackProgress
from cpikan.fleet.sources import Source, safe_name
from cpikan.messages import one_line
from cpikan.streaming.journal import Journal

QUEUE = "queue.jsonl"
State = Literal["waiting", "running", "done", "failed", "cancelled"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")
_STEP_S = 0.1
_USUAL_S = 2.0  # of a stack, before one was measured
_BEGUN = StackProgress(share=0.0)
_KEPT = 10_000  # ended jobs that are answered for from memory


class QueueFull(Exception):
    """The queue has no place; ``retry_s`` is when it may."""

    def __init__(self, retry_s: int) -> None:
        super().__init__(f"the queue is full: try again in {retry_s} s")
        self.retry_s = retry_s


class Stopping(Exception):
    """The service takes no more: it is about to end, or its workers are gone."""


@dataclass
class Job:
    """One stack that was submitted; ``name`` is that of its map and of its row of results."""

    id: str
    name: str
    source: str
    identity: Mapping[str, str]
    submitted: str
    state: State = "waiting"
    reason: str = ""
    figures: Mapping[str, float | None] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    told: StackProgress = _BEGUN  # how far it last was


class Jobs:
    """The jobs of a service in ``folder``, at most ``most`` of them waiting or running.

    What was accepted is on disk before anybody is told so; jobs that had not ended are taken up again by the next service.
    Methods may be called from any thread; the batch is touched by the one that `run`s alone.
    """

    def __init__(self, folder: Path, batch: Batch, ledger: Ledger, most: int) -> None:
        self._batch, self._ledger, self._most = batch, ledger, most
        path = folder / QUEUE
        self._journal = Journal.resume(path, {"queue": 1}) if path.exists() else Journal.start(path, {"queue": 1})
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._new: deque[Job] = deque()
        self._unwanted: deque[Job] = deque()
        self._seconds: deque[float] = deque(maxlen=50)
        self._begun: dict[str, float] = {}
        self._stopping = threading.Event()
        self.failure = ""  # why no job will ever be done
        self.ended: dict[str, int] = dict.fromkeys(ENDED, 0)
        self._take_up()

    def _take_up(self) -> None:
        """Read the journal: jobs that ended are known, others wait."""
        gone = {str(step["cancel"]) for step in self._journal.steps if "cancel" in step}
        for step in self._journal.steps:
            if "id" not in step:
                continue
            job = self._accepted(step)
            self._jobs[job.id] = job
            if job.id in gone:
                job.state = "cancelled"
            elif job.name in self._ledger.entries:
                self._end(job)
            else:
                self._new.append(job)
        self._forget()

    def _accepted(self, step: Mapping[str, Any]) -> Job:
        """Read a job that was accepted; InputError for a line that no service wrote."""
        words = [step.get(key) for key in ("id", "name", "source", "submitted")]
        who = step.get("identity")
        if not all(isinstance(one, str) for one in words) or not isinstance(who, dict):
            self._journal.close()
            raise InputError(
                f"{self._journal.path} holds a line that no service wrote: move it away; its jobs are lost"
            )
        number, name, source, submitted = (str(one) for one in words)
        return Job(number, name, source, who, submitted)

    def submit(self, source: str, identity: Mapping[str, str]) -> Job:
        """Accept a stack; raises `QueueFull` and `Stopping`."""
        with self._lock:
            if self._stopping.is_set() or self.failure:
                raise Stopping(self.failure or "the service is about to end")
            left = self._left()
            if left >= self._most:
                raise QueueFull(self._retry_s(left))
            number = uuid.uuid4().hex
            job = Job(number, f"{safe_name(Path(source).stem)}-{number[:12]}", source, dict(identity), _now())
            keep = {
                "id": job.id,
                "name": job.name,
                "source": source,
                "identity": job.identity,
                "submitted": job.submitted,
            }
            self._journal.add(keep, synced=True)
            self._jobs[job.id] = job
            self._new.append(job)
            return job

    def cancel(self, number: str) -> Job | None:
        """Ask that a job be given up; None where there is no such job. One that has ended stays as it is."""
        with self._lock:
            job = self._jobs.get(number)
            if job is not None and job.state not in ENDED:
                self._journal.add({"cancel": job.id}, synced=True)
                job.state = "cancelled"
                self._unwanted.append(job)
            return job

    def get(self, number: str) -> Job | None:
        return self._jobs.get(number)

    def progress(self, job: Job) -> StackProgress:
        """Tell how far a job is, by its state and by what the process that has it says."""
        if job.state == "running":
            found = self._batch.progress(job.name)
            if found.share is not None:  # the file goes before the state does
                job.told = found
            return job.told
        return StackProgress(share={"waiting": 0.0, "done": 1.0}.get(job.state))

    def listed(self, state: str | None, most: int) -> list[Job]:
        """List the newest jobs, of one state or all."""
        with self._lock:
            found = [job for job in self._jobs.values() if state is None or job.state == state]
        return found[: -most - 1 : -1]

    def counts(self) -> dict[str, int]:
        """Count the jobs that wait and run."""
        with self._lock:
            running = len(self._begun)
            return {"waiting": self._left() - running, "running": running}

    def run(self, between: Callable[[], None] = lambda: None) -> None:
        """Do jobs until `stop_taking`, calling ``between`` now and then; what keeps any from being done becomes ``failure``."""
        try:
            while not self._stopping.is_set():
                self._step()
                between()
        except Exception as failure:
            self.failure = one_line(f"{type(failure).__name__}: {failure}")

    def stop_taking(self) -> None:
        """Take no more, and let `run` end."""
        self._stopping.set()

    def stop(self, grace_s: float) -> None:
        """Wait for what runs, at most so long, once `run` has ended; the rest is for the next service."""
        until = time.monotonic() + grace_s
        while self._batch.running and time.monotonic() < until and not self.failure:
            self._settle(self._batch.step(_STEP_S, begin=False))
        with self._lock:
            self._journal.close()

    def _step(self) -> None:
        with self._lock:
            new, unwanted = list(self._new), list(self._unwanted)
            self._new.clear()
            self._unwanted.clear()
        for job in unwanted:
            self._batch.cancel(job.name)
            with self._lock:
                self._begun.pop(job.id, None)
                self.ended["cancelled"] += 1
        cancelled = {job.id for job in unwanted}
        self._batch.add(Source(job.source, job.name, job.identity) for job in new if job.id not in cancelled)
        if not self._batch.left:
            self._stopping.wait(_STEP_S)
            return
        settled = self._batch.step(_STEP_S)
        running = self._batch.running
        with self._lock:
            for job in self._jobs.values() if running else ():
                if job.state == "waiting" and job.name in running:
                    job.state = "running"
                    self._begun[job.id] = time.monotonic()
        self._settle(settled)

    def _settle(self, names: list[str]) -> None:
        if not names:
            return
        with self._lock:
            for job in [one for one in self._jobs.values() if one.name in names and one.state not in ENDED]:
                self._end(job)
                self._seconds.append(time.monotonic() - self._begun.pop(job.id, time.monotonic()))
            self._forget()

    def _end(self, job: Job) -> None:
        """Say of a job what the ledger says."""
        entry = self._ledger.entries[job.name]
        job.state = "done" if entry["state"] == DONE else "failed"
        job.reason, job.figures, job.warnings = entry["reason"], entry.get("figures", {}), entry.get("warnings", [])
        self.ended[job.state] += 1

    def _forget(self) -> None:
        """Keep the newest of those that ended."""
        ended = [job.id for job in self._jobs.values() if job.state in ENDED]
        for number in ended[: max(0, len(ended) - _KEPT)]:
            del self._jobs[number]

    def _left(self) -> int:
        return sum(job.state not in ENDED for job in self._jobs.values())

    def _retry_s(self, left: int) -> int:
        usual = sum(self._seconds) / len(self._seconds) if self._seconds else _USUAL_S
        return max(1, min(3600, round(usual)))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
