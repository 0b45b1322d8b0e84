"""Tables of a TOML file turned into frozen dataclasses: unknown keys and wrong types are named with their place."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, Union

from cpikan.errors import InputError, check_name

Made = TypeVar("Made")


def from_table(kind: type[Made], table: object, where: str) -> Made:
    """Make a dataclass of the keys in ``table``; tables inside become dataclasses where the field is one.

    Raises InputError with ``where`` for unknown keys (nearest name), wrong types, and what the dataclass itself refuses.
    """
    if not isinstance(table, Mapping):
        raise InputError(f"{where} is {table!r}: give a table of keys and values")
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    values = {}
    for key, value in table.items():
        check_name(f"key of {where}", str(key), names)
        inside = f"[{key}]" if where == "the config" else f"{where} {key}"
        values[key] = _value(hints[key], value, inside)
    return kind(**values)


def _value(hint: Any, value: object, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_table(typing.cast("type[Any]", hint), value, where)
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        inner = [part for part in typing.get_args(hint) if part is not type(None)]
        return None if value is None else _value(inner[0], value, where)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_value(typing.get_args(hint)[0], item, where) for item in value)
    if origin is dict and isinstance(value, Mapping):
        return dict(value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint in (bool, str) and isinstance(value, hint):
        return value
    raise InputError(f"{where} = {value!r}: give {_named(hint, origin)}")


def _named(hint: Any, origin: Any) -> str:
    names = {float: "a finite number", int: "a whole number", bool: "true or false", str: "text"}
    if origin is tuple:
        return f"a list, each item {_named(typing.get_args(hint)[0], None)}"
    return "a table" if origin is dict else names.get(hint, str(hint))
