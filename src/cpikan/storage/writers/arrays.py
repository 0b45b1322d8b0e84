"""Arrays (H, W) or (C, H, W) of any meaning on their way to disk: plain .npy files and plain Zarr arrays."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError, ResumeError
from cpikan.storage.atomic import Check, full_disk_named, sync_path, sync_tree
from cpikan.storage.protocols import MapWriter
from cpikan.storage.writers.layout import open_writer, output_format, partial_of
from cpikan.storage.writers.npy import NpyArrayFile, array_bytes

_TYPE = np.dtype("<f4")


class ArrayNpyWriter:
    """MapWriter of one .npy file of ``shape``, (H, W) or (C, H, W) float32; the quantities are the channels' numbers."""

    row_align = 1

    def __init__(self, path: Path, shape: tuple[int, ...], *, resume: bool) -> None:
        self.quantities = channel_names(shape)
        self._bytes = array_bytes(shape, _TYPE)
        with full_disk_named(path, self._bytes):
            self._file = NpyArrayFile(path, shape, _TYPE, resume=resume)

    def write_rows(self, start: int, rows: Mapping[str, np.ndarray]) -> None:
        with full_disk_named(self._file.path, self._bytes):
            for name, array in rows.items():
                self._file.write(start, array, int(name))

    def take_checks(self) -> list[Check]:
        return self._file.take_checks()

    def sync(self) -> None:
        with full_disk_named(self._file.path, self._bytes):
            self._file.sync()

    def finish(self) -> None:
        self.sync()
        self._file.put_in_place()
        sync_path(self._file.path.parent)

    def close(self) -> None:
        self._file.close()


class ArrayZarrWriter:
    """MapWriter of one Zarr array of ``shape``, (H, W) or (C, H, W) float32, in shards of image rows."""

    def __init__(self, path: Path, shape: tuple[int, ...], *, resume: bool) -> None:
        from cpikan.storage.writers.zarr import BAD_ZARR, create_rows, open_rows, shard_rows, sweep

        self._path, self._partial, self._flat = path, partial_of(path), len(shape) == 2
        self.quantities = channel_names(shape)
        self.row_align = shard_rows(shape)
        self._unchecked: set[Path] = set()
        if resume:
            if not self._partial.is_dir():
                raise ResumeError(f"{self._partial} is missing: nothing to resume; run again without resume")
            sweep(self._partial)
            try:
                self._array = open_rows(self._partial, "r+")
            except BAD_ZARR as failure:
                raise ResumeError(
                    f"{self._partial} cannot be resumed ({failure}): run again without resume"
                ) from failure
            if self._array.shape != shape or self._array.dtype != _TYPE:
                raise ResumeError(f"{self._partial} holds another shape or type: run again without resume")
            return
        with full_disk_named(path, 4 * int(np.prod(shape))):
            self._array = create_rows(self._partial, shape, _TYPE, np.nan)

    def write_rows(self, start: int, rows: Mapping[str, np.ndarray]) -> None:
        from cpikan.storage.writers.zarr import chunk_path

        with full_disk_named(self._path, 4 * int(np.prod(self._array.shape))):
            for name, array in rows.items():
                where = slice(start, start + len(array))
                self._array[where if self._flat else (int(name), where)] = array
                shards = range(start // self.row_align, -(-(start + len(array)) // self.row_align))
                for shard in shards:
                    index = (shard, 0) if self._flat else (int(name), shard, 0)
                    self._unchecked.add(chunk_path(self._partial, self._array, index))

    def take_checks(self) -> list[Check]:
        taken, self._unchecked = sorted(self._unchecked), set()
        return [Check.of_file(shard) for shard in taken]

    def sync(self) -> None:
        sync_tree(self._partial)
        sync_path(self._partial.parent)

    def finish(self) -> None:
        from cpikan.storage.writers.zarr import sweep

        sweep(self._partial)
        self.sync()
        os.rename(self._partial, self._path)
        sync_path(self._path.parent)

    def close(self) -> None:
        """Close nothing: no file is held open between calls."""


def open_npy_array(path: Path) -> np.ndarray:
    """Map the array of a .npy file into memory, read-only."""
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def open_zarr_array(path: Path) -> Any:
    """Open a Zarr array, whose chunks are read when it is indexed."""
    import zarr

    return zarr.open_array(path, mode="r")


def channel_names(shape: tuple[int, ...]) -> tuple[str, ...]:
    """Number the channels of an array (C, H, W) or (H, W)."""
    return tuple(str(c) for c in range(shape[0] if len(shape) == 3 else 1))


def open_array_writer(
    path: Path, shape: tuple[int, ...], quantities: tuple[str, ...] | None, *, resume: bool
) -> MapWriter:
    """Open the writer of an output: named maps by the writers of maps, else one plain array (.npy or .zarr)."""
    if quantities is not None:
        types = dict.fromkeys(quantities, _TYPE)
        return open_writer(path, (shape[-2], shape[-1]), types, attributes={}, resume=resume)
    writer = output_format(path).array_writer
    if writer is None:
        raise InputError(f"the pages of {path.name} need names: give quantities, such as ('height_nm',), or write .npy")
    return writer(path, shape, resume=resume)


def remove_finished(path: Path) -> None:
    """Make way for a new Zarr output under a name that is taken (files are replaced in one step)."""
    if path.is_dir():
        shutil.rmtree(path)


def check_replaceable(path: Path) -> None:
    """Refuse to replace a folder that is no Zarr array or group."""
    if path.is_dir() and not (path / "zarr.json").is_file():
        raise InputError(f"{path} is a folder with other things in it: choose another name for the output")
