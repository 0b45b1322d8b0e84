"""What a run has finished so far, in a file that survives a kill: one checked line per step.

Lines are appended after the data they speak of was handed to the operating system, so a killed process loses nothing that
is in the journal. A power cut may: lines count across a reboot only up to the last one that says ``synced``, which is
written after the data was flushed.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

from cpikan.errors import Busy, ResumeError
from cpikan.storage.atomic import full_disk_named, hold, open_unlinked
from cpikan.storage.documents import parse_json


class Journal:
    """The journal at ``path`` of a run described by ``plan``; open it with `start` or `resume`, one process at a time.

    ``steps`` are the entries so far, oldest first.
    """

    def __init__(self, path: Path, descriptor: int, plan: dict[str, Any], steps: list[dict[str, Any]]) -> None:
        self.path, self.plan, self.steps = path, plan, steps
        self._descriptor = descriptor

    @classmethod
    def start(cls, path: Path, plan: dict[str, Any]) -> Journal:
        """Begin anew; whatever journal was there is forgotten. Raises InputError while another process holds it."""
        descriptor = open_locked(path)
        os.ftruncate(descriptor, 0)
        journal = cls(path, descriptor, plan, [])
        journal._append({"plan": plan, "boot": _boot()})
        os.fsync(descriptor)
        return journal

    @classmethod
    def resume(cls, path: Path, plan: dict[str, Any]) -> Journal:
        """Continue the run of the same plan; ResumeError names what differs. A torn last line is dropped."""
        descriptor = open_locked(path)
        entries, length = _read(path)
        if not entries:
            os.ftruncate(descriptor, 0)
            os.close(descriptor)
            return cls.start(path, plan)
        head, steps = entries[0], entries[1:]
        try:
            check_same_plan(head["plan"], plan)
        except BaseException:
            os.close(descriptor)
            raise
        if head["boot"] == _boot():
            os.ftruncate(descriptor, length)
            return cls(path, descriptor, plan, steps)
        last = max((i for i, step in enumerate(steps) if step.get("synced")), default=-1)
        journal = cls(path, descriptor, plan, steps)
        journal._rewind(last + 1)  # what the power cut took back must not count at a later resume
        return journal

    def drop_damaged(self) -> int:
        """Forget the first step whose data on disk have changed, and all after it; tells how many steps these are.

        A step may carry ``checks`` of what it wrote (`cpikan.storage.atomic`), relative to the folder of the journal.
        """
        folder = self.path.parent
        good = next((i for i, step in enumerate(self.steps) if not hold(step.get("checks", ()), folder)), None)
        if good is None:
            return 0
        dropped = len(self.steps) - good
        self._rewind(good)
        return dropped

    def add(self, step: dict[str, Any], *, synced: bool = False) -> None:
        """Append a step; ``synced`` says that all data up to it was flushed, and flushes the journal too."""
        entry = {**step, "synced": True} if synced else step
        self._append(entry)
        if synced:
            os.fsync(self._descriptor)
        self.steps.append(entry)

    def last(self, stage: str) -> dict[str, Any] | None:
        """Find the newest step of a stage, None where it has none."""
        return next((step for step in reversed(self.steps) if step.get("stage") == stage), None)

    @property
    def closed(self) -> bool:
        return self._descriptor < 0

    def close(self) -> None:
        """Release the file, keeping it for a resume."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def release(self) -> None:
        """Release the file: kept for a resume where there are steps, else removed."""
        if self.steps:
            self.close()
        else:
            self.remove()

    def remove(self) -> None:
        """Remove the file: the run is over."""
        self.path.unlink(missing_ok=True)
        self.close()

    def _rewind(self, count: int) -> None:
        """Keep the first ``count`` steps; the file is written anew."""
        self.steps = self.steps[:count]
        os.ftruncate(self._descriptor, 0)
        for entry in ({"plan": self.plan, "boot": _boot()}, *self.steps):
            self._append(entry)
        os.fsync(self._descriptor)

    def _append(self, entry: dict[str, Any]) -> None:
        body = json.dumps(entry, separators=(",", ":")).encode()
        line = memoryview(b"%08x %s\n" % (zlib.crc32(body), body))
        with full_disk_named(self.path, len(line)):
            while line:  # a write may be short; a line that stays torn is dropped by the next resume
                line = line[os.write(self._descriptor, line) :]


class JournalReader:
    """Follows the journal at ``path`` that another process writes; it takes no lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def read_new(self) -> list[dict[str, Any]]:
        """Read the whole lines that came since the last call: the plan first, then steps; all anew after a rewind.

        Raises FileNotFoundError where the journal is gone.
        """
        size = self.path.stat().st_size
        if size < self._offset:
            self._offset = 0
        if size == self._offset:
            return []
        with open(self.path, "rb") as file:
            file.seek(self._offset)
            lines = file.read().splitlines(keepends=True)
        entries: list[dict[str, Any]] = []
        for line in lines:
            entry = _entry(line)
            if entry is None:
                break
            entries.append(entry)
            self._offset += len(line)
        return entries


def check_same_plan(found: dict[str, Any], asked: dict[str, Any], otherwise: str = "run without --resume") -> None:
    """Raise ResumeError naming the first setting that differs between the run on disk and the one asked for."""
    before, now = _flat(found), _flat(json.loads(json.dumps(asked)))  # as it reads back: tuples are lists
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise ResumeError(
                f"cannot resume: {key} was {_short(before.get(key))}, now {_short(now.get(key))}; use the same settings, "
                f"or {otherwise}"
            )


def _flat(plan: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to names such as ``settings.tile``, so that a message can name the one that differs."""
    flat: dict[str, Any] = {}
    for key, value in plan.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def open_locked(path: Path) -> int:
    """Open a file, made where it is missing, for this process alone until its descriptor is closed, or the process ends.

    Raises InputError while another process has it, and where the path is a link or no plain file.
    """
    while True:
        descriptor = open_unlinked(path, os.O_RDWR | os.O_APPEND)
        try:
            _lock(descriptor, path)
            # who had the lock may have removed the file since it was opened here: then the lock is on no name
            if _names(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:
        return  # no advisory locks on this system: a single process is trusted
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as failure:
        raise Busy(
            f"another run is writing here ({path.name} is locked): wait for it or choose another output"
        ) from failure


def _names(path: Path, descriptor: int) -> bool:
    """Tell whether a path still names the file that is open."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Read the entries up to the first damaged line, and count the bytes they take."""
    entries: list[dict[str, Any]] = []
    length = 0
    for line in path.read_bytes().splitlines(keepends=True):
        entry = _entry(line)
        if entry is None or (not entries and not (isinstance(entry.get("plan"), dict) and "boot" in entry)):
            break
        entries.append(entry)
        length += len(line)
    return entries, length


def _entry(line: bytes) -> dict[str, Any] | None:
    """Read one line; None where it is torn or damaged."""
    check, _, body = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or check != b"%08x" % zlib.crc32(body):
        return None
    try:
        entry = parse_json(body)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _boot() -> str:
    """Identify the running system since it was started; empty where it has no identity."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
