"""Lines to the user on stderr: printable whatever they quote, and never the end of a run that cannot tell them."""

from __future__ import annotations

import contextlib
import sys


def say(text: str, *, end: str = "\n") -> None:
    """Write ``text`` to stderr at once; where stderr is closed, full or gone, nothing happens."""
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text + end)
        sys.stderr.flush()


def on_terminal() -> bool:
    """Tell whether stderr is a terminal."""
    with contextlib.suppress(OSError, ValueError):
        return sys.stderr is not None and sys.stderr.isatty()
    return False


def one_line(text: str) -> str:
    """Put a text on one line that a terminal can show: names of files may hold line ends and control characters."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Write characters that would act on a terminal, or that no encoding has, as escapes; line ends stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
