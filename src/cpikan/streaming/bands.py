"""Bands: the runs of image rows that travel through the engine, and buffers that travel with them and come back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Buffer = TypeVar("Buffer")


@dataclass(frozen=True)
class Band:
    """Rows [start, stop) of an image, the index-th of their list."""

    index: int
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start


def split_bands(height: int, rows: int, first_row: int = 0) -> tuple[Band, ...]:
    """Cut the rows from ``first_row`` to ``height`` into bands of ``rows``; the last may be shorter."""
    step = max(1, rows)
    return tuple(Band(i, start, min(start + step, height)) for i, start in enumerate(range(first_row, height, step)))


class BufferPool(Generic[Buffer]):
    """Hands out buffers and takes them back from any thread; as many exist as bands were ever in flight.

    So nothing is allocated, and no page is touched for the first time, once the run is warm.
    """

    def __init__(self, make: Callable[[], Buffer]) -> None:
        self._make = make
        self._free: deque[Buffer] = deque()

    def take(self) -> Buffer:
        try:
            return self._free.pop()  # the one that came back last is still in the caches
        except IndexError:
            return self._make()

    def give(self, buffer: Buffer) -> None:
        self._free.append(buffer)
