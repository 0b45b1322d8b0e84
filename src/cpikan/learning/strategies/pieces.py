"""Pieces: a steady problem on intervals of one axis, halved where the solution is sharp, with knots where coefficients jump."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cpikan.errors import InputError
from cpikan.fields.piecewise import PiecewiseChebyshev
from cpikan.fields.product_chebyshev import ProductChebyshev
from cpikan.learning.combinators import Strategy
from cpikan.learning.methods.method import State
from cpikan.learning.runner import Runner
from cpikan.learning.samplers.points import Points
from cpikan.learning.stop_reason import StopReason
from cpikan.learning.strategies.slab import Place, Slab
from cpikan.learning.strategies.slabs import first_knots, joined_field, lifted, unit_of
from cpikan.physics.problem import Problem
from cpikan.physics.regions import Box
from cpikan.streaming.threads import single_threaded

_INTERVALS = 4  # to begin with
_MOST_INTERVALS = 400
_MOST_MODES = 28  # along the other axis
_WIDEST = 400  # coefficients of an interval
_CLOSE = 1e-2  # relative residual of a field that is there already, to begin from it
_WORST = 1e-2  # of the largest tail: what is smaller may come of it, and waits
_SMALLEST = 1e-6  # size of an output, of that of the largest
_POINTS = Points(3000, 400)
_LEVELS = {1: ((1e-5, 10), (1e-8, 14), (1e-11, 20)), 2: ((1e-3, 8), (1e-5, 10), (1e-7, 12), (1e-9, 14))}


@dataclass(frozen=True)
class Pieces(Strategy):
    """Solve by Gauss-Newton on all intervals at once, halve those where the series do not converge, and again.

    Intervals lie along the axis with breaks, or else the first; along a second axis there are more modes where they are
    needed. Levels of falling tolerance (and more modes) begin from the intervals before; the best by the held-out residual
    stays in the run. Raises InputError for a region that is no box of one or two axes.
    """

    name: str = "pieces"

    def init(self, run: Runner) -> State:
        """Begin with the coarsest level."""
        if not can_piece(run.problem):
            raise InputError(f"{run.problem.name} cannot be solved in pieces: give a box of one or two axes, no energy")
        return {"done": 0, "took": 0.0, "knots": None, "modes": [], "reason": int(StopReason.RUNNING)}

    def step(self, run: Runner, state: State) -> State:
        """Refine until the series converge to the tolerance of a level."""
        begun = run.left_s
        tolerance, modes = _LEVELS[run.problem.dimension][state["done"]]
        with single_threaded():
            slab, sound = _refined(run, self._slab(run, state, modes, tolerance), tolerance)
        if sound or not run.placed:
            field = joined_field([slab])
            count = run.problem.outputs
            unknowns = field.parts.coefficients.detach()[:, 0, count:].mean(dim=0) if run.problem.unknowns else None
            run.offer(_without(field, count) if unknowns is not None else field, _POINTS, unknowns)
        reason = StopReason.TARGET if run.converged else StopReason.RUNNING if sound else StopReason.STALLED
        state = {**state, "knots": slab.place.knots, "modes": list(slab.modes), "done": state["done"] + 1}
        return {**state, "took": begun - run.left_s, "reason": int(reason)}

    def stop(self, run: Runner, state: State) -> StopReason:
        """Stop at the goal, after the last level, or where one more would not fit into the time."""
        if state["reason"] != StopReason.RUNNING:
            return StopReason(state["reason"])
        if state["done"] >= len(_LEVELS[run.problem.dimension]):
            return StopReason.COST
        late = state["done"] and 3 * state["took"] > run.left_s
        return StopReason.NEXT_LEVEL if late else StopReason.RUNNING

    def _slab(self, run: Runner, state: State, modes: int, tolerance: float) -> Slab:
        """Place a level on the intervals that the one before ended with, beginning from its solution."""
        problem, region = run.problem, run.problem.region
        assert isinstance(region, Box)
        chain = next((axis for axis, _ in region.inner.values()), 0)
        knots = state["knots"]
        if knots is None:
            fixed = [place for _, place in region.inner.values()]
            knots = first_knots(region.lower[chain], region.upper[chain], fixed, _INTERVALS)
        least = state["modes"] or [0] * problem.dimension
        place = Place(problem, None, chain, knots, 0.0, 0.0, tuple(max(modes, m) for m in least))
        known = run.placed and (state["knots"] is not None or run.iterate.relative() < _CLOSE)
        return _onward(run, place) if known else lifted(place, tolerance)


def can_piece(problem: Problem) -> bool:
    """Tell whether a problem is posed on a box of one or two axes, by residuals that each belong to one point."""
    coupled = any(condition.mix is not None for condition in problem.conditions)
    return isinstance(problem.region, Box) and problem.dimension <= 2 and problem.energy is None and not coupled


def _onward(run: Runner, place: Place) -> Slab:
    """Begin from the field of the run and its unknowns."""
    iterate = run.iterate

    def known(x: Tensor) -> Tensor:
        return iterate.field.jet(x, "none").value  # type: ignore[operator]

    with torch.no_grad():
        size = known(iterate.objective.sets["equation"].points).abs().amax(dim=0)
    slab = Slab(place, unit_of(size))
    slab.guess(known)
    return slab


def _refined(run: Runner, slab: Slab, tolerance: float) -> tuple[Slab, bool]:
    """Solve and refine until all series converge; with whether they did, or were left for size or time."""
    while True:
        steps, misfit = slab.solve(tolerance)
        run.count(steps)
        size = slab.largest()
        if not (math.isfinite(misfit) and bool(torch.isfinite(size).all())):
            return slab, False
        tails = slab.tails(torch.maximum(size, _SMALLEST * size.max()).clamp_min(1e-300))
        run.report_progress(intervals=len(slab.widths))
        finer = _finer(slab, tails, tolerance)
        if finer is None:
            return slab, True
        if run.left_s <= 0:
            return slab, False
        coarse = PiecewiseChebyshev(slab.series)
        slab = Slab(finer, unit_of(size))
        slab.guess(coarse)


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


def _without(field: PiecewiseChebyshev, outputs: int) -> PiecewiseChebyshev:
    """Leave out the outputs behind the first: those of unknowns."""
    parts = ProductChebyshev(
        field.parts.modes,
        (field.parts.scaling.lower, field.parts.scaling.upper),
        outputs=outputs,
        networks=field.parts.networks,
    )
    parts.set_output_coefficients(field.parts.coefficients.detach()[..., :outputs])
    return PiecewiseChebyshev(parts)
