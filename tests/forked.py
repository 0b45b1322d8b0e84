"""A process of its own for what kills itself or loads what others have not, without a second interpreter: a fork.

It has everything imported. What differentiates with torch is not run in one: where a CUDA device is, torch refuses.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path


def exit_code_of_fork(run: Callable[[], object], told: Path | None = None) -> int:
    """Run in a fork on one thread; 0 where it returned, 1 where it raised, minus the signal that killed it.

    What it writes to stdout and stderr goes to the file ``told``.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of Python 3.12: the threads of the test runner stay behind
        child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        if told is not None:
            sys.stdout = sys.stderr = told.open("w", encoding="utf-8")
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(1)  # the parent's are not here
        run()
        code = 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code)
