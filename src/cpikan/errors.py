"""Errors a user can act on: what was given, what is allowed, what to do."""

from __future__ import annotations

import difflib
import importlib.util
import os
from collections.abc import Collection, Iterable
from numbers import Integral, Real


class InputError(ValueError):
    """Bad input, told in one line; the command line prints it and exits with code 2."""

    exit_code = 2


class ResumeError(InputError):
    """The state on disk does not belong to the run that was asked for."""


class Busy(InputError):
    """Another run has the output at the moment: later it may be free."""


class NothingMeasured(InputError):
    """The frames were read to their end and gave no height of any pixel."""


def check_name(what: str, given: str, allowed: Collection[str]) -> None:
    """Refuse a name that is not among the allowed ones: InputError that suggests the nearest."""
    if given not in allowed:
        raise unknown_name(what, given, allowed)


def check_names(what: str, given: Iterable[object], allowed: Collection[str]) -> None:
    """Refuse names of which one is not among the allowed ones."""
    for name in given:
        check_name(what, str(name), allowed)


def unknown_name(what: str, given: str, allowed: Iterable[str]) -> InputError:
    """Build the error for a name that is not in a list, suggesting the nearest one."""
    names = list(allowed)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return InputError(f"unknown {what} {given!r}: allowed are {', '.join(names)}{hint}")


PATH, NUMBER, WHOLE = (str, os.PathLike), Real, Integral


def check_type(what: str, given: object, kinds: type | tuple[type, ...], give: str) -> None:
    """Raise InputError for an argument that is none of the ``kinds``; True and False are no numbers."""
    allowed = kinds if isinstance(kinds, tuple) else (kinds,)
    if not isinstance(given, allowed) or (isinstance(given, bool) and not {bool, object} & set(allowed)):
        told = " ".join(repr(given).split())
        raise InputError(f"{what} is {told if len(told) < 60 else type(given).__name__}: give {give}")


def check_path(what: str, given: object) -> None:
    """Raise InputError for what is no path."""
    check_type(what, given, PATH, "a path, as text or a pathlib.Path")


def need(module: str, extra: str, what: str) -> None:
    """Raise InputError that names the extra to install where ``module`` is absent."""
    if importlib.util.find_spec(module) is None:
        raise InputError(f"{what} needs {module}, which is not installed: pip install 'scaled-cpikan[{extra}]'")
