"""Figures of a tiled run: speed, latency, memory, and how far neighbouring tiles disagreed."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from cpikan.streaming.engine import StreamTimings
from cpikan.streaming.memory import PeakMemory
from cpikan.streaming.tiling.overlap import Disagreement
from cpikan.streaming.tiling.rows import RowFigures, TilePlan

if TYPE_CHECKING:
    from cpikan.streaming.tiling.crew import OwnProcess, SeveralProcesses


class Figures:
    """Collects what a run measures of itself."""

    def __init__(self, plan: TilePlan, resumed_from_row: int) -> None:
        self._plan, self._resumed = plan, resumed_from_row
        self._model_s = self._seconds = self._others_mib = 0.0
        self._tile_s: list[float] = []
        self._started = time.perf_counter()
        self.disagreement: Disagreement | None = None
        self.timings = StreamTimings()

    @contextlib.contextmanager
    def clock(self) -> Iterator[None]:
        """Count from here: processes have been started."""
        self._started = time.perf_counter()
        yield

    def add(self, row: RowFigures) -> None:
        """Take the figures of one row of tiles."""
        self._model_s += row.model_s
        self._tile_s += row.tile_s
        self._others_mib = max(self._others_mib, row.anonymous_mib)
        if self.disagreement is not None:
            self.disagreement.merge(row.disagreement)

    def report(self, memory: PeakMemory, crew: OwnProcess | SeveralProcesses) -> dict[str, Any]:
        """The report, JSON-like. ``seconds`` runs to the durable output, without the start of processes.

        ``overlap_l2`` is the relative L2 difference of neighbouring tiles before they are blended, on the pixels of the
        ramps (for ``halo``, a few around each cut), modulo the period where there is one. ``exact`` says whether the
        receptive field guarantees the untiled result. ``tile_ms`` is cutting, model and blending of one tile.
        """
        plan, grid = self._plan, self._plan.grid
        seconds = time.perf_counter() - self._started
        shares = np.asarray(self._tile_s or [0.0])
        pixels = (grid.shape[0] - self._resumed) * grid.shape[1]
        differs = self.disagreement or Disagreement()
        return {
            "shape": list(grid.shape),
            "channels": [plan.channels_in, plan.channels_out],
            "tiles": len(grid),
            "tiles_run": len(self._tile_s),
            "tile": list(grid.tile),
            "overlap": list(grid.overlap),
            "ramp": [grid.rows.ramp, grid.columns.ramp] if plan.window != "halo" else [0, 0],
            "cuts": [list(grid.rows.cuts), list(grid.columns.cuts)],
            "window": plan.window,
            "exact": exactness(plan),
            "overlap_l2": differs.relative_l2,
            "overlap_rms": differs.rms,
            "overlap_max": differs.largest if differs.pixels else None,
            "overlap_pixels": differs.pixels,
            "seconds": seconds,
            "seconds_model": self._model_s,
            "seconds_read": self.timings.read,
            "seconds_compute": self.timings.compute,
            "seconds_write": self.timings.write,
            "tiles_per_second": len(self._tile_s) / seconds,
            "megapixels_per_second": pixels / 1e6 / seconds,
            "tile_ms_p50": 1e3 * float(np.percentile(shares, 50)),
            "tile_ms_p95": 1e3 * float(np.percentile(shares, 95)),
            "peak_anonymous_mib": memory.peak() + crew.processes * self._others_mib + crew.shared_mib,
            "peak_device_mib": _device_mib(),
            "buffer_mib": crew.own_mib + crew.shared_mib,
            "processes": crew.processes,
            "batch": plan.batch,
            "resumed_from_row": self._resumed,
        }


def _device_mib() -> float | None:
    """The largest memory that torch has held on CUDA devices in this process; None where it uses none."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return float(sum(torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count())) / 2**20)


def exactness(plan: TilePlan) -> str:
    """Whether the tiled result is the untiled one by construction, or only as measured on the overlaps."""
    if len(plan.grid) == 1:
        return "one tile"
    if plan.finite:
        return "guaranteed by the receptive field"
    return "not guaranteed, the model sees the whole tile: see overlap_l2"
