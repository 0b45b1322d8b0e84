"""What the command line needs around a verb: standard streams that are there, and libraries that keep quiet on stderr."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator


def open_missing_streams() -> None:
    """Put the null device where a standard stream is closed: else the next file that is opened would take its number, and
    what a library writes to stderr would go into it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(os.devnull, os.O_RDWR)
        while descriptor <= 2:
            descriptor = os.dup(descriptor)
        os.close(descriptor)


def forget_stdout() -> None:
    """Send what is still to be written to stdout nowhere: whoever read it has gone."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep log lines and warnings of libraries off stderr, unless Python was asked for warnings (``-W``).

    A warning that is made an error stays one. What a user has to know is said by the verbs themselves.
    """
    root, nobody = logging.getLogger(), logging.NullHandler()
    root.addHandler(nobody)  # without any handler Python writes to stderr
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.showwarning = _nothing
            yield
    finally:
        root.removeHandler(nobody)


def _nothing(*_: object, **__: object) -> None:
    pass
