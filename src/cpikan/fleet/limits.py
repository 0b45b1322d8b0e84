"""Limits of figures, and the verdict on a wafer."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cpikan.errors import InputError, check_names
from cpikan.storage.documents import parse_toml

Verdict = Literal["pass", "fail", "not measured"]
PASS: Verdict = "pass"
FAIL: Verdict = "fail"
NOT_MEASURED: Verdict = "not measured"
_MOST_BYTES = 2**20


class Limit(NamedTuple):
    """The least and the largest value that passes, both of them passing; None: no bound."""

    low: float | None = None
    high: float | None = None

    def judge(self, value: float | None) -> Verdict:
        """Compare a figure with both bounds."""
        if value is None:
            return NOT_MEASURED
        below = self.low is not None and value < self.low
        return FAIL if below or (self.high is not None and value > self.high) else PASS


class Limits:
    """Limits by the names of figures (``wafer.sfqr_max_um``)."""

    def __init__(self, limits: Mapping[str, Limit] | None = None) -> None:
        self.by_name = dict(limits or {})

    @classmethod
    def from_table(cls, table: Mapping[str, Any], where: str = "limits") -> Limits:
        """Read ``{name: {min: number, max: number}}``, with tables of parts inside or dots in the names.

        Raises InputError for other keys, for what is no number, and for a minimum above its maximum.
        """
        return cls(dict(_limits(table, "", where)))

    @classmethod
    def from_file(cls, path: str | Path) -> Limits:
        """Read a TOML file of limits; InputError where it cannot be read."""
        return cls.from_table(read_table(path, "limits"), str(path))

    def judge(self, figures: Mapping[str, float | None]) -> dict[str, Verdict]:
        """Give the verdict on each figure that has a limit; one that is not there is not measured."""
        return {name: limit.judge(figures.get(name)) for name, limit in self.by_name.items()}

    def strangers(self, figures: Mapping[str, float | None]) -> list[str]:
        """Tell, a sentence each, of limits of figures that a wafer does not have at all, with the nearest name."""
        told = []
        for name in self.by_name:
            if name not in figures:
                near = difflib.get_close_matches(name, list(figures), n=1, cutoff=0.4)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                told.append(f"limit of {name!r}: no wafer has that figure{hint}")
        return told


def overall(verdicts: Mapping[str, Verdict]) -> Verdict | None:
    """Sum up the verdicts on a wafer: the worst; None where nothing has a limit."""
    return next((one for one in (FAIL, NOT_MEASURED, PASS) if one in verdicts.values()), None)


def read_table(path: str | Path, what: str) -> dict[str, Any]:
    """Read a small TOML file; InputError of one line where it is missing, too large or no TOML."""
    try:
        if Path(path).stat().st_size > _MOST_BYTES:
            raise InputError(f"{what} {path} is larger than {_MOST_BYTES >> 20} MiB: give a TOML file of a few lines")
        return parse_toml(Path(path).read_bytes())
    except OSError as failure:
        raise InputError(f"{what} {path} cannot be read ({failure.strerror}): give a TOML file") from failure
    except ValueError as failure:
        if isinstance(failure, InputError):
            raise
        raise InputError(f"{what} {path} is not valid TOML: {failure}") from failure


def _limits(table: Mapping[str, Any], prefix: str, where: str) -> Iterator[tuple[str, Limit]]:
    for key, value in table.items():
        name = f"{prefix}{key}"
        if not isinstance(value, Mapping):
            raise InputError(f"{name} of {where} is {value!r}: give a table such as {{ max = 40 }}")
        if not set(value) & {"min", "max"} and any(isinstance(inner, Mapping) for inner in value.values()):
            yield from _limits(value, f"{name}.", where)
            continue
        check_names(f"key of the limit {name}", value, ("min", "max"))
        low, high = (_number(value.get(bound), f"{bound} of {name}", where) for bound in ("min", "max"))
        if low is None and high is None:
            raise InputError(f"limit {name} of {where} has no bound: give min, max or both")
        if low is not None and high is not None and low > high:
            raise InputError(f"limit {name} of {where} has min {low:g} above max {high:g}: nothing could pass")
        yield name, Limit(low, high)


def _number(value: Any, what: str, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{what} in {where} is {value!r}: give a finite number")
    return float(value)
