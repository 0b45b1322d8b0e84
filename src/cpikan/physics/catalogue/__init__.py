"""Problems by name, each with a reference that is independent of this package."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from cpikan.errors import check_type, unknown_name
from cpikan.physics.problem import Problem

_FAMILIES = (
    "helmholtz",
    "poisson",
    "poisson_regions",
    "diffusion",
    "waves",
    "elasticity",
    "reaction",
    "burgers",
    "kovasznay",
    "acoustic",
    "inverse",
)


def problems() -> tuple[str, ...]:
    """List the names of all problems."""
    return tuple(_makers())


def problem(name: str) -> Problem:
    """Make a problem by name; raises InputError for an unknown name, suggesting the nearest."""
    check_type("problem", name, str, "a name; cpikan.problems() lists them")
    makers = _makers()
    if name not in makers:
        raise unknown_name("problem", name, makers)
    return makers[name]()


def describe_problems() -> list[dict[str, Any]]:
    """List name, dimension, reference and summary of every problem."""
    rows = []
    for name in problems():
        one = problem(name)
        rows.append({"name": name, "dimension": one.dimension, "reference": one.reference, "summary": one.summary})
    return rows


def _makers() -> dict[str, Callable[[], Problem]]:
    makers: dict[str, Callable[[], Problem]] = {}
    for family in _FAMILIES:
        makers.update(importlib.import_module(f"cpikan.physics.catalogue.{family}").PROBLEMS)
    return makers
