"""Buffers that travel with the bands and come back: no allocation, no page fault once the run is warm."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Buffer = TypeVar("Buffer")


class BufferPool(Generic[Buffer]):
    """Hands out buffers and takes them back from any thread; as many exist as bands were ever in flight."""

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
