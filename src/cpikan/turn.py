"""A turn: of several processes that are about to do the same work one does it, and the others wait for what comes of it."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

_LOOK_S = 0.05


class Turn:
    """The right to do a piece of work, held through a lock on the file ``path`` until `end`, or the end of the process.

    Waiting ends after ``patience_s``, and where the file cannot be made or locked nobody waits: a piece of work that is done
    twice costs time alone.
    """

    def __init__(self, path: Path, patience_s: float) -> None:
        self._path, self._patience_s = path, patience_s
        self._descriptor = -1

    def begin(self) -> bool:
        """Take the turn, once whoever has it has ended; False where it is held here already, or is not to be had."""
        if self._descriptor >= 0:
            return False
        try:
            import fcntl

            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except (ImportError, OSError):
            return False
        until = time.monotonic() + self._patience_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._descriptor = descriptor
                return True
            except BlockingIOError:
                if time.monotonic() < until:
                    time.sleep(_LOOK_S)
                    continue
            except OSError:  # a file system without locks
                pass
            os.close(descriptor)
            return False

    def end(self) -> None:
        """Give the turn back, where it is held."""
        if self._descriptor >= 0:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1
