"""March: an evolution slab of time by slab, with intervals, modes and steps as sharp as the solution asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cpikan.errors import InputError
from cpikan.fields.piecewise import PiecewiseChebyshev
from cpikan.fields.protocol import Jet
from cpikan.learning.combinators import Strategy
from cpikan.learning.methods.method import State
from cpikan.learning.runner import Runner
from cpikan.learning.samplers.points import Points
from cpikan.learning.stop_reason import StopReason
from cpikan.learning.strategies.slab import Place, Slab
from cpikan.learning.strategies.slabs import first_knots, joined_field, lifted, unit_of
from cpikan.physics.evolution import Evolution, evolution
from cpikan.physics.problem import Problem
from cpikan.physics.regions import Box
from cpikan.streaming.threads import single_threaded

_INTERVALS = 4  # to begin with
_MOST_INTERVALS = 400
_MOST_COEFFICIENTS = 4000  # of a slab that is one box
_SHORTEST = 1e-6  # slab, of the whole time
_POINTS = Points(3000, 400)  # where the whole is looked at; each slab has points of its own
_GROWTH, _SLOWEST = 4.0, 1.5  # a level takes at most, and at least, so many times the seconds of the one before
_STEEPER = 1.3  # times the growth from the level before that
_MISFIT = 100.0  # times the tolerance: what equation and conditions may be missed by where series converge
_SMALLEST = 1e-6  # size of an output, of that of the largest


@dataclass(frozen=True)
class Level:
    """``tolerance``: last coefficients of a series relative to the largest value; ``modes`` along space and time."""

    tolerance: float
    modes: tuple[int, int]


_LEVELS = {  # by the number of space axes
    0: (Level(1e-6, (1, 10)), Level(1e-9, (1, 14)), Level(1e-12, (1, 20))),
    1: (
        Level(1e-3, (8, 6)),
        Level(1e-5, (10, 8)),
        Level(1e-6, (12, 8)),
        Level(1e-7, (12, 10)),
        Level(1e-9, (14, 12)),
    ),
    2: (Level(1e-3, (8, 5)), Level(1e-5, (10, 6)), Level(1e-7, (12, 8)), Level(1e-9, (14, 10))),
}


@dataclass(frozen=True)
class March(Strategy):
    """Solve slab after slab by Gauss-Newton: a slab is shortened until its series converge in time; where they do not in
    space, its intervals are halved (one space axis) or it gets more modes (several), and neighbours that need not be apart
    are joined before the next.

    With ``partial`` time that is up before the first passage leaves a solution that stands still from there on.

    Levels of falling tolerance go through the whole time again, as far as the seconds allow; the best by the held-out
    residual stays in the run. No slab depends on a later one, so nothing trains against causality (Wang, Sankaran and
    Perdikaris 2022 weigh residuals to that end). Raises InputError for a problem that is not of this kind.
    """

    levels: tuple[Level, ...] = ()
    partial: bool = False
    name: str = "march"

    def init(self, run: Runner) -> State:
        """Begin with the coarsest level."""
        if not can_march(run.problem):
            raise InputError(
                f"{run.problem.name} cannot be marched: give a box with an axis t, conditions at t=min and none at t=max, and "
                "neither unknown coefficients nor measured data"
            )
        return {"took": 0.0, "growth": _GROWTH, "done": 0, "reason": int(StopReason.RUNNING)}

    def step(self, run: Runner, state: State) -> State:
        """Go through the whole time at one level."""
        begun, done = run.left_s, state["done"]
        with single_threaded():
            passage = _Passage(run, self._levels(run)[done])
            whole = passage.go()
        if not (whole or run.placed or self.partial):
            raise InputError(
                f"time is up before march has gone through {run.problem.name} once: give more than {run.seconds:.3g} s"
            )
        if whole or not run.placed:  # what there is, rather than nothing
            run.offer(passage.field(), _POINTS)
        if not whole:
            return {**state, "reason": int(StopReason.TIME)}
        reason = StopReason.TARGET if run.converged else StopReason.RUNNING
        took = begun - run.left_s
        growth = _STEEPER * took / state["took"] if state["took"] > 0 else _GROWTH
        growth = min(max(growth, _SLOWEST), _GROWTH)
        return {"took": took, "growth": growth, "done": done + 1, "reason": int(reason)}

    def stop(self, run: Runner, state: State) -> StopReason:
        """Stop at the goal, after the last level, or before one that would not fit into the time."""
        if state["reason"] != StopReason.RUNNING:
            return StopReason(state["reason"])
        if state["done"] >= len(self._levels(run)):
            return StopReason.COST
        late = state["done"] and state["took"] * state.get("growth", _GROWTH) > run.left_s
        return StopReason.NEXT_LEVEL if late else StopReason.RUNNING

    def _levels(self, run: Runner) -> tuple[Level, ...]:
        return self.levels or _LEVELS[min(2, run.problem.dimension - 1)]


def can_march(problem: Problem) -> bool:
    """Tell whether a problem evolves in time, with conditions at the start and at the walls alone."""
    return evolution(problem) is not None


class _Passage:
    """One way through the whole time at one level."""

    def __init__(self, run: Runner, level: Level) -> None:
        self._run, self._level = run, level
        box, found = run.problem.region, evolution(run.problem)
        assert isinstance(box, Box)
        assert found is not None
        self._evolution: Evolution = found
        self._time, space = found.time, [a for a in range(run.problem.dimension) if a != found.time]
        self._chain = space[0] if len(space) == 1 else None
        self._begin, self._end = box.lower[self._time], box.upper[self._time]
        self._modes = tuple(level.modes[int(axis == self._time)] for axis in range(run.problem.dimension))
        self._knots = torch.zeros(0, dtype=torch.float64)
        if self._chain is not None:
            low, high = box.lower[self._chain], box.upper[self._chain]
            self._widest = (high - low) / _INTERVALS * (1 + 1e-9)
            self._fixed = [place for axis, place in box.inner.values() if axis == self._chain]
            self._knots = first_knots(low, high, self._fixed, _INTERVALS)
        self._size = torch.zeros(run.problem.outputs, dtype=torch.float64)  # of the outputs, as far as seen
        self._slabs: list[Slab] = []

    def field(self) -> PiecewiseChebyshev:
        """Join the slabs; where there are none yet, the solution stands still."""
        if not self._slabs or self._slabs[-1].place.end < self._end:
            begin = self._slabs[-1].place.end if self._slabs else self._begin
            self._slabs.append(self._slab(begin, self._end))
        return joined_field(self._slabs)

    def go(self) -> bool:
        """March to the end of time; tells whether it got there before time was up."""
        now, whole = self._begin, self._end - self._begin
        length = whole / 10
        while now < self._end:
            if self._run.left_s <= 0:
                return False
            end = self._end if self._end - now < 1.3 * length else now + length
            slab, late = self._refined(self._slab(now, end))
            gain = 0.8 * (self._level.tolerance / max(late, 1e-300)) ** (1 / (self._level.modes[1] - 1))
            if late > self._level.tolerance and end - now > _SHORTEST * whole:
                length = min(0.7, max(0.2, gain)) * (end - now)
                continue
            self._run.report_progress(intervals=len(slab.widths))
            self._slabs.append(slab)
            self._size = torch.maximum(self._size, slab.largest())
            self._knots, self._modes = self._joined(slab), slab.modes
            now, length = end, min(2.0, max(0.7, gain)) * (end - now)
        return True

    def _slab(self, begin: float, end: float) -> Slab:
        place = Place(self._run.problem, self._evolution, self._chain, self._knots, begin, end, self._modes)
        if not self._slabs:
            return self._begun(place)
        past = PiecewiseChebyshev(self._slabs[-1].series)

        def before(x: Tensor) -> Jet:
            with torch.no_grad():
                return past.jet(x, "none")

        def still(x: Tensor) -> Tensor:
            at = x.clone()
            at[:, self._time] = begin
            return past(at)

        slab = Slab(place, unit_of(self._size), before)
        slab.guess(still)
        return slab

    def _begun(self, place: Place) -> Slab:
        """Make the first slab, refined in space until it holds what the conditions say of the start."""
        while True:
            slab = lifted(place, self._level.tolerance)
            finer = self._finer_place(slab, slab.tails(self._sizes(slab), start=True))
            if finer is None or self._run.left_s <= 0:
                return slab
            place = finer

    def _refined(self, slab: Slab) -> tuple[Slab, float]:
        """Solve, refining in space until the series converge or fail to in time; with the tail in time, relative."""
        tolerance = self._level.tolerance
        while True:
            steps, misfit = slab.solve(tolerance)
            self._run.count(steps)
            tails = [tail.nan_to_num(math.inf) for tail in slab.tails(self._sizes(slab))]
            late = float(tails[self._time].max()) if math.isfinite(misfit) else math.inf
            coarse = (
                max(float(tail.max()) for axis, tail in enumerate(tails) if axis != self._time)
                if len(tails) > 1
                else 0.0
            )
            may = self._run.left_s > 0 and math.isfinite(misfit) and (late <= tolerance or coarse >= late)
            finer = self._finer(slab, tails) if may else None
            if finer is None:
                return slab, max(late, misfit / _MISFIT if late <= tolerance else late)
            slab = finer

    def _finer(self, slab: Slab, tails: list[Tensor]) -> Slab | None:
        """Put a slab on a finer place, None where there is none."""
        place = self._finer_place(slab, tails)
        if place is None:
            return None
        if slab.before is None:
            return lifted(place, self._level.tolerance)
        finer = Slab(place, slab.unit, slab.before)
        finer.guess(PiecewiseChebyshev(slab.series))
        return finer

    def _finer_place(self, slab: Slab, tails: list[Tensor]) -> Place | None:
        """Halve intervals, or raise modes along axes, where series do not converge; None where all do, or none may."""
        tolerance, knots, modes = self._level.tolerance, slab.place.knots, list(slab.modes)
        if self._chain is not None:
            bad = tails[self._chain] > tolerance
            if not bool(bad.any()) or len(bad) + int(bad.sum()) > _MOST_INTERVALS:
                return None
            middle = (knots[:-1] + knots[1:]) / 2
            knots = torch.sort(torch.cat([knots, middle[bad]])).values
        else:
            rough = [a for a, tail in enumerate(tails) if a != self._time and float(tail.max()) > tolerance]
            for axis in rough:
                modes[axis] += max(2, modes[axis] // 3)
            if not rough or math.prod(modes) * self._run.problem.outputs > _MOST_COEFFICIENTS:
                return None
        return replace(slab.place, knots=knots, modes=tuple(modes))

    def _sizes(self, slab: Slab) -> Tensor:
        """Compute the largest absolute value of every output so far, none far below the largest, (outputs,)."""
        size = torch.maximum(self._size, slab.largest())
        return torch.maximum(size, _SMALLEST * size.max()).clamp_min(1e-300)

    def _joined(self, slab: Slab) -> Tensor:
        """Drop knots between two neighbours that both converge far below the tolerance."""
        knots = slab.place.knots
        if self._chain is None:
            return knots
        along = slab.tails(torch.maximum(self._size, _SMALLEST * self._size.max()).clamp_min(1e-300))[self._chain]
        keep = torch.ones(len(knots), dtype=torch.bool)
        easy = (along < 1e-3 * self._level.tolerance).tolist()
        number = 0
        while number < len(easy) - 1:
            narrow = float(knots[number + 2] - knots[number]) <= self._widest
            if easy[number] and easy[number + 1] and narrow and float(knots[number + 1]) not in self._fixed:
                keep[number + 1] = False
                number += 1
            number += 1
        return knots[keep]
