"""Frames in a Zarr array (format 2 or 3, sharded or not) on a local disk."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.atomic import read_json
from cpikan.storage.headers import check_compressed_size, decoding
from cpikan.storage.readers.array import layout_of
from cpikan.storage.readers.axes import InOrder
from cpikan.storage.readers.base import BaseReader, fingerprint_files
from cpikan.storage.readers.blocks import ChunkedRows, in_stored_order, is_step_major, read_frames

_METADATA = ("zarr.json", ".zarray", ".zgroup")
_ABSENT = 2**64 - 1  # offset and length of an inner chunk that a shard does not hold


def is_zarr(path: Path) -> bool:
    """Tell whether a folder is a Zarr array or group."""
    return any((path / name).is_file() for name in _METADATA)


class ZarrReader(BaseReader):
    """Rows of a Zarr array (L, K, H, W) or (K, H, W), each row of chunks decoded once when bands run in order.

    Axes with names (of the array, or of the OME-Zarr image that it is a level of) say which are the wavelengths.
    A chunk that is not stored would read as the fill value; here it is refused, when opening and again when reading.
    Raises InputError for groups, other shapes and types, and sizes that the stored bytes cannot hold.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        label = str(path)
        self._array = _open(path)
        self._turned = is_step_major(label, _axis_names(path, self._array), self._array.ndim)
        self._frames: Any = InOrder(self._array, "swyx") if self._turned else self._array
        super().__init__(layout_of(label, self._frames.shape, self._array.dtype, path.name))
        if 0 in (*self._outer, *self._array.chunks):
            raise InputError(f"{label} claims chunks without pixels: its zarr.json is damaged; copy the array again")
        stored = {os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names}
        chunks = [name for name in stored if os.path.basename(name) not in (*_METADATA, ".zattrs")]
        size = sum(os.path.getsize(name) for name in chunks)
        pixel = self._array.dtype.itemsize
        check_compressed_size(label, math.prod(self._array.shape) * pixel, size)
        check_compressed_size(f"{label} (one chunk)", math.prod(self._outer) * pixel, size)
        self._check_chunks(slice(0, self.shape[0]), slice(0, self.shape[1]), stored)
        self._rows_of_chunks = ChunkedRows(self.shape, self.dtype, self._array.chunks[-2], self._read)

    @property
    def _outer(self) -> tuple[int, ...]:
        return tuple(self._array.shards or self._array.chunks)

    def _rows(self, start: int, stop: int) -> np.ndarray:
        return self._rows_of_chunks.rows(start, stop)

    def files(self) -> list[Path]:
        return sorted(Path(folder, name) for folder, _, names in os.walk(self._path) for name in names)

    def origin(self) -> tuple[Any, ...]:
        return (self._path.absolute(),)

    def fingerprint(self) -> str:
        return fingerprint_files(self.files(), self.shape, self.dtype)

    def close(self) -> None:
        self._rows_of_chunks.close()

    def _read(self, frames: slice, rows: slice) -> np.ndarray:
        self._check_chunks(frames, rows)
        with decoding(f"{self._path}, rows {rows.start} to {rows.stop}"):
            return read_frames(self._frames, frames, rows)

    def _check_chunks(self, frames: slice, rows: slice, stored: set[str] | None = None) -> None:
        """Refuse when a chunk of these frames and rows is not stored (``stored`` saves asking the disk for each)."""
        for chunk in self._chunks_of(frames, rows):
            key = self._array.metadata.encode_chunk_key(chunk)
            name = os.path.join(self._path, *key.split("/"))
            if not (name in stored if stored is not None else os.path.exists(name)):
                raise self._absent(f"the chunk {key}")
            if self._array.shards and stored is not None:
                self._check_shard(chunk, key, name)

    def _chunks_of(self, frames: slice, rows: slice) -> Iterator[tuple[int, ...]]:
        """List grid positions of the stored chunks that one frame, or all frames, need for these rows."""
        shape, outer = self._array.shape, self._outer
        spans = [range(-(-length // chunk)) for length, chunk in zip(shape, outer, strict=True)]
        spans[-2] = range(rows.start // outer[-2], -(-rows.stop // outer[-2]))
        if frames.stop - frames.start == 1:
            place = np.unravel_index(frames.start, self._frames.shape[:-2])
            for axis, index in enumerate(in_stored_order(place, self._turned)):
                chunk = index // outer[axis]
                spans[axis] = range(chunk, chunk + 1)
        return itertools.product(*spans)

    def _check_shard(self, chunk: tuple[int, ...], key: str, name: str) -> None:
        """Refuse a shard whose index lacks an inner chunk that holds pixels (ZEP 2: 16 bytes each, C order)."""
        codec = next(codec for codec in self._array.metadata.codecs if hasattr(codec, "index_location"))
        inner = self._array.chunks
        grid = [outer // part for outer, part in zip(self._outer, inner, strict=True)]
        length = 16 * math.prod(grid)
        checksum = 4 * (len(codec.index_codecs) - 1)  # crc32c, the only index codec beside the bytes themselves
        at_end = str(codec.index_location.value) == "end"
        with decoding(name), open(name, "rb") as file:
            file.seek(-(length + checksum) if at_end else 0, os.SEEK_END if at_end else os.SEEK_SET)
            index = np.frombuffer(file.read(length), "<u8").reshape(*grid, 2)
        absent = (index == _ABSENT).all(axis=-1)
        for axis, (position, outer, part) in enumerate(zip(chunk, self._outer, inner, strict=True)):
            inside = -(-min(outer, self._array.shape[axis] - position * outer) // part)
            absent = absent.take(range(inside), axis=axis)
        if absent.any():
            raise self._absent(f"{np.count_nonzero(absent)} parts of the shard {key}")

    def _absent(self, what: str) -> InputError:
        return InputError(
            f"{self._path} lacks {what}, which would read as {self._array.fill_value}: copy the array again, or "
            "write it with empty chunks included (write_empty_chunks)"
        )


def _axis_names(path: Path, array: Any) -> list[str | None] | None:
    """Find the names of the axes: those of the array itself, or of the OME-Zarr image that holds it."""
    own = getattr(array.metadata, "dimension_names", None)
    if own and any(own):
        return list(own)
    for name in ("zarr.json", ".zattrs"):
        document = read_json(path.parent / name)
        attributes = document.get("attributes", document)
        found = attributes.get("ome", attributes) if isinstance(attributes, dict) else {}
        try:
            return [axis["name"] for axis in found["multiscales"][0]["axes"]]
        except (KeyError, IndexError, TypeError):
            continue
    return None


def _open(path: Path) -> Any:
    import zarr

    with decoding(str(path)):
        node = zarr.open(str(path), mode="r")
    if isinstance(node, zarr.Array):
        return node
    with decoding(str(path)):
        names = sorted(name for name, _ in node.arrays())
    inside = f"name one of its arrays, such as {path / names[0]}" if names else "it holds no array of frames"
    raise InputError(f"{path} is a Zarr group, not an array: {inside}")
