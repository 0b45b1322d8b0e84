"""Windows: an evolution cut into windows of time, in each of which a network is trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from cpikan.errors import InputError
from cpikan.fields.embedded import EmbeddedField
from cpikan.fields.embeddings import EvenEmbedding
from cpikan.fields.front_ckan import Front, FrontCKAN
from cpikan.fields.functional import parameter_vector
from cpikan.fields.layered import Start
from cpikan.fields.time_windows import TimeWindows
from cpikan.learning.balancers.mean_squares import MEAN_SQUARES
from cpikan.learning.combinators import BestSoFar, Strategy
from cpikan.learning.iterate import Iterate, placed
from cpikan.learning.methods.geodesic import GeodesicLevenberg
from cpikan.learning.methods.method import State
from cpikan.learning.runner import Budget, Runner
from cpikan.learning.samplers.front_points import FrontPoints
from cpikan.learning.samplers.points import Points
from cpikan.learning.stop_reason import StopReason
from cpikan.learning.strategies.fronts import merged
from cpikan.learning.strategies.window import Window
from cpikan.learning.trained import trained
from cpikan.learning.unknowns import network_of
from cpikan.physics.evolution import Evolution, evolution
from cpikan.physics.problem import Problem
from cpikan.physics.regions import Box
from cpikan.streaming.threads import single_threaded

_POINTS = Points(3000, 400)  # where the whole is looked at; each window has points of its own
_WALLS = 60  # points of the conditions that stay residuals
_MERGED = 1.3  # of a window's length: what is left is no window of its own
_SHORTEST = 1 / 64  # window, of the whole time
_SCOUTED, _SCOUT_TIME = 3e-3, 0.3  # relative residual, and share of a window's time, at which its fronts are looked for
_LEAST = 40  # steps, whatever the time, before a window is called too long
_SOUND = 0.1  # of the residual at which a window fails: after one with less the next may be longer
_EASY = 0.2  # of a window's time: one that needed less for its goal is followed by one twice as long


@dataclass(frozen=True)
class Windows(Strategy):
    """Train a network in one window of time after the other, each from the values that the one before ends with.

    In a window u = lift + distance v: the lift has the values at its start and at walls (`WindowLift`), the distance vanishes
    there, and v is a network with ``hidden`` nodes and stretched coordinates for the fronts of the lift, along axes that are
    even (`even_axes`) of the cosine. It trains by geodesic
    Levenberg-Marquardt at fixed points, ``rows`` residuals for each parameter and as dense in fronts as elsewhere; fronts
    that arise on the way are looked for once its residual is small, and a network that has those coordinates too takes its
    place. A window has its share of the time that is left, and leaves to the others what it does not need for its ``goal``:
    the held-out residual times the window's length, of the size of u, which bounds the error that it adds where errors do not
    grow. One whose residual stays above ``failed`` of that of the lift alone is halved, one that is at its goal early is
    followed by one twice as long. ``first`` is the share of time of the first window; ``steps`` bounds the steps of a
    network, whatever time is left.
    Time marching: Wight and Zhao, Commun. Comput. Phys. 29 (2021); Krishnapriyan et al., NeurIPS (2021).
    Raises InputError for a problem that does not evolve, has several axes of space, or is of second order in time.
    """

    hidden: tuple[int, ...] = (12, 12)
    degree: int = 5
    rows: float = 2.5
    first: float = 0.25
    goal: float = 1e-7
    failed: float = 3e-2
    steps: int | None = None
    method: GeodesicLevenberg = field(default_factory=lambda: GeodesicLevenberg(patience=30))
    name: str = "windows"

    def init(self, run: Runner) -> State:
        """Begin at the beginning of time."""
        found = _evolution(run.problem)
        low, high = _span(run.problem, found)
        return {"now": low, "length": self.first * (high - low), "windows": [], "reason": int(StopReason.RUNNING)}

    def step(self, run: Runner, state: State) -> State:
        """Train one window; accept it, or come back with a shorter one."""
        found = _evolution(run.problem)
        low, high = _span(run.problem, found)
        now, length = state["now"], state["length"]
        end = high if high - now < _MERGED * length else now + length
        before = network_of(run.iterate.field) if state["windows"] else None
        with single_threaded():
            window = Window(run.problem, found, before, now, end)
            seconds = run.left_s * (end - now) / (high - now)
            training = self._trained(run, window, seconds)
        relative = training.relative()
        if relative > self.failed and end - now > _SHORTEST * (high - low) and not run.spent:
            return {**state, "length": 0.5 * (end - now)}  # from where it began
        with single_threaded():
            record = self._record(run, window, training)
        parts = [*(before.parts if before is not None else []), window.behind(training.network)]
        run.iterate = placed(run.problem, TimeWindows(found.time, *parts), _POINTS, MEAN_SQUARES)[0]
        run.note()
        early = training.added() <= self.goal and training.took < _EASY * seconds
        longest = math.inf if early else self.first * (high - low)  # a length that had been halved comes back
        grown = 2.0 if early or relative < _SOUND * self.failed else 1.0
        length = max(end - now, min(grown * (end - now), longest))
        return {**state, "now": end, "length": length, "windows": [*state["windows"], record]}

    def stop(self, run: Runner, state: State) -> StopReason:
        """Stop at the end of time."""
        whole = state["now"] >= _span(run.problem, _evolution(run.problem))[1]
        return StopReason.COST if whole else StopReason.RUNNING

    def close(self, run: Runner, state: State, reason: StopReason) -> StopReason:
        """Give the figures of the windows to the run; a whole is trained where every window is."""
        records = state["windows"]
        if not records:
            raise InputError(
                f"time is up before the first window of {run.problem.name} was trained: give more than {run.seconds:.3g} s"
            )
        run.figures = {
            "trained": all(one["trained"] for one in records),
            "output_share": max(one["output_share"] for one in records),
            "frozen_over_found": min(one["frozen_over_found"] for one in records),
            "collocation_points": max(one["points"] for one in records),
            "windows": records,
        }
        return reason

    def _trained(self, run: Runner, window: Window, seconds: float) -> _Training:
        """Train a network on a window, and one with further coordinates where fronts have arisen."""
        known = merged((), window.starting_fronts())
        first = _Training(self, run, window, known)

        def far() -> bool:  # and more of the same would not help
            return first.relative() > math.sqrt(self.failed)

        first.go(_SCOUT_TIME * seconds, lambda: first.relative() <= _SCOUTED or (first.steps >= _LEAST and far()))
        if far():
            return first
        field = window.behind(first.network)
        seen = [one for share in (0.5, 1.0) for one in window.fronts_at(field, window.at(share))]
        fronts = merged(known, seen)
        if fronts == known:
            first.go(seconds - first.took, lambda: first.added() <= self.goal)
            return first
        second = _Training(self, run, window, fronts)
        second.go(seconds - first.took, lambda: second.added() <= self.goal)
        second.took += first.took
        return second if second.added() < max(first.added(), self.goal) else first

    def _record(self, run: Runner, window: Window, training: _Training) -> dict[str, Any]:
        """Write down what a window is like, and whether its network was trained."""
        drawn = self.network(run, window, training.fronts)
        return {
            "begin": window.begin,
            "end": window.end,
            "fronts": [list(asdict(one).values()) for one in training.fronts],
            "relative": training.relative(),
            "added": training.added(),
            "steps": training.steps,
            "points": training.iterate.objective.count,
            **trained(drawn, training.iterate),
        }

    def network(self, run: Runner, window: Window, fronts: tuple[Front, ...]) -> FrontCKAN | EmbeddedField:
        """Draw the network of a window."""
        widths = [run.problem.dimension, *self.hidden, run.problem.outputs]
        box = (window.box.lower, window.box.upper)
        if not window.even:
            return FrontCKAN(widths, self.degree, box, fronts=fronts, start=Start(run.seed))
        inner = FrontCKAN(widths, self.degree, fronts=fronts, start=Start(run.seed))
        return EmbeddedField(inner, EvenEmbedding(run.problem.dimension, window.even), box)

    def points(
        self, run: Runner, window: Window, network: FrontCKAN | EmbeddedField, fronts: tuple[Front, ...]
    ) -> FrontPoints:
        """Choose the points of a window."""
        rows = int(self.rows * len(parameter_vector(network)) / run.problem.outputs) + 1
        walls = _WALLS * len(run.problem.region.parts)
        return FrontPoints(rows, walls, "chebyshev", run.seed, fronts=fronts, even=window.even)


class _Training:
    """A network in a window while it is trained."""

    def __init__(self, windows: Windows, run: Runner, window: Window, fronts: tuple[Front, ...]) -> None:
        self._run, self._most, self.fronts = run, windows.steps, fronts
        network = windows.network(run, window, fronts)
        self._inner = Runner(window.posed, Budget(math.inf), run.seed)
        self._inner.place(network, windows.points(run, window, network, fronts), MEAN_SQUARES)
        self._child = BestSoFar(windows.method)
        self._state = self._child.init(self._inner)
        self._over_size = (window.end - window.begin) / window.size(self.iterate.heldout.sets["equation"].points)
        self.took = 0.0

    @property
    def iterate(self) -> Iterate:
        """Return the iterate."""
        return self._inner.iterate

    @property
    def network(self) -> Any:
        """Return the network."""
        return network_of(self._inner.iterate.field)

    @property
    def steps(self) -> int:
        """Count the steps."""
        return self._inner.iterations

    def relative(self) -> float:
        """Give the best held-out residual relative to that of the lift alone."""
        return self.iterate.relative()

    def added(self) -> float:
        """Estimate the error that the window adds, of the size of u: the best held-out residual times its length."""
        return math.sqrt(2 * self.iterate.best_cost) * self._over_size

    def go(self, seconds: float, done: Callable[[], bool]) -> None:
        """Train for so long, or until it is done, and leave the best state in the network."""
        begun = self._run.seconds
        while not done() and not self._run.spent:
            enough = self._run.seconds - begun >= seconds and self.steps >= _LEAST
            spent = enough or (self._most is not None and self.steps >= self._most)
            if spent or self._child.stop(self._inner, self._state) is not StopReason.RUNNING:
                break
            self._state = self._child.step(self._inner, self._state)
            self._run.count(1)
            self._run.report_progress(window=self.steps)
        self._child.close(self._inner, self._state, StopReason.TIME)
        self._state["inner"] = {k: v for k, v in self._state["inner"].items() if not k.startswith("_")}
        self.took += self._run.seconds - begun


def _evolution(problem: Problem) -> Evolution:
    """Find how a problem evolves; raises InputError where windows do not serve it."""
    found = evolution(problem)
    if found is None or problem.dimension > 2 or found.rates:
        raise InputError(
            f"{problem.name} cannot be trained in windows: give a box with an axis t of first order, values at t=min and "
            "none at t=max, one axis of space at most, and neither unknown coefficients nor measured data"
        )
    return found


def _span(problem: Problem, found: Evolution) -> tuple[float, float]:
    """Give the beginning and the end of time."""
    assert isinstance(problem.region, Box)
    return problem.region.lower[found.time], problem.region.upper[found.time]
