"""Events: how a run tells its caller how far it came and what to know, and hears that it shall stop."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from typing import Protocol

from cpikan.messages import on_terminal, one_line, say
from cpikan.streaming.memory import anonymous_mib

_QUIET_S = 2.0  # shorter stages show nothing
_LINE_S = 5.0  # without a terminal: one plain line this often
_REDRAW_S = 0.2
# what a stage does, where its name alone does not say it
STAGE_WORDS: Mapping[str, str] = {
    "survey": "frames, pass 1 of 2",
    "demodulate": "frames to phases",
    "demodulate, guided": "frames, pass 2 of 2",
    "unwrap": "unwrapping",
    "doubt": "doubtful orders",
    "refine": "fitting a surface",
    "learn": "network over the map",
    "widen": "widening sigma",
    "form": "phases to heights",
    "numbers": "surface numbers",
    "write": "writing the map",
    "pyramid": "coarser levels",
}


class Cancelled(Exception):
    """The caller's `Events` cancelled the run; what is finished stays on disk for a resume."""


class Events(Protocol):
    """What a run calls while it works, from any of its threads; calls must return at once."""

    def progress(self, stage: str, done: float, of: float, **figures: float) -> None:
        """Tell that ``done`` of ``of`` units of a stage are done: pixels, patches, seconds.

        A stage begins with its first call, best before any unit is done, and anew where ``done`` falls. ``figures`` are
        given by stages that have some, such as the loss of a training.
        """

    def warning(self, text: str) -> None:
        """Tell one sentence that the user should know."""

    def cancelled(self) -> bool:
        """Return True to end the run: it raises `Cancelled` where it next reports, and can be resumed."""


class Silent:
    """Events that nobody hears."""

    def progress(self, stage: str, done: float, of: float, **figures: float) -> None:
        pass

    def warning(self, text: str) -> None:
        pass

    def cancelled(self) -> bool:
        return False


SILENT = Silent()


class ProgressLine:
    """Events as one line on stderr for stages longer than two seconds: share, rate, time left, figures, memory.

    The line is rewritten in a terminal, else a plain line comes every five seconds. ``unit`` names ``size`` units of
    what stages count; without a name no rate is shown.
    """

    def __init__(self, unit: str = "MPix", size: float = 1e6) -> None:
        self._unit, self._size = unit, size
        self._terminal, self._open, self._noted = on_terminal(), False, ""
        self._hinted = False
        self._stage, self._first, self._done = "", 0.0, 0.0
        self._started = self._shown = time.perf_counter()

    def progress(self, stage: str, done: float, of: float, **figures: float) -> None:
        if self._noted:
            say(f"cpikan: {self._noted}")
            self._noted = ""
        now = time.perf_counter()
        if stage != self._stage or done < self._done:
            self.close()
            self._stage, self._first, self._started, self._shown = stage, done, now, now
            self.hint(STAGE_WORDS.get(stage, stage))
        self._done = done
        ends = self._open and done >= of
        pause = _REDRAW_S if self._terminal else _LINE_S
        if now - self._started >= _QUIET_S and (ends or now - self._shown >= pause):
            self._shown = now
            self._show(self.line(now - self._started, of, figures))
        if ends:
            self.close()

    def warning(self, text: str) -> None:
        self.close()
        say(f"cpikan: warning: {one_line(text)}")

    def note(self, text: str) -> None:
        """Show the sentence at once in a terminal; elsewhere a run that is refused before it begins says its reason alone."""
        self.close()
        if self._terminal:
            self._show(f"cpikan: {one_line(text)}")
        else:
            self._noted = one_line(text)

    def hint(self, text: str) -> None:
        """Show in a terminal what goes on now; it goes away with what comes next."""
        self.close()
        if self._terminal:
            say(f"\r{one_line(text)[: _columns() - 4]} ...\x1b[K", end="")
            self._hinted = True

    def cancelled(self) -> bool:
        return False

    def line(self, elapsed_s: float, of: float, figures: dict[str, float]) -> str:
        """Word the line shown ``elapsed_s`` seconds into the stage."""
        gained, share = self._done - self._first, self._done / max(of, 1)
        left = _clock((of - self._done) * elapsed_s / gained) if gained > 0 else "?"
        bar = ("#" * round(20 * min(share, 1.0))).ljust(20, ".")
        rate = f" {gained / self._size / max(elapsed_s, 1e-9):7.1f} {self._unit}/s," if self._unit else ""
        more = "".join(f" {name} {value:.4g}," for name, value in figures.items())
        words = STAGE_WORDS.get(self._stage, self._stage)
        return f"{words} [{bar}] {share:4.0%}{rate} {left} left,{more} memory {anonymous_mib():.0f} MiB"

    def close(self) -> None:
        """End the line that is being rewritten, so that other output begins on its own."""
        if self._open:
            say("")
        elif self._hinted:
            say("\r\x1b[K", end="")
        self._open = self._hinted = False

    def _show(self, text: str) -> None:
        self._open = self._terminal
        if self._terminal:  # a line that wraps could not be rewritten
            say(f"\r{text[: _columns()]}\x1b[K", end="")
        else:
            say(text)


def as_events(progress: bool | Events) -> Events:
    """Turn the ``progress`` of a public function into Events: True is a line on stderr about pixels, False is silence."""
    if isinstance(progress, bool):
        return ProgressLine() if progress else SILENT
    return progress


def report(events: Events, stage: str, done: float, of: float, **figures: float) -> None:
    """Tell progress, and raise `Cancelled` where the caller wants no more."""
    events.progress(stage, done, of, **figures)
    if events.cancelled():
        raise Cancelled(f"{stage} was cancelled; what is finished stays and can be resumed")


def note(events: Events, text: str) -> None:
    """Tell one sentence about the run itself to Events that have a method ``note``; others are not asked."""
    tell = getattr(events, "note", None)
    if tell is not None:
        tell(text)


def hint(events: Events, text: str) -> None:
    """Say what goes on now to Events that have a method ``hint``; others are not asked."""
    tell = getattr(events, "hint", None)
    if tell is not None:
        tell(text)


def _columns() -> int:
    """Count the characters that fit on a line of the terminal."""
    return max(20, shutil.get_terminal_size().columns - 1)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


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
