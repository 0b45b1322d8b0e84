"""Reading outputs back: every map lazily, as a window of it is asked for, every header checked against its file first."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.atomic import refuse_special
from cpikan.storage.documents import parse_json
from cpikan.storage.formats import door_of
from cpikan.storage.headers import decoding, read_npy_header
from cpikan.storage.writers.bigtiff import TILE, TiffPage
from cpikan.storage.writers.layout import QUANTITIES, document_path, npy_path, partial_of

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
        if 0 in (*array.chunks, *(array.shards or ())):
            raise InputError(f"{folder} claims chunks without pixels: its zarr.json is damaged; write the map again")
        super().__init__((array.shape[0], array.shape[1]), array.dtype)
        self._folder, self._array = folder, array
        self._chunk = array.shards or array.chunks

    @property
    def chunk_rows(self) -> int:
        """Count the rows of a chunk file."""
        return int(self._chunk[0])

    def chunk_of(self, row: int) -> Path:
        """Name the first of the files that hold a row."""
        from cpikan.storage.writers.zarr import chunk_path

        return chunk_path(self._folder, self._array, (row // self.chunk_rows, 0))

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


MapArray = np.ndarray | LazyMap


@dataclass(frozen=True)
class StoredMap:
    """A stored map: lazy ``arrays`` of shape (H, W) by quantity, ``document`` from STEM.json ({} when absent).

    The document of an instrument's file is made of its header; beside the acquisition it may have ``notes`` and
    ``fringes_nm``, the height of one fringe of each wavelength.
    """

    path: Path
    arrays: Mapping[str, MapArray]
    document: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int]:
        height, width = next(iter(self.arrays.values())).shape
        return height, width


def open_map(path: Path | str) -> StoredMap:
    """Open a map of any format that holds heights, without reading its pixels.

    Raises InputError for a file that is missing, unfinished, truncated or of another layout, and for maps of different
    shapes.
    """
    path = _whole(Path(path))
    opener = door_of(path, "heights", str(path))
    if not path.exists():
        unfinished = partial_of(path).exists()
        hint = "it is unfinished: run again with --resume" if unfinished else "check the name"
        raise InputError(f"{path} does not exist: {hint}")
    refuse_special(path)
    with decoding(str(path)):
        stored: StoredMap = opener(path)
    shapes = {name: array.shape for name, array in stored.arrays.items()}
    if len(set(shapes.values())) != 1:
        raise InputError(f"the maps of {path} differ in shape ({shapes}): they do not belong together")
    return stored


def _whole(path: Path) -> Path:
    """Find the output that the heights ``OUT.zarr/height_nm``, as other programs open them, are a part of."""
    inner = path.parent if path.name == "0" else path
    whole = inner.parent
    return whole if inner.name == "height_nm" and inner.is_dir() and whole.suffix == ".zarr" else path


def read_document(path: Path | str) -> dict[str, Any]:
    """Read STEM.json beside an output, {} when there is none; raises InputError when it is not a JSON object."""
    file = document_path(path)
    if not file.exists():
        return {}
    refuse_special(file)
    try:
        document = parse_json(file.read_bytes())
    except (ValueError, OSError) as failure:
        raise InputError(f"{file} is not readable JSON ({failure}): remove it or write the map again") from failure
    if not isinstance(document, dict):
        raise InputError(f"{file} holds a JSON {type(document).__name__}: an object is expected")
    return document


def open_npy(path: Path, kinds: str = "fiu") -> np.ndarray:
    """Map a two-dimensional .npy file into memory, read-only, after its header has been checked against its size."""
    refuse_special(path)
    try:
        with decoding(str(path)), open(path, "rb") as file:
            shape, fortran, dtype = read_npy_header(file)
            start, size = file.tell(), file.seek(0, 2)
    except InputError as failure:
        cause = failure.__cause__ or failure
        raise InputError(f"{path} is not a readable .npy file ({cause}): write it again") from failure
    if len(shape) != 2 or min(shape) < 1 or dtype.kind not in kinds:
        raise InputError(f"{path} holds {dtype} of shape {shape}: a map is two-dimensional and holds numbers")
    needed = start + shape[0] * shape[1] * dtype.itemsize  # Python integers: a hostile header cannot overflow
    if size < needed:
        raise InputError(f"{path} is truncated: {size} of {needed} bytes are there; write it again")
    return np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C")


def open_npy_image(path: Path) -> np.ndarray:
    """Map a .npy of two dimensions into memory as `open_npy` does, truth values too."""
    return open_npy(path, "bfiu")


def open_npy_map(path: Path) -> StoredMap:
    """Open a .npy of heights in nm and the quantities in files beside it."""
    files = {name: npy_path(path, name) for name in QUANTITIES}
    return _stored(path, {name: open_npy(file) for name, file in files.items() if file.exists()})


def open_tiff_map(path: Path) -> StoredMap:
    """Open a .tif that `TiffWriter` wrote, or one page of heights with a unit as GDAL says it; InputError for any other."""
    from cpikan.storage.instruments.geotiff import open_geotiff_map
    from cpikan.storage.writers.tiff import BAD_TIFF, read_pages

    try:
        pages = read_pages(path)
    except BAD_TIFF as failure:
        other = open_geotiff_map(path)
        if other is not None:
            return other
        raise InputError(
            f"{path} is not a map this program wrote ({failure}): give its .tif, .zarr or .npy"
        ) from failure
    size = path.stat().st_size
    needed = max(page.end for page in pages)
    if size < needed:
        raise InputError(f"{path} is truncated: {size} of {needed} bytes are there; write it again")
    return _stored(path, {page.quantity: TiffMap(path, page) for page in pages})


def open_zarr_map(path: Path) -> StoredMap:
    """Open a .zarr that `ZarrWriter` wrote; InputError for any other."""
    from cpikan.storage.writers.zarr import BAD_ZARR, open_level

    arrays: dict[str, MapArray] = {}
    for name in QUANTITIES:
        if not (path / name).exists():
            continue
        try:
            arrays[name] = ZarrMap(path / name / "0", open_level(path, name, 0))
        except InputError:
            raise
        except BAD_ZARR as failure:
            raise InputError(f"{path / name} is not a readable Zarr map ({failure}): write it again") from failure
    if "height_nm" not in arrays:
        raise InputError(f"{path} has no group height_nm: it is not an output of this program")
    return _stored(path, arrays)


def _stored(path: Path, arrays: Mapping[str, MapArray]) -> StoredMap:
    return StoredMap(path, arrays, read_document(path))
