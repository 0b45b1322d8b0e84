"""One array inside a file of several, plain or compressed: mapped where it lies, or decompressed once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.headers import check_compressed_size, check_pixel_type, decoding
from cpikan.storage.readers.array import layout_of
from cpikan.storage.readers.axes import InOrder, check_axes, default_axes
from cpikan.storage.readers.base import BaseReader, FrameLayout, fingerprint_files
from cpikan.storage.scratch import Spill


@dataclass(frozen=True)
class StoredArray:
    """Where an array lies: ``shape`` in C order (slowest axis first), ``dtype`` as stored, ``value`` the type it stands for.

    ``offset`` is where it begins in the file, or None where ``pieces()`` gives its bytes; ``stored_bytes`` is what it takes
    there.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    value: np.dtype
    offset: int | None
    stored_bytes: int
    pieces: Callable[[], Iterable[bytes]] | None = None

    @property
    def label(self) -> str:
        return f"{self.path}::{self.name}"

    @property
    def bytes(self) -> int:
        """Count the bytes of the plain array; Python integers, for a damaged shape may be huge."""
        size = self.dtype.itemsize
        for length in self.shape:
            size *= int(length)
        return size

    def load(self) -> np.ndarray:
        """Map the array, or write its bytes into a file without a name and map that."""
        with decoding(self.label):
            if self.offset is not None:
                return np.memmap(self.path, self.dtype, "r", self.offset, self.shape).view(np.ndarray)
            assert self.pieces is not None
            out = Spill(Path(tempfile.gettempdir())).empty((self.bytes,), np.uint8)
            at = 0
            for piece in self.pieces():
                if at + len(piece) > out.size:
                    raise InputError(f"{self.label} holds more than the {out.size} bytes that it claims: it is damaged")
                out[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
                at += len(piece)
            if at != out.size:
                raise InputError(
                    f"{self.label} holds {at} of the {out.size} bytes that it claims: copy or write it again"
                )
            return out.view(np.ndarray).view(self.dtype).reshape(self.shape)


class StoredArrayReader(BaseReader):
    """Rows of an array of a file; the reader of a format says where it lies and how it is opened again (``origin``).

    ``axes`` are letters of its axes in C order, rows before columns. Raises InputError for other shapes and types, and
    for sizes that the stored bytes cannot hold.
    """

    def __init__(self, stored: StoredArray, axes: str | None = None, single: bool = False) -> None:
        self._stored = stored
        shape, label = stored.shape, stored.label
        check_compressed_size(label, stored.bytes, stored.stored_bytes)
        self._axes = check_axes(label, axes, shape) if axes else default_axes(label, shape, single)
        place = dict(zip(self._axes, shape, strict=True))
        ordered = tuple(place[letter] for letter in "wsyx" if letter in place)
        check_pixel_type(label, stored.dtype)
        single = single or len(ordered) == 2
        layout = layout_of(label, ordered, stored.value, f"{stored.path.name}::{stored.name}", single=single)
        super().__init__(FrameLayout(layout.shape, layout.dtype, layout.labels, layout.groups, stored.value))
        self._frames: np.ndarray | None = None

    def _rows(self, start: int, stop: int) -> np.ndarray:
        if self._frames is None:
            found = self._stored.load()
            self._frames = InOrder(found, self._axes)[(slice(None),) * found.ndim]
        band = self._frames[..., start:stop, :]
        if not band.size:
            return np.empty((self.shape[0], stop - start, self.shape[2]), self.dtype)
        return band.reshape(self.shape[0], stop - start, self.shape[2]).astype(self.dtype, copy=False)

    def files(self) -> list[Path]:
        return [self._stored.path]

    def fingerprint(self) -> str:
        return fingerprint_files(self.files(), self._stored.name, self.shape, self.dtype)

    def close(self) -> None:
        self._frames = None
