"""The output of a run: opened when its first rows come, with a journal of how far they came, put in place with the last."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from cpikan.errors import NothingMeasured
from cpikan.order_statistics import quantile
from cpikan.pipeline.maps.pyramid import HasPyramid, build_pyramid, pyramid_rows
from cpikan.pipeline.reconstruction.workspace import OUTPUT_ROWS, Workspace
from cpikan.psi.kernels.statistics import MapStatistics
from cpikan.psi.model.flags import Flag
from cpikan.storage.atomic import checks_of
from cpikan.storage.protocols import MapWriter
from cpikan.storage.writers.layout import QUANTITIES, RowAssembler, open_writer
from cpikan.streaming.events import Events, Progress
from cpikan.streaming.journal import Journal

_PIXELS = 1_000_000
LEFT_OUT = 0.001  # share of the valid pixels, half of it at either end


class HeightSample:
    """Heights of every n-th row and column of a map of ``shape``, at most about a million of them.

    ``add`` takes rows in any bands; which pixels are kept does not depend on them. Rows that were written by an earlier run
    are not there: the sample is then not ``complete``.
    """

    def __init__(self, shape: tuple[int, int], first_row: int = 0) -> None:
        self.complete = first_row == 0
        self._step = max(1, int(np.ceil(np.sqrt(shape[0] * shape[1] / _PIXELS))))
        self._heights: list[np.ndarray] = []

    def add(self, start: int, rows: Mapping[str, np.ndarray]) -> None:
        """Take from rows of the map, from row ``start`` on, the heights of pixels that were measured."""
        if "height_nm" not in rows:
            return
        offset = -start % self._step
        height = rows["height_nm"][offset :: self._step, :: self._step]
        known = np.isfinite(height)
        if "flags" in rows:
            known &= (rows["flags"][offset :: self._step, :: self._step] & np.uint8(Flag.INVALID)) == 0
        self._heights.append(height[known])

    def pv_nm(self) -> float | None:
        """Compute the range of heights without the highest and the lowest half per mille; None where there are none."""
        heights = np.concatenate(self._heights) if self._heights else np.empty(0)
        if not self.complete or not heights.size:
            return None
        return quantile(heights, 1 - LEFT_OUT / 2) - quantile(heights, LEFT_OUT / 2)


class Rows(Protocol):
    """Takes rows of ``quantities`` from ``first_row`` on, one after the other, until all are there."""

    @property
    def first_row(self) -> int: ...

    @property
    def quantities(self) -> tuple[str, ...]: ...

    def write(self, start: int, rows: Mapping[str, np.ndarray], table: np.ndarray | None = None) -> None: ...

    def finish(self) -> None: ...


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
        self.quantities = tuple(writer.quantities)
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


def _check_measured(found: MapStatistics) -> None:
    """Refuse a map that holds no height at all."""
    if found.valid == 0:
        raise NothingMeasured(
            f"nothing could be measured: of {found.pixels} pixels {found.saturated} are saturated, {found.low} have too little "
            "modulation, the others are masked out, or not numbers that can be computed with; check the exposure, the frames "
            "and their steps, and the mask"
        )


@dataclass(frozen=True)
class Output:
    """Where the rows of a map of ``shape`` go; ``attributes`` are kept inside files that can."""

    space: Workspace
    shape: tuple[int, int]
    attributes: Mapping[str, Any]
    events: Events

    @contextmanager
    def rows(self, *, durable: bool) -> Iterator[RowSink]:
        """Take the rows that an earlier run has not written; at the end of the block all are there, and get their name.

        Rows that are not ``durable`` may be lost in a power cut: their run then begins anew.
        """
        journal = self.space.journal
        assert journal is not None
        kinds = {name: QUANTITIES[name].dtype for name in self.space.quantities}
        begun = journal.last(OUTPUT_ROWS) is not None
        opened = open_writer(self.space.output, self.shape, kinds, attributes=self.attributes, resume=begun)
        with closing(opened) as writer:
            sink = RowSink(writer, journal, OUTPUT_ROWS, self.shape, durable=durable)
            yield sink
            _check_measured(sink.statistics)
            rows = pyramid_rows(self.shape, len(kinds)) if isinstance(writer, HasPyramid) else 0
            with Progress("pyramid", rows, self.shape[1], self.events) as progress:
                build_pyramid(writer, progress=progress)
            self.space.replace_old()
            writer.finish()
