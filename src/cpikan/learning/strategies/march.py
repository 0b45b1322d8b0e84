"""March: an evolution in one space axis, slab of time by slab, with intervals and steps as sharp as the solution asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cpikan.errors import InputError
from cpikan.fields.piecewise import PiecewiseChebyshev
from cpikan.fields.protocol import Jet
from cpikan.fields.tensor_chebyshev import TensorChebyshev
from cpikan.learning.combinators import Strategy
from cpikan.learning.methods.method import State
from cpikan.learning.points import Points
from cpikan.learning.runner import Runner
from cpikan.learning.stop_reason import StopReason
from cpikan.learning.strategies.slab import Slab
from cpikan.physics.problem import Problem
from cpikan.physics.regions import Box
from cpikan.streaming.threads import single_threaded

_INTERVALS = 4  # to begin with
_MOST_INTERVALS = 400
_SHORTEST = 1e-6  # slab, of the whole time
_POINTS = Points(3000, 400)  # where the whole is looked at; each slab has points of its own
_GROWTH = 4.0  # a level takes about so many times the seconds of the one before


@dataclass(frozen=True)
class Level:
    """``tolerance``: last coefficients of a series relative to the largest value; ``modes`` along x and t."""

    tolerance: float
    modes: tuple[int, int]


_LEVELS = (
    Level(1e-3, (8, 6)),
    Level(1e-5, (10, 8)),
    Level(1e-6, (12, 8)),
    Level(1e-7, (12, 10)),
    Level(1e-9, (14, 12)),
)


@dataclass(frozen=True)
class March(Strategy):
    """Solve slab after slab by Gauss-Newton: a slab is shortened until its series converge in time, its intervals are
    halved where they do not in x, and neighbours that need not be apart are joined before the next.

    Levels of falling tolerance go through the whole time again, as far as the seconds allow; the best by the held-out
    residual stays in the run. No slab depends on a later one, so nothing trains against causality (Wang, Sankaran and
    Perdikaris 2022 weigh residuals to that end). Raises InputError for a problem that is not of this kind.
    """

    levels: tuple[Level, ...] = _LEVELS
    name: str = "march"

    def init(self, run: Runner) -> State:
        """Begin with the coarsest level."""
        if not can_march(run.problem):
            raise InputError(
                f"{run.problem.name} cannot be marched: give a box with axes x and t, one output, a start at t=min "
                "and conditions at the ends of x"
            )
        return {"took": 0.0, "done": 0, "reason": int(StopReason.RUNNING)}

    def step(self, run: Runner, state: State) -> State:
        """Go through the whole time at one level."""
        begun, done = run.left_s, state["done"]
        with single_threaded():
            field = _Passage(run, self.levels[done]).go()
        if field is None and not run.placed:
            raise InputError(
                f"time is up before march has gone through {run.problem.name} once: give more than {run.seconds:.3g} s"
            )
        if field is None:
            return state
        run.offer(field, _POINTS)
        reason = StopReason.TARGET if run.converged else StopReason.RUNNING
        return {"took": begun - run.left_s, "done": done + 1, "reason": int(reason)}

    def stop(self, run: Runner, state: State) -> StopReason:
        """Stop at the goal, after the last level, or before one that would not fit into the time."""
        if state["reason"] != StopReason.RUNNING:
            return StopReason(state["reason"])
        if state["done"] >= len(self.levels):
            return StopReason.COST
        return StopReason.TIME if state["took"] * _GROWTH > run.left_s else StopReason.RUNNING


def can_march(problem: Problem) -> bool:
    """Tell whether a problem evolves in time along one axis, with conditions at the start and at the walls alone."""
    region = problem.region
    if not isinstance(region, Box) or tuple(region.axes) != ("x", "t") or problem.outputs != 1 or problem.constants:
        return False
    if problem.second == "laplacian" or problem.unknowns or problem.energy is not None:
        return False
    starts = [c for c in problem.conditions if c.on == ("t=min",)]
    others = [c for c in problem.conditions if c.on != ("t=min",)]
    walls = ("x=min", "x=max")
    return bool(starts) and all(c.at is None and all(part in walls for part in c.on or walls) for c in others)


class _Passage:
    """One way through the whole time at one level."""

    def __init__(self, run: Runner, level: Level) -> None:
        self._run, self._level = run, level
        box = run.problem.region
        self._begin, self._end = box.lower[1], box.upper[1]
        self._low, self._high = box.lower[0], box.upper[0]
        self._size = 0.0  # of the solution, as far as seen
        self._slabs: list[Slab] = []

    def go(self) -> PiecewiseChebyshev | None:
        """March to the end of time and return the solution; None when time is up before."""
        now, whole = self._begin, self._end - self._begin
        knots = torch.linspace(self._low, self._high, _INTERVALS + 1, dtype=torch.float64)
        length = whole / 10
        while now < self._end:
            if self._run.left_s <= 0:
                return None
            end = self._end if self._end - now < 1.3 * length else now + length
            slab = self._slab(knots, now, end)
            along, late = self._refined(slab)
            slab = self._slabs[-1]
            gain = 0.8 * (self._level.tolerance / max(late, 1e-300)) ** (1 / (self._level.modes[1] - 1))
            if late > self._level.tolerance and end - now > _SHORTEST * whole:
                self._slabs.pop()
                length = min(0.7, max(0.2, gain)) * (end - now)
                continue
            self._run.report_progress(f"time {end:.3g} of {self._end:.3g}, {len(slab.widths)} intervals")
            knots = self._joined(slab.knots, along)
            now, length = end, min(2.0, max(0.7, gain)) * (end - now)
        return _field(self._slabs)

    def _slab(self, knots: Tensor, begin: float, end: float) -> Slab:
        if not self._slabs:
            return Slab(self._run.problem, knots, begin, end, self._level.modes)
        past = PiecewiseChebyshev(self._slabs[-1].series)

        def before(x: Tensor) -> Jet:
            with torch.no_grad():
                return past.jet(x, "none")

        slab = Slab(self._run.problem, knots, begin, end, self._level.modes, before)
        slab.guess(lambda x: before(torch.stack([x[:, 0], torch.full_like(x[:, 0], begin)], dim=-1)).value[:, 0])
        return slab

    def _refined(self, slab: Slab) -> tuple[Tensor, float]:
        """Solve, halving intervals until the series converge along x or fail to in time; the tails, relative."""
        while True:
            self._run.count(slab.solve())
            self._size = max(self._size, slab.largest())
            along, late = (tail / max(self._size, 1e-300) for tail in slab.tails())
            bad = along > self._level.tolerance
            timely = float(late.max()) <= self._level.tolerance
            full = len(bad) + int(bad.sum()) > _MOST_INTERVALS
            if not timely or not bool(bad.any()) or full or self._run.left_s <= 0:
                self._slabs.append(slab)
                return along, float(late.max())
            coarse = PiecewiseChebyshev(slab.series)
            middle = (slab.knots[:-1] + slab.knots[1:]) / 2
            knots = torch.sort(torch.cat([slab.knots, middle[bad]])).values
            slab = Slab(slab.problem, knots, slab.begin, slab.end, slab.modes, slab.before)
            slab.guess(_values(coarse))

    def _joined(self, knots: Tensor, along: Tensor) -> Tensor:
        """Drop knots between two neighbours that both converge far below the tolerance."""
        keep = torch.ones(len(knots), dtype=torch.bool)
        easy = (along < 1e-3 * self._level.tolerance).tolist()
        widest = (self._high - self._low) / _INTERVALS * (1 + 1e-9)
        number = 0
        while number < len(easy) - 1:
            if easy[number] and easy[number + 1] and float(knots[number + 2] - knots[number]) <= widest:
                keep[number + 1] = False
                number += 1
            number += 1
        return knots[keep]


def _values(field: PiecewiseChebyshev) -> Callable[[Tensor], Tensor]:
    def values(x: Tensor) -> Tensor:
        with torch.no_grad():
            return field(x)[:, 0]

    return values


def _field(slabs: list[Slab]) -> PiecewiseChebyshev:
    """Join all slabs into one field."""
    series = [slab.series for slab in slabs]
    lower, upper = (torch.cat([getattr(one.scaling, name) for one in series]) for name in ("lower", "upper"))
    whole = TensorChebyshev(slabs[0].modes, (lower, upper), networks=len(lower))
    with torch.no_grad():
        whole.coefficients.copy_(torch.cat([one.coefficients for one in series]))
    return PiecewiseChebyshev(whole)
