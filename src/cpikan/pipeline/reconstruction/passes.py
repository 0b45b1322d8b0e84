"""Passes over the frames of a stack: band by band to heights, or to wrapped phases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from cpikan.pipeline.reconstruction.output import RowSink
from cpikan.pipeline.stacks.frame_hash import FrameHash
from cpikan.pipeline.stacks.stack import FrameStack
from cpikan.psi.kernels.model import HeightRows, OrderSearch, PhaseRows, empty_rows
from cpikan.psi.kernels.select import PixelKernels
from cpikan.psi.kernels.statistics import COLUMNS
from cpikan.streaming.engine import Band, BufferPool, ProgressSink, StreamTimings, split_bands, stream
from cpikan.surface.aperture import Aperture

_MAX_ROWS = 512  # narrow images of a few thousand rows have as many bands in flight as long ones
_FLAT_BAND_PIXELS = 2**20
DEPTH = 2


@dataclass(frozen=True)
class FrameSource:
    """Frames and what turns them into maps; ``search`` is None for one wavelength, ``band_rows`` None for a fitting size.

    ``hashed`` takes the frames as they are read, by the thread that reads them.
    """

    stack: FrameStack
    kernels: PixelKernels
    search: OrderSearch | None
    mask: Aperture | None = None
    band_rows: int | None = None
    hashed: FrameHash | None = None

    def mask_rows(self, start: int, stop: int) -> np.ndarray | None:
        """Read rows of the mask as uint8, None without one."""
        return None if self.mask is None else self.mask.rows(start, stop, self.stack.shape[3])


@dataclass
class _Output:
    rows: tuple[np.ndarray, ...]
    table: np.ndarray = field(repr=False)


def frame_bands(stack: FrameStack, band_rows: int | None, first_row: int, band_bytes: int) -> tuple[Band, ...]:
    """Split rows from ``first_row`` on into bands just below ``band_bytes``: memory does not grow with the width."""
    wavelengths, steps, height, width = stack.shape
    rows = band_rows or _fitting_rows(band_bytes // (wavelengths * steps * width * stack.dtype.itemsize))
    return split_bands(height, rows, first_row)


def pixel_bands(source: FrameSource, first_row: int) -> tuple[Band, ...]:
    """Split the rows from ``first_row`` on into the bands of `frame_pass`."""
    return frame_bands(source.stack, source.band_rows, first_row, source.kernels.band_bytes)


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

    def done(self, item: ReadBand) -> None:
        """Give back the buffer of frames that are not needed any more."""
        self._buffers.give(item.buffer)


def _buffers(kernels: PixelKernels, rows: int, width: int, bare: bool) -> tuple[np.ndarray, ...]:
    """Make buffers of the outputs; ``bare`` without sigma and modulation, which are not stored or needed on the CPU."""
    height, sigma, modulation, flags = empty_rows(rows, width, kernels.empty)
    none = np.empty((0, 0), np.float32)
    return (height, none, none, flags) if bare else (height, sigma, modulation, flags)


def frame_pass(source: FrameSource, sink: RowSink, progress: ProgressSink | None) -> StreamTimings:
    """Turn frames into height, sigma, modulation and flags in one fused sweep of the rows that the sink lacks.

    The frames of one wavelength become phase, sigma, modulation and flags.
    """
    kernels, width = source.kernels, source.stack.shape[3]
    bands = pixel_bands(source, sink.first_row)
    reader = BandReader(source, bands)
    bare = kernels.device == "cpu" and sink.quantities == ("height_nm",)
    outputs = BufferPool(lambda: _Output(_buffers(kernels, reader.rows, width, bare), np.empty((reader.rows, COLUMNS))))

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

    timings = stream(bands, reader.read, compute, write, depth=DEPTH, progress=progress)
    sink.finish()
    return timings
