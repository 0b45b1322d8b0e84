"""Progress of a run over image rows: rate in MPix/s, time left, anonymous memory."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from cpikan.streaming.memory import anonymous_mib

_QUIET_S = 2.0  # shorter runs show nothing
_LINE_S = 5.0  # without a terminal: one plain line this often


class Progress:
    """A bar on stderr for runs longer than two seconds; plain lines when stderr is not a terminal.

    ``width`` is the number of pixels per row, so that rows turn into megapixels.
    """

    def __init__(self, label: str, rows: int, width: int, *, enabled: bool = True) -> None:
        self._label, self._rows, self._width = label, rows, width
        self._enabled = enabled
        self._done = 0
        self._started = self._shown = time.perf_counter()
        self._terminal = sys.stderr.isatty()
        self._open_line = False

    def __enter__(self) -> Progress:
        self._started = self._shown = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open_line:
            if kind is None:
                self._show(self.line(time.perf_counter() - self._started))
            print(file=sys.stderr)

    def advance(self, rows: int) -> None:
        """Count ``rows`` more image rows as done; called by the writer thread."""
        self._done += rows
        now = time.perf_counter()
        due = 0.2 if self._terminal else _LINE_S
        if not self._enabled or now - self._started < _QUIET_S or now - self._shown < due:
            return
        self._shown = now
        self._show(self.line(now - self._started))

    def line(self, elapsed_s: float) -> str:
        """The text shown ``elapsed_s`` seconds into the run."""
        rate = self._done * self._width / 1e6 / max(elapsed_s, 1e-9)
        left = (self._rows - self._done) * elapsed_s / max(self._done, 1)
        share = self._done / max(self._rows, 1)
        bar = ("#" * round(20 * share)).ljust(20, ".")
        return f"{self._label} [{bar}] {share:4.0%} {rate:7.1f} MPix/s, {_clock(left)} left, memory {anonymous_mib():.0f} MiB"

    def _show(self, text: str) -> None:
        if self._terminal:
            print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)
            self._open_line = True
        else:
            print(text, file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
