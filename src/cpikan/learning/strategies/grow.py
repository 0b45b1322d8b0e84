"""Grow: networks of one hidden layer with more nodes and higher degree, until the held-out residual says enough."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from cpikan.fields.corner import CornerField
from cpikan.fields.scaled_cpikan import ScaledCPIKAN
from cpikan.learning.combinators import Strategy
from cpikan.learning.methods.last_layer import LastLayer
from cpikan.learning.methods.method import State
from cpikan.learning.points import MIN_ROWS_PER_PARAMETER, Points
from cpikan.learning.qr_equations import StackedQR
from cpikan.learning.runner import Runner
from cpikan.learning.stop_reason import StopReason
from cpikan.learning.strategies.ridge_start import gradient_metric, ridge_start, stretch
from cpikan.learning.unknowns import network_of, unknowns_of
from cpikan.physics.problem import Problem
from cpikan.physics.regions import corners

_INTERIOR = {1: 3000, 2: 3000}  # most interior points, by dimension, of networks below _LARGE parameters
_LARGE = 2400
_FLOOR, _GAIN = 1e-7, 2.0  # below this relative residual, a level that gains less than this factor is the last
_HOPELESS = 1e-2  # relative residual of the third level, where a smooth solution is far below
_SMALL = 700  # parameters of levels that always fit; their times say little about longer ones


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
    the time left is not begun. ``stop_if_stagnant`` ends it after three levels that hardly lower the residual.
    ``corners`` adds the singular functions of the region's re-entrant corners.
    """

    parameters: int = 3300
    stop_if_stagnant: bool = False
    corners: bool = False
    name: str = "grow"

    def init(self, run: Runner) -> State:
        """Begin with the lowest degree."""
        return {"metric": None, "seconds": 0.0, "work": 1.0, "done": 0, "reason": int(StopReason.RUNNING)}

    def step(self, run: Runner, state: State) -> State:
        """Go through a level; the runner is left with the best of all levels so far."""
        done, seconds, work = state["done"], state["seconds"], state["work"]
        before = run.iterate if done else None
        size = self._size(run, state)
        started = time.perf_counter()
        self._place(run, size, state["metric"], None if before is None else before.field)
        run.minimise(LastLayer())
        took, cubed = time.perf_counter() - started, float(size.parameters(run.problem.outputs)) ** 3
        if done < 1 or took / cubed < seconds / work:  # a level that was disturbed says little about the next
            seconds, work = took, cubed
        now = run.iterate
        metric = torch.from_numpy(gradient_metric(network_of(now.field), now.objective.sets["equation"].points))
        gain = math.inf if before is None else before.relative() / max(now.relative(), 1e-300)
        if before is not None and gain <= 1:
            run.iterate = before
        reason = self._reason(run, done, gain, run.iterate.relative())
        return {"metric": metric, "seconds": seconds, "work": work, "done": done + 1, "reason": int(reason)}

    def stop(self, run: Runner, state: State) -> StopReason:
        """Stop when the residual says so, at the largest size, or before a level that would not fit into the time."""
        if state["reason"] != StopReason.RUNNING:
            return StopReason(state["reason"])
        if state["done"] >= len(_degrees(run.problem.dimension)):
            return StopReason.BUDGET
        parameters = self._size(run, state).parameters(run.problem.outputs)
        if state["done"] and parameters > self.parameters:
            return StopReason.BUDGET
        expected = state["seconds"] * parameters**3 / state["work"]
        late = bool(state["done"]) and parameters > _SMALL and expected > 0.8 * run.left_s
        return StopReason.NEXT_LEVEL if late else StopReason.RUNNING

    def _reason(self, run: Runner, done: int, gain: float, best: float) -> StopReason:
        """Give the reason to end after a level, or RUNNING."""
        if run.converged:
            return StopReason.TARGET
        if best < _FLOOR and gain < _GAIN:
            return StopReason.COST
        stagnant = self.stop_if_stagnant and done >= 2 and best > _HOPELESS
        return StopReason.STALLED if stagnant else StopReason.RUNNING

    def _size(self, run: Runner, state: State) -> Size:
        metric = None if state["metric"] is None else state["metric"].numpy()
        return level_size(run.problem, _degrees(run.problem.dimension)[state["done"]], metric)

    def _place(self, run: Runner, size: Size, metric: Tensor | None, before: nn.Module | None) -> None:
        """Put a new field into the run, starting where the last one ended."""
        problem = run.problem
        box = (problem.region.lower, problem.region.upper)
        network = ScaledCPIKAN([problem.dimension, size.nodes, problem.outputs], [1, size.degree], box)
        ridge_start(network, run.seed, None if metric is None else metric.numpy())
        run.place(
            CornerField(network, corners(problem.region)) if self.corners else network,
            level_points(problem, size, run.seed),
        )
        if before is not None:
            take_over(run.iterate.field, before, run.iterate.objective.sets["equation"].points)


def level_size(problem: Problem, degree: int, metric: np.ndarray | None) -> Size:
    """Choose as many directions as polynomials of total ``degree`` need, fewer where the solution hardly varies."""
    if problem.dimension == 1:
        return Size(4, degree)
    share = 1.0
    if metric is not None:
        axes = np.linalg.svd(stretch(metric), compute_uv=False)[1:]
        share = float(np.prod(np.minimum(1.0, 2.5 * np.sqrt(axes))))
    full = math.comb(degree + problem.dimension - 1, problem.dimension - 1)
    return Size(max(min(12, full), math.ceil(share * full)), degree)


def level_points(problem: Problem, size: Size, seed: int) -> Points:
    """Choose points for a network of this size: enough rows for its parameters, boundaries as dense as the inside."""
    sides = len(problem.region.parts)
    per_side = {1: 1, 2: 2.5 * (size.degree + 4)}.get(problem.dimension, (size.degree + 4.0) ** (problem.dimension - 1))
    boundary = sides * math.ceil(per_side)
    parameters = size.parameters(problem.outputs) / problem.outputs
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
    return (8, 14, 22, 32, 44, 56) if dimension == 2 else (6, 9, 12, 14)
