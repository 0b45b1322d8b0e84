"""Text that is read back, JSON and TOML: bounded in depth and in the size of its numbers, whoever wrote it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from typing import Any

_DEEPEST = 64  # levels; ours have eight, those of OME-Zarr ten
_LARGEST = 2**256  # random states have integers of 128 bits
_BAD_UTF8 = "it is no UTF-8 text"


def parse_json(data: str | bytes) -> Any:
    """Read one JSON value; ValueError, of one line, for what is none, is nested too deeply or holds too large integers."""
    return _checked(lambda: json.loads(_text(data)))


def parse_toml(data: str | bytes) -> dict[str, Any]:
    """Read a TOML document, with or without a byte order mark; ValueError as `parse_json`."""
    table: dict[str, Any] = _checked(lambda: tomllib.loads(_text(data)))
    return table


def _text(data: str | bytes) -> str:
    if isinstance(data, str):
        return data
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        raise ValueError(_BAD_UTF8) from failure


def _checked(parse: Callable[[], Any]) -> Any:
    """Parse and walk over the result, so that no later step meets depths or numbers that it cannot take."""
    try:
        value = parse()
    except RecursionError:
        raise ValueError(f"it is nested more than {_DEEPEST} levels deep") from None
    except (json.JSONDecodeError, tomllib.TOMLDecodeError):
        raise
    except ValueError as failure:  # Python's limit on digits; its advice is for programmers
        if str(failure) == _BAD_UTF8:
            raise
        raise ValueError("it holds an integer of thousands of digits") from None
    level: list[Any] = [value]
    for _ in range(_DEEPEST + 1):
        if any(isinstance(item, int) and abs(item) > _LARGEST for item in level):
            raise ValueError("it holds an integer of more than 256 bits")
        level = [inner for item in level for inner in _items(item)]
        if not level:
            return value
    raise ValueError(f"it is nested more than {_DEEPEST} levels deep")


def _items(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
