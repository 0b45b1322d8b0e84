"""Tasks on workers of Dask distributed: a cluster of this machine, or one that is there already.

Each task is bound to a worker that has no other. So a worker that dies takes one stack with it, and that one is to blame; and
there is never a finished task on a worker that Dask would do again. A worker that Dask has closed, as it does when a link is
cut, is started again: by the cluster where there is one, else by ``cpikan worker`` where it ran.
"""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from cpikan.errors import InputError, need
from cpikan.fleet.engines.engine import Answer
from cpikan.fleet.engines.settings import THREADS, worker_settings
from cpikan.fleet.engines.slurm import SlurmJobs, resubmit
from cpikan.fleet.wafer_task import WaferTask, do_wafer
from cpikan.messages import say
from cpikan.version import VERSION

_CONNECT_S = 10.0
_GONE_S = 3.0  # a worker that was not seen for so long has lost its task
_ALONE_S = 600.0  # without any worker: longer than a link is cut and a machine started
_REPAIR_S = 5.0
_LOOK_S = 0.5
_END_S = 30.0


def worker_facts() -> dict[str, Any]:
    """Tell, on a worker, its version of this package and its threads."""
    import os

    return {"version": VERSION, "threads": {name: os.environ.get(name) for name in THREADS}}


class DaskEngine:
    """A client of a scheduler, with the ``cluster`` of ``workers`` that is its own, or None.

    ``memory_mib`` is that of each worker, where it has some of its own. Made by `local`, `connected` or `queued`.
    """

    def __init__(self, client: Any, cluster: Any, about: str, workers: int = 0) -> None:
        self._client, self._cluster, self.about, self._wanted = client, cluster, about, workers
        self.memory_mib: float | None = None
        self._alone_s = _ALONE_S
        self._repair: Callable[[], None] = lambda: cluster.scale(workers)
        self._tasks: dict[str, tuple[WaferTask, Any]] = {}  # by worker
        self._seen: dict[str, float] = {}
        self._known: dict[str, bool] | None = None  # by worker, whether its version is ours; None where all are of here
        self._asked: dict[str, Any] = {}  # by worker, the future of its answer
        self._any_s = self._repaired_s = time.monotonic()

    @classmethod
    def local(cls, workers: int, threads: int) -> DaskEngine:
        """Start workers on this machine, one task each at a time, which live as long as the engine."""
        need("distributed", "cluster", "a batch on several workers")
        import dask
        from distributed import Client, LocalCluster

        with dask.config.set(worker_settings(threads)):
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",  # None would be port 8787 of every address
                worker_dashboard_address="127.0.0.1:0",
                memory_limit=0,
                silence_logs=logging.CRITICAL,
            )
        return cls(Client(cluster, set_as_default=False), cluster, f"{workers} workers of this machine", workers)

    @classmethod
    def connected(cls, address: str) -> DaskEngine:
        """Join a scheduler that runs; InputError where there is none, or a worker has another version of this package."""
        need("distributed", "cluster", "a batch on a cluster")
        from distributed import Client

        try:
            client = Client(address, set_as_default=False, timeout=_CONNECT_S)
        except (OSError, TimeoutError, ValueError) as failure:
            raise InputError(
                f"no scheduler answers at {address}: start one (dask scheduler), or leave --scheduler out"
            ) from failure
        engine = cls(client, None, f"workers of {address}")
        engine._known = {}
        engine.check_versions()
        return engine

    @classmethod
    def queued(cls, jobs: SlurmJobs, threads: int) -> DaskEngine:
        """Submit workers as jobs of SLURM, which live as long as the engine; the queue may take any time."""
        need("distributed", "cluster", "a batch on a cluster")
        from distributed import Client

        cluster = jobs.cluster(threads)
        engine = cls(Client(cluster, set_as_default=False), cluster, f"{jobs.jobs} jobs of SLURM", jobs.jobs)
        engine.memory_mib, engine._alone_s, engine._known = jobs.memory_mib, math.inf, {}
        engine._repair = lambda: resubmit(cluster, jobs.jobs)
        return engine

    def check_versions(self) -> None:
        """Raise InputError for a worker that does not have this package in this version."""
        for worker, facts in self._client.run(worker_facts, on_error="return").items():
            refused = _other_version(worker, facts)
            if refused is not None:
                self.close()
                raise InputError(refused)
            if self._known is not None:
                self._known[worker] = True

    def free(self) -> int:
        return len(self._idle())

    def submit(self, task: WaferTask) -> bool:
        worker = next(iter(self._idle()), None)
        if worker is None:
            return False
        key = f"wafer-{uuid.uuid4().hex}"  # never an old answer for a file that changed
        future = self._client.submit(do_wafer, asdict(task), key=key, pure=False, retries=0, workers=[worker])
        self._tasks[worker] = (task, future)
        return True

    def wait(self, seconds: float) -> list[Answer]:
        from distributed import wait

        until = time.monotonic() + seconds
        while True:
            answers = self._ended()
            if answers or time.monotonic() >= until:
                return answers
            if not self._tasks:  # no worker is there
                time.sleep(min(seconds, _LOOK_S))
                return []
            futures = [future for _, future in self._tasks.values()]
            with self._client.as_current(), suppress(TimeoutError):
                wait(futures, timeout=_LOOK_S, return_when="FIRST_COMPLETED")

    def abandon(self, name: str) -> bool:
        worker = next((worker for worker, (task, _) in self._tasks.items() if task.name == name), None)
        if worker is None:
            return False
        _, future = self._tasks.pop(worker)
        future.cancel(force=True)
        # one that is gone need not be ended; a task that runs ends with its process alone
        with suppress(ValueError, OSError, TimeoutError):
            self._client.restart_workers([worker], timeout=_END_S, raise_for_error=False)
        return True

    def close(self) -> None:
        for _, future in self._tasks.values():
            future.cancel(force=True)
        self._tasks = {}
        with suppress(TimeoutError, OSError):  # what does not end in time is ended with this process
            self._client.close(timeout=_END_S)
        if self._cluster is not None:
            with suppress(TimeoutError, OSError):
                self._cluster.close(timeout=_END_S)

    def _ended(self) -> list[Answer]:
        present, now = self._workers(), time.monotonic()
        answers = []
        for worker, (task, future) in list(self._tasks.items()):
            if worker in present:
                self._seen[worker] = now
            if future.done():
                answers.append(_answer(task, future))
            elif now - self._seen.get(worker, now) > _GONE_S:
                future.cancel(force=True)
                answers.append(Answer(task, None, f"worker {worker} is gone"))
            else:
                self._seen.setdefault(worker, now)
                continue
            del self._tasks[worker]  # and with it the future: nothing that is finished stays there
            self._seen.pop(worker, None)
        return answers

    def _idle(self) -> list[str]:
        workers = self._workers()
        if self._known is not None:
            self._get_to_know(workers, self._known)
            workers = [worker for worker in workers if self._known.get(worker)]
        return [worker for worker in workers if worker not in self._tasks]

    def _get_to_know(self, workers: list[str], known: dict[str, bool]) -> None:
        """Ask workers that have joined for their version, and take those of another for none; nobody waits for an answer."""
        for worker in {*known, *self._asked} - {*workers}:
            known.pop(worker, None)
            self._asked.pop(worker, None)
        for worker in workers:
            if worker in known:
                continue
            if worker not in self._asked:
                key = f"facts-{uuid.uuid4().hex}"
                self._asked[worker] = self._client.submit(
                    worker_facts, key=key, pure=False, retries=0, workers=[worker]
                )
            elif self._asked[worker].done():
                future = self._asked.pop(worker)
                if future.status in ("finished", "error"):  # else it was lost with a link, and is asked again
                    refused = _other_version(worker, future.exception() or future.result())
                    known[worker] = refused is None
                    if refused is not None:
                        say(f"cpikan: warning: {refused}; it gets no stacks")

    def _workers(self) -> list[str]:
        """List the workers that are there; InputError where scheduler or workers are gone for good."""
        if self._client.status not in ("running", "connecting"):
            raise InputError(f"the scheduler of {self.about} is gone: start it again, and the batch with --resume")
        there = self._client.status == "running"  # while it is sought again, nobody knows of its workers
        found = list(self._client.scheduler_info(n_workers=-1)["workers"]) if there else []
        now = time.monotonic()
        if found:
            self._any_s = now
        elif now - self._any_s > self._alone_s:
            raise InputError(
                f"{self.about}: none is there for {_ALONE_S:g} s; start some (cpikan worker), and the batch with --resume"
            )
        if len(found) < self._wanted and now - self._repaired_s > _REPAIR_S:
            self._repaired_s = now
            self._repair()
        return found


def _other_version(worker: str, facts: Any) -> str | None:
    """Say which version of this package a worker has, where it is not that of here."""
    found = facts["version"] if isinstance(facts, dict) else f"none ({type(facts).__name__})"
    return (
        None
        if found == VERSION
        else f"worker {worker} has cpikan {found}, here it is {VERSION}: install the same everywhere"
    )


def _answer(task: WaferTask, future: Any) -> Answer:
    from distributed import KilledWorker

    if future.cancelled():
        return Answer(task, None, "the task was lost with its worker or its scheduler")
    failure = future.exception()
    if isinstance(failure, KilledWorker):
        return Answer(task, None, "the worker died over it (killed, out of memory, or a crash in a library)")
    if failure is not None:
        return Answer(task, None, f"{type(failure).__name__}: {failure}"[:200])
    return Answer(task, future.result())
