"""An output that is written as a run writes it: rows in order, a journal beside it, its name at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.storage.atomic import write_json
from cpikan.storage.writers.layout import QUANTITIES, document_path, open_writer
from cpikan.streaming.journal import Journal


class RunningOutput:
    """Writes heights, and a sigma of 0.5 nm, at the pace of a test."""

    def __init__(self, path: Path, heights: np.ndarray, journal: Journal | None) -> None:
        self.path, self._heights, self.journal = path, heights, journal
        kinds = {name: QUANTITIES[name].dtype for name in ("height_nm", "sigma_nm")}
        self._writer = open_writer(path, heights.shape, kinds, attributes={}, resume=False)
        self._rows = 0

    def write(self, stop: int) -> None:
        """Write rows up to ``stop`` and journal them."""
        rows = self._heights[self._rows : stop]
        self._writer.write_rows(self._rows, {"height_nm": rows, "sigma_nm": np.full_like(rows, 0.5)})
        self._rows = stop
        if self.journal is not None:
            self.journal.add({"stage": "output", "rows": stop})

    def finish(self) -> None:
        """Give the output its name, as a run does."""
        self._writer.finish()
        write_json(document_path(self.path), {"summary": {"method": "hybrid", "warnings": ["said at the end"]}})
        if self.journal is not None:
            self.journal.remove()

    def close(self) -> None:
        """Leave the output as a killed run does."""
        self._writer.close()
        if self.journal is not None:
            self.journal.close()


@contextmanager
def running(path: Path, heights: np.ndarray, *, journal: bool = True) -> Iterator[RunningOutput]:
    """Begin an output; what is not finished stays as a killed run leaves it."""
    plan: dict[str, Any] = {"shape": [2, 4, *heights.shape], "acquisition": {"pixel_um": 5.0}}
    log = Journal.start(path.with_name(path.name + ".journal"), plan) if journal else None
    output = RunningOutput(path, heights, log)
    try:
        yield output
    finally:
        output.close()
