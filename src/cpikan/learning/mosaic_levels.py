"""Levels of Mosaic Flow: boxes twice as long, on every second grid point, correct what is far."""

from __future__ import annotations

import numpy as np

from cpikan.errors import InputError, check_type
from cpikan.learning.mosaic_flow import Flow, MosaicFlow, edged, smooth_start

_REACH = 4.0  # a sweep moves what is smooth by the square of the length of boxes, which are twice as long a level below
_TWICE = 2  # corrections of a level by the one below: those of smooth functions are wrong by what _REACH is
_START = 1e-3  # change at which a level is good enough to begin the next with


def solve_mosaic(flow: MosaicFlow, values: np.ndarray, tolerance: float = 1e-10, most: int = 200) -> Flow:
    """Solve a domain from the ``values`` on its edge, beginning on the coarsest level, and correcting by all levels in turn.

    A cycle is a sweep, a correction by boxes twice as long, which the same local solver serves, as Laplace's equation has no
    length of its own, and a sweep. It ends where a cycle changes less than ``tolerance`` of the largest value, at the latest
    after ``most``. The fixed point is that of `MosaicFlow.solve`: nothing but the local solver knows the equation here too.
    ``sweeps`` counts those over the whole domain. There is a level below where both numbers of half boxes are even and at least
    four: powers of two are best. Source: Brandt, Math. Comput. 31 (1977). Raises InputError for values of another shape.
    """
    check_type("flow", flow, MosaicFlow, "a MosaicFlow(HarmonicBox(8), 8, (16, 16))")
    if not tolerance > 0:
        raise InputError(f"tolerance {tolerance}: give a number above zero")
    flow.check(values)
    below = _below(flow)
    if below is None:
        found = smooth_start(values)
    else:
        start = solve_mosaic(below, values[::2, ::2], max(_START, tolerance), most).values
        found = edged(_finer(start), values)
    size, change, sweeps = max(float(np.abs(found).max()), 1e-300), np.inf, 0
    while sweeps < 3 * most and not change <= tolerance:
        before, sweeps = found.copy(), sweeps + 3
        _cycle(flow, found, np.zeros(flow.shape))
        change = float(np.abs(found - before).max()) / size
    flow.fill(found)
    return Flow(found, sweeps, change)


def _cycle(flow: MosaicFlow, values: np.ndarray, source: np.ndarray) -> None:
    """Bring ``values`` nearer to u = sweep(u) + source, in place, both on the lines through the middle of boxes."""
    _sweep(flow, values, source)
    after = values.copy()
    _sweep(flow, after, source)
    below = _below(flow)
    if below is None:
        values[:] = after
    else:
        missed = np.where(_lines(below), _REACH * (after - values)[::2, ::2], 0.0)
        change = np.zeros(below.shape)
        for _ in range(_TWICE):
            _cycle(below, change, missed)
        below.fill(change)
        values += np.where(_lines(flow), _finer(change), 0.0)
    _sweep(flow, values, source)


def _sweep(flow: MosaicFlow, values: np.ndarray, source: np.ndarray) -> None:
    flow.sweep(values)
    values += source


def _below(flow: MosaicFlow) -> MosaicFlow | None:
    """Make the flow of boxes twice as long; None where they do not fit."""
    if any(n % 2 or n < 4 for n in flow.halves):
        return None
    return MosaicFlow(flow.local, flow.cells, (flow.halves[0] // 2, flow.halves[1] // 2))


def _finer(coarse: np.ndarray) -> np.ndarray:
    """Put values of every second grid point onto all, linear between."""
    fine = np.empty([2 * n - 1 for n in coarse.shape])
    fine[::2, ::2] = coarse
    fine[1::2, ::2] = 0.5 * (coarse[:-1] + coarse[1:])
    fine[:, 1::2] = 0.5 * (fine[:, :-2:2] + fine[:, 2::2])
    return fine


def _lines(flow: MosaicFlow) -> np.ndarray:
    """Tell which grid points lie on the lines through the middle of boxes, inside the edge."""
    half = flow.cells // 2
    found = np.zeros(flow.shape, dtype=bool)
    found[half:-half:half, 1:-1] = True
    found[1:-1, half:-half:half] = True
    return found
