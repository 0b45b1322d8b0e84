"""The stacks of a batch: found in folders, by patterns of names, in lists and in tables, each with a name of its own."""

from __future__ import annotations

import csv
import glob
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from cpikan.errors import InputError, check_names
from cpikan.fleet.identity import IDENTITY, Pattern
from cpikan.storage.formats import IMAGE_SUFFIXES, format_of
from cpikan.storage.readers.name_pattern import natural_key
from cpikan.storage.readers.zarr import is_zarr

_MARKS = ("acquisition.toml", "frames.npy")  # a folder that holds one of these is a stack
_BESIDE = ("truth.npy", "mask.npy", "mask.png")
_DEEPEST = 8  # folders below the one that is given
_MOST_BYTES = 2**26  # of a list
_LISTS = (".csv", ".txt")
_COLUMNS = ("source", "name", *IDENTITY)
_UNSAFE = re.compile(r"[^\w.+=-]+")


@dataclass(frozen=True)
class Source:
    """A stack: its ``path``, the ``name`` of its map in the batch (folders with slashes), and who the wafer is.

    ``signature`` is that of its files where somebody watched them.
    """

    path: str
    name: str
    identity: Mapping[str, str] = field(default_factory=dict)
    signature: str = ""


def find_sources(
    given: Sequence[str], shared: Mapping[str, str], pattern: Pattern | None = None, *, rename: bool = False
) -> list[Source]:
    """Find the stacks that ``given`` mean: a stack, a folder of stacks, a pattern of names, a list (.txt, .csv).

    A folder is a stack where it holds an acquisition.toml, frames.npy or images; otherwise what lies in it is looked at. A
    list has a path a line; a table has a column ``source``, and may have name, lot, wafer, slot, tool. Paths in both start
    where the list lies. ``shared`` and ``pattern`` say who wafers are, where a table does not. Raises InputError where there
    is no stack, and where two get the same name.
    """
    found: dict[str, Source] = {}
    for text in given:
        stacks = list(_stacks_of(text))
        if not stacks:
            raise InputError(
                f"{text!r} holds no stack: give a stack, a folder of stacks, a pattern, or a list (.txt, .csv)"
            )
        for one in stacks:
            who = {**shared, **(pattern.read(one.path) if pattern else {}), **one.identity}
            name = one.name
            if rename and name in found and found[name].path != one.path:
                name = f"{name}-{sha256(one.path.encode(errors='surrogateescape')).hexdigest()[:8]}"
            other = found.setdefault(name, Source(one.path, name, who))
            if other.path != one.path:
                raise InputError(
                    f"{other.path} and {one.path} would both be called {one.name!r}: give a table (.csv) with a column name"
                )
    return list(found.values())


def _stacks_of(text: str) -> Iterator[Source]:
    path = Path(text.partition("::")[0])
    if not _is_there(path):
        names = sorted(glob.glob(text, recursive=True), key=natural_key) if glob.has_magic(text) else []
        if not names:
            raise InputError(
                f"{text!r} does not exist: give a stack, a folder of stacks, a pattern, or a list (.txt, .csv)"
            )
        base = Path(*_until_magic(Path(text).parts))
        for name in names:
            for found in _below(Path(name), 0) if Path(name).is_dir() else [Path(name)]:
                yield Source(str(found), _name(found, base))
    elif path.suffix.lower() in _LISTS and path.is_file():
        yield from _listed(path)
    elif path.is_dir():
        for found in _below(path, 0):
            yield Source(str(found), _name(found, path if found != path else path.parent))
    else:
        yield Source(text, _name(Path(text.replace("::", "/")), path.parent))


def _below(folder: Path, depth: int) -> Iterator[Path]:
    """Walk over the stacks in a folder, or give the folder where it is one."""
    if _is_stack(folder):
        yield folder
        return
    for entry in sorted(folder.iterdir(), key=lambda path: natural_key(path.name)):
        if entry.name.startswith(".") or entry.name in _BESIDE:
            continue
        if entry.is_dir() and not entry.is_symlink():  # a link could lead back up
            if depth < _DEEPEST:
                yield from _below(entry, depth + 1)
        elif _holds_frames(entry):
            yield entry


def _is_stack(folder: Path) -> bool:
    if is_zarr(folder) or any((folder / mark).is_file() for mark in _MARKS):
        return True
    return any(entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file() for entry in folder.iterdir())


def _holds_frames(path: Path) -> bool:
    known = format_of(path)
    made_by_us = path.with_suffix(".json").is_file()
    return path.is_file() and known is not None and known.frames is not None and not made_by_us


def _listed(path: Path) -> Iterator[Source]:
    """Read the lines of a list, or the rows of a table."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"list {path} is larger than {_MOST_BYTES >> 20} MiB: give a path a line")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as failure:
        raise InputError(f"list {path} is no UTF-8 text: give a path a line") from failure
    except OSError as failure:
        raise InputError(f"list {path} cannot be read: {failure.strerror}") from failure
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    rows = _table(path, lines) if path.suffix.lower() == ".csv" else ({"source": line} for line in lines)
    for row in rows:
        place = Path(row["source"])
        whole = row["source"] if place.is_absolute() else str(path.parent / place)
        who = {key: row[key] for key in IDENTITY if row.get(key)}
        yield Source(whole, row.get("name") or _name(Path(whole.replace("::", "/")), path.parent), who)


def _table(path: Path, lines: list[str]) -> Iterable[dict[str, str]]:
    reader = csv.DictReader(lines)
    heads = [head.strip().lower() for head in reader.fieldnames or ()]
    check_names(f"column of {path}", heads, _COLUMNS)
    if "source" not in heads:
        raise InputError(f"table {path} has no column 'source': give the path of each stack in one")
    for number, values in enumerate(csv.reader(lines[1:]), 2):
        row = dict(zip(heads, (value.strip() for value in values), strict=False))
        if not row.get("source"):
            raise InputError(f"row {number} of {path} has no source: give the path of its stack")
        if row.get("name"):
            row["name"] = safe_name(row["name"])
        yield row


def _name(path: Path, base: Path) -> str:
    """Name a stack after its place below ``base``, without a suffix; of a place elsewhere only the last part counts."""
    known = format_of(path)
    plain = path.with_suffix("") if known is not None or path.suffix.lower() in IMAGE_SUFFIXES else path
    try:
        inner = plain.relative_to(base)
    except ValueError:
        inner = Path(plain.name)
    return safe_name(inner.as_posix() if inner.parts else plain.resolve().name)


def safe_name(text: str) -> str:
    """Make a name that every file system takes; no part of it leads up. InputError where nothing is left."""
    parts = [_UNSAFE.sub("_", part).strip(".") for part in text.split("/")]
    name = "/".join(part for part in parts if part)
    if not name:
        raise InputError(f"{text!r} gives no name for a map: give a table (.csv) with a column name")
    return name


def _until_magic(parts: Sequence[str]) -> Iterator[str]:
    for part in parts[:-1]:
        if glob.has_magic(part):
            return
        yield part


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
