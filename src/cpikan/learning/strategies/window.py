"""Window: an evolution between two times, posed for a network that begins where the window before ends."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from cpikan.errors import InputError
from cpikan.fields.constrained import Ansatz
from cpikan.fields.end_distance import EndDistance
from cpikan.fields.front_ckan import Front
from cpikan.fields.lifted import Lift, LiftedField
from cpikan.fields.rounded_kink import RoundedKink
from cpikan.fields.time_windows import TimeWindows
from cpikan.learning.strategies.fronts import fronts_of
from cpikan.learning.strategies.line_series import LineSeries, line_series
from cpikan.learning.strategies.window_lift import WindowLift
from cpikan.physics.evolution import Evolution, parts_of
from cpikan.physics.exact_conditions import with_exact_conditions
from cpikan.physics.problem import Condition, Problem, Side, dirichlet
from cpikan.physics.regions import Box
from cpikan.physics.symmetry import ends_of, even_axes

_SHAPE = 1e-7  # tolerance where a function is only looked at
_LAYER = 1e-3  # width, of half an axis, of a layer that begins where a start does not fit the conditions
_LATER = 0.25  # of a window: when the layer of a kink is looked at
_MISFIT = 1e-3  # of the largest value and slope of a start
_LOOKED = 33  # places along an axis where they are looked at


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
        self.even = tuple(axis for axis in even_axes(problem) if axis != evolution.time)
        self._whole = replace(problem, region=self.box, conditions=_conditions(problem, evolution, before))
        self.posed, ansatz = with_exact_conditions(self._whole, self._through_series)
        if ansatz is None:
            raise InputError(f"{problem.name} has no windows: give its values at the beginning of time")
        self.posed = replace(self.posed, conditions=self._left_open(self.posed))
        assert isinstance(ansatz.lift, Lift)
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
        """Find the fronts of the lift, and the layers that begin where the start does not fit the conditions."""
        kinked = isinstance(self.lift, RoundedKink)
        layers = self._rounded_layers(self.lift) if isinstance(self.lift, RoundedKink) else self._layers()
        times = (self.at(_LATER) if kinked else self.begin, self.end)
        return [*layers, *(one for time in times for one in self.fronts_at(self.lift, time))]

    def fronts_at(self, field: torch.nn.Module, time: float) -> list[Front]:
        """Find the fronts of a field at a time, in the scaled coordinates of the window."""
        if not self._space:
            return []
        return fronts_of(self._line(field, time), self._space[0])

    def _line(self, field: torch.nn.Module, time: float) -> LineSeries:
        """Interpolate a field at a time along the scaled coordinate of space, or the cosine that stands for it."""
        axis = self._space[0]
        low, high = self.box.lower[axis], self.box.upper[axis]

        @torch.no_grad()
        def values(place: np.ndarray) -> np.ndarray:
            scaled = np.arccos(np.clip(place, -1, 1)) / np.pi if axis in self.even else place
            points = torch.full((len(place), self._whole.dimension), time, dtype=torch.float64)
            points[:, axis] = torch.from_numpy(low + (high - low) * (scaled + 1) / 2)
            return np.asarray(field(points).numpy())

        return line_series(values, -1.0, 1.0, _SHAPE)

    def _left_open(self, posed: Problem) -> list[Condition]:
        """List the conditions that an even network does not hold by itself."""
        return [one for one in posed.conditions if not (self.even and ends_of(self._whole, one, self.even))]

    def _through_series(self, ansatz: Ansatz) -> Ansatz:
        """Exchange a lift by its series, and round its kink where the period closes."""
        assert isinstance(ansatz.distance, EndDistance)
        lift = WindowLift(self._whole, self._evolution, ansatz).made()
        return Ansatz(lift, ansatz.distance)

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

    def _rounded_layers(self, kink: RoundedKink) -> list[Front]:
        """List the layers of a kink, as wide as diffusion has made them at a quarter of the window."""
        axis, rate = kink.axis, max(kink.diffusivity)
        width = 2 * math.sqrt(rate * (self.at(_LATER) - self.begin)) * 2 / (self.box.upper[axis] - self.box.lower[axis])
        if axis in self.even:
            return [Front(axis, -1.0, 1 - math.cos(math.pi * width))]
        return [Front(axis, -1.0, width), Front(axis, 1.0, width)]

    @torch.no_grad()
    def _missed(self, condition: Condition, ends: list[tuple[int, str]]) -> bool:
        """Tell whether the start misses a condition by a share of its largest value or slope."""
        axis, far = ends[0][0], _LOOKED - 1
        at = torch.full((_LOOKED, self._whole.dimension), self.begin, dtype=torch.float64)
        at[:, axis] = torch.linspace(self.box.lower[axis], self.box.upper[axis], _LOOKED, dtype=torch.float64)
        outward = torch.zeros_like(at)
        outward[0, axis], outward[far, axis] = -1.0, 1.0
        jet = self.lift.jet(at, self._whole.second)
        keep = sorted({far if end == "max" else 0 for _, end in ends} if condition.period is None else {0})
        first, other = (type(jet)(*(part[rows] for part in jet)) for rows in (keep, [far]))
        missed = condition.residual(first, Side(at[keep], outward[keep], other if condition.period else None))
        size = max(float(jet.value.abs().max()), float(jet.gradient[..., axis].abs().max()))
        return bool((missed.abs() > _MISFIT * size).any())


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
