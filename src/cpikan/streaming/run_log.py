"""What a run did, line by line: JSON for machines in a file, words for people on stderr."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from cpikan.errors import InputError
from cpikan.messages import one_line, say
from cpikan.streaming.events import Events, hint, note


class RunLog:
    """Lines about one run: appended to ``path`` as JSON objects, told on stderr where ``verbose``.

    Each line has ``time`` (UTC), ``event`` and ``verb``; lines are written whole, so that several processes may share a file.
    Raises InputError where the file cannot be written.
    """

    def __init__(self, verb: str, path: str | None, verbose: bool = False) -> None:
        self._verb, self._verbose, self._file = verb, verbose, -1
        if path is not None:
            try:
                self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o644)
            except OSError as failure:
                raise InputError(f"log {path} cannot be written ({failure.strerror}): name another file") from failure

    def write(self, event: str, **fields: Any) -> None:
        """Write one line; a disk that is full loses it, for a run does not end because of its log."""
        if self._verbose:
            words = ", ".join(
                f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
                for name, value in fields.items()
            )
            say(f"cpikan: {one_line(f'{event}: {words}' if words else event)}")
        if self._file >= 0:
            head = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, "verb": self._verb}
            text = json.dumps({**head, **fields}, ensure_ascii=False, default=str)
            with suppress(OSError):
                os.write(self._file, f"{text}\n".encode(errors="replace"))

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class LoggedEvents:
    """Events that are told to others, with lines about stages and warnings."""

    def __init__(self, events: Events, log: RunLog) -> None:
        self._events, self._log = events, log
        self._stage, self._done, self._begun = "", 0.0, 0.0

    def progress(self, stage: str, done: float, of: float, **figures: float) -> None:
        now = time.perf_counter()
        if stage != self._stage or done < self._done:
            self._end(now)
            self._stage, self._begun = stage, now
        self._done = done
        self._events.progress(stage, done, of, **figures)

    def warning(self, text: str) -> None:
        self._log.write("warning", text=text)
        self._events.warning(text)

    def cancelled(self) -> bool:
        return self._events.cancelled()

    def note(self, text: str) -> None:
        self._log.write("note", text=text)
        note(self._events, text)

    def hint(self, text: str) -> None:
        hint(self._events, text)

    def record(self, event: str, **fields: Any) -> None:
        """Write a line of its own, which nobody is shown."""
        self._log.write(event, **fields)

    def close(self) -> None:
        """End the last stage."""
        self._end(time.perf_counter())

    def _end(self, now: float) -> None:
        if self._stage:
            self._log.write("stage", stage=self._stage, seconds=round(now - self._begun, 6), done=self._done)
        self._stage = ""


_CURRENT: ContextVar[RunLog | None] = ContextVar("run_log", default=None)


@contextmanager
def logged(verb: str, path: str | None, verbose: bool = False) -> Iterator[None]:
    """Log what is done inside: its begin, its end with the seconds, its failure."""
    if path is None and not verbose:
        yield
        return
    log, begun = RunLog(verb, path, verbose), time.perf_counter()
    held = _CURRENT.set(log)
    try:
        log.write("begin", process=os.getpid())
        yield
        log.write("end", seconds=round(time.perf_counter() - begun, 6))
    except BaseException as failure:
        log.write(
            "failed",
            kind=type(failure).__name__,
            text=one_line(str(failure)),
            seconds=round(time.perf_counter() - begun, 6),
        )
        raise
    finally:
        _CURRENT.reset(held)
        log.close()


@contextmanager
def heard(events: Events) -> Iterator[Events]:
    """Give events that also go into the log of the run, where there is one."""
    log = _CURRENT.get()
    if log is None:
        yield events
        return
    told = LoggedEvents(events, log)
    try:
        yield told
    finally:
        told.close()


def record(events: Events, event: str, **fields: Any) -> None:
    """Write a line of the log, where the events have one."""
    write = getattr(events, "record", None)
    if write is not None:
        write(event, **fields)
