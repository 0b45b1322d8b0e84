"""Run a model over an image of any size by overlapping tiles, streamed: read ahead, compute, write behind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.maps import open_map
from cpikan.streaming.bands import Band
from cpikan.streaming.engine import stream
from cpikan.streaming.memory import PeakMemory
from cpikan.streaming.progress import Progress
from cpikan.streaming.tiling.crew import Job, OwnProcess, SeveralProcesses
from cpikan.streaming.tiling.model import TileModel, as_model, model_name
from cpikan.streaming.tiling.planning import describe, plan_tiles
from cpikan.streaming.tiling.report import Figures
from cpikan.streaming.tiling.rows import RowFeed, TilePlan
from cpikan.streaming.tiling.settings import TilingSettings
from cpikan.streaming.tiling.sink import ArrayOut, FileOut, RowsOut
from cpikan.streaming.tiling.source import ImageSource, open_source


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
        if self.output.suffix.lower() == ".npy":
            return np.load(self.output, mmap_mode="r", allow_pickle=False)
        import zarr

        return zarr.open_array(self.output, mode="r")


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
    image = open_source(source)
    try:
        plan = plan_tiles(tile_model, image.shape, chosen)
        shape = plan.grid.shape if image.flat and plan.channels_out == 1 else (plan.channels_out, *plan.grid.shape)
        if isinstance(output, str | Path):
            return _to_file(tile_model, image, Path(output), shape, plan, chosen)
        array = _target(output, shape)
        if image.array is not None and np.may_share_memory(array, image.array):
            raise InputError("the output is the image itself, which later tiles still need: give another array")
        whole = array if array.ndim == 3 else array[None]
        report = _run(tile_model, image, ArrayOut(whole), plan, chosen)
        return TiledResult(report, None, array)
    finally:
        image.close()


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
    described = describe(plan, settings) | {"model": model_name(model), "source": image.fingerprint()}
    out = FileOut(path, shape, described, settings)
    if out.finished is not None:
        return TiledResult({**out.finished, "state": "finished before"}, path, None, settings.quantities)
    try:
        report = _run(model, image, out, plan, settings)
    finally:
        out.release()
    return TiledResult(report, path, None, settings.quantities)


def run_tiles(model: TileModel, image: ImageSource, out: RowsOut, settings: TilingSettings) -> dict[str, Any]:
    """As `infer_tiled`, from an opened source into anything that takes rows; the report of the run."""
    return _run(model, image, out, plan_tiles(model, image.shape, settings), settings)


def _run(
    model: TileModel, image: ImageSource, out: RowsOut, plan: TilePlan, settings: TilingSettings
) -> dict[str, Any]:
    """Carry all rows of tiles that are still to do through the stream; the report of the run."""
    depth = max(1, settings.processes - 1)
    if settings.processes > 1:
        crew: OwnProcess | SeveralProcesses = SeveralProcesses(plan, model, settings.processes, settings.threads, depth)
    else:
        crew = OwnProcess(plan, model, settings.threads, depth)
    edges = plan.grid.emitted
    todo = [Band(i, edges[i], edges[i + 1]) for i in _rows_to_do(plan, out.first_row)]
    figures = Figures(plan, resumed_from_row=out.first_row)
    progress = Progress("tiles", sum(band.rows for band in todo), plan.grid.shape[1], settings.progress)
    with PeakMemory() as memory, crew.running(), figures.clock(), progress:
        loop = _Loop(image, out, plan, crew, figures)
        figures.timings = stream(todo, loop.read, loop.compute, loop.write, depth=depth, progress=progress)
        out.finish()
        report = figures.report(memory, crew)
    out.commit(report)
    return report


def _rows_to_do(plan: TilePlan, first_row: int) -> range:
    """The rows of tiles that finish image rows from ``first_row`` on, and the one above for the ramp they share."""
    edges, count = plan.grid.emitted, len(plan.grid.rows)
    first = next((i for i in range(count) if edges[i + 1] > first_row), count)
    return range(max(first - 1, 0) if first < count and plan.grid.rows.ramp else first, count)


class _Loop:
    """The three stages of the stream and what they share."""

    def __init__(
        self,
        image: ImageSource,
        out: RowsOut,
        plan: TilePlan,
        crew: OwnProcess | SeveralProcesses,
        figures: Figures,
    ) -> None:
        self._out, self._crew, self._figures = out, crew, figures
        self._blender = plan.blender()
        self._feed = RowFeed(image, plan.grid)
        self._carry: np.ndarray | None = None
        figures.disagreement = self._blender.disagreement
        self._in_place = out.array if isinstance(out, ArrayOut) and crew.processes == 1 else None
        crew.prepare(inputs=image.array is None, bands=self._in_place is None)

    def read(self, band: Band) -> Job:
        top, bottom = self._blender.rows_of(band.index)
        rows = self._feed.view(band.index) if self._crew.processes == 1 else None
        slot = None
        if rows is None:
            slot = self._crew.inputs.take()
            rows = self._feed.fill(band.index, slot.array)
        job = Job(band.index, rows, bottom - top, slot)
        if self._in_place is not None:
            job.band = self._in_place[:, top:bottom]
        self._crew.submit(job)
        return job

    def compute(self, band: Band, job: Job) -> tuple[Job, np.ndarray]:
        assert job.result is not None
        self._figures.add(job.result())
        if job.source is not None:
            self._crew.inputs.give(job.source)
        assert job.band is not None
        done, self._carry = self._blender.down(job.i, self._carry, job.band)
        return job, done

    def write(self, band: Band, item: tuple[Job, np.ndarray]) -> None:
        job, done = item
        self._out.write(band.start, done)
        if job.target is not None:
            self._crew.bands.give(job.target)
