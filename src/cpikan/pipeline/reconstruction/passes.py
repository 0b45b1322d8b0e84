"""The passes over an image: frames to heights, frames to phases, phases and orders to heights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from cpikan.pipeline.reconstruction.row_sink import RowSink
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.psi.kernels.model import HeightRows, PhaseRows, empty_rows
from cpikan.psi.kernels.select import PixelKernels
from cpikan.psi.kernels.statistics import COLUMNS
from cpikan.streaming.bands import Band, split_bands
from cpikan.streaming.buffers import BufferPool
from cpikan.streaming.engine import ProgressSink, StreamTimings, stream
from cpikan.surface.aperture import Aperture

_MAX_ROWS = 1024
_FLAT_BAND_PIXELS = 2**20
DEPTH = 2


@dataclass(frozen=True)
class PassContext:
    """What every pass over the frames needs."""

    stack: FrameStack
    kernels: PixelKernels
    mask: Aperture | None
    band_rows: int | None
    progress: ProgressSink | None


@dataclass
class _Output:
    rows: tuple[np.ndarray, ...]
    table: np.ndarray = field(repr=False)


def frame_bands(stack: FrameStack, band_rows: int | None, first_row: int, band_bytes: int) -> list[Band]:
    """Bands of just below ``band_bytes`` from ``first_row`` on, whatever the width: so memory does not grow with it."""
    wavelengths, steps, height, width = stack.shape
    rows = band_rows or _fitting_rows(band_bytes // (wavelengths * steps * width * stack.dtype.itemsize))
    return _bands_from(first_row, height, rows)


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


HeightPass = Callable[[PassContext, RowSink], StreamTimings]


class _FramePass:
    """Buffers and reading, the same for both passes over frames."""

    def __init__(self, context: PassContext, sink: RowSink) -> None:
        stack = context.stack
        self.context, self.sink = context, sink
        kernels = context.kernels
        self.bands = frame_bands(stack, context.band_rows, sink.first_row, kernels.band_bytes)
        most = max((band.rows for band in self.bands), default=0)
        wavelengths, steps, _, width = stack.shape
        dtype = stack.dtype.newbyteorder("=")
        self.frames = BufferPool(lambda: kernels.empty((wavelengths * steps * most * width,), dtype))
        self.outputs = BufferPool(lambda: _Output(self._rows(most, width), np.empty((most, COLUMNS))))

    def _rows(self, rows: int, width: int) -> tuple[np.ndarray, ...]:
        """Buffers of the outputs; without sigma and modulation where nothing stores them and the kernels can do without."""
        kernels, stored = self.context.kernels, self.sink.quantities
        height, sigma, modulation, flags = empty_rows(rows, width, kernels.empty)
        if kernels.device == "cpu" and stored == ("height_nm",):
            none = np.empty((0, 0), np.float32)
            return height, none, none, flags
        return height, sigma, modulation, flags

    def read(self, band: Band) -> tuple[np.ndarray, np.ndarray]:
        """The band's frames in a pooled buffer, and the buffer itself."""
        wavelengths, steps, _, width = self.context.stack.shape
        buffer = self.frames.take()
        # the last band is shorter: the front of the buffer, still C-contiguous
        view = buffer[: wavelengths * steps * band.rows * width].reshape(wavelengths, steps, band.rows, width)
        return self.context.stack.rows(band.start, band.stop, view), buffer

    def mask_rows(self, band: Band) -> np.ndarray | None:
        mask, width = self.context.mask, self.context.stack.shape[3]
        return None if mask is None else mask.rows(band.start, band.stop, width)


def height_pass(context: PassContext, sink: RowSink) -> StreamTimings:
    """Two or more wavelengths: frames to height, sigma, modulation and flags, one fused sweep."""
    run = _FramePass(context, sink)

    def compute(band: Band, item: tuple[np.ndarray, np.ndarray]) -> _Output:
        frames, buffer = item
        output = run.outputs.take()
        rows = HeightRows(*(array[: band.rows] for array in output.rows))
        context.kernels.heights(frames, band.start, run.mask_rows(band), rows, output.table[: band.rows])
        run.frames.give(buffer)
        return output

    def write(band: Band, output: _Output) -> None:
        rows = HeightRows(*(array[: band.rows] for array in output.rows))
        sink.write(band.start, rows._asdict(), output.table[: band.rows])
        run.outputs.give(output)

    timings = stream(run.bands, run.read, compute, write, depth=DEPTH, progress=context.progress)
    sink.finish()
    return timings


def phase_pass(context: PassContext, sink: RowSink) -> StreamTimings:
    """One wavelength: frames to wrapped phase, sigma, modulation and flags."""
    run = _FramePass(context, sink)

    def compute(band: Band, item: tuple[np.ndarray, np.ndarray]) -> _Output:
        frames, buffer = item
        output = run.outputs.take()
        context.kernels.phases(
            frames, run.mask_rows(band), PhaseRows(*(a[: band.rows] for a in output.rows)), band.start
        )
        run.frames.give(buffer)
        return output

    def write(band: Band, output: _Output) -> None:
        sink.write(band.start, PhaseRows(*(a[: band.rows] for a in output.rows))._asdict())
        run.outputs.give(output)

    timings = stream(run.bands, run.read, compute, write, depth=DEPTH, progress=context.progress)
    sink.finish()
    return timings
