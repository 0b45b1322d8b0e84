"""Progress of one stage over the rows of an image, told to Events in pixels."""

from __future__ import annotations

from types import TracebackType

from cpikan.streaming.events import Events, ProgressLine, as_events, report


class Progress:
    """Counts the ``rows`` of ``width`` pixels that a stage has done, while its ``with`` block runs.

    ``progress`` is where it is told: Events, or True for a line on stderr of its own.
    """

    def __init__(self, stage: str, rows: int, width: int, progress: bool | Events) -> None:
        self._stage, self._rows, self._width, self._done = stage, rows, width, 0
        self._events = as_events(progress)
        self._own_line = self._events if progress is True and isinstance(self._events, ProgressLine) else None

    def __enter__(self) -> Progress:
        self._events.progress(self._stage, 0, self._rows * self._width)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._own_line is not None:
            self._own_line.close()

    def advance(self, rows: int) -> None:
        """Count ``rows`` more image rows as done; raises Cancelled where the caller wants no more."""
        self._done += rows
        report(self._events, self._stage, self._done * self._width, self._rows * self._width)
