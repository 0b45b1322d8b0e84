"""Passes over the frames of a stack: band by band to heights, or to wrapped phases."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cpikan.pipeline.reconstruction.row_sink import RowSink
from cpikan.pipeline.stacks.mask import Circle, Mask
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.psi.kernels.model import HeightRows, OrderSearch, PhaseRows, empty_rows
from cpikan.psi.kernels.select import PixelKernels
from cpikan.psi.kernels.statistics import COLUMNS
from cpikan.streaming.bands import Band, split_bands
from cpikan.streaming.buffers import BufferPool
from cpikan.streaming.engine import ProgressSink, StreamTimings, stream

_MAX_ROWS = 1024
_FLAT_BAND_PIXELS = 2**20
DEPTH = 2


@dataclass(frozen=True)
class FrameSource:
    """Frames and what turns them into maps; ``search`` is None for one wavelength, ``band_rows`` None for a fitting size."""

    stack: FrameStack
    kernels: PixelKernels
    search: OrderSearch | None
    mask: Mask | Circle | None = None
    band_rows: int | None = None

    def mask_rows(self, start: int, stop: int) -> np.ndarray | None:
        """Rows of the mask as uint8, None without one."""
        return None if self.mask is None else self.mask.rows(start, stop, self.stack.shape[3])


@dataclass
class _Output:
    rows: tuple[np.ndarray, ...]
    table: np.ndarray = field(repr=False)


def frame_bands(stack: FrameStack, band_rows: int | None, first_row: int, band_bytes: int) -> list[Band]:
    """Bands of just below ``band_bytes`` from ``first_row`` on, whatever the width: so memory does not grow with it."""
    wavelengths, steps, height, width = stack.shape
    rows = band_rows or _fitting_rows(band_bytes // (wavelengths * steps * width * stack.dtype.itemsize))
    return _bands_from(first_row, height, rows)


def pixel_bands(source: FrameSource, first_row: int) -> list[Band]:
    """Bands of `frame_pass` from ``first_row`` on."""
    return frame_bands(source.stack, source.band_rows, first_row, source.kernels.band_bytes)


def flat_bands(shape: tuple[int, int], band_rows: int | None, first_row: int) -> list[Band]:
    """Bands of a single map."""
    return _bands_from(first_row, shape[0], band_rows or _fitting_rows(_FLAT_BAND_PIXELS // shape[1]))


def _fitting_rows(rows: int) -> int:
    """A multiple of eight where there are that many, so that threads get equal shares."""
    rows = min(max(rows, 1), _MAX_ROWS)
    return rows - rows % 8 if rows > 8 else rows


def _bands_from(first_row: int, height: int, rows: int) -> list[Band]:
    bands = split_bands(height - first_row, rows)
    return [Band(band.index, band.start + first_row, band.stop + first_row) for band in bands]


class _FramePass:
    """Buffers of a pass, and reading into them."""

    def __init__(self, source: FrameSource, bands: list[Band], stored: tuple[str, ...]) -> None:
        stack, kernels = source.stack, source.kernels
        self.stack = stack
        most = max((band.rows for band in bands), default=0)
        wavelengths, steps, _, width = stack.shape
        dtype = stack.dtype.newbyteorder("=")
        bare = kernels.device == "cpu" and stored == ("height_nm",)
        self.frames = BufferPool(lambda: kernels.empty((wavelengths * steps * most * width,), dtype))
        self.outputs = BufferPool(lambda: _Output(_buffers(kernels, most, width, bare), np.empty((most, COLUMNS))))

    def read(self, band: Band) -> tuple[np.ndarray, np.ndarray]:
        """The band's frames in a pooled buffer, and the buffer itself."""
        wavelengths, steps, _, width = self.stack.shape
        buffer = self.frames.take()
        # the last band is shorter: the front of the buffer, still C-contiguous
        view = buffer[: wavelengths * steps * band.rows * width].reshape(wavelengths, steps, band.rows, width)
        return self.stack.rows(band.start, band.stop, view), buffer


def _buffers(kernels: PixelKernels, rows: int, width: int, bare: bool) -> tuple[np.ndarray, ...]:
    """Buffers of the outputs; ``bare`` without sigma and modulation, which nothing stores and the CPU can do without."""
    height, sigma, modulation, flags = empty_rows(rows, width, kernels.empty)
    none = np.empty((0, 0), np.float32)
    return (height, none, none, flags) if bare else (height, sigma, modulation, flags)


def frame_pass(source: FrameSource, sink: RowSink, progress: ProgressSink | None) -> StreamTimings:
    """Turn the frames of several wavelengths into height, sigma, modulation and flags, those of one into phase, sigma,
    modulation and flags, in one fused sweep of the rows that the sink lacks."""
    kernels = source.kernels
    bands = pixel_bands(source, sink.first_row)
    work = _FramePass(source, bands, sink.quantities)

    def compute(band: Band, item: tuple[np.ndarray, np.ndarray]) -> _Output:
        frames, buffer = item
        output = work.outputs.take()
        rows, mask = [array[: band.rows] for array in output.rows], source.mask_rows(band.start, band.stop)
        if source.search is None:
            kernels.phases(frames, mask, PhaseRows(*rows), band.start)
        else:
            kernels.heights(frames, band.start, mask, HeightRows(*rows), output.table[: band.rows])
        work.frames.give(buffer)
        return output

    def write(band: Band, output: _Output) -> None:
        kind, table = (PhaseRows, None) if source.search is None else (HeightRows, output.table[: band.rows])
        sink.write(band.start, kind(*(array[: band.rows] for array in output.rows))._asdict(), table)
        work.outputs.give(output)

    timings = stream(bands, work.read, compute, write, depth=DEPTH, progress=progress)
    sink.finish()
    return timings
