"""Quantities with units: lengths at the door carry one, inside they are numbers in nm (or um, where the name says so)."""

from __future__ import annotations

import math
import re

from cpikan.errors import InputError

_NM_PER_UNIT = {
    "pm": 1e-3,
    "nm": 1.0,
    "um": 1e3,
    "\u00b5m": 1e3,  # micro sign
    "\u03bcm": 1e3,  # Greek mu
    "mm": 1e6,
    "cm": 1e7,
    "m": 1e9,
}
_SHORTEST_NM, _LONGEST_NM = 1e-6, 1e12  # beyond, squares and ratios leave what single precision can hold
_QUANTITY = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([^\d\s]*)\s*")


def parse_length_nm(text: object, what: str = "length") -> float:
    """Turn text such as ``"632.8 nm"`` or ``"27um"`` into nanometres.

    Raises InputError for anything but a finite positive number with a known unit; a bare number is refused, never guessed.
    """
    units = ", ".join(u for u in _NM_PER_UNIT if u.isascii())
    match = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if match is None or not match[2]:
        raise InputError(f'{what} {text!r} has no unit: write a number and a unit ({units}), such as "632.8 nm"')
    if match[2] not in _NM_PER_UNIT:
        raise InputError(f'{what} {text!r} has an unknown unit {match[2]!r}: allowed are {units}, such as "632.8 nm"')
    value = float(match[1]) * _NM_PER_UNIT[match[2]]
    if not math.isfinite(value) or value <= 0:
        raise InputError(f"{what} {text!r} is not a positive finite length: give one above zero")
    if not _SHORTEST_NM <= value <= _LONGEST_NM:
        raise InputError(f"{what} {text!r} is no length that is measured here: give one from 1e-15 m to 1000 m")
    return value


def format_length(value_nm: float) -> str:
    """Write a length with the unit that keeps its digits readable (``"632.8 nm"``, ``"27 um"``)."""
    size = abs(value_nm)
    for unit, scale in (("m", 1e9), ("mm", 1e6), ("um", 1e3)):
        if size >= scale:
            return f"{value_nm / scale:.6g} {unit}"
    return f"{value_nm:.6g} nm"
