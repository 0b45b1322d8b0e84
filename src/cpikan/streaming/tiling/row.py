"""One row of tiles: its image rows come in, the model runs over its tiles in batches, a blended band goes out."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections import deque
from dataclasses import dataclass, field
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cpikan.errors import InputError
from cpikan.streaming.memory import anonymous_mib
from cpikan.streaming.tiling.blend import Disagreement
from cpikan.streaming.tiling.model import TileModel, checked_output
from cpikan.streaming.tiling.plan import TilePlan
from cpikan.streaming.tiling.source import ImageSource


class RowBuffers:
    """``counts`` places for image rows (`inputs`) and for bands (`bands`) of one row of tiles each, taken by number.

    With ``shared`` they are in memory that other processes see where this object is sent to them. All of it is there from
    the start, so that memory depends on the plan and not on which thread is faster. Raises InputError where the machine
    has not so much shared memory.
    """

    def __init__(self, plan: TilePlan, counts: tuple[int, int], *, shared: bool) -> None:
        self._shapes = (counts[0], *plan.input_shape), (counts[1], *plan.band_shape)
        size = 4 * sum(map(math.prod, self._shapes))
        self.mib = size / 2**20
        self.memory = None
        if shared:
            _check_shared_memory(size)
            self.memory = SharedMemory(create=True, size=size)
        self._lay_out()
        # places for image rows, as many as rows of tiles can be under way, and for bands
        self.free_inputs, self.free_bands = deque(range(counts[0])), deque(range(counts[1]))

    def _lay_out(self) -> None:
        if self.memory is None:
            self.inputs, self.bands = (np.zeros(shape, np.float32) for shape in self._shapes)
            for array in (self.inputs, self.bands):
                array.fill(0)  # touched: its pages are there
            return
        first = 4 * math.prod(self._shapes[0])
        self.inputs = np.ndarray(self._shapes[0], np.float32, self.memory.buf)
        self.bands = np.ndarray(self._shapes[1], np.float32, self.memory.buf, first)

    def __getstate__(self) -> dict[str, Any]:
        assert self.memory is not None, "memory of one process cannot be sent to another"
        return {"_shapes": self._shapes, "name": self.memory.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._shapes, self.memory = state["_shapes"], SharedMemory(state["name"])
        self._lay_out()

    def __enter__(self) -> RowBuffers:
        return self

    def __exit__(self, *failure: object) -> None:
        del self.inputs, self.bands
        if self.memory is not None:
            with contextlib.suppress(BufferError):  # a traceback may hold a place; the name goes all the same
                self.memory.close()
            self.memory.unlink()


def _check_shared_memory(needed: int) -> None:
    folder = Path("/dev/shm")
    if folder.is_dir():
        free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
        if free < needed:
            raise InputError(
                f"several processes need {needed // 2**20 + 1} MiB of shared memory, {free // 2**20} MiB are free in "
                f"{folder}: give processes=1, fewer processes or a smaller tile"
            )


@dataclass
class RowFigures:
    """What one row of tiles took: seconds inside the model, seconds per tile of every batch, disagreement across."""

    model_s: float = 0.0
    tile_s: list[float] = field(default_factory=list)
    disagreement: Disagreement = field(default_factory=Disagreement)
    anonymous_mib: float = 0.0


class RowTask(NamedTuple):
    """Row i of tiles: its image rows (C, tile rows, W) and the band of ``height`` rows that it fills.

    Both are arrays, or numbers of places in `RowBuffers`.
    """

    i: int
    height: int
    rows: np.ndarray | int
    band: np.ndarray | int


class RowWork:
    """The work on a `RowTask`; an executor may send it to other processes."""

    def __init__(self, plan: TilePlan, model: TileModel, buffers: RowBuffers) -> None:
        self._plan, self._model, self._buffers = plan, model, buffers
        self._elsewhere = False

    def __call__(self, task: RowTask) -> RowFigures:
        rows = task.rows if isinstance(task.rows, np.ndarray) else self._buffers.inputs[task.rows]
        figures = run_row(self._plan, self._model, task.i, rows, self.band(task))
        if self._elsewhere:
            figures.anonymous_mib = anonymous_mib()
        return figures

    def band(self, task: RowTask) -> np.ndarray:
        """Return the band that is filled, (C', height, W)."""
        band = task.band if isinstance(task.band, np.ndarray) else self._buffers.bands[task.band]
        return band[:, : task.height]

    def for_process(self, number: int) -> RowWork:
        """Prepare the work for process ``number``; a model with ``for_process`` moves to a device of its own."""
        self._elsewhere = True
        if hasattr(self._model, "for_process"):
            self._model = self._model.for_process(number)
        return self


def run_row(plan: TilePlan, model: TileModel, i: int, rows: np.ndarray, band: np.ndarray) -> RowFigures:
    """Run row i of tiles: ``rows`` (C, tile rows, W) in, the blended ``band`` (C', rows of its support, W) out."""
    figures, blender, columns = RowFigures(), plan.blender(), plan.columns
    buffer = np.empty((min(plan.batch, len(columns)), plan.channels_in, *plan.tile), np.float32)
    for first in range(0, len(columns), plan.batch):
        batch = range(first, min(first + plan.batch, len(columns)))
        started = time.perf_counter()
        tiles = buffer[: len(batch)]
        for tile, j in zip(tiles, batch, strict=True):
            _cut_columns(rows, *columns.extent(j), tile)
        before = time.perf_counter()
        values = checked_output(model(tiles), tiles.shape, plan.channels_out)
        figures.model_s += time.perf_counter() - before
        for tile, j in zip(values, batch, strict=True):
            blender.across(plan.partition.at((i, j)), tile, band)
        figures.tile_s += [(time.perf_counter() - started) / len(batch)] * len(batch)
    assert blender.disagreement is not None
    figures.disagreement = blender.disagreement
    return figures


class RowFeed:
    """The image rows under each row of tiles, in order; every row of the source is read once.

    Rows that neighbouring rows of tiles share are copied from the last buffer; rows beyond the image repeat its last.
    """

    def __init__(self, source: ImageSource, plan: TilePlan) -> None:
        self._source, self._plan = source, plan
        self._kept: np.ndarray | None = None

    def view(self, i: int) -> np.ndarray | None:
        """View the rows under row i of tiles in an image in memory, None where it does not have them all."""
        start, stop = self._plan.rows.extent(i)
        whole = self._source.array
        return whole[:, start:stop] if whole is not None and stop <= self._plan.shape[0] else None

    def fill(self, i: int, out: np.ndarray) -> np.ndarray:
        """Put the rows of row i of tiles into ``out`` (C, tile rows, W) and return it."""
        axis = self._plan.rows
        start, stop = axis.extent(i)
        end = min(stop, self._plan.shape[0])
        kept = 0 if self._kept is None else self._kept.shape[1]
        if self._kept is not None:
            out[:, :kept] = self._kept
        if start + kept < end:
            self._source.fill(start + kept, end, out[:, kept : end - start])
        out[:, end - start :] = out[:, end - start - 1 : end - start]
        shared = stop - axis.starts[i + 1] if i + 1 < len(axis) else 0
        self._kept = out[:, out.shape[1] - shared :].copy() if shared else None
        return out


def _cut_columns(rows: np.ndarray, start: int, stop: int, out: np.ndarray) -> None:
    """Cut the columns [start, stop) of ``rows``; those beyond the image repeat its last."""
    end = min(stop, rows.shape[2])
    out[:, :, : end - start] = rows[:, :, start:end]
    out[:, :, end - start :] = rows[:, :, end - 1 : end]
