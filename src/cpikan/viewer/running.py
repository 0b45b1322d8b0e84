"""The output of a run that has not finished: its rows as they are written, under the name they have at the moment."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.pipeline.maps.height_map import HeightMap, open_height_map
from cpikan.pipeline.reconstruction.workspace import OUTPUT_ROWS
from cpikan.storage.headers import decoding
from cpikan.storage.maps import LazyMap, MapArray, ZarrMap, open_npy, open_tiff_map, open_zarr_map
from cpikan.storage.writers.layout import QUANTITIES, npy_path, partial_of
from cpikan.streaming.journal import JournalReader


class GrowingArray(LazyMap):
    """A quantity of which the first rows are there; the others are the fill value of the quantity.

    ``source`` gives the array as it is now: a run that finishes gives its files another name.
    """

    def __init__(self, name: str, shape: tuple[int, int], source: Callable[[], MapArray]) -> None:
        super().__init__(shape, QUANTITIES[name].dtype)
        self.rows = 0
        self._fill, self._source = QUANTITIES[name].fill, source

    def _read(self, rows: range, columns: range) -> np.ndarray:
        there = min(max(rows.start, self.rows), rows.stop)
        window = np.full((len(rows), len(columns)), self._fill, self.dtype)
        if there > rows.start:
            window[: there - rows.start] = self._source()[rows.start : there, columns.start : columns.stop]
        return window


class RunningMap:
    """The map that another process writes at ``path``: ``arrays`` grow with each `look` until ``done``.

    Rows are those of the journal of the run; of a .zarr without one, those whose shards are there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        journal = path.with_name(path.name + ".journal")
        self._journal = JournalReader(journal) if journal.exists() else None
        self._plan: dict[str, Any] = {}
        self.rows, self.done, self._renamed = 0, False, False
        self._stored = _open_partial(path)
        self.arrays = {
            name: GrowingArray(name, array.shape, self._getter(name)) for name, array in self._stored.items()
        }
        self.look()

    @property
    def height_map(self) -> HeightMap:
        """Give the map as far as it goes; when the run has finished, with what its document says."""
        if self.done:
            finished = open_height_map(self.path)
            return HeightMap(finished.path, self.arrays, finished.document)
        return HeightMap(self.path, self.arrays, {"acquisition": self._plan.get("acquisition")})

    def look(self) -> bool:
        """Learn which rows are there now; tells whether there are more, or the run has finished, since the last call."""
        before = self.rows, self.done
        if not self.done:
            if self._renamed or (not partial_of(self.path).exists() and self.path.exists()):
                self._follow()
            else:
                self.rows = self._written()
            for array in self.arrays.values():
                array.rows = self.rows
        return (self.rows, self.done) != before

    def _follow(self) -> None:
        """Read from the files under their final names; the run is done when its document is there, which it writes last."""
        if not self._renamed:
            finished = open_height_map(self.path)
            if finished.shape != next(iter(self.arrays.values())).shape:
                raise InputError(f"{self.path} became a map of another size: open it anew")
            self._stored, self._renamed = dict(finished.arrays), True
            self.rows = finished.shape[0]
        self.done = self._journal is None or not self._journal.path.exists()

    def _written(self) -> int:
        if self._journal is None:
            return _whole_shards(self._stored["height_nm"], self.rows)
        try:
            entries = self._journal.read_new()
        except FileNotFoundError:  # between the end of the run and the name of its output
            return self.rows
        for entry in entries:
            self._plan = entry.get("plan", self._plan)
            if entry.get("stage") == OUTPUT_ROWS:
                self.rows = int(entry["rows"])
        return self.rows

    def _getter(self, name: str) -> Callable[[], MapArray]:
        def array() -> MapArray:
            if not self._renamed and not partial_of(self.path).exists():
                self.look()
            return self._stored[name]

        return array


def is_running(path: Path) -> bool:
    """Tell whether an output is not there yet but being written."""
    return not path.exists() and (partial_of(path).exists() or path.with_name(path.name + ".journal").exists())


def _open_partial(path: Path) -> dict[str, MapArray]:
    """Open the unfinished files of an output; InputError for a format whose rows cannot be told from what is not written."""
    partial = partial_of(path)
    with decoding(str(partial)):
        if path.suffix == ".zarr":
            return dict(open_zarr_map(partial).arrays)
        if path.suffix in (".tif", ".tiff"):
            return dict(open_tiff_map(partial).arrays)
        if path.suffix == ".npy":
            files = {name: partial_of(npy_path(path, name)) for name in QUANTITIES}
            return {name: open_npy(file) for name, file in files.items() if file.exists()}
    raise InputError(f"{path} is still being written, and its rows cannot be read before its end: wait for it")


def _whole_shards(array: MapArray, rows: int) -> int:
    """Count the rows from ``rows`` on whose shards are there."""
    if not isinstance(array, ZarrMap):
        return rows
    while rows < array.shape[0] and os.path.isfile(array.chunk_of(rows)):
        rows = min(array.shape[0], rows + array.chunk_rows)
    return rows
