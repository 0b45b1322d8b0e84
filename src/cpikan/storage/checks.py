"""Checksums of what was written, so that a run that goes on notices bytes that have changed since."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import xxhash

PARTIAL = ".partial"  # ends the names of unfinished outputs
_PIECE = 2**24


class Check(NamedTuple):
    """Bytes [offset, offset + size) of a file and their XXH3-64 in hexadecimal digits; size -1 is the whole file."""

    path: str
    offset: int
    size: int
    xxh3: str

    @classmethod
    def of_array(cls, path: Path, offset: int, array: np.ndarray) -> Check:
        """Check the bytes of a C-contiguous array that was written at an offset."""
        data = memoryview(array.data).cast("B")
        return cls(str(path), offset, len(data), xxhash.xxh3_64_hexdigest(data))

    @classmethod
    def of_file(cls, path: Path) -> Check:
        """Check a whole file as it is on disk."""
        return cls(str(path), 0, -1, _digest(path, 0, -1))

    def within(self, folder: Path) -> Check:
        """Name the file relative to ``folder``, so that the check holds wherever that is moved."""
        return self._replace(path=os.path.relpath(self.path, folder))

    def holds(self, folder: Path) -> bool:
        """Tell whether the bytes are still those, under the name of the unfinished file or its final one.

        A file that is gone counts as unchanged, for whoever opens it says so; not so a part of a folder.
        """
        path = folder / self.path
        if not path.exists() and path.suffix == PARTIAL:
            path = path.with_suffix("")
        if not path.exists():
            return not (folder / Path(self.path).parts[0]).is_dir()
        try:
            return _digest(path, self.offset, self.size) == self.xxh3
        except OSError:
            return False


@runtime_checkable
class HasChecks(Protocol):
    """A writer that says what it has written; one that does not is trusted."""

    def take_checks(self) -> list[Check]:
        """Return the checks of everything written since this was called last."""
        ...


def checks_of(writer: object, folder: Path) -> list[Check]:
    """Take the checks of a writer, with names relative to ``folder``; none of one that has none."""
    return [check.within(folder) for check in writer.take_checks()] if isinstance(writer, HasChecks) else []


def hold(checks: Iterable[Iterable[object]], folder: Path) -> bool:
    """Tell whether all checks, as JSON gives them, hold in ``folder``."""
    return all(Check(*check).holds(folder) for check in checks)  # type: ignore[arg-type]


def _digest(path: Path, offset: int, size: int) -> str:
    state, left = xxhash.xxh3_64(), size
    with open(path, "rb", buffering=0) as file:
        file.seek(offset)
        while left:
            piece = file.read(_PIECE if left < 0 else min(left, _PIECE))
            if not piece:
                break
            state.update(piece)
            left -= len(piece) if left > 0 else 0
    return state.hexdigest()
