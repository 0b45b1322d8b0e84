"""Grow: networks of one hidden layer with more nodes and higher degree, until the held-out residual says enough."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cpikan.fields.corner import CornerField
from cpikan.fields.functional import parameter_vector
from cpikan.fields.protocol import LinearOutput
from cpikan.fields.scaled_cpikan import ScaledCPIKAN
from cpikan.learning.last_layer import LastLayer, StackedQR
from cpikan.learning.points import GUARD, Points
from cpikan.learning.ridge_start import gradient_metric, ridge_start, stretch
from cpikan.learning.run import Placing, Run
from cpikan.learning.stop_reason import StopReason
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
        """Coefficients of the output layer."""
        return outputs * (self.nodes * self.degree + 1)


@dataclass(frozen=True)
class Grow:
    """Levels of rising degree; each has its own directions (stretched by the last level's gradients) and points.

    The field of the run is replaced by the best. ``parameters`` bounds the output layer; a level that would not fit into
    the time left is not begun. ``hopeless`` ends it after three levels that hardly lower the residual.
    ``corners`` adds the singular functions of the region's re-entrant corners.
    """

    parameters: int = 3300
    hopeless: bool = False
    corners: bool = False
    name: str = "grow"

    def run(self, run: Run) -> StopReason:
        """Go through the levels; the reason tells whether the residual or the size ended it."""
        metric, kept, reason = None, None, StopReason.BUDGET
        seconds, work, done, left = 0.0, 1.0, 0, run.kept()
        if left:
            metric, kept = left["metric"].numpy(), _Level.of(run)
            seconds, work, done = left["seconds"], left["work"], left["done"]

        def state() -> dict[str, Any]:
            return {"metric": torch.from_numpy(metric), "seconds": seconds, "work": work, "done": done}

        for degree in _degrees(run.problem.dimension)[done:]:
            size = level_size(run.problem, degree, metric)
            parameters = size.parameters(run.problem.outputs)
            if kept is not None and parameters > self.parameters:
                break
            if kept is not None and parameters > _SMALL and seconds * parameters**3 / work > 0.8 * run.left_s:
                reason = StopReason.TIME
                break
            started = time.perf_counter()
            self._place(run, size, metric, None if kept is None else kept.field)
            LastLayer().run(run)
            run.restore_best()
            took = time.perf_counter() - started
            if (
                done < 1 or took / parameters**3 < seconds / work
            ):  # a level that was disturbed says little about the next
                seconds, work = took, float(parameters) ** 3
            metric = gradient_metric(run.field, run.rows.sets[0].points)
            now = _Level.of(run)
            gain = math.inf if kept is None else kept.relative / max(now.relative, 1e-300)
            kept, done = now if gain > 1 or kept is None else kept, done + 1
            if run.at_goal():
                reason = StopReason.TARGET
                break
            if kept.relative < _FLOOR and gain < _GAIN:
                reason = StopReason.COST
                break
            if run.left_s <= 0:
                reason = StopReason.TIME
                break
            if self.hopeless and degree >= _degrees(run.problem.dimension)[2] and kept.relative > _HOPELESS:
                reason = StopReason.STALLED
                break
            kept.put(run)
            run.keep(state)
        assert kept is not None
        kept.put(run)
        return reason

    def _place(self, run: Run, size: Size, metric: np.ndarray | None, before: nn.Module | None) -> None:
        """Put a new field into the run, starting where the last one ended."""
        problem = run.problem
        box = (problem.region.lower, problem.region.upper)
        network = ScaledCPIKAN([problem.dimension, size.nodes, problem.outputs], [1, size.degree], box)
        ridge_start(network, run.seed, metric)
        field = CornerField(network, corners(problem.region)) if self.corners else network
        run.place(field, level_points(problem, size, run.seed))
        if before is not None:
            take_over(field, before, run.rows.sets[0].points)


@dataclass(frozen=True)
class _Level:
    """What a level reached, to come back to when a larger one is worse."""

    placing: Placing
    relative: float
    cost: float
    scale: float

    @classmethod
    def of(cls, run: Run) -> _Level:
        """Where a run is."""
        return cls(run.placing, run.relative(), run.best_cost, run.scale)

    @property
    def field(self) -> Any:
        """The network."""
        return self.placing.field

    def put(self, run: Run) -> None:
        """Go back to here."""
        run.placing, run.scale = self.placing, self.scale
        run.best, run.best_cost = parameter_vector(self.field), self.cost


def level_size(problem: Problem, degree: int, metric: np.ndarray | None) -> Size:
    """As many directions as polynomials of total degree ``degree`` need, fewer where the solution hardly varies."""
    if problem.dimension == 1:
        return Size(4, degree)
    share = 1.0
    if metric is not None:
        axes = np.linalg.svd(stretch(metric), compute_uv=False)[1:]
        share = float(np.prod(np.minimum(1.0, 2.5 * np.sqrt(axes))))
    full = math.comb(degree + problem.dimension - 1, problem.dimension - 1)
    return Size(max(min(12, full), math.ceil(share * full)), degree)


def level_points(problem: Problem, size: Size, seed: int) -> Points:
    """Points for a network of this size: rows at least ``GUARD`` times its parameters, boundaries as dense as the inside."""
    sides = len(problem.region.parts)
    per_side = {1: 1, 2: 2.5 * (size.degree + 4)}.get(problem.dimension, (size.degree + 4.0) ** (problem.dimension - 1))
    boundary = sides * math.ceil(per_side)
    parameters = size.parameters(problem.outputs) / problem.outputs
    wanted = max(1.5 * parameters, GUARD * parameters - 0.5 * boundary)
    most = _INTERIOR.get(problem.dimension, 10**6) if parameters <= _LARGE else 10**6
    interior = min(max(240, math.ceil(wanted)), most)
    return Points(interior, boundary, "chebyshev", seed)


def take_over(field: LinearOutput, before: Callable[[Tensor], Tensor], points: Tensor) -> None:
    """Output coefficients with which ``field`` is nearest to another at points (B, d)."""
    with torch.no_grad():
        features, values = field.features(points), before(points)
        factor = StackedQR.of(features, 1e-10)
        columns = [factor.solve(values[:, o]) for o in range(values.shape[1])]
        field.set_output_coefficients(torch.stack(columns, dim=-1))


def _degrees(dimension: int) -> tuple[int, ...]:
    if dimension == 1:
        return (12, 20, 32, 48, 72, 108)
    return (8, 14, 22, 32, 44, 56) if dimension == 2 else (6, 9, 12, 14)
