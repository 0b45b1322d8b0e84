"""Passes over the frames of a stack: to heights or wrapped phases, with the neighbours asked where that is wanted."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np

from cpikan.pipeline.reconstruction.band_shares import BandWork, shared_rows, stream_shared
from cpikan.pipeline.reconstruction.output import Rows
from cpikan.pipeline.reconstruction.settings import Method
from cpikan.pipeline.reconstruction.stage import put_slopes
from cpikan.pipeline.stacks.frame_hash import FrameHash
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.psi.kernels.arguments import pack_search
from cpikan.psi.kernels.cpu import DemodulationKernels
from cpikan.psi.kernels.model import DemodulatedRows, HeightRows, OrderSearch, PhaseRows, empty_demodulated, empty_rows
from cpikan.psi.kernels.select import PixelKernels
from cpikan.psi.kernels.statistics import COLUMNS, row_sums
from cpikan.psi.refine import orders
from cpikan.psi.refine.ambiguity import CELL_SHARE
from cpikan.psi.refine.blocks import BlockSums, Empty
from cpikan.psi.refine.protocol import NoSurface, Refiner, SurfaceRows
from cpikan.storage.writers.layout import SLOPES
from cpikan.streaming.engine import Band, BufferPool, StreamTimings, split_bands, stream
from cpikan.streaming.events import Progress
from cpikan.streaming.ranks import ALONE, Ranks
from cpikan.streaming.threads import RowPool, single_threaded
from cpikan.surface.apertures.aperture import Aperture

_MAX_ROWS = 256  # narrow images of a few thousand rows have as many bands in flight as long ones
_FLAT_BAND_PIXELS = 2**20
DEPTH = 2


@dataclass(frozen=True)
class FrameSource:
    """Frames and what turns them into maps; ``search`` is None for one wavelength, ``band_rows`` None for a fitting size.

    ``hashed`` takes the frames as they are read, by the thread that reads them. ``ranks`` are processes that share the bands.
    """

    stack: FrameStack
    kernels: PixelKernels
    search: OrderSearch | None
    mask: Aperture | None = None
    band_rows: int | None = None
    hashed: FrameHash | None = None
    ranks: Ranks = ALONE

    def mask_rows(self, start: int, stop: int) -> np.ndarray | None:
        """Read rows of the mask as uint8, None without one."""
        return None if self.mask is None else self.mask.rows(start, stop, self.stack.shape[3])


@dataclass
class _Output:
    rows: tuple[np.ndarray, ...]
    table: np.ndarray = field(repr=False)


def frame_bands(
    stack: FrameStack, band_rows: int | None, first_row: int, band_bytes: int, ranks: Ranks = ALONE
) -> tuple[Band, ...]:
    """Split rows from ``first_row`` on into bands just below ``band_bytes``: memory does not grow with the width."""
    wavelengths, steps, height, width = stack.shape
    rows = band_rows or _fitting_rows(band_bytes // (wavelengths * steps * width * stack.dtype.itemsize))
    return split_bands(height, shared_rows(rows, height - first_row, 1, ranks), first_row)


def pixel_bands(source: FrameSource, first_row: int) -> tuple[Band, ...]:
    """Split the rows from ``first_row`` on into the bands of `frame_pass`."""
    return frame_bands(source.stack, source.band_rows, first_row, source.kernels.band_bytes, source.ranks)


def flat_bands(shape: tuple[int, int], band_rows: int | None, first_row: int) -> tuple[Band, ...]:
    """Split a single map into bands."""
    return split_bands(shape[0], band_rows or _fitting_rows(_FLAT_BAND_PIXELS // shape[1]), first_row)


def _fitting_rows(rows: int) -> int:
    """Round the rows of a band to a multiple of eight where there are that many, so that threads get equal shares."""
    rows = min(max(rows, 1), _MAX_ROWS)
    return rows - rows % 8 if rows > 8 else rows


class ReadBand(NamedTuple):
    """Frames (L, K, n, W) from image row ``start`` on, in the front of a pooled ``buffer``."""

    start: int
    frames: np.ndarray
    buffer: np.ndarray


class BandReader:
    """Reads bands of frames, with ``halo`` rows around them, into buffers that go round."""

    def __init__(self, source: FrameSource, bands: Sequence[Band], halo: int = 0) -> None:
        self._stack, self._halo, self._hashed = source.stack, halo, source.hashed
        wavelengths, steps, height, width = source.stack.shape
        self.rows = min(max((band.rows for band in bands), default=0) + 2 * halo, height)
        size, dtype = (wavelengths * steps * self.rows * width,), source.stack.dtype.newbyteorder("=")
        self._buffers = BufferPool(lambda: source.kernels.empty(size, dtype))

    def read(self, band: Band) -> ReadBand:
        """Read the frames of a band, whose buffer is given back by `done`."""
        wavelengths, steps, height, width = self._stack.shape
        start, stop = max(0, band.start - self._halo), min(height, band.stop + self._halo)
        buffer = self._buffers.take()
        # the last band is shorter: the front of the buffer, still C-contiguous
        view = buffer[: wavelengths * steps * (stop - start) * width].reshape(wavelengths, steps, stop - start, width)
        frames = self._stack.rows(start, stop, view)
        if self._hashed is not None:
            self._hashed.add(start, frames)
        return ReadBand(start, frames, buffer)

    def passed(self, band: Band) -> None:
        """Hash the frames of a band that another process works on, where they were not hashed before."""
        if self._hashed is not None and self._hashed.next_row < band.stop:
            self.done(self.read(band))

    def done(self, item: ReadBand) -> None:
        """Give back the buffer of frames that are not needed any more."""
        self._buffers.give(item.buffer)


def _buffers(kernels: PixelKernels, rows: int, width: int, bare: bool) -> tuple[np.ndarray, ...]:
    """Make buffers of the outputs; ``bare`` without sigma and modulation, which are not stored or needed on the CPU."""
    height, sigma, modulation, flags = empty_rows(rows, width, kernels.empty)
    none = np.empty((0, 0), np.float32)
    return (height, none, none, flags) if bare else (height, sigma, modulation, flags)


def frame_pass(source: FrameSource, sink: Rows, progress: Progress | None) -> StreamTimings:
    """Turn frames into height, sigma, modulation and flags in one fused sweep of the rows that the sink lacks.

    The frames of one wavelength become phase, sigma, modulation and flags.
    """
    kernels, width = source.kernels, source.stack.shape[3]
    bands = pixel_bands(source, sink.first_row)
    reader = BandReader(source, bands)
    bare = kernels.device == "cpu" and sink.quantities == ("height_nm",)
    outputs = BufferPool(lambda: _Output(_buffers(kernels, reader.rows, width, bare), np.empty((reader.rows, COLUMNS))))

    def arrays(band: Band, output: _Output) -> list[np.ndarray]:
        return [array[: band.rows] for array in (*output.rows, output.table) if array.size]

    def compute(band: Band, item: ReadBand) -> _Output:
        output = outputs.take()
        rows, mask = [array[: band.rows] for array in output.rows], source.mask_rows(band.start, band.stop)
        if source.search is None:
            kernels.phases(item.frames, mask, PhaseRows(*rows), band.start)
        else:
            kernels.heights(item.frames, band.start, mask, HeightRows(*rows), output.table[: band.rows])
        reader.done(item)
        return output

    def write(band: Band, output: _Output) -> None:
        kind, table = (PhaseRows, None) if source.search is None else (HeightRows, output.table[: band.rows])
        sink.write(band.start, kind(*(array[: band.rows] for array in output.rows))._asdict(), table)
        outputs.give(output)

    work = BandWork(reader.read, compute, write, lambda band: outputs.take(), arrays, reader.passed)
    timings = stream_shared(source.ranks, bands, work, DEPTH, progress)
    sink.finish()
    return timings


_PIXEL_BYTES = 160  # of a pixel on its way: phases and weights of four wavelengths, orders, costs, surface
_BAND_BYTES = 200 * 2**20
_LEAST_ROWS = 4 * orders.HALO  # below it the halo would be most of the work


def guided_bands(source: FrameSource, first_row: int) -> tuple[Band, ...]:
    """Split the rows from ``first_row`` on into the bands of `guided_pass`."""
    _, _, height, width = source.stack.shape
    rows = source.band_rows or max(_LEAST_ROWS, _BAND_BYTES // (_PIXEL_BYTES * width))
    return split_bands(height, shared_rows(rows, height - first_row, _LEAST_ROWS, source.ranks), first_row)


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
    source: FrameSource, progress: Progress | None, empty: Empty = np.empty
) -> tuple[BlockSums, StreamTimings]:
    """Sum the phasors of the whole image over blocks, in arrays that ``empty`` makes, each process over its bands."""
    ranks, bands = source.ranks, guided_bands(source, 0)
    reader = _DemodulatingReader(source, bands, 0)
    sums = BlockSums.zeros(source.stack.shape[0], source.stack.shape[2:], empty)

    def read(band: Band) -> ReadBand | None:
        if band.index % ranks.size == ranks.rank:
            return reader.read(band)
        reader.passed(band)
        return None

    def compute(band: Band, item: ReadBand | None) -> None:
        if item is not None:
            sums.add(reader.demodulate(item), band.start)

    timings = stream(bands, read, compute, lambda band, nothing: None, depth=1, progress=progress)
    if ranks.size > 1:
        sums.join(ranks)
    return sums, timings


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
    source: FrameSource, guide: OrderGuide, sink: Rows, progress: Progress | None, pool: RowPool
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

    def blank(band: Band) -> tuple[_OutputRows, _OutputRows]:
        buffer = outputs.take()
        return buffer.part(slice(0, band.rows)), buffer

    def arrays(band: Band, result: tuple[_OutputRows, _OutputRows]) -> list[np.ndarray]:
        return [*result[0].pixels, result[0].table, *result[0].slopes.values()]

    work = BandWork(reader.read, compute, write, blank, arrays, reader.passed)
    timings = stream_shared(source.ranks, bands, work, 1, progress)
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
    method: Method,
    sums: BlockSums,
    search: OrderSearch,
    *,
    slopes: bool,
    empty: Empty = np.empty,
    ranks: Ranks = ALONE,
) -> tuple[OrderGuide, dict[str, Any]]:
    """Fit the surface and choose the cells that ask it; return the guide and a report, JSON-able.

    Arrays of blocks are made by ``empty``. With ``slopes`` the guide also gives the slopes of the surface. Several
    processes share the fit, and all have it.
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
        fit = measuring_surface if method.surface else guiding_surface
        surface = fit(coarse_heights(sums, search, empty), empty=empty, ranks=ranks)
        drawn = functools.partial(surface.rows, block_sigma_nm=surface.sigma_nm(empty)) if method.surface else None
        maps = SlopeMaps(surface).rows if slopes else None
    return OrderGuide(surface, cells, drawn, maps), {**report, **surface.summary()}
