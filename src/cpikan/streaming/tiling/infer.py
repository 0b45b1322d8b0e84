"""Run a model over an image of any size by overlapping tiles, streamed: read ahead, compute, write behind."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cpikan.errors import InputError
from cpikan.partition import Intervals
from cpikan.storage.maps import open_map
from cpikan.storage.writers.layout import output_format
from cpikan.streaming.engine import Band, StreamTimings, stream_through
from cpikan.streaming.events import Progress
from cpikan.streaming.executor import Executor, ProcessExecutor, SerialExecutor
from cpikan.streaming.memory import PeakMemory
from cpikan.streaming.threads import threads_limited
from cpikan.streaming.tiling.blend import Blender, Disagreement
from cpikan.streaming.tiling.model import TileModel, as_model, model_name
from cpikan.streaming.tiling.plan import TilePlan, TilingSettings, describe, plan_tiles
from cpikan.streaming.tiling.row import RowBuffers, RowFeed, RowFigures, RowTask, RowWork
from cpikan.streaming.tiling.sink import ArrayOut, FileOut, RowsOut
from cpikan.streaming.tiling.source import ImageSource, open_source


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


_DEPTH = 1  # rows of tiles that wait before the work and after it


@dataclass
class TiledResult:
    """What came out: ``report`` with its figures, and ``values``, in memory or read from ``output`` on demand.

    ``values`` is (H, W) where an image (H, W) gave one channel, else (C', H, W); with named quantities a dictionary.
    """

    report: dict[str, Any]
    output: Path | None
    array: np.ndarray | None = None
    quantities: tuple[str, ...] | None = None

    @property
    def values(self) -> Any:
        if self.array is not None:
            return self.array
        assert self.output is not None
        if self.quantities is not None:
            return open_map(self.output).arrays
        array = output_format(self.output).array
        assert array is not None, "it was written as one array"
        return array(self.output)


def infer_tiled(
    model: Any,
    source: Any,
    output: Any = None,
    settings: TilingSettings | None = None,
    **options: Any,
) -> TiledResult:
    """Run ``model`` over ``source`` in overlapping tiles and blend them into ``output``.

    ``model`` is any callable (N, C, h, w) -> (N, C', h, w) float32; see TileModel for what it may promise of itself.
    ``source`` is an image (H, W) or (C, H, W): an array, a memory map, a reader of frames, or a path. ``output`` is None
    (a new array), an array to fill, or a path (.npy, .zarr; .tif with ``quantities``). ``options`` are fields of
    TilingSettings, such as tile=512, overlap=64. Memory is a few rows of tiles, whatever the height of the image. A file
    that was interrupted goes on with resume=True and ends byte-identical. Raises InputError for settings that exclude
    each other, an overlap smaller than the model's receptive field, and wrapped phases that would be blended.
    """
    chosen = (settings or TilingSettings()).changed(options)
    tile_model = as_model(model)
    with closing(open_source(source)) as image:
        plan = plan_tiles(tile_model, image.shape, chosen)
        shape = plan.shape if image.flat and plan.channels_out == 1 else (plan.channels_out, *plan.shape)
        if isinstance(output, str | Path):
            return _to_file(tile_model, image, Path(output), shape, plan, chosen)
        array = _target(output, shape)
        if image.array is not None and np.may_share_memory(array, image.array):
            raise InputError("the output is the image itself, which later tiles still need: give another array")
        whole = array if array.ndim == 3 else array[None]
        report = _run(tile_model, image, ArrayOut(whole), plan, chosen)
        return TiledResult(report, None, array)


def _target(output: Any, shape: tuple[int, ...]) -> np.ndarray:
    if output is None:
        return np.empty(shape, np.float32)
    if not isinstance(output, np.ndarray) or output.shape != shape or output.dtype != np.float32:
        found = f"{output.dtype} {output.shape}" if isinstance(output, np.ndarray) else type(output).__name__
        raise InputError(f"output {found} cannot be filled: give a float32 array of shape {shape}, a path, or nothing")
    return output


def _to_file(
    model: TileModel,
    image: ImageSource,
    path: Path,
    shape: tuple[int, ...],
    plan: TilePlan,
    settings: TilingSettings,
) -> TiledResult:
    described = describe(plan, model, settings) | {"model": model_name(model), "source": image.fingerprint()}
    out = FileOut(path, shape, described, settings)
    if out.finished is not None:
        return TiledResult({**out.finished, "state": "finished before"}, path, None, settings.quantities)
    try:
        report = _run(model, image, out, plan, settings)
    finally:
        out.release()
    return TiledResult(report, path, None, settings.quantities)


def run_tiles(model: TileModel, image: ImageSource, out: RowsOut, settings: TilingSettings) -> dict[str, Any]:
    """Run a model as `infer_tiled` does, from an opened source into anything that takes rows; return the report."""
    return _run(model, image, out, plan_tiles(model, image.shape, settings), settings)


def _run(
    model: TileModel, image: ImageSource, out: RowsOut, plan: TilePlan, settings: TilingSettings
) -> dict[str, Any]:
    """Carry all rows of tiles that are still to do through the stream; return the report of the run."""
    several = settings.processes > 1
    executor: Executor = ProcessExecutor(settings.processes, settings.threads or 1) if several else SerialExecutor()
    places = min(executor.in_flight + _DEPTH + 1, len(plan.rows))  # all the executor took, a queue, one in hand
    views = not several and image.array is not None and plan.rows.upper == plan.shape[0]
    in_place = out.array if isinstance(out, ArrayOut) and not several else None
    todo = [Band(i, plan.emitted[i], plan.emitted[i + 1]) for i in _rows_to_do(plan, out.first_row)]
    figures = Figures(plan, resumed_from_row=out.first_row)
    with (
        PeakMemory() as memory,
        RowBuffers(plan, (0 if views else places, places if in_place is None else 0), shared=several) as buffers,
        executor,
        threads_limited(None if several else settings.threads),
        Progress("tiles", sum(band.rows for band in todo), plan.shape[1], settings.progress) as progress,
    ):
        loop = _Loop(RowFeed(image, plan), plan.blender(), buffers, figures, in_place)
        work = RowWork(plan, model, buffers)

        def blended(items: Iterator[tuple[Band, np.ndarray | int]]) -> Generator[_Done, None, None]:
            results = executor.map(work, loop.tasks(items))
            figures.start_clock()
            return loop.joined(work, results)

        def write(band: Band, done: _Done) -> None:
            out.write(band.start, done.rows)
            loop.give_band(done)

        read = loop.views if not several else loop.copies
        figures.timings = stream_through(todo, read, blended, write, depth=_DEPTH, progress=progress)
        out.finish()
        report = figures.report(memory, executor.size, buffers)
    out.commit(report)
    return report


def _rows_to_do(plan: TilePlan, first_row: int) -> range:
    """Find the rows of tiles that finish image rows from ``first_row`` on, and one above for the shared ramp."""
    edges, count = plan.emitted, len(plan.rows)
    first = next((i for i in range(count) if edges[i + 1] > first_row), count)
    return range(max(first - 1, 0) if first < count and plan.rows.ramp else first, count)


class _Done(NamedTuple):
    """Finished image rows (C', n, W) and the task whose band they lie in."""

    rows: np.ndarray
    task: RowTask


class _Loop:
    """What happens to a row of tiles before and after the work on it, in order of the rows."""

    def __init__(
        self,
        feed: RowFeed,
        blender: Blender,
        buffers: RowBuffers,
        figures: Figures,
        in_place: np.ndarray | None,
    ) -> None:
        self._feed, self._blender, self._buffers, self._figures = feed, blender, buffers, figures
        self._in_place = in_place
        self._under_way: deque[RowTask] = deque()
        figures.disagreement = blender.disagreement

    def views(self, band: Band) -> np.ndarray | int:
        """Return image rows as they lie in memory, where they do, else copies."""
        rows = self._feed.view(band.index)
        return self.copies(band) if rows is None else rows

    def copies(self, band: Band) -> int:
        """Copy image rows to a place of the buffers, and return its number."""
        place = self._buffers.free_inputs.pop()
        self._feed.fill(band.index, self._buffers.inputs[place])
        return place

    def tasks(self, items: Iterator[tuple[Band, np.ndarray | int]]) -> Iterator[RowTask]:
        """Yield rows of tiles with room for their bands, as the executor takes them."""
        for band, rows in items:
            top, bottom = self._blender.rows_of(band.index)
            place = self._buffers.free_bands.pop() if self._in_place is None else self._in_place[:, top:bottom]
            self._under_way.append(RowTask(band.index, bottom - top, rows, place))
            yield self._under_way[-1]

    def joined(self, work: RowWork, results: Generator[RowFigures, None, None]) -> Generator[_Done, None, None]:
        """Blend each band with the band above."""
        carry: np.ndarray | None = None
        with closing(results):
            for figures in results:
                task = self._under_way.popleft()
                self._figures.add(figures)
                if not isinstance(task.rows, np.ndarray):
                    self._buffers.free_inputs.append(task.rows)
                rows, carry = self._blender.down(task.i, carry, work.band(task))
                yield _Done(rows, task)

    def give_band(self, done: _Done) -> None:
        """Free the place of a band that is written."""
        if not isinstance(done.task.band, np.ndarray):
            self._buffers.free_bands.append(done.task.band)
