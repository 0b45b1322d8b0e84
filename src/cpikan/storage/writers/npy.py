"""One .npy file per quantity."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping

import numpy as np

from cpikan.errors import ResumeError
from cpikan.storage.atomic import full_disk_named, sync_folder
from cpikan.storage.writers.layout import QUANTITIES, MapLayout, npy_path, partial_of
from cpikan.storage.writers.preallocated import PreallocatedFile


class NpyWriter:
    """MapWriter of .npy files: version 1.0 headers, C order, the height at the path itself.

    The format has no room for attributes: they belong to the JSON document beside the output. The height's file is made
    last and gets its final name last, so that its existence, partial or final, implies that of the others.
    """

    row_align = 1

    def __init__(self, layout: MapLayout, *, resume: bool) -> None:
        self._layout = layout
        self._files: dict[str, PreallocatedFile] = {}
        heads = {name: _header(layout.shape, QUANTITIES[name].dtype) for name in layout.quantities}
        order = sorted(layout.quantities, key=lambda name: name == "height_nm")
        try:
            with full_disk_named(layout.path, layout.raw_bytes):
                for name in order:
                    self._files[name] = self._reopen(name, heads[name]) if resume else self._create(name, heads[name])
        except BaseException:
            self.close()
            raise
        self._starts = {name: len(head) for name, head in heads.items()}

    @property
    def quantities(self) -> tuple[str, ...]:
        return self._layout.quantities

    def write_rows(self, start: int, rows: Mapping[str, np.ndarray]) -> None:
        with full_disk_named(self._layout.path, self._layout.remaining_bytes(start)):
            for name, array in self._layout.checked_rows(start, rows, self.row_align).items():
                self._files[name].write(self._starts[name] + start * array.shape[1] * array.itemsize, array)

    def sync(self) -> None:
        with full_disk_named(self._layout.path, self._layout.raw_bytes):
            for file in self._files.values():
                file.sync()

    def finish(self) -> None:
        self.sync()
        self.close()
        for name in sorted(self.quantities, key=lambda name: name == "height_nm"):
            final = npy_path(self._layout.path, name)
            os.replace(partial_of(final), final)
        sync_folder(self._layout.path.parent)

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def _create(self, name: str, head: bytes) -> PreallocatedFile:
        return PreallocatedFile.create(partial_of(npy_path(self._layout.path, name)), self._size(name, head), head)

    def _reopen(self, name: str, head: bytes) -> PreallocatedFile:
        final = npy_path(self._layout.path, name)
        partial = partial_of(final)
        if not partial.exists() and final.exists() and self._layout.partial.exists():
            os.replace(final, partial)  # killed inside finish(): this one had its final name already
        file = PreallocatedFile.reopen(partial, self._size(name, head))
        with open(partial, "rb") as existing:
            found = existing.read(len(head))
        if found != head:
            file.close()
            raise ResumeError(f"{partial} holds another shape or type: run again without --resume")
        return file

    def _size(self, name: str, head: bytes) -> int:
        return len(head) + self._layout.shape[0] * self._layout.shape[1] * QUANTITIES[name].dtype.itemsize


def _header(shape: tuple[int, int], dtype: np.dtype) -> bytes:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )
    return head.getvalue()
