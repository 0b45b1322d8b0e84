"""How a verb can fail: each failure is one line on stderr and an exit code; none shows a traceback."""

from __future__ import annotations

import os
import platform
import tempfile
import traceback
from collections.abc import Sequence

from cpikan.cli.surroundings import forget_stdout
from cpikan.errors import InputError
from cpikan.messages import one_line, say
from cpikan.version import VERSION

BAD_INPUT, OUR_FAULT, INTERRUPTED = InputError.exit_code, 70, 130
_NO_THREAD = "can't start new thread"


def exit_code_of(failure: BaseException, arguments: Sequence[str]) -> int:
    """Tell of a failure in one line and return the exit code; what nobody foresaw is written to a file in full."""
    if isinstance(failure, BrokenPipeError):  # the reader of our output has seen enough
        forget_stdout()
        return 0
    if isinstance(failure, KeyboardInterrupt):
        say("cpikan: stopped; what is finished stays, go on with --resume")
        return INTERRUPTED
    known = _known(failure)
    if known is not None:
        say(f"cpikan: error: {one_line(known)}")
        return BAD_INPUT
    what = one_line(f"{type(failure).__name__}: {failure}")[:300]
    say(f"cpikan: error: a fault of this program ({what}): {_details(failure, arguments)}")
    return OUR_FAULT


def _known(failure: BaseException) -> str | None:
    """Word a failure that the user, or the machine, can do something about; None for any other."""
    if isinstance(failure, InputError):
        return str(failure)
    if isinstance(failure, OSError):
        name = (
            ""
            if failure.filename is None
            else f"{os.fsdecode(failure.filename)}: "
            if _is_name(failure.filename)
            else ""
        )
        return f"{name}{failure.strerror or failure}: check the path and its rights"
    if isinstance(failure, MemoryError):
        return "there is not enough memory: close other programs, or give fewer --threads or a smaller --tile"
    if isinstance(failure, RuntimeError) and _NO_THREAD in str(failure):
        return (
            "no more threads may be started: end other programs, raise the limit (ulimit -u, or that of the container), or "
            "give --threads 1"
        )
    return None


def _is_name(name: object) -> bool:
    return isinstance(name, str | bytes | os.PathLike)


def _details(failure: BaseException, arguments: Sequence[str]) -> str:
    """Write the traceback to a file of its own, readable by the user alone, and say where; what is said fits one line."""
    lines = [
        f"cpikan {VERSION}, Python {platform.python_version()}, {platform.platform()}",
        f"arguments: {list(arguments)!r}",
    ]
    try:
        text = "\n".join([*lines, "", *traceback.format_exception(failure)])
        descriptor, name = tempfile.mkstemp(".txt", "cpikan-fault-")
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except (OSError, RecursionError, MemoryError):
        return "the details could not be written to the temporary folder; run it again with TMPDIR set to a folder that can be"
    return (
        f"the details are in {one_line(name)}; please report it with that file, what is finished goes on with --resume"
    )
