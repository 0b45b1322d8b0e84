"""Progress of a training run on stderr: steps, patches per second, time left, loss, memory."""

from __future__ import annotations

import sys
import time

from cpikan.streaming.memory import anonymous_mib

_QUIET_S = 2.0  # shorter runs show nothing
_LINE_S = 5.0  # without a terminal: one plain line this often


class TrainProgress:
    """A line rewritten in a terminal, else plain lines every five seconds; ``first`` is the step that is gone on from."""

    def __init__(self, label: str, first: int, steps: int, *, enabled: bool = True) -> None:
        self._label, self._first, self._steps, self._enabled = label, first, steps, enabled
        self._started = self._shown = time.perf_counter()
        self._terminal, self._open, self._patches = sys.stderr.isatty(), False, 0

    def advance(self, step: int, patches: int, loss: float) -> None:
        """``step`` steps are done; the last took so many patches."""
        self._patches += patches
        now = time.perf_counter()
        if not self._enabled or now - self._started < _QUIET_S:
            return
        if now - self._shown < (0.2 if self._terminal else _LINE_S):
            return
        self._shown = now
        self._put(self.line(now - self._started, step, loss))

    def line(self, elapsed_s: float, step: int, loss: float) -> str:
        """The text shown after ``elapsed_s`` seconds."""
        left = (self._steps - step) * elapsed_s / max(1, step - self._first)
        share = step / max(1, self._steps)
        bar = ("#" * round(20 * share)).ljust(20, ".")
        minutes, seconds = divmod(round(left), 60)
        return (
            f"{self._label} [{bar}] {share:4.0%} {self._patches / max(elapsed_s, 1e-9):.1f} patches/s, "
            f"{minutes}:{seconds:02d} left, loss {loss:.4g}, memory {anonymous_mib():.0f} MiB"
        )

    def note(self, text: str) -> None:
        """A line that stays."""
        if self._enabled:
            self.close()
            print(f"cpikan: {text}", file=sys.stderr, flush=True)

    def _put(self, text: str) -> None:
        self._open = self._terminal
        end = "" if self._terminal else "\n"
        print(f"\r{text}\x1b[K" if self._terminal else text, end=end, file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the line."""
        if self._open:
            print(file=sys.stderr)
            self._open = False
