"""Options: fields of settings with what the command line says about them, written once where the field is."""

from __future__ import annotations

from dataclasses import Field, field, fields
from typing import Any, NamedTuple

_KEY = "option"
FORM_HELP = (
    "piston, tilt, power (sphere), astigmatism, coma, trefoil, spherical, zernike:N (fringe 1 to N), noll:N, ansi:N, "
    "order:N; or a part of a set, such as noll:5-8 or noll:11-11; several with commas"
)


class Option(NamedTuple):
    """What is known of a field beside its type and default.

    ``help`` is one phrase; ``flag`` the flag where it is not the field's name; fields with the same flag are set together;
    options of one ``group`` exclude each other; ``speed_only``: the option changes how fast a result comes, not what it is;
    ``many``: several values, and the flag several times.
    """

    help: str
    flag: str = ""
    metavar: str | None = None
    group: str = ""
    speed_only: bool = False
    many: bool = False


def option(default: Any, help: str, **more: Any) -> Any:
    """Make a field of a dataclass that the command line offers as a flag; ``more`` are fields of `Option`."""
    return field(default=default, metadata={_KEY: Option(help, **more)})


def options_of(kind: type[Any]) -> dict[str, tuple[Field[Any], Option]]:
    """Collect the fields of a dataclass that are options, by name."""
    return {entry.name: (entry, entry.metadata[_KEY]) for entry in fields(kind) if _KEY in entry.metadata}
