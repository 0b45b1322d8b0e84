"""The pixel pass on the CPU: the compiled loops, their packed arguments, and the threads that share the rows."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cpikan.psi.kernels import cpu_blocks
from cpikan.psi.kernels.model import HeightRows, OrderSearch, PhaseRows, PixelModel
from cpikan.psi.kernels.statistics import row_sums
from cpikan.psi.kernels.weight_field import WeightField


def _pack_demodulation(model: PixelModel) -> tuple[np.ndarray, np.ndarray]:
    """Weights (3, L, K) and noise (L, 6), float32, as the kernels take them."""
    d = model.demodulation
    weights = np.stack([d.cosine, d.sine, d.mean]).astype(np.float32)
    floor_turns2 = d.phase_floor_rad2[:, None] / (2 * np.pi) ** 2
    noise = np.concatenate([d.noise, d.covariance, floor_turns2], axis=1).astype(np.float32)
    return weights, noise


def _pack_search(search: OrderSearch) -> tuple[tuple[np.float32, ...], np.ndarray, np.ndarray, np.ndarray]:
    """Ratios, L numbers; planes (L, 6): piston, tilt y, tilt x, frame index, centre y, x; limits (5,); counts (2,)."""
    planes = np.column_stack(
        [search.piston_turns, search.tilt_turns, search.order, np.tile(search.centre, (len(search.order), 1))]
    ).astype(np.float64)
    half = search.half_wave_nm
    ends = (
        search.near_low_nm,
        search.near_low_nm + search.near_range_nm,
        search.low_nm,
        search.low_nm + search.range_nm,
    )
    limits = np.array([*(end / half for end in ends), half], np.float32)
    counts = np.array([search.near_candidates, search.candidates], np.int64)
    return _as_tuple(search.ratio), planes, limits, counts


def _as_tuple(ratio: np.ndarray) -> tuple[np.float32, ...]:
    """A tuple carries the number of wavelengths in its type: loops over them are unrolled by the compiler."""
    return tuple(np.float32(value) for value in ratio)


def search_orders(ratio: np.ndarray) -> Callable[[np.ndarray, np.ndarray, float, float], tuple[np.ndarray, ...]]:
    """The compiled order search for plain arrays of pixels, as calibration uses it.

    The result takes turns (L, P), their variance, low and range in turns of the anchor, and returns order, correction,
    misfit and the runner-up's misfit, (P,) float64.
    """
    ratios = _as_tuple(ratio)

    def search(turns: np.ndarray, variance: np.ndarray, low: float, span: float) -> tuple[np.ndarray, ...]:
        n = turns.shape[1]
        weight = np.ascontiguousarray(1 / variance, np.float32)  # rows must be runs of memory for vector loads
        total, start, best, second, order, shift = (np.empty(n, np.float32) for _ in range(6))
        phases = np.ascontiguousarray(turns, np.float32)
        cpu_blocks.totals(phases[0], weight, ratios, np.float32(low), total, start, n)
        limit, count = np.float32(low + span), max(1, int(np.ceil(span)))
        cpu_blocks.search(phases, weight, ratios, start, limit, total, count, n, best, second, order, shift)
        return tuple(a.astype(np.float64) for a in (order, shift, best, second))

    return search


class CpuKernels:
    """The pixel pass on the CPU with a fixed number of threads; the same signature as the other kernels.

    ``heights`` and ``phases`` take frames (L, K, rows, W), C-contiguous, and fill the given buffers row by row; rows are
    shared among threads, which changes no bit of the result.
    """

    device = "cpu"
    band_bytes = 20 * 2**20  # small beside memory, large beside the cost of handing a band from thread to thread

    def __init__(self, model: PixelModel, threads: int) -> None:
        self._model, self._threads = model, max(1, threads)
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="cpikan-kernel")
        d = model.demodulation
        self._carre = d.carre
        self._weights, self._noise = _pack_demodulation(model)
        self._field = None if d.models is None else WeightField(d.models, d.node_px, d.saturation_dn)
        search = model.search
        level = [d.saturation_dn, d.snr_min, 0.0, np.inf]
        if search is not None:
            level[2:] = [search.margin_min, search.misfit_max]
            self._search = _pack_search(search)
        self._level = np.array(level, np.float32)

    def heights(
        self, frames: np.ndarray, first_row: int, mask: np.ndarray | None, out: HeightRows, table: np.ndarray
    ) -> HeightRows:
        """Heights of a band that starts at image row ``first_row``; ``table`` (rows, COLUMNS) gets its statistics."""
        search = self._model.search
        assert search is not None, "two or more wavelengths have an order search"
        inside = _mask_argument(mask)
        ratio, planes, limits, counts = self._search
        fixed = (inside, self._weights, self._noise, self._level, ratio, planes, limits, counts, search.finest)

        field = self._field_rows(frames, first_row)

        def run(row0: int, rows: int) -> None:
            cpu_blocks.height_rows(frames, row0, rows, first_row, *fixed, self._carre, field, *out)
            part = slice(row0, row0 + rows)
            row_sums(out.height_nm[part], out.flags[part], table[part])

        self._share(frames.shape[2], run)
        return out

    def phases(self, frames: np.ndarray, mask: np.ndarray | None, out: PhaseRows, first_row: int = 0) -> PhaseRows:
        """Wrapped phases of a band of one wavelength that starts at image row ``first_row``."""
        inside = _mask_argument(mask)
        fixed = (self._weights, self._noise, self._level, self._carre, self._field_rows(frames, first_row))

        def run(row0: int, rows: int) -> None:
            cpu_blocks.phase_rows(frames, row0, rows, first_row, inside, *fixed, *out)

        self._share(frames.shape[2], run)
        return out

    def _field_rows(self, frames: np.ndarray, first_row: int) -> tuple[np.ndarray, int, int, int, np.ndarray] | None:
        """What varies over the band where steps are not uniform; None compiles the plain loops."""
        return None if self._field is None else self._field.rows(first_row, *frames.shape[2:])

    def _share(self, rows: int, run: Callable[[int, int], None]) -> None:
        if self._threads == 1 or rows < 2 * self._threads:
            run(0, rows)
            return
        # more pieces than threads: a core that is busy elsewhere does not hold up the band
        piece = max(1, -(-rows // (4 * self._threads)))
        jobs = [self._pool.submit(run, start, min(piece, rows - start)) for start in range(0, rows, piece)]
        for job in jobs:
            job.result()

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return np.empty(shape, dtype)

    def peak_device_mib(self) -> float | None:
        return None

    def close(self) -> None:
        self._pool.shutdown()


def _mask_argument(mask: np.ndarray | None) -> np.ndarray:
    return np.empty((0, 0), np.uint8) if mask is None else np.ascontiguousarray(mask, np.uint8)
