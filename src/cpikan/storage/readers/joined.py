"""Frames of several files or folders, one after the other."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.readers.base import BaseReader, FrameLayout


class JoinedReader(BaseReader):
    """The frames of ``readers`` in their order; ``names`` tell them apart in labels. Closing it closes them.

    ``groups`` is the number of wavelengths where the readers are those. Raises InputError, naming the odd one, where
    sizes, pixel types or numbers of frames differ.
    """

    def __init__(self, readers: Sequence[BaseReader], names: Sequence[str], groups: int | None = None) -> None:
        self._readers, self._names = tuple(readers), tuple(names)
        first = readers[0]
        kinds = Counter(_kind(reader) for reader in readers)
        usual, count = kinds.most_common(1)[0]
        for reader, name in zip(readers, names, strict=True):
            if _kind(reader) != usual:
                raise InputError(
                    f"{name} holds {_kind(reader)} but {count} of {len(readers)} of its kind hold {usual}: the frames of a "
                    "stack have one size and type, and each wavelength as many; give each stack a folder of its own"
                )
        labels = [label for reader in readers for label in reader.labels]
        if len(set(labels)) != len(labels):
            labels = [f"{n}/{label}" for r, n in zip(readers, names, strict=True) for label in r.labels]
        shape = (len(labels), *first.shape[1:])
        super().__init__(FrameLayout(shape, first.dtype, tuple(labels), groups, first.stored_dtype))
        self.bits, self.told = first.bits, first.told
        self.remarks = _once([remark for reader in readers for remark in reader.remarks])
        self.orientation = first.orientation

    def read_rows(self, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        """Read rows [start, stop) of every frame, each part into its place."""
        frames, height, width = self.shape
        if not 0 <= start <= stop <= height:
            raise IndexError(f"rows {start} to {stop} of frames with {height} rows")
        if out is None:
            out = np.empty((frames, stop - start, width), self.dtype)
        at = 0
        for reader in self._readers:
            count = reader.shape[0]
            part = out[at : at + count]
            if part.flags.c_contiguous:
                reader.read_rows(start, stop, part)
            else:
                part[...] = reader.read_rows(start, stop)
            at += count
        return out

    def _rows(self, start: int, stop: int) -> np.ndarray:
        return self.read_rows(start, stop)

    def files(self) -> list[Path]:
        return [path for reader in self._readers for path in reader.files()]

    def origin(self) -> tuple[Any, ...]:
        return (self._readers, self._names, self.groups)

    def fingerprint(self) -> str:
        return hashlib.sha256(" ".join(reader.fingerprint() for reader in self._readers).encode()).hexdigest()

    def close(self) -> None:
        for reader in self._readers:
            reader.close()


def joined(parts: Sequence[tuple[str, Any]], groups: int | None = None) -> BaseReader:
    """Open parts, (name, function that opens its reader), and join them; what was opened is closed where one fails."""
    with ExitStack() as opened:
        readers = []
        for _, open_it in parts:
            readers.append(open_it())
            opened.callback(readers[-1].close)
        reader = JoinedReader(readers, [name for name, _ in parts], groups)
        opened.pop_all()
    return reader


def _once(remarks: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Keep the first remark of each name, and say how many files more it is about."""
    counts = Counter(name for name, _ in remarks)
    first = dict(reversed(remarks))
    return tuple(
        (name, f"{text} (and {count - 1} more)" if count > 1 else text)
        for name, count in counts.items()
        for text in (first[name],)
    )


def _kind(reader: BaseReader) -> str:
    frames, height, width = reader.shape
    return f"{frames} frame{'s' if frames > 1 else ''} of {height} x {width} {reader.dtype}"
