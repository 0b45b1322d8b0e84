"""Flags of the command line from the options of dataclasses, and their values back as settings."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Iterable
from dataclasses import Field
from typing import Any, NoReturn

from cpikan.errors import InputError
from cpikan.option import Option, options_of


class Parser(argparse.ArgumentParser):
    """Errors are raised, so that every message leaves by the same door."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: "):
            given = message.split(": ", 1)[1].split()[0]
            near = difflib.get_close_matches(given, list(self._option_string_actions), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            message = f"unknown argument {given!r}{hint}"
        raise InputError(f"{message} (see {self.prog} --help)")


def add_flags(parser: argparse.ArgumentParser, kinds: Iterable[type[Any]]) -> None:
    """Add a flag for every option of the dataclasses; what is not given stays out of `settings_of`."""
    groups: dict[str, Any] = {}
    known: set[str] = set()
    for kind in kinds:
        for name, (entry, option) in options_of(kind).items():
            flag = flag_of(name, option)
            if flag in known:
                continue
            known.add(flag)
            if option.group and option.group not in groups:
                groups[option.group] = parser.add_mutually_exclusive_group()
            (groups[option.group] if option.group else parser).add_argument(flag, **_argument(entry, option))


def settings_of(given: argparse.Namespace, kinds: Iterable[type[Any]]) -> dict[str, Any]:
    """Collect the options that were given, by the names of their fields."""
    found = {}
    for kind in kinds:
        for name, (_, option) in options_of(kind).items():
            value = getattr(given, flag_of(name, option))
            if value is not None:
                found[name] = value
    return found


def flag_of(name: str, option: Option) -> str:
    """Give the command-line flag of the field ``name``."""
    return option.flag or f"--{name.replace('_', '-')}"


def _argument(entry: Field[Any], option: Option) -> dict[str, Any]:
    """Build the arguments of argparse for an option; its destination is the flag, for several fields may share one."""
    told = {"dest": flag_of(entry.name, option), "help": _help(entry, option), "default": None}
    if isinstance(entry.default, bool):
        return {**told, "action": "store_const", "const": not entry.default}
    if option.many:
        return {**told, "nargs": "+", "action": "extend", "metavar": option.metavar}
    reader = _READERS.get(str(entry.type).split(" ")[0].split("[")[0], str)
    metavar = option.metavar or entry.name.upper()
    return {**told, "type": reader, "metavar": metavar}


def _help(entry: Field[Any], option: Option) -> str:
    if "default:" in option.help or not isinstance(entry.default, str | int | float) or isinstance(entry.default, bool):
        return option.help.replace("%", "%%")
    return f"{option.help} (default: {entry.default})".replace("%", "%%")


def whole(text: str) -> int:
    """Parse a whole number; raises argparse.ArgumentTypeError for any other text."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def number(text: str) -> float:
    """Parse a number; raises argparse.ArgumentTypeError for any other text."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def names(text: str) -> list[str]:
    """Split names with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


_READERS: dict[str, Callable[[str], Any]] = {"int": whole, "float": number, "tuple": names}
