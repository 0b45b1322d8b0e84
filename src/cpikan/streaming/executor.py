"""Who does the work: this thread, several threads, or several processes; one contract for all."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import Any, Protocol, TypeVar

from cpikan.errors import InputError
from cpikan.streaming.threads import threads_limited

Item = TypeVar("Item")
Result = TypeVar("Result")


class Executor(Protocol):
    """Works on ``size`` items at a time; a context that ends what it started.

    ``in_flight`` bounds the items that were taken and whose results have not been asked for.
    """

    @property
    def size(self) -> int: ...

    @property
    def in_flight(self) -> int: ...

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
        """Yield ``work(item)`` of every item, in order; items are taken as they are needed.

        The first exception, in that order, of an item or of its work is raised in place of its result, and no more items
        are taken.
        """

    def __enter__(self) -> Executor: ...

    def __exit__(self, *failure: object) -> None: ...


class SerialExecutor:
    """Works in the calling thread, on an item when its result is asked for."""

    size = in_flight = 1

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
        for item in items:
            yield work(item)

    def __enter__(self) -> SerialExecutor:
        return self

    def __exit__(self, *failure: object) -> None:
        """Leave with nothing to stop."""


class ThreadExecutor:
    """Works in ``size`` threads of this process, for work that releases the interpreter's lock."""

    def __init__(self, size: int, name: str = "cpikan-work", in_flight: int | None = None) -> None:
        self.size, self.in_flight = size, in_flight or size + 1
        self._pool = ThreadPoolExecutor(size, thread_name_prefix=name)

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
        return _in_order(lambda item: self._pool.submit(work, item), items, self.in_flight)

    def __enter__(self) -> ThreadExecutor:
        return self

    def __exit__(self, *failure: object) -> None:
        self._pool.shutdown(cancel_futures=True)


class ProcessExecutor:
    """Works in ``size`` processes, whose numerical libraries use ``threads`` each.

    ``work`` is sent to every process once, so it must be importable: a function or an object of a module. Work with a
    method ``for_process(number)`` is replaced there by what that returns, so that each process can take a device of its
    own. Processes start with the first map, and anew for other work; they end with this one.
    """

    def __init__(self, size: int, threads: int = 1) -> None:
        self.size, self.in_flight, self._threads = size, size + 1, threads
        self._work: Any = None
        self._pool: ProcessPoolExecutor | None = None

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
        """Apply ``work`` as in `Executor`; raises InputError at once for unsendable work, later for a dead process."""
        if self._pool is None or self._work is not work:
            self._start(work)
        return _results_of_processes(_in_order(self._submit, items, self.in_flight))

    def _submit(self, item: Item) -> Future[Any]:
        assert self._pool is not None, "the processes have been ended"
        return self._pool.submit(_work_on, item)

    def _start(self, work: Callable[[Any], Any]) -> None:
        """Start the processes, and wait until all are there: work that cannot travel is found out now."""
        self._end()
        context = get_context("spawn")
        given = (work, self._threads, context.Value("i", 0))
        self._pool, self._work = ProcessPoolExecutor(self.size, context, _begin, given), work
        try:
            for one in [self._pool.submit(_all_started, self.size) for _ in range(self.size)]:
                one.result()
        except Exception as failure:
            raise InputError(
                f"the work cannot be sent to other processes ({type(failure).__name__}: {failure}): define its model at "
                "the top of a module, run the script under if __name__ == '__main__', or give processes=1"
            ) from failure

    def _end(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def __enter__(self) -> ProcessExecutor:
        return self

    def __exit__(self, *failure: object) -> None:
        self._end()


def _in_order(
    submit: Callable[[Item], Future[Result]], items: Iterable[Item], most: int
) -> Generator[Result, None, None]:
    """Yield results in order of the items, of which at most ``most`` are under way."""
    under_way: deque[Future[Result]] = deque()
    try:
        for item in items:
            under_way.append(submit(item))
            if len(under_way) == most:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        for future in under_way:
            future.cancel()


def _results_of_processes(results: Generator[Result, None, None]) -> Generator[Result, None, None]:
    """Name a process that died: a pool breaks where it is asked next, for a result or to take another item."""
    try:
        yield from results
    except BrokenProcessPool as failure:
        raise InputError(
            "a process of the run ended by itself, out of memory perhaps: give a smaller batch or processes=1, "
            "and go on with resume"
        ) from failure


_worker: dict[str, Any] = {}  # in a process that was started: its work, how many were started, the limit on threads


def _begin(work: Callable[[Any], Any], threads: int, started: Any) -> None:
    """Begin in a new process, and end with the process that started this one."""
    with started.get_lock():
        number = started.value
        started.value += 1
    _worker["started"] = started
    _worker["work"] = work.for_process(number) if hasattr(work, "for_process") else work
    _worker["limit"] = threads_limited(threads)
    _worker["limit"].__enter__()
    threading.Thread(target=_end_with_parent, name="cpikan-parent", daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _all_started(size: int) -> None:
    """Wait until all ``size`` processes have started, so that each of them takes one such task."""
    while _worker["started"].value < size:
        time.sleep(0.01)


def _work_on(item: Any) -> Any:
    return _worker["work"](item)
