"""Sampler: what gives the point sets of an objective at the start, and others every so many steps."""

from __future__ import annotations

from collections.abc import Mapping
from operator import index
from typing import Any, Protocol

from torch import nn

from cpikan.errors import InputError
from cpikan.learning.methods.method import State
from cpikan.learning.objective import Objective, PointSet
from cpikan.physics.problem import Problem


class Sampler(Protocol):
    """Point sets by the names of terms: at the start, and anew every ``every`` steps (0: never); with a plain state."""

    @property
    def every(self) -> int: ...

    def init(self, problem: Problem) -> tuple[Mapping[str, PointSet], State]: ...

    def update(
        self, problem: Problem, objective: Objective, field: nn.Module, state: State
    ) -> tuple[Objective, State]: ...

    def held_out_sampler(self) -> Sampler:
        """Give other points, which are not fitted."""
        ...


def check_sampler(given: Any) -> None:
    """Raise InputError for what gives no points, the class of a sampler included."""
    if isinstance(given, type) or not all(
        hasattr(given, name) for name in ("every", "init", "update", "held_out_sampler")
    ):
        raise InputError(f"points by {given!r}: give Points(interior, boundary), or another sampler")


def check_whole(name: str, **numbers: Any) -> None:
    """Raise InputError for what are no whole numbers, by their names."""
    for what, number in numbers.items():
        try:
            index(number)
        except TypeError:
            raise InputError(f"{what} of {name} is {number!r}: give a whole number") from None
