"""How far a stack is: written by the process that measures it into a small file beside its map, read by who is asked."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from cpikan.storage.documents import parse_json

_EVERY_S = 0.25
_MOST_BYTES = 1000
# what stages usually take beside each other; stages of other names count for nothing
_WEIGHTS = {
    "demodulate": 4.0,
    "unwrap": 4.0,
    "doubt": 1.0,
    "refine": 4.0,
    "learn": 20.0,
    "widen": 1.0,
    "form": 1.0,
    "write": 2.0,
    "pyramid": 3.0,
    "evaluate": 2.0,
    "wafer": 2.0,
}
# what is told under another name: of which stage, and which part of it
_PARTS = {"survey": ("demodulate", 0.0, 0.5), "demodulate, guided": ("demodulate", 0.5, 1.0)}


class StackProgress(NamedTuple):
    """The stage that is being done, and the share of the stack that is: 0 to 1, None where that is not known."""

    stage: str = ""
    share: float | None = None


class ProgressFile:
    """Hears what the ``stages`` of a stack tell, and keeps it in a file; a share never falls."""

    def __init__(self, path: Path, stages: Iterable[str]) -> None:
        self._path, self._stages = path, [name for name in stages if name in _WEIGHTS]
        self._all = sum(_WEIGHTS[name] for name in self._stages) or 1.0
        self._share, self._stage, self._written_s = 0.0, "", 0.0

    def progress(self, stage: str, done: float, of: float) -> None:
        """Take in that ``done`` of ``of`` units of a stage are done; the file is written a few times a second."""
        part = min(1.0, done / of) if of > 0 else 1.0
        name, begin, end = _PARTS.get(stage, (stage, 0.0, 1.0))
        if name in self._stages:
            before = sum(_WEIGHTS[one] for one in self._stages[: self._stages.index(name)])
            share = (before + _WEIGHTS[name] * (begin + part * (end - begin))) / self._all
            self._share = max(self._share, share)
        if stage != self._stage or time.monotonic() - self._written_s >= _EVERY_S:
            self._stage, self._written_s = stage, time.monotonic()
            self._write()

    def close(self) -> None:
        """Remove the file: what became of the stack stands elsewhere."""
        self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        partial = self._path.with_name(f"{self._path.name}.tmp")
        with suppress(OSError):  # a full disk stops the run by itself, with its reason
            partial.write_text(json.dumps({"stage": self._stage, "share": round(self._share, 4)}))
            os.replace(partial, self._path)


def progress_path(output: Path) -> Path:
    """Name the file of a stack that goes into ``output``."""
    return output.with_name(f"{output.name}.progress")


def read_progress(path: Path) -> StackProgress:
    """Read how far a stack is; nothing where it has not begun, or its file is none."""
    try:
        with open(path, "rb") as file:
            found = parse_json(file.read(_MOST_BYTES))
        stage, share = found["stage"], found["share"]
    except (OSError, ValueError, KeyError, TypeError):
        return StackProgress()
    if (
        not isinstance(stage, str)
        or isinstance(share, bool)
        or not isinstance(share, int | float)
        or not 0 <= share <= 1
    ):
        return StackProgress()
    return StackProgress(stage, float(share))
