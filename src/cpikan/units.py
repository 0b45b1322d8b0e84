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
_NAMED_NM = {
    f"{prefix}meter": size
    for prefix, size in (("", 1e9), ("milli", 1e6), ("micro", 1e3), ("nano", 1.0), ("pico", 1e-3), ("centi", 1e7))
}
_SHORTEST_NM, _LONGEST_NM = 1e-6, 1e12  # beyond, squares and ratios leave what single precision can hold
_BETWEEN = re.compile(r"\s*[,;x\u00d7]\s*")  # between two lengths
_QUANTITY = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([^\d\s]*)\s*")


PixelUm = float | tuple[float, float]  # of square pixels one number, else (y, x)


def parse_pixel_um(value: object) -> PixelUm:
    """Turn a pixel size into micrometres: ``"5 um"``, or two for rectangular pixels, rows first.

    Two are a list ``["10 um", "5 um"]`` or text with a comma or an x between them. Raises InputError for anything else.
    """
    parts = _BETWEEN.split(value) if isinstance(value, str) else value if isinstance(value, list | tuple) else (value,)
    if len(parts) not in (1, 2):
        raise InputError(
            f'pixel_size {value!r} is not one length or two: give "5 um" for square pixels, or ["10 um", "5 um"] (y, x): '
            "the distance of the rows, then that of the columns"
        )
    sizes = [parse_length_nm(part, "pixel_size") / 1000 for part in parts]
    return sizes[0] if len(set(sizes)) == 1 else (sizes[0], sizes[1])


def pixel_pair(pixel_um: object) -> tuple[float, float] | None:
    """Give a pixel size of any form (also as JSON has it) as (y, x) in um; None where it is none."""
    sizes = pixel_um if isinstance(pixel_um, list | tuple) else (pixel_um, pixel_um)
    if len(sizes) != 2 or any(isinstance(size, bool) or not isinstance(size, int | float) for size in sizes):
        return None
    y, x = (float(size) for size in sizes)
    return (y, x) if 0 < y < math.inf and 0 < x < math.inf else None


def as_json(pixel_um: PixelUm | None) -> float | list[float] | None:
    """Give a pixel size as JSON has it: a number, or [y, x]."""
    return list(pixel_um) if isinstance(pixel_um, tuple) else pixel_um


def pixel_aspect(pixel_um: object) -> float:
    """Divide the distance of the rows by that of the columns: 1 for square pixels, and where the size is not known."""
    pair = pixel_pair(pixel_um)
    return 1.0 if pair is None else pair[0] / pair[1]


def unit_nm(name: str) -> float | None:
    """Give the length of a unit by its short name or its full one ("um", "MicroMeters") in nm, None for any other."""
    name = name.strip()
    return _NM_PER_UNIT.get(name) or _NAMED_NM.get(name.lower().replace("metre", "meter").removesuffix("s"))


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
