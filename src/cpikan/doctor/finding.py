"""What was found of one part of a machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

STATES = ("good", "warning", "fault")  # from good to bad


@dataclass(frozen=True)
class Finding:
    """One part of the machine, how it is (one of `STATES`), what was found in one phrase, and what to do where it is not good.

    ``figures`` are the same as numbers, units in their names.
    """

    name: str
    state: str
    found: str
    advice: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


def worst(findings: Iterable[Finding]) -> str:
    """Return the worst state of all; good where there is nothing."""
    return max((finding.state for finding in findings), key=STATES.index, default="good")
