"""Offsets and component numbers into the maps, then a check of every pair of neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cpikan.compiled import compiled
from cpikan.psi.unwrap.nodes import ComponentNames
from cpikan.psi.unwrap.raster import order_step
from cpikan.psi.unwrap.report import OrderMaps
from cpikan.streaming.threads import RowPool

_BAND_ROWS = 128
_TURN = 2 * np.pi
_PER_TURN = np.float32(1 / _TURN)


@dataclass(frozen=True)
class Audit:
    """Neighbours more than pi apart, flagged pixels, and the largest |wrap(unwrapped - wrapped)| in rad."""

    jumps: int
    ambiguous_pixels: int
    congruence_rad: float


def apply_names(maps: OrderMaps, names: ComponentNames, threads: int) -> None:
    """Add the offset of its node to each order and replace node numbers by component numbers, in place."""
    label, offset = np.append(np.int32(0), names.label), np.append(np.int64(0), names.offset)

    def apply(start: int, stop: int) -> None:
        _apply(np.asarray(maps.orders[start:stop]), np.asarray(maps.component[start:stop]), label, offset)

    with RowPool(threads, "cpikan-audit") as pool:
        pool.map(apply, len(maps.orders), _BAND_ROWS)


def audit_map(phase_rad: np.ndarray, maps: OrderMaps, threads: int) -> Audit:
    """Flag every pixel that is more than pi from a neighbour, and count what was found."""
    kind = np.float64 if phase_rad.dtype == np.float64 else np.float32

    def check(start: int, stop: int) -> tuple[int, float]:
        orders, component, ambiguous = (np.asarray(array[start : stop + 1]) for array in maps)
        jumps, worst = _check(np.array(phase_rad[start : stop + 1], kind), orders, component, ambiguous, stop - start)
        return int(jumps), float(worst)

    def count(start: int, stop: int) -> int:
        return int(np.count_nonzero(maps.ambiguous[start:stop]))

    with RowPool(threads, "cpikan-audit") as pool:
        jumps, worst = zip(*pool.map(check, len(maps.orders), _BAND_ROWS), strict=True)
        flagged = pool.map(count, len(maps.orders), _BAND_ROWS)
    return Audit(sum(jumps), sum(flagged), max(worst))


@compiled
def _apply(orders: np.ndarray, component: np.ndarray, label: np.ndarray, offset: np.ndarray) -> None:
    for y in range(orders.shape[0]):
        for x in range(orders.shape[1]):
            node = component[y, x]
            orders[y, x] += offset[node]
            component[y, x] = label[node]


@compiled
def _check(
    phase_rad: np.ndarray, orders: np.ndarray, component: np.ndarray, ambiguous: np.ndarray, rows: int
) -> tuple[int, float]:
    """Check the first ``rows`` rows and their links to the row below.

    Two bands may flag that row at once: both write 1.
    """
    height, width = orders.shape
    jumps, worst = 0, np.zeros(width)
    for y in range(rows):
        here, order, there = phase_rad[y], orders[y], component[y]
        _incongruence(here, order, there, worst)
        found = _count_jumps(here[:-1], here[1:], order[:-1], order[1:], there[:-1], there[1:])
        if found > 0:
            jumps += found
            _flag(here[:-1], here[1:], order[:-1], order[1:], ambiguous[y, :-1], ambiguous[y, 1:])
        if y + 1 < height:
            found = _count_jumps(here, phase_rad[y + 1], order, orders[y + 1], there, component[y + 1])
            if found > 0:
                jumps += found
                _flag(here, phase_rad[y + 1], order, orders[y + 1], ambiguous[y], ambiguous[y + 1])
    return jumps, worst.max()


@compiled
def _incongruence(phase_rad: np.ndarray, orders: np.ndarray, component: np.ndarray, worst: np.ndarray) -> None:
    """Raise ``worst`` (per column) to |wrap(phase + 2 pi order - phase)| of a row."""
    for x in range(worst.size):
        wrapped = np.float64(phase_rad[x])
        excess = wrapped + _TURN * orders[x] - wrapped
        distance = abs(excess - _TURN * np.rint(excess * (1 / _TURN)))
        worst[x] = distance if (component[x] > 0) & (distance > worst[x]) else worst[x]


@compiled
def _count_jumps(
    a: np.ndarray,
    b: np.ndarray,
    order_a: np.ndarray,
    order_b: np.ndarray,
    component_a: np.ndarray,
    component_b: np.ndarray,
) -> int:
    """Count pairs of valid pixels more than pi apart (no branches, so that the loop runs on whole vectors)."""
    count = np.int32(0)
    for x in range(a.size):
        step = np.rint((np.float32(b[x]) - np.float32(a[x])) * _PER_TURN)
        apart = np.float32(order_b[x] - order_a[x]) + step != 0
        count += np.int32(apart & (component_a[x] > 0) & (component_b[x] > 0))
    return int(count)


@compiled
def _flag(
    a: np.ndarray, b: np.ndarray, order_a: np.ndarray, order_b: np.ndarray, flag_a: np.ndarray, flag_b: np.ndarray
) -> None:
    """Flag both pixels of the pairs that ``_count_jumps`` counts."""
    for x in range(a.size):
        both = np.isfinite(a[x]) and np.isfinite(b[x])
        if both and order_b[x] - order_a[x] != order_step(np.float32(a[x]), np.float32(b[x])):
            flag_a[x] = True
            flag_b[x] = True
