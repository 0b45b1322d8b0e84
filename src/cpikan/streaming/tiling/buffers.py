"""Memory for the rows of tiles under way: image rows that come in and bands that go out, also shared with processes."""

from __future__ import annotations

import contextlib
import math
import os
from collections import deque
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.streaming.tiling.plan import TilePlan


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
        self._free = deque(range(counts[0])), deque(range(counts[1]))

    def _lay_out(self) -> None:
        if self.memory is None:
            self.inputs, self.bands = (np.zeros(shape, np.float32) for shape in self._shapes)
            for array in (self.inputs, self.bands):
                array.fill(0)  # touched: its pages are there
            return
        first = 4 * math.prod(self._shapes[0])
        self.inputs = np.ndarray(self._shapes[0], np.float32, self.memory.buf)
        self.bands = np.ndarray(self._shapes[1], np.float32, self.memory.buf, first)

    def take_input(self) -> int:
        """Take a place for image rows; there are as many as rows of tiles can be under way."""
        return self._free[0].pop()

    def take_band(self) -> int:
        """Take a place for a band."""
        return self._free[1].pop()

    def give_input(self, place: int) -> None:
        self._free[0].append(place)

    def give_band(self, place: int) -> None:
        self._free[1].append(place)

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
