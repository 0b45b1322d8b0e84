"""Progress of one stage over the rows of an image, told to Events in pixels."""

from __future__ import annotations

from cpikan.streaming.events import Events, ProgressLine, as_events, report


class Progress:
    """Counts the ``rows`` of ``width`` pixels that a stage has done, while its ``with`` block runs.

    ``progress`` is where it is told: Events, or True for a line on stderr. The line ends with the stage.
    """

    def __init__(self, stage: str, rows: int, width: int, progress: bool | Events) -> None:
        self._stage, self._rows, self._width, self._done = stage, rows, width, 0
        self._events = as_events(progress)

    def __enter__(self) -> Progress:
        self._events.progress(self._stage, 0, self._rows * self._width)
        return self

    def __exit__(self, *failure: object) -> None:
        if isinstance(self._events, ProgressLine):
            self._events.close()

    def advance(self, rows: int) -> None:
        """Count ``rows`` more image rows as done; raises Cancelled where the caller wants no more."""
        self._done += rows
        report(self._events, self._stage, self._done * self._width, self._rows * self._width)
