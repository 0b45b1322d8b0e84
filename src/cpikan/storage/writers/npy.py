"""One .npy file per quantity, each filled by image rows under a partial name until it is finished."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path

import numpy as np

from cpikan.errors import ResumeError
from cpikan.storage.atomic import Check, full_disk_named, sync_path
from cpikan.storage.writers.layout import QUANTITIES, LayoutWriter, MapLayout, npy_path, partial_of
from cpikan.storage.writers.preallocated import PreallocatedFile


class NpyArrayFile:
    """A file of ``shape`` (..., H, W), version 1.0 header, C order; its planes (H, W) are numbered in that order.

    With ``resume`` the partial file of an earlier run is opened; raises ResumeError where it is missing or of another
    shape or type.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype, *, resume: bool) -> None:
        self.path, self._partial = path, partial_of(path)
        self._shape, self._dtype, self._head = shape, dtype, _header(shape, dtype)
        self.bytes = array_bytes(shape, dtype)
        if not resume:
            self._file = PreallocatedFile.create(self._partial, self.bytes, self._head)
            return
        self._file = PreallocatedFile.reopen(self._partial, self.bytes)
        with open(self._partial, "rb") as existing:
            found = existing.read(len(self._head))
        if found != self._head:
            self._file.close()
            raise ResumeError(f"{self._partial} holds another shape or type: run again without --resume")

    def write(self, start: int, rows: np.ndarray, plane: int = 0) -> None:
        """Store image rows [start, start + n) of a plane, given as (n, W)."""
        height, width = self._shape[-2:]
        offset = (plane * height + start) * width * self._dtype.itemsize
        self._file.write(len(self._head) + offset, np.ascontiguousarray(rows, self._dtype))

    def take_checks(self) -> list[Check]:
        """Return the checks of everything written since this was called last."""
        return self._file.take_checks()

    def sync(self) -> None:
        """Make all that was written survive a power cut."""
        self._file.sync()

    def put_in_place(self) -> None:
        """Give the file its name; sync it, and the folder afterwards."""
        self.close()
        os.replace(self._partial, self.path)

    def close(self) -> None:
        self._file.close()


def array_bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Compute the size of an array's .npy file in bytes."""
    return len(_header(shape, dtype)) + math.prod(shape) * dtype.itemsize


def _header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )
    return head.getvalue()


class NpyWriter(LayoutWriter):
    """MapWriter of .npy files: the height at the path itself, the other quantities beside it.

    The format has no room for attributes: they belong to the JSON document beside the output. The height's file is made
    last and gets its final name last, so that its existence, partial or final, implies that of the others.
    """

    def __init__(self, layout: MapLayout, *, resume: bool) -> None:
        super().__init__(layout)
        self._files: dict[str, NpyArrayFile] = {}
        try:
            with full_disk_named(layout.path, layout.raw_bytes):
                for name in sorted(layout.quantities, key=lambda name: name == "height_nm"):
                    self._files[name] = self._open(name, resume)
        except BaseException:
            self.close()
            raise

    def _put(self, name: str, start: int, rows: np.ndarray) -> None:
        self._files[name].write(start, rows)

    def _flush(self) -> None:
        for file in self._files.values():
            file.sync()

    def take_checks(self) -> list[Check]:
        return [check for file in self._files.values() for check in file.take_checks()]

    def finish(self) -> None:
        self.sync()
        self.close()
        for file in self._files.values():
            file.put_in_place()
        sync_path(self._layout.path.parent)

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def _open(self, name: str, resume: bool) -> NpyArrayFile:
        final = npy_path(self._layout.path, name)
        partial = partial_of(final)
        if resume and not partial.exists() and final.exists() and self._layout.partial.exists():
            os.replace(final, partial)  # killed inside finish(): this one had its final name already
        return NpyArrayFile(final, self._layout.shape, QUANTITIES[name].dtype, resume=resume)
