"""Passes that ask neighbours: a survey that sums phasors over blocks, and a sweep that decides orders with a surface."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from cpikan.pipeline.mask import Circle, Mask
from cpikan.pipeline.passes import PassContext
from cpikan.pipeline.row_sink import RowSink
from cpikan.pipeline.stack import FrameStack
from cpikan.psi import planning
from cpikan.psi.calibrate import Calibration, Subsample
from cpikan.psi.kernels.model import HeightRows, OrderSearch, empty_rows
from cpikan.psi.kernels.turns import TurnKernels
from cpikan.psi.refine import orders
from cpikan.psi.refine.ambiguity import CELL_SHARE, is_doubtful
from cpikan.psi.refine.blocks import BlockSums
from cpikan.psi.refine.protocol import NoSurface, Refiner, SurfaceRows, TurnRows, empty_turns
from cpikan.psi.statistics import COLUMNS, row_sums
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
    kernels: TurnKernels
    search: OrderSearch
    mask: Mask | Circle | None
    band_rows: int | None
    threads: int

    def bands(self, first_row: int) -> list[Band]:
        """Bands from ``first_row`` on."""
        _, _, height, width = self.stack.shape
        rows = self.band_rows or max(_LEAST_ROWS, _BAND_BYTES // (_PIXEL_BYTES * width))
        return [Band(b.index, b.start + first_row, b.stop + first_row) for b in split_bands(height - first_row, rows)]

    def turns(self, frames: np.ndarray, start: int, out: TurnRows) -> TurnRows:
        """Demodulate rows from image row ``start`` on."""
        mask = None if self.mask is None else self.mask.rows(start, start + frames.shape[2], frames.shape[3])
        return self.kernels.turns(frames, start, mask, out)


class _Frames:
    """Reading with a halo into pooled buffers, and one set of turns that every band uses again."""

    def __init__(self, context: RefineContext, bands: list[Band], halo: int) -> None:
        self.context, self.halo = context, halo
        self.wavelengths, self.steps, self.height, self.width = context.stack.shape
        self._most = min(max((band.rows for band in bands), default=0) + 2 * halo, self.height)
        dtype = context.stack.dtype.newbyteorder("=")
        size = self.wavelengths * self.steps * self._most * self.width
        self._frames = BufferPool(lambda: np.empty(size, dtype))
        self._turns = empty_turns(self.wavelengths, self._most, self.width)

    def read(self, band: Band) -> tuple[int, np.ndarray, np.ndarray]:
        start, stop = max(0, band.start - self.halo), min(self.height, band.stop + self.halo)
        buffer = self._frames.take()
        view = buffer[: self.wavelengths * self.steps * (stop - start) * self.width]
        view = view.reshape(self.wavelengths, self.steps, stop - start, self.width)
        return start, self.context.stack.rows(start, stop, view), buffer

    def turns(self, item: tuple[int, np.ndarray, np.ndarray]) -> TurnRows:
        start, frames, buffer = item
        rows = self.context.turns(frames, start, self._turns.part(0, frames.shape[2]))
        self._frames.give(buffer)
        return rows


def survey_pass(context: RefineContext, progress: ProgressSink | None) -> tuple[BlockSums, StreamTimings]:
    """Sum the phasors of the whole image over blocks."""
    bands = context.bands(0)
    frames = _Frames(context, bands, 0)
    sums = BlockSums.zeros(frames.wavelengths, (frames.height, frames.width))

    def compute(band: Band, item: tuple[int, np.ndarray, np.ndarray]) -> None:
        sums.add(frames.turns(item), band.start)

    timings = stream(bands, frames.read, compute, lambda band, nothing: None, depth=1, progress=progress)
    return sums, timings


@dataclass(frozen=True)
class RefinePlan:
    """Who draws the surface, the cells (64 pixels, bool) whose orders it may change (None: all), and rows of the surface
    itself, with its own sigma, where that is the answer."""

    refiner: Refiner
    cells: np.ndarray | None
    drawn: Callable[[int, int], SurfaceRows] | None = None


def refine_pass(context: RefineContext, plan: RefinePlan, pixels: PassContext, sink: RowSink) -> StreamTimings:
    """Frames to heights whose orders were decided with the neighbours and a surface; bands change no bit."""
    bands = context.bands(sink.first_row)
    halo = orders.HALO + plan.refiner.halo
    frames = _Frames(context, bands, halo)
    most = max((band.rows for band in bands), default=0)
    outputs = BufferPool(lambda: (HeightRows(*empty_rows(most, frames.width)), np.empty((most, COLUMNS))))
    limits = orders.OrderLimits.of(context.search)

    with ThreadPoolExecutor(context.threads, thread_name_prefix="cpikan-refine") as pool:

        def compute(band: Band, item: tuple[int, np.ndarray, np.ndarray]) -> tuple[HeightRows, np.ndarray, Any]:
            first = item[0]
            rows = frames.turns(item)
            count = rows.flags.shape[0]
            surface = plan.refiner.surface(rows, first, slice(0, count))
            choice = orders.begin(rows, first, plan.cells)
            orders.settle(rows, choice, surface, limits, pool.map)
            buffer = outputs.take()
            out = HeightRows(*(a[: band.rows] for a in buffer[0]))
            table = buffer[1][: band.rows]

            def finish(part: slice) -> None:
                inside = slice(part.start - (band.start - first), part.stop - (band.start - first))
                mine = HeightRows(*(a[inside] for a in out))
                orders.form(rows, choice, limits, part, mine)
                if plan.drawn is not None:
                    orders.draw(plan.drawn(first + part.start, first + part.stop), mine)
                row_sums(mine.height_nm, mine.flags, table[inside])

            list(pool.map(finish, _parts(band.start - first, band.stop - first, context.threads)))
            return out, table, buffer

        def write(band: Band, result: tuple[HeightRows, np.ndarray, Any]) -> None:
            out, table, buffer = result
            sink.write(band.start, out._asdict(), table)
            outputs.give(buffer)

        timings = stream(bands, frames.read, compute, write, depth=1, progress=pixels.progress)
    sink.finish()
    return timings


def warm_refining() -> None:
    """Import what fits fields, which takes a second, before the clock of a run starts."""
    importlib.import_module("cpikan.psi.refine.field")


def wants_refining(method: str, calibration: Calibration, sample: Subsample) -> bool:
    """Whether neighbours are asked at all: always by ``field`` and ``hybrid``, by ``auto`` where the subsample shows doubt."""
    model = calibration.model
    if model.search is None or method == "pixel":
        return False
    if method != "auto" or (calibration.wrong_order_rate or 0.0) > planning.ACCEPTED_RATE:
        return True
    inside = sample.valid
    return is_doubtful(sample.frames[..., inside], sample.position[inside], sample.shape, model)


def plan_refining(method: str, sums: BlockSums, search: OrderSearch) -> tuple[RefinePlan, dict[str, Any]]:
    """Fit the surface and choose the cells; the second is what the summary says of it."""
    from cpikan.psi.refine.field import guiding_surface, measuring_surface

    share = sums.doubtful_share()
    cells = share > CELL_SHARE if method == "auto" else None
    report: dict[str, Any] = {
        "cells": int((share > CELL_SHARE).size),
        "cells_refined": int(share.size if cells is None else cells.sum()),
    }
    if cells is not None and not cells.any():
        return RefinePlan(NoSurface(), cells), report
    surface = (measuring_surface if method == "field" else guiding_surface)(sums, search)
    drawn = functools.partial(surface.rows, block_sigma_nm=surface.sigma_nm()) if method == "field" else None
    return RefinePlan(surface, cells, drawn), {**report, **surface.summary()}


def _parts(start: int, stop: int, threads: int) -> list[slice]:
    step = max(1, -(-(stop - start) // (4 * threads)))
    return [slice(a, min(a + step, stop)) for a in range(start, stop, step)]
