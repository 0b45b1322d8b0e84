"""Problems by name, many of them with parameters, each with a reference that is independent of this package."""

from __future__ import annotations

import importlib
import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from cpikan.errors import NUMBER, InputError, check_type, unknown_name
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


def problem(name: str, **parameters: float) -> Problem:
    """Make a problem by name, with other values of its `parameters_of`; they may stand in the name.

    ``problem("burgers", nu=0.1, end=2)`` is ``problem("burgers:nu=0.1,end=2")``, which is also the name that it has, so
    that a saved solution says what it solves. Raises InputError for an unknown name, suggesting the nearest, and for
    parameters that the problem does not have, or that are no numbers.
    """
    check_type("problem", name, str, "a name; cpikan.problems() lists them")
    family, _, written = name.partition(":")
    makers, known = _makers(), parameters_of(family)
    asked = {**_written(written, name), **parameters}
    for key, value in asked.items():
        if key not in known:
            raise _no_parameter(family, key, known)
        check_type(f"{key} of {family}", value, NUMBER, "a number")
        if not math.isfinite(value):
            raise InputError(f"{key}={value} of {family}: give a finite number")
    other = {key: float(asked[key]) for key in known if key in asked and asked[key] != known[key]}
    if not other:
        return makers[family]()
    called = ",".join(f"{key}={value!r}" for key, value in other.items())
    return replace(makers[family](**other), name=f"{family}:{called}")


def parameters_of(name: str) -> dict[str, float]:
    """List the parameters of a problem with their usual values; raises InputError for an unknown name."""
    makers = _makers()
    if name not in makers:
        raise unknown_name("problem", name, makers)
    found = inspect.signature(makers[name]).parameters.values()
    return {one.name: float(one.default) for one in found if one.kind is one.KEYWORD_ONLY}


def number(text: str) -> float:
    """Read a number that may be a multiple of pi, as 0.5, 2pi or pi; raises InputError for other text."""
    found = re.fullmatch(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|[-+]?)(\*?pi)?", text.strip())
    if found is None or not (found[1].strip("+-") or found[2]):
        raise InputError(f"{text!r} is no number: give one, as 0.5, 2pi or pi")
    size = float(found[1] if found[1].strip("+-") else found[1] + "1")
    return size * math.pi if found[2] else size


def _written(text: str, name: str) -> dict[str, float]:
    """Read k=2pi,upper=1.5."""
    found = {}
    for part in text.split(",") if text else []:
        key, equal, value = part.partition("=")
        if not equal:
            raise InputError(f"problem {name!r}: give parameters behind the colon, as burgers:nu=0.1,end=2")
        found[key.strip()] = number(value)
    return found


def _no_parameter(name: str, key: str, known: Mapping[str, float]) -> InputError:
    if known:
        return unknown_name(f"parameter of {name}", key, known)
    return InputError(f"{name} has no parameter {key!r}, and no other: give the name alone")


def describe_problems() -> list[dict[str, Any]]:
    """List name, dimension, reference, summary and parameters of every problem."""
    rows = []
    for name in problems():
        one = problem(name)
        rows.append({"name": name, "dimension": one.dimension, "reference": one.reference, "summary": one.summary})
        rows[-1]["parameters"] = parameters_of(name)
    return rows


def _makers() -> dict[str, Callable[..., Problem]]:
    makers: dict[str, Callable[..., Problem]] = {}
    for family in _FAMILIES:
        makers.update(importlib.import_module(f"cpikan.physics.catalogue.{family}").PROBLEMS)
    return makers
