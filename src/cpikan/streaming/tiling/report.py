"""Figures of a tiled run: speed, latency, memory, and how far neighbouring tiles disagreed."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

from cpikan.partition import Intervals
from cpikan.streaming.engine import StreamTimings
from cpikan.streaming.memory import PeakMemory
from cpikan.streaming.tiling.buffers import RowBuffers
from cpikan.streaming.tiling.disagreement import Disagreement
from cpikan.streaming.tiling.plan import TilePlan
from cpikan.streaming.tiling.row import RowFigures


class Figures:
    """Collects what a run measures of itself."""

    def __init__(self, plan: TilePlan, resumed_from_row: int) -> None:
        self._plan, self._resumed = plan, resumed_from_row
        self._model_s = self._seconds = self._others_mib = 0.0
        self._tile_s: list[float] = []
        self._started = time.perf_counter()
        self.disagreement: Disagreement | None = None
        self.timings = StreamTimings()

    def start_clock(self) -> None:
        """Count from here: processes have been started."""
        self._started = time.perf_counter()

    def add(self, row: RowFigures) -> None:
        """Take the figures of one row of tiles."""
        self._model_s += row.model_s
        self._tile_s += row.tile_s
        self._others_mib = max(self._others_mib, row.anonymous_mib)
        if self.disagreement is not None:
            self.disagreement.merge(row.disagreement)

    def report(self, memory: PeakMemory, processes: int, buffers: RowBuffers) -> dict[str, Any]:
        """Make the report, JSON-like. ``seconds`` runs to the durable output, without the start of processes.

        ``overlap_l2`` is the relative L2 difference of neighbouring tiles before they are blended, on the pixels of the
        ramps (for ``halo``, a few around each cut), modulo the period where there is one. ``exact`` says whether the
        receptive field guarantees the untiled result. ``tile_ms`` is cutting, model and blending of one tile.
        """
        plan, shared_mib = self._plan, buffers.mib if processes > 1 else 0.0
        seconds = time.perf_counter() - self._started
        shares = np.asarray(self._tile_s or [0.0])
        pixels = (plan.shape[0] - self._resumed) * plan.shape[1]
        differs = self.disagreement or Disagreement()
        return {
            "shape": list(plan.shape),
            "channels": [plan.channels_in, plan.channels_out],
            "tiles": len(plan.partition),
            "tiles_run": len(self._tile_s),
            "tile": list(plan.tile),
            "overlap": [_least_overlap(axis) for axis in plan.partition.axes],
            "ramp": [plan.rows.ramp, plan.columns.ramp] if plan.window != "halo" else [0, 0],
            "cuts": [list(plan.rows.cuts), list(plan.columns.cuts)],
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
            "peak_anonymous_mib": memory.peak() + processes * self._others_mib + shared_mib,
            "peak_device_mib": _device_mib(),
            "buffer_mib": buffers.mib,
            "processes": processes,
            "batch": plan.batch,
            "resumed_from_row": self._resumed,
        }


def _least_overlap(axis: Intervals[int]) -> int:
    """Find the smallest overlap of neighbours on an axis, in pixels; 0 where there is one tile only."""
    return min((stop - later for stop, later in zip(axis.stops, axis.starts[1:], strict=False)), default=0)


def _device_mib() -> float | None:
    """Sum the peak memory in MiB that torch has held on CUDA devices in this process; None where it uses none."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return float(sum(torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count())) / 2**20)


def exactness(plan: TilePlan) -> str:
    """Tell whether the tiled result is the untiled one by construction, or only as measured on the overlaps."""
    if len(plan.partition) == 1:
        return "one tile"
    if plan.finite:
        return "guaranteed by the receptive field"
    return "not guaranteed, the model sees the whole tile: see overlap_l2"
