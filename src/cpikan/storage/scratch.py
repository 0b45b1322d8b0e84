"""Large arrays on disk while a run lasts: between two passes over an image, or in nameless files."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import ResumeError
from cpikan.storage.atomic import Check, full_disk_named
from cpikan.storage.writers.preallocated import PreallocatedFile


class ScratchArrays:
    """Raw arrays of one image shape in a folder of their own; a row-wise writer like any other, and a reader.

    ``create`` makes them anew, ``reopen`` continues (ResumeError when one is missing or of another size).
    """

    row_align = 1

    def __init__(self, folder: Path, shape: tuple[int, int], dtypes: Mapping[str, np.dtype], *, resume: bool) -> None:
        self.folder, self.shape = folder, shape
        self._dtypes = {name: np.dtype(dtype) for name, dtype in dtypes.items()}
        self.quantities = tuple(self._dtypes)
        if not resume:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        elif not folder.is_dir():
            raise ResumeError(f"{folder} is missing: nothing to resume; run again without --resume")
        self._files: dict[str, PreallocatedFile] = {}
        with full_disk_named(folder, self.required_bytes(shape, self._dtypes)):
            for name in self._dtypes:
                self._files[name] = self._open(name, resume)

    @staticmethod
    def required_bytes(shape: tuple[int, int], dtypes: Mapping[str, np.dtype]) -> int:
        return shape[0] * shape[1] * sum(np.dtype(dtype).itemsize for dtype in dtypes.values())

    def write_rows(self, start: int, rows: Mapping[str, np.ndarray]) -> None:
        """Store rows of any of the arrays."""
        with full_disk_named(self.folder, self.required_bytes(self.shape, self._dtypes)):
            for name, array in rows.items():
                data = np.ascontiguousarray(array, self._dtypes[name])
                self._files[name].write(start * self.shape[1] * data.itemsize, data)

    def array(self, name: str, *, writable: bool = False) -> np.ndarray:
        """Map one of the arrays, (H, W), into memory."""
        mode = "r+" if writable else "r"
        return np.memmap(self._path(name), self._dtypes[name], mode, shape=self.shape)  # type: ignore[call-overload]

    def take_checks(self) -> list[Check]:
        return [check for file in self._files.values() for check in file.take_checks()]

    def check(self, name: str) -> Check:
        """Check one of the arrays as a whole, after something wrote to its memory map."""
        return Check.of_file(self._path(name))

    def sync(self) -> None:
        for file in self._files.values():
            file.sync()

    def finish(self) -> None:
        """Sync the arrays; they are read where they are, and removed by `remove`."""
        self.sync()

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def remove(self) -> None:
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.raw"

    def _open(self, name: str, resume: bool) -> PreallocatedFile:
        path, size = self._path(name), self.shape[0] * self.shape[1] * self._dtypes[name].itemsize
        if resume:
            return PreallocatedFile.reopen(path, size)
        return PreallocatedFile.create(path, size, b"")


_LEAST_BYTES = 2**18  # smaller arrays stay in memory


class Spill:
    """Makes arrays whose memory is a file without a name in ``folder``; where it cannot hold one, StorageFull is raised."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Make an array of any content, as `numpy.empty` does."""
        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        if size < _LEAST_BYTES:
            return np.empty(shape, kind)
        with full_disk_named(self._folder, size), tempfile.TemporaryFile(dir=self._folder) as file:
            if hasattr(os, "posix_fallocate"):  # a full disk shows now, and not as a signal when a page is written
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, kind, "r+" if hasattr(os, "posix_fallocate") else "w+", shape=shape)
