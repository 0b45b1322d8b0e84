"""Maps of other programs' files: rows by way of mapped memory, or from a stream that only goes forwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.headers import check_frame_size, decoding
from cpikan.storage.maps import LazyMap, StoredMap

Decode = Callable[[np.ndarray], np.ndarray]


def stored_map(
    path: Path,
    heights: LazyMap,
    *,
    pixel_um: tuple[float, float] | None = None,
    wavelengths_nm: Sequence[float] = (),
    notes: Sequence[str] = (),
    more: Mapping[str, Any] | None = None,
) -> StoredMap:
    """Make the stored map of a file that holds heights alone; ``pixel_um`` (y, x) is None where it does not say it.

    ``more`` are other entries of the document.
    """
    size = pixel_um[0] if pixel_um is not None and pixel_um[0] == pixel_um[1] else pixel_um
    acquisition = {"wavelengths_nm": list(wavelengths_nm), "pixel_um": list(size) if isinstance(size, tuple) else size}
    return StoredMap(
        path, {"height_nm": heights}, {"acquisition": acquisition, "notes": list(notes), **dict(more or {})}
    )


@dataclass(frozen=True)
class Linear:
    """What a stored number means: height in nm = number x ``scale_nm`` + ``offset_nm``.

    NaN where ``missing(numbers)`` is true, and where a number is not finite.
    """

    scale_nm: float
    offset_nm: float = 0.0
    missing: Callable[[np.ndarray], np.ndarray] | None = None

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        """Decode stored numbers into heights in nm, float64."""
        heights = np.array(numbers, np.float64)
        lost = ~np.isfinite(heights)
        if self.missing is not None:
            lost |= self.missing(numbers)
        heights[lost] = np.nan  # before the product: a marker near the largest number would overflow
        heights *= self.scale_nm
        if self.offset_nm:
            heights += self.offset_nm
        return heights


@dataclass(frozen=True)
class Block:
    """Where the numbers of a file lie: ``shape`` as stored, from byte ``offset`` on, each of ``dtype``."""

    path: Path
    dtype: np.dtype
    offset: int
    shape: tuple[int, int]

    @property
    def end(self) -> int:
        return self.offset + self.shape[0] * self.shape[1] * self.dtype.itemsize

    def check(self) -> None:
        """Raise InputError where the numbers do not fit into the file, or are none."""
        check_frame_size(str(self.path), *self.shape)
        size = self.path.stat().st_size
        if size < self.end:
            raise InputError(f"{self.path} is truncated: {size} of {self.end} bytes are there; copy it again")


class MappedRaster(LazyMap):
    """Heights in nm, float64, of numbers that lie in a file as they are; ``oriented`` turns them row 0 on top."""

    def __init__(
        self, block: Block, decode: Decode, oriented: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> None:
        block.check()
        self._block, self._decode, self._oriented = block, decode, oriented
        hollow = np.broadcast_to(np.uint8(0), block.shape)  # takes no memory
        height, width = (hollow if oriented is None else oriented(hollow)).shape
        super().__init__((height, width), np.dtype(np.float64))

    @cached_property
    def _numbers(self) -> np.ndarray:
        numbers: np.ndarray = np.memmap(self._block.path, self._block.dtype, "r", self._block.offset, self._block.shape)
        return numbers if self._oriented is None else self._oriented(numbers)

    def _read(self, rows: range, columns: range) -> np.ndarray:
        with decoding(str(self._block.path)):
            return self._decode(self._numbers[rows.start : rows.stop, columns.start : columns.stop])


class StreamedRaster(LazyMap):
    """Heights in nm, float64, of rows that can only be read one after the other, from the top.

    ``rows()`` begins anew and yields arrays (n, W). Reading downwards decodes every row once; reading upwards begins anew.
    """

    def __init__(self, label: str, shape: tuple[int, int], rows: Callable[[], Iterator[np.ndarray]]) -> None:
        check_frame_size(label, *shape)
        super().__init__(shape, np.dtype(np.float64))
        self._label, self._rows = label, rows
        self._held, self._first, self._left = np.empty((0, shape[1])), 0, rows()

    def _read(self, rows: range, columns: range) -> np.ndarray:
        if rows.start < self._first:
            self._held, self._first, self._left = np.empty((0, self.shape[1])), 0, self._rows()
        out = np.empty((len(rows), len(columns)))
        filled = rows.start
        with decoding(self._label):
            while filled < rows.stop:
                end = self._first + len(self._held)
                if filled < end:
                    stop = min(end, rows.stop)
                    piece = self._held[filled - self._first : stop - self._first, columns.start : columns.stop]
                    out[filled - rows.start : stop - rows.start] = piece
                    filled = stop
                else:
                    self._first, self._held = end, self._next(end)
        return out

    def _next(self, done: int) -> np.ndarray:
        piece = next(self._left, None)
        if piece is None:
            raise InputError(f"{self._label} is truncated: {done} of {self.shape[0]} rows are there; copy it again")
        return piece


def rows_of_bytes(pieces: Iterator[bytes], dtype: np.dtype, width: int) -> Iterator[np.ndarray]:
    """Cut a stream of bytes into whole rows of ``width`` numbers; what is left over at its end is dropped."""
    line, rest = width * dtype.itemsize, b""
    for piece in pieces:
        data = rest + piece
        count = len(data) // line
        if count:
            yield np.frombuffer(data, dtype, count * width).reshape(count, width)
        rest = data[count * line :]


def whole_map(heights: np.ndarray) -> LazyMap:
    """Make a map of heights in nm that are in memory, for formats that cannot be read otherwise."""
    return _Whole(heights)


class _Whole(LazyMap):
    def __init__(self, heights: np.ndarray) -> None:
        super().__init__((int(heights.shape[0]), int(heights.shape[1])), np.dtype(np.float64))
        self._heights = heights

    def _read(self, rows: range, columns: range) -> np.ndarray:
        return np.array(self._heights[rows.start : rows.stop, columns.start : columns.stop], np.float64)


def positive(path: Path, value: float, what: str) -> float:
    """Return a scale that a header must give; InputError, naming it, where it is no finite number above zero."""
    if not (np.isfinite(value) and value > 0):
        raise InputError(f"{path} has {what} {value:g}: without one above zero there is no map; export it again")
    return float(value)


def pixel_pair_um(y_um: float, x_um: float) -> tuple[float, float] | None:
    """Give a pixel size (y, x) in um, None where either is not finite and above zero."""
    return (y_um, x_um) if 0 < y_um < np.inf and 0 < x_um < np.inf else None
