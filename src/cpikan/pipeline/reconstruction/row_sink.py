"""Rows on their way into an output, with the journal that remembers how far they came."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cpikan.pipeline.reconstruction.height_sample import HeightSample
from cpikan.psi.kernels.statistics import MapStatistics
from cpikan.storage.checks import checks_of
from cpikan.storage.protocols import MapWriter
from cpikan.storage.writers.base import RowAssembler
from cpikan.streaming.journal import Journal

_SYNC_S = 5.0  # at most this much work is lost in a power cut


class RowSink:
    """Writes consecutive rows of one stage and journals them; ``first_row`` is where an earlier run stopped.

    ``statistics`` covers the journaled rows, and so survives a kill with them. Rows that are not ``durable`` are never
    flushed: they survive a killed process but not a power cut, after which the run begins anew.
    """

    def __init__(
        self, writer: MapWriter, journal: Journal, stage: str, shape: tuple[int, int], *, durable: bool = True
    ) -> None:
        self._durable = durable
        self._writer, self._journal, self._stage, self._shape = writer, journal, stage, shape
        self._assembler = RowAssembler(writer, shape)
        self._pending: list[tuple[int, np.ndarray]] = []
        self._synced_at = time.perf_counter()
        self.statistics = MapStatistics()
        self.notes: Callable[[int], dict[str, Any]] = lambda rows: {}  # what else the journal is told of the first rows
        self.first_row = 0
        last = journal.last(stage)
        if last is not None:
            self.first_row = int(last["rows"])
            self.statistics = MapStatistics.from_json(last["statistics"])
        self.sample = HeightSample(shape, self.first_row)

    @property
    def quantities(self) -> tuple[str, ...]:
        """Name the quantities that the writer stores."""
        return tuple(self._writer.quantities)

    def write(self, start: int, rows: Mapping[str, np.ndarray], table: np.ndarray | None = None) -> None:
        """Take rows that follow the last, of which the stored quantities count; ``table`` holds their row statistics."""
        if table is not None:
            self.sample.add(start, rows)
            self._pending.append((start, table.copy()))
        stored = self._writer.quantities
        handed = self._assembler.write(start, {name: array for name, array in rows.items() if name in stored})
        if handed > self.first_row:
            self._count(handed)
            due = time.perf_counter() - self._synced_at > _SYNC_S
            self._mark(handed, synced=due)

    def finish(self) -> None:
        """Make the rows durable after all are written."""
        self._mark(self._shape[0], synced=True)

    def _mark(self, rows: int, *, synced: bool) -> None:
        synced = synced and self._durable
        if synced:
            self._writer.sync()
            self._synced_at = time.perf_counter()
        step: dict[str, Any] = {"stage": self._stage, "rows": rows, "statistics": self.statistics.to_json()}
        step["checks"] = checks_of(self._writer, self._journal.path.parent)
        self._journal.add(step | self.notes(rows), synced=synced)
        self.first_row = rows

    def _count(self, handed: int) -> None:
        waiting: list[tuple[int, np.ndarray]] = []
        for start, table in self._pending:
            ready = min(max(handed - start, 0), len(table))
            self.statistics.add(table[:ready], self._shape[1])
            if ready < len(table):
                waiting.append((start + ready, table[ready:]))
        self._pending = waiting
