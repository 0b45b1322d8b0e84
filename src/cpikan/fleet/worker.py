"""Workers for a scheduler elsewhere, kept alive: Dask closes one whose link was cut and does not start it again."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cpikan.errors import InputError, need
from cpikan.fleet.engines.settings import worker_settings
from cpikan.messages import say
from cpikan.option import option
from cpikan.streaming.events import Events

_LOOK_S = 0.2
_AGAIN_S = 1.0
_END_S = 30.0


@dataclass(frozen=True)
class WorkerOptions:
    """How many workers, and for how long they wait for their scheduler."""

    workers: int | None = option(None, "processes, one stack each at a time (default: one per core)", metavar="N")
    threads: int = option(1, "threads of each task", metavar="N")
    patience: float = option(600.0, "seconds to wait for a scheduler that does not answer", metavar="S")

    def __post_init__(self) -> None:
        for name in ("workers", "threads"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= 1000:
                raise InputError(f"--{name} {value}: give 1 to 1000")
        if not 0 < self.patience < 1e9:
            raise InputError(f"--patience {self.patience:g}: give seconds, such as 600")


def run_worker(address: str, options: WorkerOptions, events: Events) -> dict[str, Any]:
    """Work for the scheduler at ``address`` until the events want no more; a worker that was closed is started again.

    Raises InputError for an address that is none, and where no scheduler has answered for the patience.
    """
    need("distributed", "cluster", "a worker of a cluster")
    import dask
    from distributed.comm import get_address_host_port

    try:
        get_address_host_port(address, strict=True)
    except ValueError as failure:
        raise InputError(f"{address!r} is no address of a scheduler: give one such as tcp://host:8786") from failure
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = options.workers or max(1, cores // options.threads)
    with dask.config.set(worker_settings(options.threads)):
        keepers = [_Keeper(address, options.patience) for _ in range(workers)]
        asyncio.run(_kept(keepers, events))
    return {"address": address, "workers": workers, "starts": sum(keeper.starts for keeper in keepers)}


class _Keeper:
    """Keeps one worker: a nanny of Dask, which restarts a process that died, made anew when Dask has closed it."""

    def __init__(self, address: str, patience_s: float) -> None:
        self._address, self._patience_s = address, patience_s
        self.starts = 0

    async def run(self) -> None:
        """Start workers, one after the other, for ever; InputError where no scheduler answers for the patience."""
        from distributed import Nanny

        answered = time.monotonic()
        while True:
            with suppress(OSError, TimeoutError, RuntimeError):  # RuntimeError: it was there and went away meanwhile
                async with Nanny(
                    self._address,
                    nthreads=1,
                    memory_limit=0,
                    dashboard=False,
                    silence_logs=logging.CRITICAL,
                    death_timeout=self._patience_s,
                ) as nanny:
                    self.starts += 1
                    say(f"cpikan: worker {nanny.worker_address} has joined {self._address} (Ctrl-C ends it)")
                    await nanny.finished()
                    answered = time.monotonic()
            if time.monotonic() - answered > self._patience_s:
                raise InputError(
                    f"no scheduler answers at {self._address} for {self._patience_s:g} s: start one (dask scheduler), "
                    "and this worker again"
                )
            await asyncio.sleep(_AGAIN_S)


async def _kept(keepers: list[_Keeper], events: Events) -> None:
    """Run the keepers until the events want no more or one of them has lost its patience."""
    tasks = [asyncio.create_task(keeper.run()) for keeper in keepers]
    try:
        while not events.cancelled() and not any(task.done() for task in tasks):
            await asyncio.wait(tasks, timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_END_S)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.result()
