"""Figures of one wafer as a flat table: numbers by dotted names, and the unit that a name ends in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

# the last word of a name; longer ones first, where one ends in another
UNITS = {
    "fraction": "1",
    "mrad": "mrad",
    "rad": "rad",
    "deg": "deg",
    "mib": "MiB",
    "mm2": "mm2",
    "um2": "um2",
    "nm": "nm",
    "um": "um",
    "mm": "mm",
    "px": "px",
    "s": "s",
}


def figures_of(part: str, summary: Mapping[str, Any]) -> dict[str, float | None]:
    """Collect the numbers of a summary as ``part.name``; tables inside add their name; what is no number stays out.

    A number with a unit stays as None where it could not be measured. Infinite and undefined numbers become None.
    """
    return dict(_numbers(part, summary))


def unit_of(name: str) -> str:
    """Give the unit that the name of a figure ends in (``wafer.bow_um``: um); empty where it has none."""
    last = name.rsplit(".", 1)[-1].split("_")
    return next((UNITS[word] for word in reversed(last[1:]) if word in UNITS), "")


def _numbers(prefix: str, table: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    for key, value in table.items():
        name = f"{prefix}.{key}"
        if isinstance(value, Mapping):
            yield from _numbers(name, value)
        elif value is None:
            if unit_of(name):  # without one it is a table that a run did not need
                yield name, None
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, float(value) if math.isfinite(value) else None
