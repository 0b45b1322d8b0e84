"""Files that are whole or absent, and known to be what was written: text, JSON, checksums; full disks, odd paths."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import xxhash

from cpikan.errors import InputError
from cpikan.storage.documents import parse_json

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


_SPECIAL = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def refuse_special(path: Path | str) -> None:
    """Raise InputError where a path is a pipe, a socket or a device, which may never end and cannot be read twice.

    What does not exist, or may not be looked at, is left to those who open it.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    for is_kind, name in _SPECIAL:
        if is_kind(mode):
            raise InputError(f"{path} is {name}: give a file, which can be read in any order and more than once")


def refuse_link(path: Path | str) -> None:
    """Raise InputError where something that is to be written is a symbolic link: it would change a file elsewhere."""
    if os.path.islink(path):
        raise InputError(f"{path} is a symbolic link, and is not written through: remove the link")


def open_unlinked(path: Path | str, flags: int) -> int:
    """Open a file to write, made where it is missing; InputError for a symbolic link and for what is no file."""
    refuse_link(path)
    try:
        descriptor = os.open(
            path, flags | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666
        )
    except OSError:
        refuse_link(path)  # it was made in between
        refuse_special(path)
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        refuse_special(path)
        raise InputError(f"{path} is no plain file: remove it")
    return descriptor


_MIB = 2**20
# EFBIG: the limit on one file's size (ulimit -f, or the file system's own) is the same news to the user
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class StorageFull(InputError):
    """The disk, the quota or the file size limit ran out; what was written so far stays for a resume."""


def sync_path(path: Path) -> None:
    """Make the bytes and the size of a file, or the names inside a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(root: Path) -> None:
    """Make every file and folder under ``root`` survive a power cut, files before the folders that name them."""
    for folder, _, files in os.walk(root, topdown=False):
        for name in files:
            sync_path(Path(folder, name))
        sync_path(Path(folder))


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write bytes so that ``path`` holds the old content or the new one, never a part, even after a power cut.

    Raises StorageFull when the disk is full; the old content stays.
    """
    path = Path(path)
    # a fixed name: a leftover of a killed run is overwritten by the next write instead of piling up
    temporary = path.with_name(path.name + ".tmp")
    with full_disk_named(path, len(data)):
        try:
            with open(open_unlinked(temporary, os.O_WRONLY | os.O_TRUNC), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        os.replace(temporary, path)
        sync_path(path.parent)


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text as `write_bytes` does; what no encoding has, such as bytes of a file's name, as an escape."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path | str, document: Mapping[str, Any]) -> None:
    """Write a JSON object atomically; NumPy values become plain ones, NaN and infinities become null."""
    write_text(path, json.dumps(plain(document), indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, or return an empty one where the file is missing or broken."""
    refuse_special(path)
    try:
        record = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def plain(value: Any) -> Any:
    """Turn NumPy scalars and arrays, tuples, paths and non-finite numbers into what strict JSON can hold."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value


def check_disk_space(path: Path | str, needed_bytes: int) -> None:
    """Raise InputError, with both numbers, when the disk of ``path`` has less than ``needed_bytes`` free."""
    free = free_bytes(Path(path))
    if free < needed_bytes:
        raise InputError(
            f"not enough disk space for {path}: {_mib(needed_bytes)} MiB needed, {free // _MIB} MiB free; "
            f"free {_mib(needed_bytes - free)} MiB or write to another disk"
        )


def free_bytes(path: Path) -> int:
    """Count the bytes an ordinary user may still write on the disk of ``path``, which need not exist yet."""
    folder = path.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


@contextmanager
def full_disk_named(path: Path, needed_bytes: int) -> Iterator[None]:
    """Turn the errors of a full disk into StorageFull; ``needed_bytes`` is about what is still to be written."""
    try:
        yield
    except OSError as failure:
        if failure.errno not in _FULL:
            raise
        lacking = needed_bytes - free_bytes(path)
        amount = _mib(lacking if lacking > 0 else needed_bytes)
        raise StorageFull(f"disk full while writing {path}: free {amount} MiB and run again with --resume") from failure


def _mib(size: int) -> int:
    return max(1, -(-size // _MIB))
