"""Numbers for people: a few digits, a unit, and a dash where there is none."""

from __future__ import annotations

from typing import Any

import numpy as np

NONE = "\u2013"


def length(value_nm: float | None) -> tuple[str, str]:
    """Format a height in nm as digits and unit: pm below 0.1 nm, um from 10 000 nm."""
    if not _finite(value_nm):
        return NONE, ""
    assert value_nm is not None
    size = abs(value_nm)
    if size >= 1e4:
        return digits(value_nm / 1e3), "µm"
    if 0 < size < 0.1:
        return digits(value_nm * 1e3), "pm"
    return digits(value_nm), "nm"


def percent(value: float | None) -> tuple[str, str]:
    """Format a share as digits and unit: in per cent, a small share in parts per million."""
    if not _finite(value):
        return NONE, ""
    assert value is not None
    if 0 < abs(value) < 1e-4:
        return digits(value * 1e6, 3), "ppm"
    if 0.9995 <= value < 1:
        return f"{np.floor(value * 1e6) / 1e4:.4f}", "%"  # no rounding up to a perfect 100 %
    return digits(value * 100, 4 if value >= 0.1 else 3), "%"


def digits(value: float, significant: int = 4) -> str:
    """Format a number with about four significant digits and no exponent between 1e-4 and 1e6."""
    if value == 0 or not np.isfinite(value):
        return "0" if value == 0 else NONE
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{significant - 1}e}"
    places = max(0, significant - 1 - int(np.floor(np.log10(abs(value)))))
    return f"{value:.{places}f}"


def joined(pair: tuple[str, str]) -> str:
    """Join digits and unit to one text."""
    return " ".join(part for part in pair if part)


def plain(value: Any) -> str:
    """Format any value of a document as text; lists of lists have a line each, long ones are cut."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple | dict) and not value:
        return "none"
    if isinstance(value, list | tuple):
        if value and all(isinstance(item, list | tuple) for item in value):
            return "\n".join(plain(item) for item in value[:8]) + ("\n…" if len(value) > 8 else "")
        return ", ".join(plain(item) for item in value[:24]) + (", …" if len(value) > 24 else "")
    if isinstance(value, dict):
        return "; ".join(f"{key}: {plain(item)}" for key, item in list(value.items())[:24])
    return str(value)[:400]


def _finite(value: float | None) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))
