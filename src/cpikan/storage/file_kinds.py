"""What kind of thing a path names: pipes and devices are not read, and nothing is written through links that lie ready."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cpikan.errors import InputError

_SPECIAL = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def refuse_special(path: Path | str) -> None:
    """Raise InputError where a path is a pipe, a socket or a device, which may never end and cannot be read twice.

    What does not exist, or may not be looked at, is left to those who open it.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    for is_kind, name in _SPECIAL:
        if is_kind(mode):
            raise InputError(f"{path} is {name}: give a file, which can be read in any order and more than once")


def refuse_link(path: Path | str) -> None:
    """Raise InputError where something that is to be written is a symbolic link: it would change a file elsewhere."""
    if os.path.islink(path):
        raise InputError(f"{path} is a symbolic link, and is not written through: remove the link")


def open_unlinked(path: Path | str, flags: int) -> int:
    """Open a file to write, made where it is missing; InputError for a symbolic link and for what is no file."""
    refuse_link(path)
    try:
        descriptor = os.open(
            path, flags | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666
        )
    except OSError:
        refuse_link(path)  # it was made in between
        refuse_special(path)
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        refuse_special(path)
        raise InputError(f"{path} is no plain file: remove it")
    return descriptor
