"""Where a page may be written: asked before a run, so that no page destroys data and none fails after hours."""

from __future__ import annotations

import tempfile
from pathlib import Path

from cpikan.errors import InputError

_SUFFIXES = (".html", ".htm")
_OPENINGS = (b"<!doctype html", b"<html")


def check_page(path: Path | str) -> Path:
    """Check that a page can be written to ``path``; return it as a Path.

    Raises InputError for a missing or read-only folder, a name that does not end in .html or .htm, and a file there that is
    not a page: frames, maps and their records are never replaced by one.
    """
    path = Path(path)
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(f"report {path} has the suffix of other data: a page ends in .html, such as {path.stem}.html")
    if not path.absolute().parent.is_dir():
        raise InputError(f"folder of the report {path} does not exist: create it first")
    if path.exists() and not _is_page(path):
        raise InputError(f"report {path} exists and is no page: choose another name, or remove it first")
    try:
        with tempfile.TemporaryFile(dir=path.absolute().parent):
            pass
    except OSError as failure:
        raise InputError(
            f"report {path} cannot be written ({failure.strerror}): name a folder that can be written to"
        ) from failure
    return path


def _is_page(path: Path) -> bool:
    """Tell whether a file is HTML, or empty; what cannot be read is not."""
    if not path.is_file():  # a pipe would wait for who writes to it
        return False
    try:
        with open(path, "rb") as file:
            start = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
            return start.startswith(_OPENINGS) or path.stat().st_size == 0
    except OSError:
        return False
