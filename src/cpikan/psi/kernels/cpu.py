"""The pixel pass on the CPU: the compiled loops, and the threads that share the rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cpikan.psi.kernels import cpu_blocks, cpu_search
from cpikan.psi.kernels.arguments import Found, NodeRows, Range, Span, Waves, as_tuple, pack_demodulation, pack_search
from cpikan.psi.kernels.model import DemodulatedRows, HeightRows, PhaseRows, PixelModel, empty_demodulated
from cpikan.psi.kernels.statistics import row_sums
from cpikan.psi.kernels.weight_field import WeightField
from cpikan.streaming.threads import RowPool


def search_orders(ratio: np.ndarray) -> Callable[[np.ndarray, np.ndarray, float, float], tuple[np.ndarray, ...]]:
    """Make the compiled order search for plain arrays of pixels, as calibration uses it.

    The result takes phases in cycles (L, P), their variance, low and range in cycles of the anchor, and returns order,
    correction, misfit and the runner-up's misfit, (P,) float64.
    """
    ratios = as_tuple(ratio)

    def search(cycles: np.ndarray, variance: np.ndarray, low: float, span: float) -> tuple[np.ndarray, ...]:
        n = cycles.shape[1]
        # rows must be runs of memory for vector loads
        waves = Waves(np.ascontiguousarray(cycles, np.float32), np.ascontiguousarray(1 / variance, np.float32))
        found = Found(*(np.empty(n, np.float32) for _ in Found._fields))
        limits = Range(np.float32(low), np.float32(low + span), max(1, int(np.ceil(span))))
        cpu_search.start_search(waves, ratios, limits.low, found, n)
        cpu_search.search(waves, ratios, limits, found, n)
        return tuple(a.astype(np.float64) for a in (found.order, found.shift, found.best, found.second))

    return search


class CpuKernels:
    """The pixel pass on the CPU with a fixed number of threads; the same signature as the other kernels.

    ``heights`` and ``phases`` take frames (L, K, rows, W), C-contiguous, and fill the given buffers row by row; rows are
    shared among threads, which changes no bit of the result.
    """

    device = "cpu"
    band_bytes = 20 * 2**20  # small beside memory, large beside the cost of handing a band from thread to thread

    def __init__(self, model: PixelModel, threads: int) -> None:
        self._pool = RowPool(threads, "cpikan-kernel")
        d = model.demodulation
        self._demodulator = pack_demodulation(d)
        self._field = None if d.models is None else WeightField(d)
        self._search = None if model.search is None else pack_search(model.search)

    def heights(
        self, frames: np.ndarray, first_row: int, mask: np.ndarray | None, out: HeightRows, table: np.ndarray
    ) -> HeightRows:
        """Fill heights of a band from image row ``first_row`` on; ``table`` (rows, COLUMNS) gets its statistics."""

        def count(part: slice) -> None:
            row_sums(out.height_nm[part], out.flags[part], table[part])

        self._fill_heights(frames, first_row, mask, out, empty_demodulated(frames.shape[0], 0, 0), count)
        return out

    def phases(self, frames: np.ndarray, mask: np.ndarray | None, out: PhaseRows, first_row: int = 0) -> PhaseRows:
        """Fill wrapped phases of a band of one wavelength that starts at image row ``first_row``."""
        inside, field = _mask_argument(mask), self._field_rows(frames, first_row)

        def run(part: slice) -> None:
            span = Span(part.start, part.stop, first_row)
            cpu_blocks.phase_rows(frames, span, inside, self._demodulator, field, out)

        self._share(frames.shape[2], run)
        return out

    def _fill_heights(
        self,
        frames: np.ndarray,
        first_row: int,
        mask: np.ndarray | None,
        out: HeightRows,
        kept: DemodulatedRows,
        then: Callable[[slice], None] = lambda part: None,
    ) -> None:
        """Fill heights, and what they were formed from where ``kept`` has rows; ``then`` goes over each part of the rows."""
        assert self._search is not None, "two or more wavelengths have an order search"
        fixed = (_mask_argument(mask), self._demodulator, self._search, self._field_rows(frames, first_row), out, kept)

        def run(part: slice) -> None:
            cpu_blocks.height_rows(frames, Span(part.start, part.stop, first_row), *fixed)
            then(part)

        self._share(frames.shape[2], run)

    def _field_rows(self, frames: np.ndarray, first_row: int) -> NodeRows | None:
        """Interpolate weights over the band where steps are not uniform; None compiles the plain loops."""
        return None if self._field is None else self._field.rows(first_row, *frames.shape[2:])

    def _share(self, rows: int, run: Callable[[slice], None]) -> None:
        threads = self._pool.threads
        # more pieces than threads: a core that is busy elsewhere does not hold up the band
        piece = rows if threads == 1 or rows < 2 * threads else -(-rows // (4 * threads))
        self._pool.map(lambda start, stop: run(slice(start, stop)), rows, piece)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return np.empty(shape, dtype)

    def peak_device_mib(self) -> float | None:
        return None

    def close(self) -> None:
        self._pool.close()


class DemodulationKernels(CpuKernels):
    """The pixel pass that also keeps what heights are formed from: what a refiner begins with."""

    def demodulate(
        self, frames: np.ndarray, first_row: int, mask: np.ndarray | None, out: DemodulatedRows
    ) -> DemodulatedRows:
        """Fill phases, weights and the pixel's own orders of a band (L, K, rows, W) from image row ``first_row`` on."""
        heights = HeightRows(out.height_nm, out.sigma_nm, out.modulation, out.flags)
        self._fill_heights(frames, first_row, mask, heights, out)
        return out


def _mask_argument(mask: np.ndarray | None) -> np.ndarray:
    return np.empty((0, 0), np.uint8) if mask is None else np.ascontiguousarray(mask, np.uint8)
