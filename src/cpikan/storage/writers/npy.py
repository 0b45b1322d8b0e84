"""One .npy file per quantity."""

from __future__ import annotations

import os

import numpy as np

from cpikan.storage.atomic import full_disk_named, sync_path
from cpikan.storage.checks import Check
from cpikan.storage.writers.base import LayoutWriter
from cpikan.storage.writers.layout import QUANTITIES, MapLayout, npy_path, partial_of
from cpikan.storage.writers.npy_array import NpyArrayFile


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
