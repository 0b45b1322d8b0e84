"""Checks of what a loss is given."""

from __future__ import annotations

import math
from typing import Any

from cpikan.errors import InputError


def positive(loss: Any, *names: str) -> None:
    """Raise InputError where an option is no finite number above zero."""
    _check(loss, names, "a number above zero", lambda value: value > 0)


def not_negative(loss: Any, *names: str) -> None:
    """Raise InputError where an option is no finite number of zero or more."""
    _check(loss, names, "a number of zero or more", lambda value: value >= 0)


def is_number(value: object) -> bool:
    """Tell whether a value is a finite int or float; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check(loss: Any, names: tuple[str, ...], wanted: str, right: Any) -> None:
    for name in names:
        value = getattr(loss, name)
        if not is_number(value) or not right(value):
            raise InputError(f"{name} {value!r} of the loss {loss.name}: give {wanted}")
