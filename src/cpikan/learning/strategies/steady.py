"""Steady slabs: solved on all intervals at once, refined where the series do not converge."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from cpikan.fields.piecewise import PiecewiseChebyshev
from cpikan.learning.runner import Runner
from cpikan.learning.strategies.slab import Place, Slab
from cpikan.learning.strategies.slabs import unit_of

_MOST_INTERVALS = 400
_MOST_MODES = 64  # along the other axis
_WIDEST = 700  # coefficients of an interval
_WORST = 1e-2  # of the largest tail: what is smaller may come of it, and waits
_SMALLEST = 1e-6  # size of an output, of that of the largest
_MISFIT = 10.0  # times the tolerance: what equation and conditions may be missed by where series converge


class Refined(NamedTuple):
    """A slab, whether its series converge or were left for size, and whether it meets equation and conditions too."""

    slab: Slab
    sound: bool
    met: bool


def refined(run: Runner, slab: Slab, tolerance: float) -> Refined:
    """Solve and refine until all series converge, or until time is up."""
    while True:
        steps, misfit = slab.solve(tolerance)
        run.count(steps)
        size = slab.largest()
        if not (math.isfinite(misfit) and bool(torch.isfinite(size).all())):
            return Refined(slab, False, False)
        tails = slab.tails(torch.maximum(size, _SMALLEST * size.max()).clamp_min(1e-300))
        run.report_progress(intervals=len(slab.widths))
        finer = _finer(slab, tails, tolerance)
        if finer is None:
            return Refined(slab, True, misfit <= _MISFIT * tolerance)
        if run.left_s <= 0:
            return Refined(slab, False, False)
        slab = onward(slab, finer)


def _finer(slab: Slab, tails: list[Tensor], tolerance: float) -> Place | None:
    """Halve intervals and raise modes along the other axis where series do not converge; None where all do, or none may."""
    place, modes, chain = slab.place, list(slab.modes), slab.place.chain
    assert chain is not None
    bad, rough = tails[chain] > max(tolerance, _WORST * float(tails[chain].max())), False
    for axis in range(len(modes)):
        if axis != chain and float(tails[axis].max()) > tolerance and modes[axis] < _MOST_MODES:
            grown = min(_MOST_MODES, modes[axis] + max(2, modes[axis] // 3))
            if math.prod(modes) // modes[axis] * grown * place.outputs <= _WIDEST:
                modes[axis], rough = grown, True
    if not (bool(bad.any()) or rough) or len(bad) + int(bad.sum()) > _MOST_INTERVALS:
        return None
    middle = (place.knots[:-1] + place.knots[1:]) / 2
    return replace(place, knots=torch.sort(torch.cat([place.knots, middle[bad]])).values, modes=tuple(modes))


def onward(slab: Slab, place: Place) -> Slab:
    """Make a slab at a place that begins with the series of another."""
    found = Slab(place, unit_of(slab.largest()))
    found.guess(PiecewiseChebyshev(slab.series))
    return found
