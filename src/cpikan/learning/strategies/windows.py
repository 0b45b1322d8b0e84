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
from cpikan.learning.trained import OUTPUT_SHARE, nodes_within, trained, widened
from cpikan.learning.unknowns import network_of
from cpikan.physics.evolution import Evolution, evolution
from cpikan.physics.exact_conditions import with_exact_conditions
from cpikan.physics.problem import Problem
from cpikan.physics.regions import Box
from cpikan.streaming.threads import single_threaded

_POINTS = Points(3000, 400)  # where the whole is looked at; each window has points of its own
_WALLS = 60  # points of the conditions that stay residuals
_MERGED = 1.3  # of a window's length: what is left is no window of its own
_SHORTEST = 1 / 64  # window, of the whole time
_SCOUTED = 3e-3  # relative residual at which the fronts of a window are looked for before their share of its time
_SCOUT_TIME, _WHOLE_TIME = 0.3, 0.15  # that share, and that of the whole time, where it is tried as one window
_LEAST = 40  # steps, whatever the time, before a window is called too long
_LATELY = 100  # steps in which a network that does not crawl gets better
_NEAR = 5.0  # times its goal: within that a window that crawls is left as it is
_SOUND = 0.1  # of the residual at which a window fails: after one with less the next may be longer
_EASY = 0.2  # of a window's time: one that needed less for its goal is followed by one twice as long


@dataclass(frozen=True)
class Windows(Strategy):
    """Train a network in one window of time after the other, each from the values that the one before ends with.

    In a window u = lift + distance v: the lift has the values at its start and at walls (`WindowLift`), the distance
    vanishes there, and v is a network with ``hidden`` nodes and stretched coordinates for the fronts of the lift, along
    axes that are even (`even_axes`) of the cosine; in less than ``hidden_s`` seconds it is narrower (`nodes_within`). It
    trains by geodesic Levenberg-Marquardt at fixed points, ``rows`` residuals for each parameter and as dense in fronts as
    elsewhere; fronts that arise on the way are looked for once its residual is small, and a network that has those
    coordinates too takes its place. A window has its share of the time that is left, and leaves to the others what it does
    not need for its ``goal``: the held-out residual times the window's length, of the size of u, which bounds the error
    that it adds where errors do not grow. One near it whose residual falls by less than the factor ``crawl`` in a hundred
    steps is left as it is. One whose residual is above ``failed`` of that of the lift alone when its fronts are looked for,
    or above the root of that after its first steps, is halved while there is time for it, one that is at its goal early is
    followed by one twice as long. ``first`` is the share of time of the first window; with ``whole`` all time is tried as
    one window before, which fails above that. ``steps`` bounds the steps of a network, whatever time is left.
    Time marching: Wight and Zhao, Commun. Comput. Phys. 29 (2021); Krishnapriyan et al., NeurIPS (2021).
    Raises InputError for a problem that does not evolve, has several axes of space, or is of second order in time.
    """

    hidden: tuple[int, ...] = (12, 12)
    hidden_s: float = 60.0
    degree: int = 5
    rows: float = 2.5
    first: float = 0.25
    goal: float = 1e-7
    failed: float = 3e-2
    whole: float | None = None
    crawl: float = 1.25
    steps: int | None = None
    method: GeodesicLevenberg = field(default_factory=lambda: GeodesicLevenberg(patience=30))
    name: str = "windows"

    def init(self, run: Runner) -> State:
        """Begin at the beginning of time."""
        found = _evolution(run.problem)
        low, high = _span(run.problem, found)
        return {
            "now": low,
            "length": (1.0 if self.whole else self.first) * (high - low),
            "windows": [],
            "reason": int(StopReason.RUNNING),
        }

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
        if relative > self._failed(run, window) and self._may_cut(run, training):
            return {**state, "length": self._cut(run, window)}  # from where it began
        with single_threaded():
            record = self._record(run, window, training)
        parts = [*(before.parts if before is not None else []), window.behind(training.network)]
        run.iterate = placed(run.problem, TimeWindows(found.time, *parts), _POINTS, MEAN_SQUARES)[0]
        run.note()
        early = training.added() <= self.goal and training.all_s < _EASY * seconds
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
        nodes, failed = nodes_within(self.hidden, seconds, self.hidden_s), self._failed(run, window)
        first = _Training(self, run, window, known, nodes)

        def given_up(training: _Training, residual: float) -> bool:
            return training.relative() > residual and self._may_cut(run, training)

        def lost(training: _Training) -> bool:  # more of the same would not help
            return training.steps >= _LEAST and given_up(training, math.sqrt(failed))

        share = _WHOLE_TIME if self._is_whole(run, window) else _SCOUT_TIME
        first.go(share * seconds, lambda: first.relative() <= min(_SCOUTED, failed) or lost(first))
        if given_up(first, failed):
            return first
        field = window.behind(first.network)
        seen = [one for share in (0.5, 1.0) for one in window.fronts_at(field, window.at(share))]
        fronts = merged(known, seen)
        if fronts == known:
            first.go(seconds - first.took, first.done)
            return first
        second = _Training(self, run, window, fronts, nodes, first.took)
        second.go(seconds - first.took, lambda: second.done() or lost(second))
        return second if second.added() < max(first.added(), self.goal) else first

    def _is_whole(self, run: Runner, window: Window) -> bool:
        """Tell whether a window is the whole time, tried before it is cut."""
        return self.whole is not None and (window.begin, window.end) == _span(run.problem, _evolution(run.problem))

    def _failed(self, run: Runner, window: Window) -> float:
        """Give the relative residual above which a window fails."""
        return self.whole if self.whole is not None and self._is_whole(run, window) else self.failed

    def _cut(self, run: Runner, window: Window) -> float:
        """Give the length of what takes the place of a window that fails: half of it, or that of the first after the whole."""
        length = window.end - window.begin
        return min(self.first, 0.5) * length if self._is_whole(run, window) else 0.5 * length

    def _may_cut(self, run: Runner, training: _Training) -> bool:
        """Tell whether a window that fails may be cut: while there is time for the first steps of all that would follow."""
        low, high = _span(run.problem, _evolution(run.problem))
        window = training.window
        followed = (high - window.begin) / self._cut(run, window)
        short = window.end - window.begin <= _SHORTEST * (high - low)
        return not short and run.left_s > followed * _LEAST * training.pace_s and not run.spent

    def _record(self, run: Runner, window: Window, training: _Training) -> dict[str, Any]:
        """Write down what a window is like, and whether its network was trained."""
        drawn = self.network(run, window, training.fronts, training.nodes)
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

    def network(
        self, run: Runner, window: Window, fronts: tuple[Front, ...], nodes: tuple[int, ...]
    ) -> FrontCKAN | EmbeddedField:
        """Draw the network of a window."""
        inputs = run.problem.dimension + len(fronts)
        widths = widened([inputs, *nodes, run.problem.outputs], self.degree, OUTPUT_SHARE)
        widths[0] = run.problem.dimension
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

    def __init__(
        self,
        windows: Windows,
        run: Runner,
        window: Window,
        fronts: tuple[Front, ...],
        nodes: tuple[int, ...],
        before_s: float = 0.0,
    ) -> None:
        self._run, self._windows, self.window, self.fronts, self.nodes = run, windows, window, fronts, nodes
        network = windows.network(run, window, fronts, nodes)
        self._inner = Runner(window.posed, Budget(math.inf), run.seed)
        self._inner.place(network, windows.points(run, window, network, fronts), MEAN_SQUARES)
        self._child = BestSoFar(windows.method)
        self._state = self._child.init(self._inner)
        self._over_size = (window.end - window.begin) / window.size(self.iterate.heldout.sets["equation"].points)
        self.took, self._before_s = 0.0, before_s
        self._costs: list[float] = []  # the best after every step

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

    @property
    def all_s(self) -> float:
        """Give the seconds that the window has taken, those of a network before this one too."""
        return self._before_s + self.took

    @property
    def pace_s(self) -> float:
        """Give the seconds of a step."""
        return self.took / max(self.steps, 1)

    def relative(self) -> float:
        """Give the best held-out residual relative to that of the lift alone."""
        return self.iterate.relative()

    def added(self) -> float:
        """Estimate the error that the window adds, of the size of u: the best held-out residual times its length."""
        return math.sqrt(2 * self.iterate.best_cost) * self._over_size

    def done(self) -> bool:
        """Tell whether the goal is reached, or near and the way there too slow to be gone."""
        late, goal = self._costs[-1 - _LATELY :], self._windows.goal
        crawls = len(late) > _LATELY and late[0] < self._windows.crawl**2 * late[-1]
        return self.added() <= (_NEAR * goal if crawls else goal)

    def go(self, seconds: float, done: Callable[[], bool]) -> None:
        """Train for so long, or until it is done, and leave the best state in the network."""
        begun, most = self._run.seconds, self._windows.steps
        while not done() and not self._run.spent:
            enough = self._run.seconds - begun >= seconds and self.steps >= _LEAST
            spent = enough or (most is not None and self.steps >= most)
            if spent or self._child.stop(self._inner, self._state) is not StopReason.RUNNING:
                break
            self._state = self._child.step(self._inner, self._state)
            self._costs.append(self.iterate.best_cost)
            self._run.count(1)
            self._run.report_progress(window=self.steps)
        self._child.close(self._inner, self._state, StopReason.TIME)
        self._state["inner"] = {k: v for k, v in self._state["inner"].items() if not k.startswith("_")}
        self.took += self._run.seconds - begun


def can_window(problem: Problem) -> bool:
    """Tell whether a problem evolves along one axis of space, and windows of time serve it."""
    found = evolution(problem)
    if found is None or problem.dimension != 2 or found.rates:
        return False
    ansatz = with_exact_conditions(problem)[1]
    ends = getattr(None if ansatz is None else ansatz.distance, "ends", None)
    return ends is not None and all((found.time, False) in ends[output] for output in found.values)


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
