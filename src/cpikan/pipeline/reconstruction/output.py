"""The output of a run: opened when its first rows come, put in place when the last are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from cpikan.errors import NothingMeasured
from cpikan.pipeline.maps.pyramid import HasPyramid, build_pyramid, pyramid_rows
from cpikan.pipeline.reconstruction.row_sink import RowSink
from cpikan.pipeline.reconstruction.workspace import OUTPUT_ROWS, Workspace
from cpikan.psi.kernels.statistics import MapStatistics
from cpikan.storage.writers.layout import QUANTITIES, open_writer
from cpikan.streaming.events import Events, Progress


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
