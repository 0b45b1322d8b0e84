"""A place that the system keeps from this user, and from root too, who runs tests in containers and may open everything."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ASKED = ("open", "os.mkdir", "os.rename", "os.remove")
_places: list[str] = []  # an audit hook cannot be taken back: it is put in place once, and looks here
_hooked: list[bool] = []


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if _places and event in _ASKED and isinstance(arguments[0], str | bytes | os.PathLike):
        asked = os.path.abspath(os.fsdecode(arguments[0]))
        if any(asked == place or asked.startswith(f"{place}{os.sep}") for place in _places):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), asked)


@contextmanager
def denied(place: Path) -> Iterator[None]:
    """Answer every attempt to open, make or rename what lies at ``place`` as the system would without the right to it."""
    if not _hooked:
        _hooked.append(True)
        sys.addaudithook(_refuse)
    _places.append(os.path.abspath(place))
    try:
        yield
    finally:
        _places.pop()
