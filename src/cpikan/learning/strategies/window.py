"""Window: an evolution between two times, posed for a network that begins where the window before ends."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from cpikan.errors import InputError
from cpikan.fields.constrained import Ansatz
from cpikan.fields.end_distance import EndDistance
from cpikan.fields.front_ckan import Front
from cpikan.fields.lifted import LiftedField
from cpikan.fields.piecewise import PiecewiseChebyshev
from cpikan.fields.product_chebyshev import ProductChebyshev
from cpikan.fields.time_windows import TimeWindows
from cpikan.learning.strategies.fronts import fronts_of
from cpikan.learning.strategies.line_series import LineSeries, from_nodes, line_series, nodes
from cpikan.physics.evolution import Evolution, parts_of
from cpikan.physics.exact_conditions import with_exact_conditions
from cpikan.physics.problem import Condition, Problem, Side, dirichlet
from cpikan.physics.regions import Box

_TIMES = 12  # modes of the data along time
_EXACT = 1e-13  # tolerance of the lift, relative
_SHAPE = 1e-7  # tolerance where a function is only looked at
_LAYER = 1e-3  # width, of half an axis, of a layer that begins where a start does not fit the conditions
_MISFIT = 1e-3  # of the largest value and slope of a start


class Window:
    """A problem between two times, from the values that ``before`` ends with: a lift that has them, and what is left."""

    def __init__(
        self, problem: Problem, evolution: Evolution, before: TimeWindows | None, begin: float, end: float
    ) -> None:
        region = problem.region
        assert isinstance(region, Box)
        self.begin, self.end, self._evolution = begin, end, evolution
        self._space = [axis for axis in range(problem.dimension) if axis != evolution.time]
        lower, upper = list(region.lower), list(region.upper)
        lower[evolution.time], upper[evolution.time] = begin, end
        self.box = Box(tuple(lower), tuple(upper), region.axes)
        self._whole = replace(problem, region=self.box, conditions=_conditions(problem, evolution, before))
        self.posed, ansatz = with_exact_conditions(self._whole, self._through_series)
        if ansatz is None:
            raise InputError(f"{problem.name} has no windows: give its values at the beginning of time")
        assert isinstance(ansatz.lift, PiecewiseChebyshev)
        assert isinstance(ansatz.distance, EndDistance)
        self.lift, self.distance = ansatz.lift, ansatz.distance

    def behind(self, network: torch.nn.Module) -> LiftedField:
        """Put a network behind the lift."""
        return LiftedField(network, self.lift, self.distance)

    @torch.no_grad()
    def size(self, points: Tensor) -> float:
        """Give the root mean square at points (B, d) of the lift, and so of the start; 1 where it vanishes."""
        return float(self.lift(points).square().mean().sqrt()) or 1.0

    def at(self, share: float) -> float:
        """Give a time within the window by its share."""
        return self.begin + share * (self.end - self.begin)

    def starting_fronts(self) -> list[Front]:
        """Find the fronts of the start, and the layers that begin where it does not fit the conditions."""
        return [*self._layers(), *self.fronts_at(self.lift, self.begin)]

    def fronts_at(self, field: torch.nn.Module, time: float) -> list[Front]:
        """Find the fronts of a field at a time, in the scaled coordinates of the window."""
        if not self._space:
            return []
        return fronts_of(self._line(field, time, _SHAPE), self._space[0])

    def _line(self, field: torch.nn.Module, time: float, tolerance: float) -> LineSeries:
        """Interpolate a field at a time along space."""
        axis = self._space[0]

        @torch.no_grad()
        def values(x: np.ndarray) -> np.ndarray:
            points = torch.full((len(x), self._whole.dimension), time, dtype=torch.float64)
            points[:, axis] = torch.from_numpy(x)
            return np.asarray(field(points).numpy())

        return line_series(values, self.box.lower[axis], self.box.upper[axis], tolerance)

    def _through_series(self, ansatz: Ansatz) -> Ansatz:
        """Exchange a lift by its series: on the intervals that the start needs, of as many modes in time as the data need."""
        time, axes = self._evolution.time, range(self._whole.dimension)
        knots = [np.array([low, high]) for low, high in zip(self.box.lower, self.box.upper, strict=True)]
        for axis in self._space:
            knots[axis] = self._line(_Called(ansatz.lift), self.begin, _EXACT).knots
        modes = [_TIMES if axis == time else 16 for axis in axes]
        low = torch.tensor(list(itertools.product(*(k[:-1] for k in knots))), dtype=torch.float64)
        high = torch.tensor(list(itertools.product(*(k[1:] for k in knots))), dtype=torch.float64)
        unit = torch.from_numpy(np.stack(np.meshgrid(*(nodes(m) for m in modes), indexing="ij"), -1))
        points = (low + high)[:, None] / 2 + (high - low)[:, None] / 2 * unit.reshape(1, -1, len(modes))
        with torch.no_grad():
            table = ansatz.lift(points.reshape(-1, len(modes))).reshape(len(low), *modes, -1)
        for axis in axes:
            matrix = torch.from_numpy(from_nodes(modes[axis]))
            table = torch.movedim(torch.tensordot(matrix, table, dims=([1], [axis + 1])), 0, axis + 1)
        table, modes[time] = _trimmed(table, time + 1)
        series = ProductChebyshev(modes, (low, high), outputs=table.shape[-1], networks=len(low))
        series.set_output_coefficients(table.flatten(1, -2))
        return Ansatz(PiecewiseChebyshev(series), ansatz.distance)

    def _layers(self) -> list[Front]:
        """List a front in space and one in time where the start misses a condition at the ends of the axis of space."""
        time, found = self._evolution.time, list[Front]()
        for condition in self._whole.conditions:
            ends = [part.split("=") for part in parts_of(self._whole, condition)]
            here = [(self.box.axes.index(axis), end) for axis, end in ends if self.box.axes.index(axis) != time]
            if condition.period is not None:
                here += [(axis, "max") for axis, _ in here]
            if here and self._missed(condition, here):
                found += [Front(axis, 1.0 if end == "max" else -1.0, _LAYER) for axis, end in here]
        return [*dict.fromkeys(found), *([Front(time, -1.0, _LAYER)] if found else [])]

    @torch.no_grad()
    def _missed(self, condition: Condition, ends: list[tuple[int, str]]) -> bool:
        """Tell whether the start misses a condition by a share of the largest value or slope at the ends."""
        at = torch.full((2, self._whole.dimension), self.begin, dtype=torch.float64)
        axis = ends[0][0]
        at[0, axis], at[1, axis] = self.box.lower[axis], self.box.upper[axis]
        outward = torch.zeros_like(at)
        outward[0, axis], outward[1, axis] = -1.0, 1.0
        jet = self.lift.jet(at, self._whole.second)
        keep = sorted({1 if end == "max" else 0 for _, end in ends} if condition.period is None else {0})
        first, other = (type(jet)(*(part[rows] for part in jet)) for rows in (keep, [1]))
        missed = condition.residual(first, Side(at[keep], outward[keep], other if condition.period else None))
        size = max(float(jet.value.abs().max()), float(jet.gradient[..., axis].abs().max()))
        return bool((missed.abs() > _MISFIT * size).any())


class _Called(torch.nn.Module):
    """A function as a module."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        """Call it."""
        found: Tensor = self._function(x)  # type: ignore[operator]
        return found


def _trimmed(table: Tensor, axis: int) -> tuple[Tensor, int]:
    """Leave out the last coefficients along an axis that are rounding; gives their number too."""
    sizes = torch.movedim(table, axis, 0).flatten(1).abs().amax(dim=1)
    needed = torch.nonzero(sizes > 10 * _EXACT * sizes.amax())
    count = int(needed.max()) + 1 if len(needed) else 1
    return torch.narrow(table, axis, 0, count), count


def _conditions(problem: Problem, evolution: Evolution, before: TimeWindows | None) -> list[Condition]:
    """List the conditions in a window: those of the problem, with the values that the one before ends with as the start."""
    if before is None:
        return list(problem.conditions)
    start = f"{_axes(problem)[evolution.time]}=min"
    found = []
    for condition in problem.conditions:
        parts = tuple(part for part in parts_of(problem, condition) if part != start)
        if parts:
            found.append(replace(condition, on=parts))

    def handed(output: int) -> Condition:
        def value(x: Tensor) -> Tensor:
            with torch.no_grad():
                return before(x)[..., output]

        return dirichlet(value, start, output=output, name=f"start {output}")

    return [*found, *(handed(output) for output in evolution.values)]


def _axes(problem: Problem) -> tuple[str, ...]:
    assert isinstance(problem.region, Box)
    return problem.region.axes
