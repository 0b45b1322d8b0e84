"""Maps on disk as two-dimensional arrays of which only the window asked for is read."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.writers.bigtiff import TILE, TiffPage

if TYPE_CHECKING:
    import zarr


class LazyMap(ABC):
    """A read-only map of shape (H, W), indexed by integers and slices as NumPy does; ``np.asarray`` reads it all."""

    ndim = 2

    def __init__(self, shape: tuple[int, int], dtype: np.dtype) -> None:
        self.shape = shape
        self.dtype = dtype

    @abstractmethod
    def _read(self, rows: range, columns: range) -> np.ndarray:
        """Read the window of contiguous, non-empty ranges; raises InputError when the file does not hold it."""

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        keys = _expand(key)
        ranges = [_chosen(part, size) for part, size in zip(keys, self.shape, strict=True)]
        drop = tuple(0 if isinstance(part, int) else slice(None) for part in keys)
        if not all(len(chosen) for chosen in ranges):
            return np.empty([len(chosen) for chosen in ranges], self.dtype)[drop]
        rows, columns = (range(min(chosen), max(chosen) + 1) for chosen in ranges)
        window = self._read(rows, columns)
        picked = window[_strided(ranges[0]), _strided(ranges[1])]
        return picked[drop]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a map on disk cannot become an array without a copy")
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.shape[0]} x {self.shape[1]} {self.dtype}>"


def _expand(key: Any) -> tuple[int | slice, int | slice]:
    """Turn any basic index into one integer or slice per axis."""
    parts = list(key) if isinstance(key, tuple) else [key]
    if not any(part is Ellipsis for part in parts):
        parts.append(Ellipsis)
    if len(parts) > 3:
        raise IndexError(f"too many indices for a map of 2 dimensions: {key!r}")
    at = next(i for i, part in enumerate(parts) if part is Ellipsis)
    parts[at : at + 1] = [slice(None)] * (3 - len(parts))
    row, column = (part if isinstance(part, slice) else _integer(part) for part in parts)
    return row, column


def _integer(part: Any) -> int:
    if isinstance(part, bool) or not hasattr(part, "__index__"):
        raise IndexError(
            f"a map on disk takes integers and slices, not {type(part).__name__}: use np.asarray(map) first"
        )
    return int(part.__index__())


def _chosen(part: int | slice, size: int) -> range:
    if isinstance(part, slice):
        return range(size)[part]
    position = range(size)[part]  # IndexError outside the map, negative counts from the end
    return range(position, position + 1)


def _strided(chosen: range) -> slice:
    """Make the slice that picks ``chosen`` out of the window from its smallest to its largest member."""
    return slice(None, None, chosen.step)


class TiffMap(LazyMap):
    """A page of a tiled file of ours, read tile by tile."""

    def __init__(self, path: Path, page: TiffPage) -> None:
        super().__init__(page.shape, page.dtype)
        self._path, self._page = path, page

    def _read(self, rows: range, columns: range) -> np.ndarray:
        out = np.empty((len(rows), len(columns)), self.dtype)
        with open(self._path, "rb", buffering=0) as file:
            for row in range(rows.start // TILE, -(-rows.stop // TILE)):
                top, bottom = max(rows.start, row * TILE), min(rows.stop, (row + 1) * TILE)
                for column in range(columns.start // TILE, -(-columns.stop // TILE)):
                    left, right = max(columns.start, column * TILE), min(columns.stop, (column + 1) * TILE)
                    tile = self._tile_rows(file.fileno(), (row, column), top - row * TILE, bottom - row * TILE)
                    window = tile[:, left - column * TILE : right - column * TILE]
                    out[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start] = window
        return out

    def _tile_rows(self, descriptor: int, tile: tuple[int, int], top: int, bottom: int) -> np.ndarray:
        line = TILE * self.dtype.itemsize
        data = os.pread(descriptor, (bottom - top) * line, self._page.tile_offset(*tile) + top * line)
        if len(data) != (bottom - top) * line:
            raise InputError(
                f"{self._path} is truncated: tile {tile} of {self._page.quantity} is missing; write it again"
            )
        return np.frombuffer(data, self.dtype).reshape(bottom - top, TILE)


class ZarrMap(LazyMap):
    """A Zarr array in a folder, whose missing chunks raise (zarr itself would read them as the fill value)."""

    def __init__(self, folder: Path, array: zarr.Array[Any]) -> None:
        if array.ndim != 2:
            raise InputError(f"{folder} has {array.ndim} dimensions: a map has 2")
        super().__init__((array.shape[0], array.shape[1]), array.dtype)
        self._folder, self._array = folder, array
        self._chunk = array.shards or array.chunks

    def _read(self, rows: range, columns: range) -> np.ndarray:
        from cpikan.storage.writers.zarr import BAD_ZARR, chunk_path

        height, width = self._chunk
        for row in range(rows.start // height, -(-rows.stop // height)):
            for column in range(columns.start // width, -(-columns.stop // width)):
                chunk = chunk_path(self._folder, self._array, (row, column))
                if not chunk.is_file():
                    raise InputError(f"{chunk} is missing: rows from {row * height} on are lost; write the map again")
                if self._array.shards is not None:
                    self._check_shard(chunk)
        try:
            return np.asarray(self._array[rows.start : rows.stop, columns.start : columns.stop])
        except (*BAD_ZARR, RuntimeError) as failure:  # a checksum, a decoder, the disk
            where = f"rows {rows.start}:{rows.stop}"
            raise InputError(f"{self._folder}, {where}, is damaged ({failure}): write the map again") from failure

    def _check_shard(self, shard: Path) -> None:
        """Raise for a shard that is cut short or lacks an inner chunk: zarr reads both as the fill value.

        A shard ends with the offset and the length of each inner chunk (all bits set: absent) and a checksum of 4 bytes.
        """
        inner = math.prod(whole // part for whole, part in zip(self._chunk, self._array.chunks, strict=True))
        with open(shard, "rb", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 16 * inner - 4))
            index = np.frombuffer(file.read(16 * inner), "<u8") if size >= 16 * inner + 4 else None
        if index is None or (index == np.iinfo(np.uint64).max).any():
            raise InputError(f"{shard} is damaged: a part of it is missing; write the map again")
