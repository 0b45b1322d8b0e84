"""The pixel pass on a CUDA device: pieces of a band travel up, through the formula and down, each on its own stream."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cpikan.errors import InputError
from cpikan.psi.kernels.model import HeightRows, PhaseRows, PixelModel
from cpikan.psi.kernels.statistics import row_sums
from cpikan.psi.kernels.torch_compute import Look, TorchCompute
from cpikan.psi.kernels.torch_formula import Pixels

# torch has few operations on uint16: its bits travel as int16
_DTYPES = {"uint8": torch.uint8, "uint16": torch.int16, "float32": torch.float32, "float64": torch.float64}
_SLOTS = 3  # pieces in flight: one going up, one computed, one coming down
_PIECE_BYTES = 2**27  # of frames
_MOST_PIXELS, _LEAST_PIXELS = 2**21, 2**14  # of a piece: long enough to hide the launches, short enough to overlap
_TABLE_THREADS = 4


class _Slot:
    """Buffers and stream of one piece in flight; the host's are pinned where there is a device."""

    def __init__(self, frames: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> None:
        count, self._pin = frames[2], device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if self._pin else None
        self.pixels = Pixels(
            torch.zeros(frames, dtype=dtype, device=device),
            torch.ones(count, dtype=torch.uint8, device=device),
            torch.tensor([0, 1, 0], dtype=torch.int32, device=device),
        )
        self.place = self._host((3,), torch.int32)
        self.inside = self._host((count,), torch.uint8)
        self.results = [self._host((count,), kind) for kind in (torch.float32,) * 3 + (torch.uint8,)]
        self._staging: Tensor | None = None
        self.masked = False

    def _host(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, pin_memory=self._pin)

    @property
    def staging(self) -> Tensor:
        """Give the pinned room for frames that are not pinned; made when first needed."""
        if self._staging is None:
            self._staging = self._host(tuple(self.pixels.samples.shape), self.pixels.samples.dtype)
        return self._staging

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        with torch.cuda.stream(self._stream) if self._stream else contextlib.nullcontext():
            yield

    def wait(self) -> None:
        if self._stream:
            self._stream.synchronize()


@dataclass
class _Band:
    """One call's arrays, flat: ``frames`` (L, K, pixels), the mask or None, four results; rows are counted in a table."""

    frames: np.ndarray
    inside: np.ndarray | None
    width: int
    first_row: int
    results: tuple[np.ndarray, ...]
    table: np.ndarray | None
    frames_pinned: bool
    results_pinned: bool
    rows_counted: int = 0
    counting: list[Future[None]] = field(default_factory=list)


@dataclass
class _Piece:
    """Pixels [start, stop) of a band on their way through a slot."""

    slot: _Slot
    start: int
    stop: int
    look: Look | None = None

    @property
    def part(self) -> slice:
        return slice(self.start, self.stop)


class TorchKernels:
    """The pixel pass by torch: on ``cuda:N`` compiled and overlapped with the transfers, elsewhere plain.

    Same signature as the CPU's kernels. ``heights`` and ``phases`` cut a band into pieces of a fixed number of pixels,
    whatever the image's width, and keep three in flight. Frames and results in arrays from `empty` (pinned memory) travel
    without another copy. When the device is short of memory the pieces are halved, down to 16 384 pixels. Raises
    InputError for frames that are not uint8, uint16, float32 or float64.
    """

    def __init__(self, model: PixelModel, device: str, *, piece_pixels: int | None = None) -> None:
        self.device = device
        self._torch = torch.device(device)
        self._on_cuda = self._torch.type == "cuda"
        self._frames = (model.demodulation.wavelengths, model.demodulation.frames)
        self._compute = TorchCompute(model, self._torch, compiled=self._on_cuda)
        self._piece_pixels, self._dtype = piece_pixels, np.dtype(np.void)
        self._slots: list[_Slot] = []
        self._counters = ThreadPoolExecutor(_TABLE_THREADS, thread_name_prefix="cpikan-table")

    def heights(
        self, frames: np.ndarray, first_row: int, mask: np.ndarray | None, out: HeightRows, table: np.ndarray
    ) -> HeightRows:
        """Fill heights of a band from image row ``first_row`` on; ``table`` (rows, COLUMNS) gets its statistics."""
        self._fill(frames, first_row, mask, out, table)
        return out

    def phases(self, frames: np.ndarray, mask: np.ndarray | None, out: PhaseRows, first_row: int = 0) -> PhaseRows:
        """Fill wrapped phases of a band of one wavelength that starts at image row ``first_row``."""
        self._fill(frames, first_row, mask, out, None)
        return out

    band_bytes = 128 * 2**20  # several pieces a call, so that transfers and arithmetic overlap

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Allocate host memory that the device reads and writes directly, for frames and results."""
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        flat: np.ndarray = torch.empty(count, dtype=torch.uint8, pin_memory=self._on_cuda).numpy()
        return flat.view(dtype).reshape(shape)

    def peak_device_mib(self) -> float | None:
        return torch.cuda.max_memory_allocated(self._torch) / 2**20 if self._on_cuda else None

    def close(self) -> None:
        self._drop()
        self._counters.shutdown()

    def _fill(
        self,
        frames: np.ndarray,
        first_row: int,
        mask: np.ndarray | None,
        out: HeightRows | PhaseRows,
        table: np.ndarray | None,
    ) -> None:
        rows, width = frames.shape[2:]
        if rows * width == 0:
            return
        flat = np.ascontiguousarray(frames).reshape(*frames.shape[:2], rows * width)
        inside = None if mask is None else np.ascontiguousarray(mask, np.uint8).reshape(-1)
        results = tuple(np.ascontiguousarray(array) for array in out)
        pinned = self._is_pinned(flat), all(self._is_pinned(array) for array in results)
        flat_results = tuple(array.reshape(-1) for array in results)
        band = _Band(flat, inside, width, first_row, flat_results, table, *pinned)
        self._with_room(lambda: self._stream(band))
        for array, target in zip(results, out, strict=True):
            if array is not target:
                target[...] = array

    def _is_pinned(self, array: np.ndarray) -> bool:
        if not self._on_cuda or not array.flags.writeable:
            return False
        return torch.from_numpy(array.reshape(-1).view(np.uint8)).is_pinned()

    def _with_room(self, job: Callable[[], None]) -> None:
        """Do the job, with pieces half as long each time the device has no room for it."""
        while True:
            try:
                return job()
            except torch.OutOfMemoryError:
                if self._length <= _LEAST_PIXELS:
                    raise
            self._piece_pixels = self._length // 2
            self._drop()

    @property
    def _length(self) -> int:
        """Choose the pixels of a piece: fixed for a kind of stack, so that what was compiled for one serves all."""
        if self._piece_pixels is not None:
            return self._piece_pixels
        fitting = max(1, _PIECE_BYTES // (self._frames[0] * self._frames[1] * self._dtype.itemsize))
        return min(_MOST_PIXELS, max(_LEAST_PIXELS, 1 << (fitting.bit_length() - 1)))

    def _prepare(self, dtype: np.dtype) -> None:
        """Prepare buffers for frames of this type; on a device each kernel is compiled now, for its final shapes."""
        if self._slots and self._dtype == dtype:
            return
        if dtype.name not in _DTYPES or not dtype.isnative:
            raise InputError(f"frames are {dtype}: allowed are {', '.join(_DTYPES)} in native byte order")
        self._drop()
        self._dtype = dtype
        shape = (*self._frames, self._length)
        self._slots = [_Slot(shape, _DTYPES[dtype.name], self._torch) for _ in range(_SLOTS)]
        if self._on_cuda:
            torch.cuda.synchronize(self._torch)  # the buffers were filled on another stream than they are used on
            with self._slots[0].use():
                self._compute.compile(self._slots[0].pixels)
            self._slots[0].wait()

    def _drop(self) -> None:
        for slot in self._slots:
            slot.wait()
        self._slots = []
        if self._on_cuda:
            torch.cuda.empty_cache()

    def _stream(self, band: _Band) -> None:
        """Stream three pieces: one goes up while the one before is searched on and the one before that comes down."""
        self._prepare(band.frames.dtype)
        pieces: deque[_Piece] = deque()
        count, length, band.rows_counted = band.frames.shape[2], self._length, 0
        try:
            for n, start in enumerate(range(0, count, length)):
                pieces.append(_Piece(self._slots[n % _SLOTS], start, min(start + length, count)))
                self._begin(band, pieces[-1])
                if len(pieces) > 1:
                    self._return(band, pieces[-2])
                if len(pieces) == _SLOTS:
                    self._finish(band, pieces.popleft())
            self._return(band, pieces[-1])
            while pieces:
                self._finish(band, pieces.popleft())
        finally:
            for slot in self._slots:  # nothing may still read or write the caller's arrays
                slot.wait()
            for job in band.counting:
                job.result()
            band.counting.clear()

    def _begin(self, band: _Band, piece: _Piece) -> None:
        """Send a piece up and queue the first look at it."""
        with piece.slot.use():
            self._send_frames(band, piece)
            self._send_place(band, piece)
            piece.look = self._compute.first_look(piece.slot.pixels)

    def _send_frames(self, band: _Band, piece: _Piece) -> None:
        slot, count = piece.slot, piece.stop - piece.start
        flat = band.frames.view(np.int16) if band.frames.dtype == np.uint16 else band.frames
        target = slot.pixels.samples
        if not band.frames_pinned:
            room = slot.staging.numpy()
            for i, wavelength in enumerate(self._compute.order):
                np.copyto(room[i, :, :count], flat[wavelength, :, piece.part])
            if count == target.shape[2]:
                target.copy_(slot.staging, non_blocking=True)
                return
        # row by row: torch would gather a strided copy in pageable memory first
        for i, wavelength in enumerate(self._compute.order):
            for k in range(flat.shape[1]):
                direct = band.frames_pinned
                source = torch.from_numpy(flat[wavelength, k, piece.part]) if direct else slot.staging[i, k, :count]
                target[i, k, :count].copy_(source, non_blocking=True)

    def _send_place(self, band: _Band, piece: _Piece) -> None:
        slot, count = piece.slot, piece.stop - piece.start
        row, column = divmod(piece.start, band.width)
        slot.place.numpy()[:] = column, band.width, band.first_row + row
        slot.pixels.place.copy_(slot.place, non_blocking=True)
        if band.inside is not None:
            np.copyto(slot.inside.numpy()[:count], band.inside[piece.part])
            slot.pixels.inside[:count].copy_(slot.inside[:count], non_blocking=True)
        elif slot.masked:
            slot.pixels.inside.fill_(1)
        slot.masked = band.inside is not None

    def _return(self, band: _Band, piece: _Piece) -> None:
        """Search on where needed and queue the way down."""
        assert piece.look is not None
        count = piece.stop - piece.start
        with piece.slot.use():
            self._compute.search_on(piece.look)
            for device, host, array in zip(piece.look.outputs, piece.slot.results, band.results, strict=True):
                target = torch.from_numpy(array[piece.part]) if band.results_pinned else host[:count]
                target.copy_(device[:count], non_blocking=True)

    def _finish(self, band: _Band, piece: _Piece) -> None:
        """Wait for a piece, hand its pixels over, count the rows that are whole now."""
        piece.slot.wait()
        if not band.results_pinned:
            for host, array in zip(piece.slot.results, band.results, strict=True):
                np.copyto(array[piece.part], host.numpy()[: piece.stop - piece.start])
        rows = slice(band.rows_counted, piece.stop // band.width)
        if band.table is not None and rows.stop > rows.start:
            count: Any = row_sums
            height, flags = (band.results[k].reshape(-1, band.width)[rows] for k in (0, 3))
            band.counting.append(self._counters.submit(count, height, flags, band.table[rows]))
            band.rows_counted = rows.stop
