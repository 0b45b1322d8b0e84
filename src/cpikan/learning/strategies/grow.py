"""Grow: networks of one hidden layer with more nodes and higher degree, until the held-out residual says enough."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn

from cpikan.fields.corner import CornerField
from cpikan.fields.scaled_cpikan import ScaledCPIKAN
from cpikan.learning.combinators import Strategy
from cpikan.learning.iterate import Iterate
from cpikan.learning.methods.method import State
from cpikan.learning.qr_equations import StackedQR
from cpikan.learning.runner import Runner
from cpikan.learning.samplers.points import MIN_ROWS_PER_PARAMETER, Points
from cpikan.learning.stop_reason import StopReason
from cpikan.learning.strategies.constants import fit_without_constants
from cpikan.learning.strategies.first_guess import solve_last_layer
from cpikan.learning.strategies.ridge_start import gradient_metric, ridge_start, sharpened, stretch
from cpikan.learning.unknowns import network_of, unknowns_of
from cpikan.physics.problem import Problem
from cpikan.physics.regions import corners

_INTERIOR = {1: 3000, 2: 3000}  # most interior points, by dimension, of networks below _LARGE parameters
_LARGE = 2400
_MOST_BOUNDARY = 4  # boundary points per parameter: sides of many axes would have more than any network needs
_FLOOR, _GAIN = 1e-7, 2.0  # below this relative residual, a level that gains less than this factor is the last
_SETTLED = 1.1  # times by which a level lowers the misfit of data that have more to tell than their noise
_SHARED = 0.3  # correlation of neighbours' misfits above which a field does not follow the data
_HOPELESS = 1e-2  # relative residual of the third level, where a smooth solution is far below
_PACE, _NEAR = 10.0, 1e-4  # a level of a smooth solution gains this factor, until its residual is near
_SMALL = 700  # parameters of levels that always fit; their times say little about longer ones
_SHARE = 0.8  # of the time that is left: what a level may be expected to take
_RESOLVED, _SURE = 1e-5, 1.9  # relative residual from which a metric is trusted, and times the ratio of its gradients
_LEAST = 1.2  # times the last degree, below which another level hardly differs
_POWERS, _STEEPER = (2.0, 3.0), 0.3  # of the parameters that seconds go by, and what it gains from level to level


@dataclass(frozen=True)
class Size:
    """Hidden nodes and the degree of the output layer."""

    nodes: int
    degree: int

    def parameters(self, outputs: int) -> int:
        """Count the coefficients of the output layer."""
        return outputs * (self.nodes * self.degree + 1)


@dataclass(frozen=True)
class Grow(Strategy):
    """Levels of rising degree; each has its own directions (stretched by the last level's gradients) and points.

    The field of the run is replaced by the best. ``parameters`` bounds the output layer; a level that would not fit into
    the time left is not begun. ``stop_if_stagnant`` ends it from the third level on where the residual falls as slowly as it
    does for what is not smooth.
    ``corners`` adds the singular functions of the region's re-entrant corners.
    """

    parameters: int = 3300
    stop_if_stagnant: bool = False
    corners: bool = False
    name: str = "grow"

    def init(self, run: Runner) -> State:
        """Begin with the lowest degree."""
        running = int(StopReason.RUNNING)
        return {"metric": None, "degree": 0, "times": [], "done": 0, "misfit": math.nan, "reason": running}

    def step(self, run: Runner, state: State) -> State:
        """Go through a level; the runner is left with the best of all levels so far."""
        done, times = state["done"], state["times"]
        before = run.iterate if done else None
        size, metric = self._next(run, state), state["metric"]
        metric = torch.from_numpy(sharpened(metric.numpy())) if _trusted(run, state) else metric
        begun = run.seconds
        beyond = self._fit(run, size, metric, None if before is None else before.field)
        took = run.seconds - begun - beyond
        now = run.iterate
        metric = torch.from_numpy(gradient_metric(network_of(now.field), now.objective.sets["equation"].points))
        gain = math.inf if before is None else before.relative() / max(now.relative(), 1e-300)
        if before is not None and gain <= 1:
            run.iterate = before
        reason, (misfit, shared) = self._reason(run, done, gain, run.iterate.relative()), data_left(run.problem, now)
        if reason is StopReason.RUNNING and gain < _GAIN and state["misfit"] < _SETTLED * misfit and shared < _SHARED:
            reason = StopReason.COST  # what is left of the data is their noise
        times = [*times, [float(size.parameters(run.problem.outputs)), took]][-2:]
        kept = {"degree": size.degree, "done": done + 1, "misfit": misfit, "reason": int(reason)}
        return {"metric": metric, "times": times, **kept}

    def stop(self, run: Runner, state: State) -> StopReason:
        """Stop when the residual says so, at the largest size, or before a level that would not fit into the time."""
        if state["reason"] != StopReason.RUNNING:
            return StopReason(state["reason"])
        if not state["done"]:
            return StopReason.RUNNING
        if not self._sizes(run, state):
            return StopReason.BUDGET
        return StopReason.RUNNING if self._fitting(run, state) else StopReason.NEXT_LEVEL

    def _next(self, run: Runner, state: State) -> Size:
        return next(iter(self._fitting(run, state) or self._sizes(run, state)))

    def _fitting(self, run: Runner, state: State) -> list[Size]:
        """List the sizes of the next level that are expected to fit into the time, the one to be taken first."""

        def fits(size: Size) -> bool:
            parameters = size.parameters(run.problem.outputs)
            return (
                parameters <= _SMALL
                or not state["times"]
                or expected_s(state["times"], parameters) <= _SHARE * run.left_s
            )

        return [size for size in self._sizes(run, state) if fits(size)]

    def _sizes(self, run: Runner, state: State) -> list[Size]:
        """List the sizes that the next level may have, the largest first; none where the largest network is used up.

        They go down to where a level would hardly differ from the one before: a smaller level is better than none. Where
        data were measured only the largest counts: what fits noise is not to be searched for.
        """
        problem, last = run.problem, state["degree"]
        higher = [degree for degree in _degrees(problem.dimension) if degree > last]
        if not higher:
            return []
        metric = None if state["metric"] is None else state["metric"].numpy()
        data = any(condition.at is not None for condition in problem.conditions)
        least = higher[0] if data or not last else min(higher[0], math.ceil(_LEAST * last))
        sizes = [
            level_size(problem, degree, metric, _trusted(run, state)) for degree in range(higher[0], least - 1, -1)
        ]
        return sizes if not last else [one for one in sizes if one.parameters(problem.outputs) <= self.parameters]

    def _reason(self, run: Runner, done: int, gain: float, best: float) -> StopReason:
        """Give the reason to end after a level, or RUNNING."""
        if run.converged:
            return StopReason.TARGET
        if best < _FLOOR and gain < _GAIN:
            return StopReason.COST
        slow = best > _HOPELESS or (best > _NEAR and gain < _PACE)
        return StopReason.STALLED if self.stop_if_stagnant and done >= 2 and slow else StopReason.RUNNING

    def _fit(self, run: Runner, size: Size, metric: Tensor | None, before: nn.Module | None) -> float:
        """Put a new field into the run, starting where the last one ended, and solve for its last layer.

        Gives the seconds that further guesses took.
        """
        problem, points = run.problem, level_points(run.problem, size, run.seed)
        stretched = None if metric is None else metric.numpy()

        def network(outputs: int) -> nn.Module:
            box = (problem.region.lower, problem.region.upper)
            made = ScaledCPIKAN([problem.dimension, size.nodes, outputs], [1, size.degree], box)
            ridge_start(made, run.seed, stretched)
            return CornerField(made, corners(problem.region)) if self.corners else made

        run.place(network(problem.outputs), points)
        if before is not None:
            take_over(run.iterate.field, before, run.iterate.objective.sets["equation"].points)
        begun = run.seconds
        if problem.constants:
            took = fit_without_constants(run, network, points, before is None)
        else:
            took = solve_last_layer(run, before is None)
        return run.seconds - begun - took


def _trusted(run: Runner, state: State) -> bool:
    """Tell whether the field of the last level is so near to a solution that its gradients are those of the solution.

    In a plane only: in space fewer directions than polynomials were measured to cost a digit of the last level.
    """
    return state["metric"] is not None and run.problem.dimension == 2 and run.iterate.relative() < _RESOLVED


def data_left(problem: Problem, iterate: Iterate) -> tuple[float, float]:
    """Compute the root mean square of what the field leaves of measured data, and how much of it the nearest points share.

    Noise of single points shares nothing: the correlation is 0 within 1 / sqrt(points), and near 1 for what a field does not
    follow. NaN where nothing was measured.
    """
    conditions = zip(problem.condition_names, problem.conditions, strict=True)
    measured = {name for name, given in conditions if given.at is not None}
    total, shared, count = 0.0, 0.0, 0
    for term in iterate.objective.terms:
        at = iterate.objective.sets[term.name]
        if term.name in measured and len(at.points) > 1 and at.mix is None:  # sums over points are no data
            nearest = torch.from_numpy(cKDTree(at.points.numpy()).query(at.points.numpy(), 2)[1][:, 1])
            with torch.no_grad():
                left = torch.stack(term.at(iterate.field, at))
            total, shared = total + float(left.square().sum()), shared + float((left * left[:, nearest]).sum())
            count += left.numel()
    return (math.sqrt(total / count), shared / max(total, 1e-300)) if count else (math.nan, math.nan)


def expected_s(times: list[list[float]], parameters: int) -> float:
    """Expect the seconds of a level from the parameters and seconds of the last two.

    Factors take the cube of the parameters, all else less: the power is that of the two, within bounds.
    """
    size, took = times[-1]
    power = _POWERS[1]
    if len(times) > 1 and times[0][0] < size:
        found = math.log(max(took, 1e-9) / max(times[0][1], 1e-9)) / math.log(size / times[0][0])
        power = min(max(found + _STEEPER, _POWERS[0]), _POWERS[1])
    return float(took * (parameters / size) ** power)


def level_size(problem: Problem, degree: int, metric: np.ndarray | None, trusted: bool = False) -> Size:
    """Choose as many directions as polynomials of total ``degree`` need, fewer where the solution hardly varies.

    Waves along an axis need degrees as their number, so that their share in the directions is the ratio of gradients; a metric
    that is not ``trusted``, of a field that is far off, takes off less.
    """
    if problem.dimension == 1:
        return Size(4, degree)
    share = 1.0
    if metric is not None:
        axes = np.linalg.svd(stretch(metric), compute_uv=False)[1:]
        share = float(np.prod(np.minimum(1.0, _SURE * axes if trusted else 2.5 * np.sqrt(axes))))
    full = math.comb(degree + problem.dimension - 1, problem.dimension - 1)
    return Size(max(min(12, full), math.ceil(share * full)), degree)


def level_points(problem: Problem, size: Size, seed: int) -> Points:
    """Choose points for a network of this size: enough rows for its parameters, boundaries as dense as the inside."""
    sides = len(problem.region.parts)
    per_side = {1: 1, 2: 2.5 * (size.degree + 4)}.get(problem.dimension, (size.degree + 4.0) ** (problem.dimension - 1))
    parameters = size.parameters(problem.outputs) / problem.outputs
    boundary = sides * math.ceil(min(per_side, _MOST_BOUNDARY * parameters / sides))
    wanted = max(1.5 * parameters, MIN_ROWS_PER_PARAMETER * parameters - 0.5 * boundary)
    most = _INTERIOR.get(problem.dimension, 10**6) if parameters <= _LARGE else 10**6
    interior = min(max(240, math.ceil(wanted)), most)
    return Points(interior, boundary, "chebyshev", seed)


def take_over(field: nn.Module, before: nn.Module, points: Tensor) -> None:
    """Set output coefficients with which ``field`` is nearest to another at points (B, d), and its unknowns."""
    with torch.no_grad():
        features, values = network_of(field).features(points), before(points)
        factor = StackedQR.of(features, 1e-10)
        columns = [factor.solve(values[:, o]) for o in range(values.shape[1])]
        network_of(field).set_output_coefficients(torch.stack(columns, dim=-1))
        here, there = unknowns_of(field), unknowns_of(before)
        if here is not None and there is not None:
            here.copy_(there)


def _degrees(dimension: int) -> tuple[int, ...]:
    if dimension == 1:
        return (12, 20, 32, 48, 72, 108)
    if dimension == 2:
        return (8, 14, 22, 32, 44, 56)
    return (6, 9, 12, 14) if dimension == 3 else (3, 4, 5, 6, 7, 8, 10)
