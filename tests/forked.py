"""A process of its own for what kills itself or loads what others have not, without a second interpreter: a fork.

It has everything imported. What differentiates with torch is not run in one: where a CUDA device is, torch refuses.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


def exit_code_of_fork(run: Callable[[], object], told: Path | None = None) -> int:
    """Run in a fork on one thread; 0 where it returned, 1 where it raised, minus the signal that killed it.

    What it writes to stdout and stderr goes to the file ``told``.
    """
    child = _fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        if told is not None:
            sys.stdout = sys.stderr = told.open("w", encoding="utf-8")
        run()
        code = 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code)


@contextmanager
def fork_that_tells(run: Callable[[], object]) -> Iterator[TextIO]:
    """Run in a fork on one thread until the block ends, which kills it (SIGKILL); gives what it prints, line by line."""
    reading, writing = os.pipe()
    child = _fork()
    if not child:
        os.close(reading)
        sys.stdout = os.fdopen(writing, "w", encoding="utf-8")
        run()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as told:
        try:
            yield told
        finally:
            os.kill(child, signal.SIGKILL)
            ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended == -signal.SIGKILL, f"the fork had ended by itself: {ended}"


def _fork() -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        # of Python 3.12: the threads of the test runner stay behind
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child and (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)  # the parent's are not here
    return child
