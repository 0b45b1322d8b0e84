"""Names of files that say which frame each holds: ``w{wavelength}_s{step}.png``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cpikan.errors import InputError
from cpikan.units import format_length, parse_length_nm

_FIELD = re.compile(r"\{([^{}]*)\}|\*")
_EXAMPLE = 'pattern = "w{wavelength}_s{step}.png"'
_FIELDS = ("wavelength", "step")
_SAME_NM = 0.51  # 633nm is what people call 632.8 nm


def natural_key(name: str) -> tuple[object, ...]:
    """Sort key under which ``Image5`` comes before ``Image10``, whatever the case; ties keep the plain order."""
    parts = re.split(r"(\d+)", name.casefold())
    return (*((int(part), "") if part.isdecimal() else (-1, part) for part in parts), (-2, name))


@dataclass(frozen=True)
class NamePattern:
    """The path of a file below the folder of the stack, with ``{wavelength}`` and ``{step}`` where it differs; ``*`` is any.

    Raises InputError for a pattern without a field, with another one, or with one twice.
    """

    text: str

    def __post_init__(self) -> None:
        names = [name for name in _FIELD.findall(self.text) if name]
        if not names or len(set(names)) != len(names) or not set(names) <= set(_FIELDS) or "{}" in self.text:
            raise InputError(
                f"pattern {self.text!r} needs {{wavelength}} or {{step}}, each once at most: write it as {_EXAMPLE}"
            )

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        parts, at = [], 0
        for found in _FIELD.finditer(self.text):
            parts.append(re.escape(self.text[at : found.start()]))
            parts.append(f"(?P<{found[1]}>[^/]+)" if found[1] else "[^/]*")
            at = found.end()
        return re.compile("".join(parts) + re.escape(self.text[at:]))

    def groups(self, folder: Path, wavelengths_nm: Sequence[float]) -> list[list[Path]]:
        """Find the files of a folder that the pattern means: a list per wavelength, its steps in natural order.

        Values that are lengths (``632.8nm``) follow the order of ``wavelengths_nm``, any others their own natural order.
        Raises InputError where no file fits, two mean the same frame, or a wavelength lacks a step.
        """
        places: dict[str, dict[str, Path]] = {}
        for path in sorted(folder.glob("/".join("*" for _ in self.text.split("/")))):
            match = self._regex.fullmatch(path.relative_to(folder).as_posix())
            if match is None or path.name.startswith(".") or not path.is_file():
                continue
            said = match.groupdict()
            steps = places.setdefault(said.get("wavelength", ""), {})
            twin = steps.setdefault(said.get("step", ""), path)
            if twin != path:
                raise InputError(
                    f"{twin} and {path} are the same frame by the pattern {self.text!r}: make it tell them apart"
                )
        if not places:
            raise InputError(f"{folder} holds no file of the pattern {self.text!r}: correct the one or the other")
        every = sorted({step for steps in places.values() for step in steps}, key=natural_key)
        for name, steps in places.items():
            lacking = [step for step in every if step not in steps]
            if lacking:
                raise InputError(
                    f"{folder} lacks {self._named(name, lacking[0])}, which other wavelengths have: every wavelength has the "
                    "same steps"
                )
        return [[places[name][step] for step in every] for name in in_order(list(places), wavelengths_nm)]

    def _named(self, wavelength: str, step: str) -> str:
        return self.text.replace("{wavelength}", wavelength).replace("{step}", step)


def parse_pattern(value: object) -> NamePattern:
    """Read a pattern; InputError for what is no text."""
    if not isinstance(value, str):
        raise InputError(f"pattern {value!r} is no text: write it as {_EXAMPLE}")
    return NamePattern(value)


def in_order(names: Sequence[str], wavelengths_nm: Sequence[float]) -> list[str]:
    """Put names of wavelengths into order: that of the acquisition where all are lengths with a unit, else their natural one.

    Raises InputError where they are lengths that the acquisition does not name.
    """
    lengths = {name: _length_nm(name) for name in names}
    if not all(lengths.values()) or not wavelengths_nm:
        return sorted(names, key=natural_key)
    found = []
    for wavelength in wavelengths_nm:
        near = min(names, key=lambda name: abs((lengths[name] or 0) - wavelength))
        if abs((lengths[near] or 0) - wavelength) > _SAME_NM or near in found:
            break
        found.append(near)
    if len(found) != len(names) or len(found) != len(wavelengths_nm):
        raise InputError(
            f"the names of the frames say {', '.join(sorted(names, key=natural_key))} but the acquisition "
            f"{', '.join(format_length(value) for value in wavelengths_nm)}: correct the one or the other"
        )
    return found


def _length_nm(name: str) -> float | None:
    try:
        return parse_length_nm(name.replace("_", " ").strip())
    except InputError:
        return None
