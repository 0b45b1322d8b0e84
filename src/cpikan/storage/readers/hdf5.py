"""Frames in a dataset of an HDF5 file, written as ``file.h5::/dataset``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError, unknown_name
from cpikan.storage.hdf5_heaps import check_heaps
from cpikan.storage.headers import check_compressed_size, check_raw_size, decoding
from cpikan.storage.readers.array import layout_of
from cpikan.storage.readers.axes import InOrder, check_axes, turned_axes
from cpikan.storage.readers.base import BaseReader, fingerprint_files
from cpikan.storage.readers.blocks import ChunkedRows, is_step_major, read_frames
from cpikan.storage.readers.marked import MarkedReader
from cpikan.storage.readers.read_as import ReadAs
from cpikan.storage.readers.turned import Turn, TurnedReader

_MAX_LISTED = 8


class Hdf5Reader(BaseReader):
    """Rows of an HDF5 dataset (L, K, H, W) or (K, H, W); contiguous data is memory-mapped, chunks are decoded once.

    A link into another file is followed, and labels of the axes say which are the wavelengths.
    Raises InputError for a missing or virtual dataset, one with chunks that were never written, other shapes and types,
    and sizes that the stored bytes cannot hold.
    """

    def __init__(self, path: Path, dataset: str = "", axes: str | None = None, single: bool = False) -> None:
        """``axes`` are letters of the stored axes, rows before columns; ``single`` allows one frame (H, W)."""
        import h5py

        self._opened, self._label = (
            (path.absolute(), dataset, axes, single),
            f"{path}::{dataset}" if dataset else str(path),
        )
        with decoding(str(path)):
            self._file: Any = h5py.File(path, "r")
        try:
            self._dataset = _find(self._file, dataset, str(path), 2 if single or axes else 3)
            self._path = Path(self._dataset.file.filename)  # an external link leads into another file
            name = f"{path.name}::{dataset or self._dataset.name}"
            with decoding(self._label):
                self._axes = self._axes_of(axes, single)
                self._frames: Any = InOrder(self._dataset, self._axes)
                super().__init__(layout_of(self._label, self._frames.shape, self._dataset.dtype, name, single=single))
                self._check_stored()
                self._mapped = self._map()
            chunks = self._dataset.chunks
            rows = chunks[self._axes.index("y")] if chunks else 1
            self._rows_of_chunks = ChunkedRows(self.shape, self.dtype, rows, self._read)
        except BaseException:
            self._file.close()
            raise

    def _rows(self, start: int, stop: int) -> np.ndarray:
        if self._mapped is not None:
            band = self._mapped[..., start:stop, :]
            return band.reshape(self.shape[0], stop - start, self.shape[2]).astype(self.dtype, copy=False)
        return self._rows_of_chunks.rows(start, stop)

    def files(self) -> list[Path]:
        return [self._path]

    def origin(self) -> tuple[Any, ...]:
        return self._opened

    def fingerprint(self) -> str:
        return fingerprint_files([self._path], self._dataset.name, self.shape, self.dtype)

    def close(self) -> None:
        self._mapped = None
        self._rows_of_chunks.close()
        self._file.close()

    def _axes_of(self, axes: str | None, single: bool) -> str:
        """Find the letters of the stored axes: those that were given, else those that labels of the axes mean."""
        data = self._dataset
        shape = data.shape or ()
        if axes is not None:
            return check_axes(self._label, axes, shape)
        labels = self._labels()
        if is_step_major(self._label, labels, data.ndim):
            return "swyx"
        if data.ndim not in (3, 4) and not (single and data.ndim == 2):
            layout_of(self._label, shape, data.dtype)
        return "wsyx"[-data.ndim :]

    def _labels(self) -> list[str]:
        """Read the names of four axes, the only texts that are read of a dataset.

        The attribute itself is read: the library's own way to the names ends the process where the file is damaged.
        """
        import h5py

        data, name = self._dataset, "DIMENSION_LABELS"
        if data.ndim != 4 or name not in data.attrs:
            return []
        stored = data.attrs.get_id(name)
        if stored.shape != (4,) or h5py.check_string_dtype(stored.dtype) is None:
            return []
        offset = data.id.get_offset() if data.chunks is None else None
        check_heaps(self._path, range(0) if offset is None else range(offset, offset + data.id.get_storage_size()))
        return [one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in data.attrs[name]]

    def _check_stored(self) -> None:
        data, label = self._dataset, self._label
        if data.is_virtual or data.external:
            raise InputError(
                f"{label} only points at data elsewhere: give the file that holds it, or copy it into a dataset"
            )
        claimed, stored = math.prod(data.shape) * data.dtype.itemsize, data.id.get_storage_size()
        if data.chunks is None:
            check_raw_size(label, claimed, stored)
            return
        check_compressed_size(label, claimed, stored)
        wanted = math.prod(-(-length // chunk) for length, chunk in zip(data.shape, data.chunks, strict=True))
        written = data.id.get_num_chunks()
        if written != wanted:
            raise InputError(
                f"{label} holds {written} of its {wanted} chunks, the others would read as {data.fillvalue}: copy or "
                "write it again"
            )

    def _map(self) -> np.ndarray | None:
        data = self._dataset
        offset = data.id.get_offset()
        if data.chunks is not None or offset is None:
            return None
        mapped = np.memmap(self._path, dtype=data.dtype, mode="r", offset=offset, shape=data.shape).view(np.ndarray)
        return InOrder(mapped, self._axes)[(slice(None),) * mapped.ndim]

    def _read(self, frames: slice, rows: slice) -> np.ndarray:
        with decoding(f"{self._label}, rows {rows.start} to {rows.stop}"):
            return read_frames(self._frames, frames, rows)


def open_hdf5(path: Path, how: ReadAs) -> BaseReader:
    """Open a dataset of an HDF5 file; columns that come before rows are transposed."""
    name = "" if how.dataset == "/" else how.dataset
    if how.axes is None:
        return Hdf5Reader(path, name, None, how.single)
    axes, transposed = turned_axes(how.axes)
    reader = Hdf5Reader(path, name, axes, how.single)
    return TurnedReader(reader, Turn(transpose=True)) if transposed else reader


def open_datx(path: Path, how: ReadAs) -> BaseReader:
    """Open the intensity frames of a Zygo .datx file, or the dataset that is named; NaN where its mark for no data stands."""
    reader = open_hdf5(path, how)
    name = reader.labels[0].partition("::")[2].partition("[")[0]
    with decoding(str(path)):
        mark = _no_data(path, name)
    return reader if mark is None else MarkedReader(reader, mark, mark)


def _no_data(path: Path, name: str) -> float | None:
    """Read the value that marks pixels without data, where the dataset has one that counts."""
    import h5py

    with h5py.File(path, "r") as file:
        marks = file[name].attrs if name in file else None
        if marks is None or "No Data" not in marks or marks.get_id("No Data").dtype.kind not in "fiu":
            return None
        value = np.ravel(marks["No Data"])
    return float(value[0]) if value.size and np.isfinite(value[0]) else None


def array_names(path: Path, fewest: int) -> dict[str, tuple[int, ...]]:
    """List the datasets of a file that have ``fewest`` to four axes, with their shapes."""
    import h5py

    found: dict[str, tuple[int, ...]] = {}

    def visit(key: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and fewest <= item.ndim <= 4:
            found[f"/{key}"] = tuple(item.shape)

    with decoding(str(path)), h5py.File(path, "r") as file:
        file.visititems(visit)
    return found


def _intensity(names: list[str]) -> list[str]:
    """Find the frames of a Zygo .datx file, whose other datasets are maps and their attributes."""
    return [name for name in names if name.startswith("/Data/Intensity/")]


def _find(file: Any, name: str, label: str, fewest: int = 3) -> Any:
    """Find the dataset of that name; the frames of a .datx are named. InputError that lists those that could hold frames.

    ``fewest`` is the number of axes that a dataset of frames has at least. Where only one frame is wanted, the only dataset is
    it.
    """
    import h5py

    with decoding(label):
        found = file.get(name) if name else None
        if isinstance(found, h5py.Dataset):
            return found
        names: list[str] = []
        file.visititems(
            lambda key, item: (
                names.append(f"/{key}") if isinstance(item, h5py.Dataset) and fewest <= item.ndim <= 4 else None
            )
        )
    listed = names[:_MAX_LISTED]
    if not listed:
        raise InputError(f"{label} holds no dataset of three or four dimensions: give a file that holds frames")
    only = _intensity(names) or (names if len(names) == 1 and fewest == 2 else [])
    if not name and len(only) == 1:
        return file[only[0]]
    if not name:
        raise InputError(
            f"{label} is an HDF5 file: name the dataset, such as {label}::{listed[0]} (of {', '.join(listed)})"
        )
    raise unknown_name(f"dataset in {label}", name, listed)
