"""Part: settings of a solve that are changed together, written NAME=VALUE, several joined by +."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from cpikan.errors import InputError, unknown_name
from cpikan.pipeline.jobs.verbs.solve import SolveOptions

_NOT_PARTS = frozenset(  # what the ablation sets itself, and what does not change a solution
    ("seed", "seeds", "seconds", "steps", "clock", "checkpoint", "resume", "history", "plot", "baseline")
)
_READERS: dict[type, Any] = {bool: lambda text: {"true": True, "false": False}[text], int: int, float: float, str: str}


@dataclass(frozen=True)
class Part:
    """Settings of the verb solve by name, in the order of their names."""

    settings: tuple[tuple[str, Any], ...]

    @property
    def name(self) -> str:
        """Write the part as it is given: NAME=VALUE+NAME=VALUE."""
        return "+".join(f"{name}={_written(value)}" for name, value in self.settings)

    @property
    def single(self) -> tuple[Part, ...]:
        """Split it into parts of one setting each."""
        return tuple(Part((one,)) for one in self.settings)

    def over(self, below: Part) -> Part:
        """Join two parts; where both have a setting, that of this one stands."""
        return Part(tuple(sorted({**dict(below.settings), **dict(self.settings)}.items())))


def part_names() -> tuple[str, ...]:
    """List the settings of a solve that can be parts."""
    return tuple(name for name in typing.get_type_hints(SolveOptions) if name not in _NOT_PARTS)


def part_of(text: str) -> Part:
    """Read a part; raises InputError for another form, an unknown name and a value of another type."""
    found: dict[str, Any] = {}
    for one in text.split("+"):
        name, sign, value = one.partition("=")
        name = name.strip().replace("-", "_")
        if not sign or not value.strip():
            raise InputError(f"part {text!r}: give NAME=VALUE, as sampler=rad, or several joined by +")
        if name not in part_names():
            raise unknown_name("part", name, part_names())
        if name in found:
            raise InputError(f"part {text!r} sets {name} twice: give it once")
        found[name] = _read(name, value.strip())
    return Part(tuple(sorted(found.items())))


def with_pairs(parts: Sequence[Part]) -> list[Part]:
    """Add to the parts every two of them that set different names."""
    pairs = [a.over(b) for a, b in combinations(parts, 2) if not dict(a.settings).keys() & dict(b.settings).keys()]
    return unique([*parts, *pairs])


def unique(parts: Iterable[Part]) -> list[Part]:
    """Leave out parts that are there already."""
    return list(dict.fromkeys(parts))


def _read(name: str, text: str) -> Any:
    """Read a value as the type of the setting; raises InputError for another."""
    hint = typing.get_type_hints(SolveOptions)[name]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(one for one in typing.get_args(hint) if one is not type(None))
    try:
        return _READERS[hint](text)
    except (KeyError, ValueError) as failure:
        kind = {bool: "true or false", int: "a whole number", float: "a number"}.get(hint, "another setting")
        raise InputError(f"part {name}={text}: give {kind}") from failure


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
