"""Passes that ask neighbours: a survey that sums phasors over blocks, and a sweep that decides orders with a surface."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np

from cpikan.pipeline.reconstruction.formed import put_slopes
from cpikan.pipeline.reconstruction.output import RowSink
from cpikan.pipeline.reconstruction.passes import BandReader, FrameSource, ReadBand
from cpikan.pipeline.reconstruction.settings import Method
from cpikan.psi.kernels.arguments import pack_search
from cpikan.psi.kernels.cpu import DemodulationKernels
from cpikan.psi.kernels.model import DemodulatedRows, HeightRows, OrderSearch, empty_demodulated, empty_rows
from cpikan.psi.kernels.statistics import COLUMNS, row_sums
from cpikan.psi.refine import orders
from cpikan.psi.refine.ambiguity import CELL_SHARE
from cpikan.psi.refine.blocks import BlockSums, Empty
from cpikan.psi.refine.protocol import NoSurface, Refiner, SurfaceRows
from cpikan.storage.writers.layout import SLOPES
from cpikan.streaming.engine import Band, BufferPool, ProgressSink, StreamTimings, split_bands, stream
from cpikan.streaming.threads import RowPool, single_threaded

_PIXEL_BYTES = 160  # of a pixel on its way: phases and weights of four wavelengths, orders, costs, surface
_BAND_BYTES = 200 * 2**20
_LEAST_ROWS = 4 * orders.HALO  # below it the halo would be most of the work


def guided_bands(source: FrameSource, first_row: int) -> tuple[Band, ...]:
    """Split the rows from ``first_row`` on into the bands of `guided_pass`."""
    _, _, height, width = source.stack.shape
    rows = source.band_rows or max(_LEAST_ROWS, _BAND_BYTES // (_PIXEL_BYTES * width))
    return split_bands(height, rows, first_row)


def _demodulate(source: FrameSource, frames: np.ndarray, start: int, out: DemodulatedRows) -> DemodulatedRows:
    """Demodulate rows from image row ``start`` on."""
    kernels = cast(DemodulationKernels, source.kernels)
    return kernels.demodulate(frames, start, source.mask_rows(start, start + frames.shape[2]), out)


class _DemodulatingReader(BandReader):
    """Reads bands of frames, and demodulates each into one set of rows that all bands of its size use.

    The rows fill their arrays: parts of larger ones would lie in memory in another way, and all loops be compiled twice.
    """

    def __init__(self, source: FrameSource, bands: Sequence[Band], halo: int) -> None:
        super().__init__(source, bands, halo)
        self._source = source
        self._rows: DemodulatedRows | None = None

    def demodulate(self, item: ReadBand) -> DemodulatedRows:
        wavelengths, _, rows, width = item.frames.shape
        if self._rows is None or len(self._rows.flags) != rows:
            self._rows = None  # not both at a time
            self._rows = empty_demodulated(wavelengths, rows, width)
        _demodulate(self._source, item.frames, item.start, self._rows)
        self.done(item)
        return self._rows


def survey_pass(
    source: FrameSource, progress: ProgressSink | None, empty: Empty = np.empty
) -> tuple[BlockSums, StreamTimings]:
    """Sum the phasors of the whole image over blocks, in arrays that ``empty`` makes."""
    bands = guided_bands(source, 0)
    reader = _DemodulatingReader(source, bands, 0)
    sums = BlockSums.zeros(source.stack.shape[0], source.stack.shape[2:], empty)

    def compute(band: Band, item: ReadBand) -> None:
        sums.add(reader.demodulate(item), band.start)

    return sums, stream(bands, reader.read, compute, lambda band, nothing: None, depth=1, progress=progress)


@dataclass(frozen=True)
class OrderGuide:
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
        """Cut out some of the rows, as views."""
        derived = {name: rows[inside] for name, rows in self.slopes.items()}
        return _OutputRows(HeightRows(*(rows[inside] for rows in self.pixels)), self.table[inside], derived)


def guided_pass(
    source: FrameSource, guide: OrderGuide, sink: RowSink, progress: ProgressSink | None, pool: RowPool
) -> StreamTimings:
    """Turn frames into heights whose orders are decided with the neighbours and a surface; bands change no bit."""
    assert source.search is not None, "two or more wavelengths have an order search"
    bands = guided_bands(source, sink.first_row)
    halo = orders.HALO + guide.refiner.halo
    reader = _DemodulatingReader(source, bands, halo)
    most, width = max((band.rows for band in bands), default=0), source.stack.shape[3]
    stored = tuple(name for name in SLOPES if name in sink.quantities)
    outputs = BufferPool(lambda: _OutputRows.empty(most, width, stored))
    search = pack_search(source.search)

    def compute(band: Band, item: ReadBand) -> tuple[_OutputRows, _OutputRows]:
        first, rows = item.start, reader.demodulate(item)
        surface = guide.refiner.surface(rows, first, slice(0, rows.flags.shape[0]))
        choice = orders.icm(rows, orders.own_orders(rows, first, guide.cells), surface, search, pool.share)
        buffer = outputs.take()
        out = buffer.part(slice(0, band.rows))

        def finish(start: int, stop: int) -> None:
            mine = out.part(slice(start - band.start, stop - band.start))
            orders.form_heights(rows, choice, search, slice(start - first, stop - first), mine.pixels)
            if guide.drawn is not None:
                orders.replace_by_surface(guide.drawn(start, stop), mine.pixels)
            if mine.slopes:
                assert guide.slopes is not None
                put_slopes(guide.slopes(start, stop), mine.pixels.flags, mine.slopes)
            row_sums(mine.pixels.height_nm, mine.pixels.flags, mine.table)

        pool.map(finish, band.rows, -(-band.rows // (4 * pool.threads)), band.start)
        return out, buffer

    def write(band: Band, result: tuple[_OutputRows, _OutputRows]) -> None:
        out, buffer = result
        sink.write(band.start, {**out.pixels._asdict(), **out.slopes}, out.table)
        outputs.give(buffer)

    timings = stream(bands, reader.read, compute, write, depth=1, progress=progress)
    sink.finish()
    return timings


def wrapped_phases(source: FrameSource) -> Callable[[int, int], np.ndarray]:
    """Make a reader of rows [start, stop) of wrapped phases (L, rows, W) in rad, wavelengths as in the stack.

    Pistons and tilts between the wavelengths are taken off.
    """
    assert source.search is not None, "two or more wavelengths have an order search"
    back = np.argsort(source.search.order)

    def rows(start: int, stop: int) -> np.ndarray:
        out = empty_demodulated(len(back), stop - start, source.stack.shape[3])
        # frames that may not be written to would be compiled for once more
        frames = np.require(source.stack.rows(start, stop), requirements=("C", "W"))
        return _demodulate(source, frames, start, out).phase_cycles[back] * np.float32(2 * np.pi)

    return rows


def fit_guide(
    method: Method, sums: BlockSums, search: OrderSearch, *, slopes: bool, empty: Empty = np.empty
) -> tuple[OrderGuide, dict[str, Any]]:
    """Fit the surface and choose the cells that ask it; return the guide and a report, JSON-able.

    Arrays of blocks are made by ``empty``. With ``slopes`` the guide also gives the slopes of the surface.
    """
    from cpikan.psi.refine.coarse import coarse_heights
    from cpikan.psi.refine.field import guiding_surface, measuring_surface
    from cpikan.psi.refine.slopes import SlopeMaps

    share = sums.doubtful_share()
    cells = None if method.refines else share > CELL_SHARE
    report: dict[str, Any] = {
        "cells": int((share > CELL_SHARE).size),
        "cells_refined": int(share.size if cells is None else cells.sum()),
    }
    if cells is not None and not cells.any():
        return OrderGuide(NoSurface(), cells), report
    with single_threaded():
        fit = measuring_surface if method.surface else functools.partial(guiding_surface, empty=empty)
        surface = fit(coarse_heights(sums, search, empty))
        drawn = functools.partial(surface.rows, block_sigma_nm=surface.sigma_nm()) if method.surface else None
        maps = SlopeMaps(surface).rows if slopes else None
    return OrderGuide(surface, cells, drawn, maps), {**report, **surface.summary()}
