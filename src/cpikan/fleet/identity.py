"""Who a wafer is: lot, wafer, slot and tool, told by a recipe or read off the path of its stack."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath

from cpikan.errors import InputError, check_name

IDENTITY = ("lot", "wafer", "slot", "tool")
_FIELD = re.compile(r"\{(\w*)\}")


@dataclass(frozen=True)
class Pattern:
    """The last parts of a path with names in braces: ``{lot}/{wafer}_{slot}``; a suffix of the file does not count."""

    text: str
    regex: re.Pattern[str]

    @classmethod
    def parsed(cls, text: str) -> Pattern:
        """Read a pattern; InputError for a name that is none of lot, wafer, slot, tool, or stands there twice."""
        found = _FIELD.findall(text)
        for name in found:
            check_name(f"name in the pattern {text!r}", name, IDENTITY)
        if not found or len(set(found)) < len(found):
            raise InputError(
                f"pattern {text!r} has {'no name' if not found else 'a name twice'}: such as {{lot}}/{{wafer}}"
            )
        pieces = _FIELD.split(text)  # text and names in turn
        literal = [re.escape(piece) if n % 2 == 0 else rf"(?P<{piece}>[^/]+?)" for n, piece in enumerate(pieces)]
        return cls(text, re.compile(rf"(?:^|/){''.join(literal)}(?:\.\w+)*$"))

    def read(self, path: str) -> dict[str, str]:
        """Read the names off a path; empty where the path is of another form."""
        match = self.regex.search(PurePath(path.split("::")[0]).as_posix())
        return match.groupdict() if match else {}
