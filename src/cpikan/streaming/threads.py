"""Threads: rows of an image shared among some, and limits on those that numerical libraries use inside."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar


def single_threaded() -> AbstractContextManager[None]:
    """Run small matrix work on one thread: threads that wait for each other take several times as long.

    The limit is for libraries that are loaded by now.
    """
    return threads_limited(1)


@contextmanager
def threads_limited(threads: int | None) -> Iterator[None]:
    """Let BLAS, OpenMP and, where it is loaded, torch use at most so many threads; None leaves them alone."""
    if threads is None:
        yield
        return
    from threadpoolctl import threadpool_limits

    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 0
    if torch:
        torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        if torch:
            torch.set_num_threads(before)


Item = TypeVar("Item")
Result = TypeVar("Result")


class RowPool:
    """A fixed number of threads among which the rows of images are shared; close it, or use it as a context.

    Results come in the order of the rows, so how many threads there are changes no bit of them. The first exception of
    a piece is raised. One thread, or one piece, is the calling thread itself.
    """

    def __init__(self, threads: int, name: str = "cpikan-rows") -> None:
        self.threads = max(1, threads)
        # threads start with the first piece that is handed to them
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix=name)

    def map(
        self, function: Callable[[int, int], Result], height: int, step: int | None = None, first: int = 0
    ) -> list[Result]:
        """Call ``function(start, stop)`` for pieces of ``step`` rows of the ``height`` rows from ``first`` on.

        Without ``step`` there are as many pieces as threads, of about one size.
        """
        last = first + height
        step = max(1, step or -(-height // self.threads))
        starts = range(first, last, step)
        stops = [min(start + step, last) for start in starts]
        if self.threads == 1 or len(starts) <= 1:
            return [function(start, stop) for start, stop in zip(starts, stops, strict=True)]
        return list(self._pool.map(function, starts, stops))

    def share(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Call ``function(item)`` for each of some items, such as parts of rows."""
        known = list(items)
        return self.map(lambda start, stop: function(known[start]), len(known), 1)

    def close(self) -> None:
        """End the threads; pieces that have not begun are dropped."""
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> RowPool:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()
