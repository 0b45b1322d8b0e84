"""Second pass: offsets and component numbers into the arrays, then a check of every pair of neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numba import njit

from cpikan.psi.unwrap.components import ComponentNames
from cpikan.psi.unwrap.raster import order_step

_BAND_ROWS = 128
_TURN = 2 * np.pi


@dataclass(frozen=True)
class Audit:
    """Neighbours more than pi apart, flagged pixels, and the largest |wrap(unwrapped - wrapped)| in rad."""

    jumps: int
    ambiguous_pixels: int
    congruence_rad: float


def apply_names(orders: np.ndarray, component: np.ndarray, names: ComponentNames, threads: int) -> None:
    """Add the offset of its node to each order and replace node numbers by component numbers, in place."""
    label, offset = np.append(np.int32(0), names.label), np.append(np.int64(0), names.offset)

    def apply(rows: slice) -> None:
        _apply(np.asarray(orders[rows]), np.asarray(component[rows]), label, offset)

    _by_bands(apply, orders.shape[0], threads)


def audit_map(
    phase_rad: np.ndarray, orders: np.ndarray, component: np.ndarray, ambiguous: np.ndarray, threads: int
) -> Audit:
    """Flag every pixel that is more than pi from a neighbour, and count what was found."""
    double = phase_rad.dtype == np.float64

    def check(rows: slice) -> tuple[int, float]:
        more = slice(rows.start, rows.stop + 1)
        phase = np.array(phase_rad[more], np.float64 if double else np.float32)
        found = _check(
            phase,
            np.asarray(orders[more]),
            np.asarray(component[more]),
            np.asarray(ambiguous[more]),
            rows.stop - rows.start,
        )
        return int(found[0]), float(found[1])

    def count(rows: slice) -> int:
        return int(np.count_nonzero(ambiguous[rows]))

    height = orders.shape[0]
    checked = _by_bands(check, height, threads)
    flagged = sum(_by_bands(count, height, threads))
    return Audit(sum(jumps for jumps, _ in checked), flagged, max(worst for _, worst in checked))


def _by_bands(work: Callable[[slice], object], height: int, threads: int) -> list:
    bands: Sequence[slice] = [slice(y, min(y + _BAND_ROWS, height)) for y in range(0, height, _BAND_ROWS)]
    with ThreadPoolExecutor(threads, thread_name_prefix="cpikan-audit") as pool:
        return list(pool.map(work, bands))


@njit(cache=True, nogil=True)
def _apply(orders: np.ndarray, component: np.ndarray, label: np.ndarray, offset: np.ndarray) -> None:
    for y in range(orders.shape[0]):
        for x in range(orders.shape[1]):
            node = component[y, x]
            orders[y, x] += offset[node]
            component[y, x] = label[node]


@njit(cache=True, nogil=True)
def _check(
    phase_rad: np.ndarray, orders: np.ndarray, component: np.ndarray, ambiguous: np.ndarray, rows: int
) -> tuple[int, float]:
    """Check the first ``rows`` rows and their links to the row below (two bands may flag that row at once: both write
    1)."""
    height, width = orders.shape
    jumps, worst = 0, 0.0
    for y in range(rows):
        for x in range(width):
            if component[y, x] == 0:
                continue
            here = np.float32(phase_rad[y, x])
            wrapped = np.float64(phase_rad[y, x])
            excess = wrapped + _TURN * orders[y, x] - wrapped
            worst = max(worst, abs(excess - _TURN * np.rint(excess / _TURN)))
            if x + 1 < width and component[y, x + 1] > 0:
                step = order_step(here, np.float32(phase_rad[y, x + 1]))
                if orders[y, x + 1] - orders[y, x] != step:
                    jumps += 1
                    ambiguous[y, x] = True
                    ambiguous[y, x + 1] = True
            if y + 1 < height and component[y + 1, x] > 0:
                step = order_step(here, np.float32(phase_rad[y + 1, x]))
                if orders[y + 1, x] - orders[y, x] != step:
                    jumps += 1
                    ambiguous[y, x] = True
                    ambiguous[y + 1, x] = True
    return jumps, worst
