"""Limits on the threads that numerical libraries use inside."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager


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
