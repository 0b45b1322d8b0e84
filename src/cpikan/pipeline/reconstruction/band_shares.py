"""Bands shared among processes: each works on every n-th band, and the first one writes what all have found."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from cpikan.pipeline.reconstruction.output import Rows
from cpikan.psi.refine.protocol import BLOCK_PX
from cpikan.streaming.engine import Band, StreamTimings, stream
from cpikan.streaming.events import Progress
from cpikan.streaming.ranks import Ranks

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class BandWork(Generic[Item, Result]):
    """What is done with a band: ``read`` it, ``compute`` a result, ``write`` that, as in `stream`.

    The first process calls ``passed(band)`` in place of reading a band of another. ``blank(band)`` makes a result to be
    filled, and ``arrays(band, result)`` lists the arrays (rows, columns) of one.
    """

    read: Callable[[Band], Item]
    compute: Callable[[Band, Item], Result]
    write: Callable[[Band, Result], None]
    blank: Callable[[Band], Result]
    arrays: Callable[[Band, Result], Sequence[np.ndarray]]
    passed: Callable[[Band], None]


def shared_rows(rows: int, height: int, least: int, ranks: Ranks) -> int:
    """Choose the rows of a band so that every process has some of the ``height``: as they were for one, else whole blocks.

    Not fewer than ``least``, but where ``rows`` are.
    """
    if ranks.size == 1:
        return rows
    fair = max(min(rows, max(least, height // ranks.size)), 1)
    return -(-fair // BLOCK_PX) * BLOCK_PX


def stream_shared(
    ranks: Ranks, bands: Sequence[Band], work: BandWork[Item, Result], depth: int, progress: Progress | None
) -> StreamTimings:
    """Stream bands through ``work``; of several processes every one its own, and the first writes all, in order."""
    if ranks.size == 1:
        return stream(bands, work.read, work.compute, work.write, depth=depth, progress=progress)
    if ranks.rank > 0:
        own = [band for band in bands if band.index % ranks.size == ranks.rank]
        sent = _Sent(ranks, work)
        return stream(own, work.read, work.compute, sent.write, depth=depth)

    def read(band: Band) -> Any:
        if band.index % ranks.size == 0:
            return work.read(band)
        work.passed(band)
        return None

    def compute(band: Band, item: Any) -> Result:
        owner = band.index % ranks.size
        return work.compute(band, item) if owner == 0 else _received(ranks, work, band, owner)

    return stream(bands, read, compute, work.write, depth=depth, progress=progress)


@dataclass(frozen=True)
class _Sent(Generic[Item, Result]):
    """Writes results to the first process; the buffers of ``work`` go round as those of one process do."""

    ranks: Ranks
    work: BandWork[Item, Result]

    def write(self, band: Band, result: Result) -> None:
        import torch

        for array in self.work.arrays(band, result):
            self.ranks.send(torch.from_numpy(np.ascontiguousarray(array)), 0)
        self.work.write(band, result)


def _received(ranks: Ranks, work: BandWork[Item, Result], band: Band, owner: int) -> Result:
    result = work.blank(band)
    for array in work.arrays(band, result):
        array[...] = ranks.receive(owner).numpy()
    return result


@dataclass(frozen=True)
class RowsElsewhere:
    """Rows that the first process writes, from ``first_row`` on; it is sent them, so that nothing is left to be done here."""

    first_row: int
    quantities: tuple[str, ...]

    @classmethod
    def told(cls, ranks: Ranks) -> RowsElsewhere:
        """Hear from the first process what it writes."""
        found = json.loads(ranks.texts("")[0])
        return cls(found["first_row"], tuple(found["quantities"]))

    def write(self, start: int, rows: Mapping[str, np.ndarray], table: np.ndarray | None = None) -> None:
        """Take rows, which have been sent."""

    def finish(self) -> None:
        """Leave."""


def tell_rows(ranks: Ranks, sink: Rows) -> None:
    """Tell the other processes which rows are written, of which quantities."""
    if ranks.size > 1:
        ranks.texts(json.dumps({"first_row": sink.first_row, "quantities": list(sink.quantities)}))
