"""Passes that ask neighbours: a survey that sums phasors over blocks, and a sweep that decides orders with a surface."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from cpikan.pipeline.reconstruction.passes import PassContext
from cpikan.pipeline.reconstruction.row_sink import RowSink
from cpikan.pipeline.reconstruction.slope_rows import put_slopes
from cpikan.pipeline.stacks.mask import Circle, Mask
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.psi.calibration import planning
from cpikan.psi.calibration.calibrate import Calibration, Subsample
from cpikan.psi.kernels.arguments import pack_search
from cpikan.psi.kernels.cpu import DemodulationKernels
from cpikan.psi.kernels.model import DemodulatedRows, HeightRows, OrderSearch, empty_demodulated, empty_rows
from cpikan.psi.kernels.statistics import COLUMNS, row_sums
from cpikan.psi.refine import orders
from cpikan.psi.refine.ambiguity import CELL_SHARE, is_doubtful
from cpikan.psi.refine.blocks import BlockSums
from cpikan.psi.refine.protocol import NoSurface, Refiner, SurfaceRows
from cpikan.storage.writers.layout import SLOPES
from cpikan.streaming.bands import Band, split_bands
from cpikan.streaming.buffers import BufferPool
from cpikan.streaming.engine import ProgressSink, StreamTimings, stream

_PIXEL_BYTES = 160  # of a pixel on its way: phases and weights of four wavelengths, orders, costs, surface
_BAND_BYTES = 200 * 2**20
_LEAST_ROWS = 4 * orders.HALO  # below it the halo would be most of the work


@dataclass(frozen=True)
class RefineContext:
    """What both passes need; ``kernels`` are the CPU's, ``mask`` and ``band_rows`` as for the pixel pass."""

    stack: FrameStack
    kernels: DemodulationKernels
    search: OrderSearch
    mask: Mask | Circle | None
    band_rows: int | None
    threads: int

    def bands(self, first_row: int) -> list[Band]:
        """Bands from ``first_row`` on."""
        _, _, height, width = self.stack.shape
        rows = self.band_rows or max(_LEAST_ROWS, _BAND_BYTES // (_PIXEL_BYTES * width))
        return [Band(b.index, b.start + first_row, b.stop + first_row) for b in split_bands(height - first_row, rows)]

    def demodulate(self, frames: np.ndarray, start: int, out: DemodulatedRows) -> DemodulatedRows:
        """Demodulate rows from image row ``start`` on."""
        mask = None if self.mask is None else self.mask.rows(start, start + frames.shape[2], frames.shape[3])
        return self.kernels.demodulate(frames, start, mask, out)


class _Frames:
    """Reading with a halo into pooled buffers, and one set of demodulated rows that every band uses again."""

    def __init__(self, context: RefineContext, bands: list[Band], halo: int) -> None:
        self.context, self.halo = context, halo
        self.wavelengths, self.steps, self.height, self.width = context.stack.shape
        self._most = min(max((band.rows for band in bands), default=0) + 2 * halo, self.height)
        dtype = context.stack.dtype.newbyteorder("=")
        size = self.wavelengths * self.steps * self._most * self.width
        self._frames = BufferPool(lambda: np.empty(size, dtype))
        self._rows = empty_demodulated(self.wavelengths, self._most, self.width)

    def read(self, band: Band) -> tuple[int, np.ndarray, np.ndarray]:
        start, stop = max(0, band.start - self.halo), min(self.height, band.stop + self.halo)
        buffer = self._frames.take()
        view = buffer[: self.wavelengths * self.steps * (stop - start) * self.width]
        view = view.reshape(self.wavelengths, self.steps, stop - start, self.width)
        return start, self.context.stack.rows(start, stop, view), buffer

    def demodulate(self, item: tuple[int, np.ndarray, np.ndarray]) -> DemodulatedRows:
        start, frames, buffer = item
        rows = self.context.demodulate(frames, start, self._rows.part(0, frames.shape[2]))
        self._frames.give(buffer)
        return rows


def survey_pass(context: RefineContext, progress: ProgressSink | None) -> tuple[BlockSums, StreamTimings]:
    """Sum the phasors of the whole image over blocks."""
    bands = context.bands(0)
    frames = _Frames(context, bands, 0)
    sums = BlockSums.zeros(frames.wavelengths, (frames.height, frames.width))

    def compute(band: Band, item: tuple[int, np.ndarray, np.ndarray]) -> None:
        sums.add(frames.demodulate(item), band.start)

    timings = stream(bands, frames.read, compute, lambda band, nothing: None, depth=1, progress=progress)
    return sums, timings


@dataclass(frozen=True)
class RefinePlan:
    """Who draws the surface, the cells (64 pixels, bool) whose orders it may change (None: all), and rows of the surface
    itself, with its own sigma, where that is the answer, and of its slopes, by quantity, where those are stored."""

    refiner: Refiner
    cells: np.ndarray | None
    drawn: Callable[[int, int], SurfaceRows] | None = None
    slopes: Callable[[int, int], dict[str, np.ndarray]] | None = None


class _OutputRows(NamedTuple):
    """What a band writes: the rows of the pixel pass, their statistics, and the slopes of the surface by quantity."""

    pixels: HeightRows
    table: np.ndarray
    slopes: dict[str, np.ndarray]

    @classmethod
    def empty(cls, rows: int, width: int, slopes: tuple[str, ...]) -> _OutputRows:
        derived = {name: np.empty((rows, width), np.float32) for name in slopes}
        return cls(HeightRows(*empty_rows(rows, width)), np.empty((rows, COLUMNS)), derived)

    def part(self, inside: slice) -> _OutputRows:
        """Some of the rows, views."""
        derived = {name: rows[inside] for name, rows in self.slopes.items()}
        return _OutputRows(HeightRows(*(rows[inside] for rows in self.pixels)), self.table[inside], derived)


def refine_pass(context: RefineContext, plan: RefinePlan, pixels: PassContext, sink: RowSink) -> StreamTimings:
    """Frames to heights whose orders were decided with the neighbours and a surface; bands change no bit."""
    bands = context.bands(sink.first_row)
    halo = orders.HALO + plan.refiner.halo
    frames = _Frames(context, bands, halo)
    most = max((band.rows for band in bands), default=0)
    stored = tuple(name for name in SLOPES if name in sink.quantities)
    outputs = BufferPool(lambda: _OutputRows.empty(most, frames.width, stored))
    search = pack_search(context.search)

    with ThreadPoolExecutor(context.threads, thread_name_prefix="cpikan-refine") as pool:

        def compute(band: Band, item: tuple[int, np.ndarray, np.ndarray]) -> tuple[_OutputRows, _OutputRows]:
            first = item[0]
            rows = frames.demodulate(item)
            count = rows.flags.shape[0]
            surface = plan.refiner.surface(rows, first, slice(0, count))
            choice = orders.icm(rows, orders.own_orders(rows, first, plan.cells), surface, search, pool.map)
            buffer = outputs.take()
            out = buffer.part(slice(0, band.rows))

            def finish(part: slice) -> None:
                start, stop = first + part.start, first + part.stop
                mine = out.part(slice(start - band.start, stop - band.start))
                orders.form_heights(rows, choice, search, part, mine.pixels)
                if plan.drawn is not None:
                    orders.replace_by_surface(plan.drawn(start, stop), mine.pixels)
                if mine.slopes:
                    assert plan.slopes is not None
                    put_slopes(plan.slopes(start, stop), mine.pixels.flags, mine.slopes)
                row_sums(mine.pixels.height_nm, mine.pixels.flags, mine.table)

            list(pool.map(finish, _parts(band.start - first, band.stop - first, context.threads)))
            return out, buffer

        def write(band: Band, result: tuple[_OutputRows, _OutputRows]) -> None:
            out, buffer = result
            sink.write(band.start, {**out.pixels._asdict(), **out.slopes}, out.table)
            outputs.give(buffer)

        timings = stream(bands, frames.read, compute, write, depth=1, progress=pixels.progress)
    sink.finish()
    return timings


def phases_of(
    stack: FrameStack, kernels: DemodulationKernels, search: OrderSearch, mask: Mask | Circle | None
) -> Callable[[int, int], np.ndarray]:
    """Rows [start, stop) of wrapped phases (L, rows, W) in rad, wavelengths as in the stack, pistons and tilts between them
    taken off."""
    context = RefineContext(stack, kernels, search, mask, None, 1)
    back = np.argsort(search.order)

    def rows(start: int, stop: int) -> np.ndarray:
        rows = empty_demodulated(len(back), stop - start, stack.shape[3])
        return context.demodulate(stack.rows(start, stop), start, rows).phase_cycles[back] * np.float32(2 * np.pi)

    return rows


def warm_refining(stack: FrameStack, method: str, scheme: str, *, slopes: bool) -> None:
    """Compile or load what the method needs before the clock of a run starts, and import what fits fields unless it may
    not be asked (``auto``)."""
    if method == "pixel":
        return
    from cpikan.psi.warm import warm_fields, warm_orders

    wavelengths, frames = stack.shape[:2]
    if wavelengths > 1:
        warm_orders(wavelengths, frames, stack.dtype, scheme, fitted=stack.acquisition.steps != "trusted")
    if method != "auto":
        warm_fields(slopes=slopes)


def wants_refining(method: str, calibration: Calibration, sample: Subsample) -> bool:
    """Whether neighbours are asked at all: always by ``field`` and ``hybrid``, by ``auto`` where the subsample shows doubt."""
    model = calibration.model
    if model.search is None or method == "pixel":
        return False
    if method != "auto" or (calibration.wrong_order_rate or 0.0) > planning.ACCEPTED_RATE:
        return True
    inside = sample.valid
    return is_doubtful(sample.frames[..., inside], sample.position[inside], sample.shape, model)


def plan_refining(
    method: str, sums: BlockSums, search: OrderSearch, *, slopes: bool = False
) -> tuple[RefinePlan, dict[str, Any]]:
    """Fit the surface and choose the cells, and what gives ``slopes`` if they are stored; the second is what the summary says
    of it."""
    from cpikan.psi.refine.coarse import coarse_heights
    from cpikan.psi.refine.field import guiding_surface, measuring_surface
    from cpikan.psi.refine.slopes import SlopeMaps

    share = sums.doubtful_share()
    cells = share > CELL_SHARE if method == "auto" else None
    report: dict[str, Any] = {
        "cells": int((share > CELL_SHARE).size),
        "cells_refined": int(share.size if cells is None else cells.sum()),
    }
    if cells is not None and not cells.any():
        return RefinePlan(NoSurface(), cells), report
    with threadpool_limits(limits=1):  # small systems: threads that wait for each other take several times as long
        surface = (measuring_surface if method == "field" else guiding_surface)(coarse_heights(sums, search))
        drawn = functools.partial(surface.rows, block_sigma_nm=surface.sigma_nm()) if method == "field" else None
        maps = SlopeMaps(surface).rows if slopes else None
    return RefinePlan(surface, cells, drawn, maps), {**report, **surface.summary()}


def _parts(start: int, stop: int, threads: int) -> list[slice]:
    step = max(1, -(-(stop - start) // (4 * threads)))
    return [slice(a, min(a + step, stop)) for a in range(start, stop, step)]
