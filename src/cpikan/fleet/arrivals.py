"""Stacks that arrive in a folder: which are there, and which have arrived whole."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from cpikan.errors import InputError
from cpikan.fleet.identity import Pattern
from cpikan.fleet.sources import Source, find_sources


@dataclass
class _Seen:
    """The signature of a stack, since when it has been so, and whether it was given out so."""

    signature: str
    since_s: float
    given: bool = False


class Arrivals:
    """Looks at a folder again and again, and gives each stack once it is whole: and once more when its files changed.

    Whole is a stack whose files had the same names, sizes and times for ``settle_s`` seconds of a clock that nobody sets, or
    with a ``marker`` one in whose folder a file of that name lies (for a stack that is a file: NAME.marker, or the marker
    beside it). ``known`` are the signatures of stacks that need not be given, by name.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, str],
        pattern: Pattern | None,
        *,
        settle_s: float = 2.0,
        marker: str | None = None,
        known: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._identity, self._pattern = folder, identity, pattern
        self._settle_s, self._marker, self._clock = settle_s, marker, clock
        self._known = dict(known or {})
        self._seen: dict[str, _Seen] = {}

    def look(self) -> list[Source]:
        """Look once; give the stacks that are whole since the last time. InputError where the folder is gone."""
        if not self._folder.is_dir():
            raise InputError(f"{self._folder} is no folder: give the one that stacks arrive in")
        now, whole = self._clock(), []
        there = self._stacks()
        for source in there:
            signature = signature_of(Path(source.path))
            if signature is None:  # it went away meanwhile
                continue
            seen = self._seen.get(source.name)
            if seen is None or seen.signature != signature:
                seen = self._seen[source.name] = _Seen(signature, now, self._known.get(source.name) == signature)
            if not seen.given and self._is_whole(source, seen, now):
                seen.given = True
                whole.append(replace(source, signature=signature))
        for name in self._seen.keys() - {source.name for source in there}:
            del self._seen[name]  # the same name may come back with other frames
        return whole

    @property
    def waiting(self) -> int:
        """Count the stacks that are there and not whole yet."""
        return sum(not seen.given for seen in self._seen.values())

    def _stacks(self) -> list[Source]:
        try:
            return find_sources([str(self._folder)], self._identity, self._pattern, rename=True)
        except (InputError, OSError):  # nothing there, or something went away while it was looked at
            return []

    def _is_whole(self, source: Source, seen: _Seen, now: float) -> bool:
        if self._marker is None:
            return now - seen.since_s >= self._settle_s
        path = Path(source.path)
        places = [path / self._marker] if path.is_dir() else []
        return any(place.exists() for place in [*places, Path(f"{path}.{self._marker}"), path.parent / self._marker])


def signature_of(path: Path) -> str | None:
    """Hash names, sizes and times of all files of a stack; None where it is not there any more."""
    try:
        facts = sorted(_facts(path)) if path.is_dir() else [_fact(path, "")]
    except OSError:
        return None
    return sha256(repr(facts).encode()).hexdigest()


def _facts(folder: Path) -> Iterator[tuple[str, int, int]]:
    for place, _, names in os.walk(folder, onerror=_raise):
        for name in names:
            path = Path(place, name)
            yield _fact(path, str(path.relative_to(folder)))


def _fact(path: Path, name: str) -> tuple[str, int, int]:
    stat = path.stat()
    return name, stat.st_size, stat.st_mtime_ns


def _raise(failure: OSError) -> None:
    raise failure
