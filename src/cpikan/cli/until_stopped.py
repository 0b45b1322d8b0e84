"""Verbs that run until somebody ends them: Ctrl-C and SIGTERM are heard as a wish, not as an exception."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager

from cpikan.streaming.events import ProgressLine


class UntilStopped(ProgressLine):
    """Events that want no more once somebody asked the process to end."""

    stopped = False

    def cancelled(self) -> bool:
        return self.stopped


@contextmanager
def until_stopped() -> Iterator[UntilStopped]:
    """Give events for wafers that Ctrl-C and SIGTERM cancel; a second Ctrl-C ends the process at once."""
    with closing(UntilStopped("wafers", 1.0)) as line:

        def stop(number: int, frame: object) -> None:
            if line.stopped:
                raise KeyboardInterrupt
            line.stopped = True

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield line
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
