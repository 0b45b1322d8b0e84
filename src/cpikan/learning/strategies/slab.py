"""Slab: a problem, of an evolution between two times, on intervals of one axis with a product Chebyshev series each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from cpikan.fields.product_chebyshev import ProductChebyshev, chebyshev_nodes, interpolate
from cpikan.fields.protocol import Jet
from cpikan.learning.methods.gauss_newton import backtracked
from cpikan.learning.samplers.points import Points, measured_part
from cpikan.learning.strategies.block_band import folded, natural, solve_band
from cpikan.learning.strategies.row_set import Residual, RowSet
from cpikan.learning.strategies.slab_system import SlabSystem
from cpikan.physics.evolution import Evolution, derived, parts_of
from cpikan.physics.problem import Condition, Problem, Side
from cpikan.physics.regions import Box

_PENALTY = 30.0  # weight of interfaces and walls: what they miss is then far below what the equation misses
_EXTRA = 2  # points per axis and interval beyond the modes
_STEPS, _HALVINGS = 25, 10
_FLAT = 1e-6  # a step that lowers the cost by less than this share is the last
_MODEL = 1e-2  # Gauss-Newton is done where its model misses by less than this share of the tolerance
_LEVEL = 1e-4  # weight of zero, or of where the search for an unknown begins, in such a start
_LIFT = 1e-2  # weight of standing still in a start that meets the conditions


@dataclass(frozen=True)
class Place:
    """A problem on intervals between ``knots`` (E + 1,) of the axis ``chain``, of an evolution at times [begin, end].

    Without a chain (None, and no knots) there is one box. ``modes`` are those of every axis. Without an ``evolution`` the
    problem is steady, and all axes go from end to end.
    """

    problem: Problem
    evolution: Evolution | None
    chain: int | None
    knots: Tensor
    begin: float
    end: float
    modes: tuple[int, ...]

    @property
    def time(self) -> int | None:
        """Give the axis of time."""
        return None if self.evolution is None else self.evolution.time

    @property
    def outputs(self) -> int:
        """Count the outputs of the series: those of the problem, and its unknown coefficients."""
        return self.problem.outputs + len(self.problem.unknowns)


@dataclass
class Slab:
    """A place and a series there, ``series``, with a box for every interval.

    ``unit`` (outputs,) is the size of each output. ``before`` gives value and rate at the beginning from the slab before,
    None where the problem's own start holds.
    """

    place: Place
    unit: Tensor
    before: Callable[[Tensor], Jet] | None = None
    series: ProductChebyshev = field(init=False)

    def __post_init__(self) -> None:
        at = self.place
        lower, upper = (
            torch.tensor(ends, dtype=torch.float64).repeat(max(1, len(at.knots) - 1), 1)
            for ends in (at.problem.region.lower, at.problem.region.upper)
        )
        if at.chain is not None:
            lower[:, at.chain], upper[:, at.chain] = at.knots[:-1], at.knots[1:]
        if at.time is not None:
            lower[:, at.time], upper[:, at.time] = at.begin, at.end
        self.series = ProductChebyshev(at.modes, (lower, upper), outputs=at.outputs, networks=len(lower))

    @property
    def modes(self) -> tuple[int, ...]:
        """Give the modes of every axis."""
        return self.place.modes

    @property
    def problem(self) -> Problem:
        """Give the problem."""
        return self.place.problem

    @property
    def widths(self) -> Tensor:
        """Divide the lengths of the intervals by that of the axis, (E,)."""
        if self.place.chain is None:
            return torch.ones(1, dtype=torch.float64)
        return self.place.knots.diff() / (self.place.knots[-1] - self.place.knots[0])

    @torch.no_grad()
    def guess(self, start: Callable[[Tensor], Tensor]) -> None:
        """Set the coefficients to those of a function ``start`` of points (B, d), interpolated at Chebyshev nodes."""
        interpolate(self.series, start)

    def lift(self, tolerance: float) -> None:
        """Begin with a function that meets the conditions and varies, in time or all along, as little as they let it."""
        at, unit = self.place, self.unit
        extent = self.series.scaling.upper.amax(0) - self.series.scaling.lower.amin(0)
        axes = range(len(extent)) if at.time is None else [at.time]

        level = torch.zeros_like(unit)
        level[at.problem.outputs :] = torch.tensor([one.start for one in at.problem.unknowns], dtype=torch.float64)

        def still(jet: Jet, x: Tensor, other: Jet | None) -> list[Tensor]:
            slopes = _LIFT * extent * jet.gradient / unit[:, None]
            values = _LEVEL * (jet.value - level) / unit
            return [*values.unbind(1), *(slopes[..., o, axis] for o in range(at.outputs) for axis in axes)]

        rows = self._rows(still, (self._grid(self._counts), torch.arange(len(self.widths))))
        rows.weight = self._share(self._counts)
        self._solved([rows, *self._bounds()], tolerance)

    def solve(self, tolerance: float) -> tuple[int, float]:
        """Solve by Gauss-Newton from the coefficients as they are; gives the number of steps and the RMS misfit,
        relative to the units."""
        at, extent = self.place, self.series.scaling.upper.amax(0) - self.series.scaling.lower.amin(0)

        def equation(jet: Jet, x: Tensor, other: Jet | None) -> list[Tensor]:
            slopes = jet.gradient[:, at.problem.outputs :] * extent  # of unknowns: they do not vary
            return [*at.problem.interior(jet, x).values(), *slopes.flatten(1).unbind(1)]

        inside = self._rows(equation, (self._grid(self._counts), torch.arange(len(self.widths))))
        scale = inside.size_scale() if at.time is None else inside.time_scale(at.time, at.end - at.begin)
        inside.weight = self._share(self._counts) / scale
        return self._solved([inside, *self._bounds()], tolerance)

    def _bounds(self) -> list[RowSet]:
        """Collect all residuals but those of the equation."""
        return [*self._starts(), *self._interfaces(), *self._walls(), *self._measured()]

    def largest(self) -> Tensor:
        """Find the largest absolute value of each output at the Chebyshev nodes, (outputs,)."""
        with torch.no_grad():
            return self.series(self._grid(self.modes)).abs().amax(dim=(0, 1))

    def tails(self, size: Tensor, start: bool = False) -> list[Tensor]:
        """Find the largest of the last two coefficients along every axis, relative to ``size`` (outputs,), per interval.

        With ``start`` they are those of the function at the begin of the slab, which does not depend on time, and of the
        outputs that are known there.
        """
        dust, time = (
            4e-14 * size.max(),
            self.place.time,
        )  # rounding of the largest output is no sign of others' convergence
        table = self.series.coefficients.detach().unflatten(1, self.modes)
        if start and time is not None:
            table = table.movedim(time + 1, -1) @ (-1.0) ** torch.arange(self.modes[time], dtype=torch.float64)
            table = table.unsqueeze(time + 1)
        table = (table.abs() - dust).clamp_min(0.0) / size
        if start and self.place.evolution is not None:
            table = table[..., list(self.place.evolution.values)]
        tails = [table.movedim(axis + 1, 1)[:, -2:].flatten(1).amax(dim=1) for axis in range(len(self.modes))]
        return [torch.zeros_like(tail) if start and axis == time else tail for axis, tail in enumerate(tails)]

    @property
    def _counts(self) -> list[int]:
        return [m + _EXTRA for m in self.modes]

    def _grid(self, counts: Sequence[int]) -> Tensor:
        """Place Chebyshev nodes in every box, (E, product of counts, d)."""
        return self._placed([chebyshev_nodes(count) for count in counts])

    def _face(self, axis: int, end: float, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Place Chebyshev nodes on the sides of boxes (N,) where the scaled coordinate of an axis is ``end``."""
        nodes = [chebyshev_nodes(count) for count in self._counts]
        nodes[axis] = torch.tensor([end], dtype=torch.float64)
        return self._placed(nodes)[boxes], boxes

    def _placed(self, nodes: list[Tensor]) -> Tensor:
        grid = torch.stack(torch.meshgrid(*nodes, indexing="ij"), dim=-1).flatten(0, -2)
        return self.series.scaling.inverse(grid.expand(len(self.widths), -1, -1))

    def _share(self, counts: Sequence[int]) -> Tensor:
        """Weigh points so that the squares of all of them make a mean over the axis, (1, E, 1)."""
        return (self.widths / math.prod(counts)).sqrt()[None, :, None]

    def _rows(self, function: Residual, *places: tuple[Tensor, Tensor]) -> RowSet:
        return RowSet(self.series, self.unit, self.problem.second, function, *places)

    def _starts(self) -> list[RowSet]:
        """Collect the residuals at the start: of the problem's conditions, or against the end of the slab before."""
        evolution = self.place.evolution
        if evolution is None:
            return []
        time, span = evolution.time, self.place.end - self.place.begin
        name, every = f"{_axes(self.problem)[time]}=min", torch.arange(len(self.widths))
        share = self._share([n for axis, n in enumerate(self._counts) if axis != time])
        if self.before is None:
            found = []
            for condition in self.problem.conditions:
                if name in parts_of(self.problem, condition):
                    found.append(self._rows(self._condition(condition, name), self._face(time, -1.0, every)))
                    found[-1].weight = share / found[-1].size_scale()
            return found
        line = self._face(time, -1.0, every)
        known, unit = self.before(line[0].flatten(0, 1)), self.unit

        def handed_on(jet: Jet, at: Tensor, other: Jet | None) -> list[Tensor]:
            values = [(jet.value[..., o] - known.value[..., o]) / unit[o] for o in evolution.values]
            rate = span * (jet.gradient[..., time] - known.gradient[..., time])
            return [*values, *(rate[..., o] / unit[o] for o in evolution.rates)]

        rows = self._rows(handed_on, line)
        rows.weight = share
        return [rows]

    def _interfaces(self) -> list[RowSet]:
        """Collect the residuals of equal values and slopes where intervals meet.

        On a break with conditions of its own there are none; on others slopes are equal where the equation bends them.
        """
        left, axis, unit, outputs = torch.arange(len(self.widths) - 1), self.place.chain, self.unit, self.place.outputs
        if axis is None or not len(left):
            return []
        tight = _PENALTY / math.prod(n for a, n in enumerate(self._counts) if a != axis) ** 0.5
        lengths = self.place.knots.diff()
        weight = torch.ones(2, outputs, len(left), dtype=torch.float64)
        weight[1] = torch.minimum(lengths[:-1], lengths[1:]) / self.modes[axis]
        bound = {part for one in self.problem.conditions for part in one.on or ()}
        for part, (_, place) in _box(self.problem).inner.items():
            here = (self.place.knots[1:-1] - place).abs().argmin()
            if part in bound:
                weight[:, :, here] = 0.0
            else:
                curved = derived(self.problem, axis)[1]
                weight[1, [o for o in range(outputs) if o not in curved], here] = 0.0

        def jump(jet: Jet, at: Tensor, other: Jet | None) -> list[Tensor]:
            assert other is not None
            values = (jet.value - other.value) / unit
            slopes = (jet.gradient[..., axis] - other.gradient[..., axis]) / unit
            return [*values.unbind(-1), *slopes.unbind(-1)]

        rows = self._rows(jump, self._face(axis, 1.0, left), self._face(axis, -1.0, left + 1))
        rows.weight = tight * weight.flatten(0, 1)[..., None]
        return [rows]

    def _walls(self) -> list[RowSet]:
        """Collect the residuals of conditions at the ends of the space axes, or across them."""
        region, found = _box(self.problem), []
        every, last = torch.arange(len(self.widths)), torch.tensor([len(self.widths) - 1])
        for condition in self.problem.conditions:
            for name in () if condition.at is not None else parts_of(self.problem, condition):
                if name in region.inner:
                    found.append(self._break(condition, name))
                    continue
                axis, end = region.side(name)
                if axis == self.place.time:
                    continue
                chained = axis == self.place.chain
                places = [self._face(axis, 2.0 * end - 1, (last if end else every[:1]) if chained else every)]
                if condition.period is not None:
                    places.append(self._face(region.axes.index(condition.period), 1.0, last if chained else every))
                rows = self._rows(self._condition(condition, name), *places)
                share = self._share([n for a, n in enumerate(self._counts) if a != axis])
                at_end = torch.tensor(math.prod(n for a, n in enumerate(self._counts) if a != axis)) ** -0.5
                rows.weight = _PENALTY * (at_end if chained else share) / rows.row_scale()
                found.append(rows)
        return found

    def _break(self, condition: Condition, name: str) -> RowSet:
        """Collect the residuals of a condition on a break, between the intervals below and above it."""
        axis, place = _box(self.problem).inner[name]
        below = (self.place.knots[1:-1] - place).abs().argmin()[None]
        rows = self._rows(
            self._condition(condition, name), self._face(axis, 1.0, below), self._face(axis, -1.0, below + 1)
        )
        count = math.prod(n for a, n in enumerate(self._counts) if a != axis)
        rows.weight = _PENALTY * count**-0.5 / rows.row_scale()
        return rows

    def _measured(self) -> list[RowSet]:
        """Collect the residuals of conditions at points, interval by interval."""
        found = []
        for condition in self.problem.conditions:
            if condition.at is None:
                continue
            kept = measured_part(len(condition.at), Points(1, 0))
            points, data = condition.at[kept].double(), None if condition.data is None else condition.data[kept]
            axis = self.place.chain
            owner = torch.zeros(len(points), dtype=torch.long)
            if axis is not None:
                owner = torch.searchsorted(self.place.knots[1:-1].contiguous(), points[:, axis].contiguous())
            for box in owner.unique():
                mine = owner == box
                part = None if data is None else data[mine].double()
                rows = self._rows(_at_points(condition, part), (points[mine][None], box[None]))
                rows.weight = _PENALTY * condition.weight * len(points) ** -0.5 / rows.row_scale()
                found.append(rows)
        return found

    def _condition(self, condition: Condition, part: str) -> Residual:
        region = _box(self.problem)
        axis, sign = (region.inner[part][0], 1.0) if part in region.inner else (region.side(part)[0], 0.0)
        sign = sign or 2.0 * region.side(part)[1] - 1

        def residual(jet: Jet, at: Tensor, other: Jet | None) -> list[Tensor]:
            normals = torch.zeros_like(at)
            normals[:, axis] = sign
            return [condition.residual(jet, Side(at, normals, other, None))]

        return residual

    def _solved(self, sets: list[RowSet], tolerance: float) -> tuple[int, float]:
        """Minimise by Gauss-Newton: ends where its model holds to a share of the tolerance, or where no step helps."""
        axis = self.place.chain
        ring = axis is not None and any(c.period == _axes(self.problem)[axis] for c in self.problem.conditions)
        order = (folded if ring else natural)(len(self.widths))
        system = SlabSystem(self.series, self.unit, sets, partial(solve_band, order=order))
        cost = math.inf
        for taken in range(_STEPS):
            before, step = system.step()
            if not (math.isfinite(before) and bool(torch.isfinite(step).all())):
                return taken, math.inf
            expected = system.expected(step)
            reached = backtracked(system, step, before, _HALVINGS)
            cost = before if reached is None else reached
            if reached is None or reached > (1 - _FLAT) * before:
                return taken + 1, cost**0.5
            if abs(reached - expected) <= (_MODEL * tolerance) ** 2:
                return taken + 1, cost**0.5
        return _STEPS, cost**0.5


def _at_points(condition: Condition, data: Tensor | None) -> Residual:
    def residual(jet: Jet, at: Tensor, other: Jet | None) -> list[Tensor]:
        return [condition.residual(jet, Side(at, torch.zeros_like(at), None, data))]

    return residual


def _box(problem: Problem) -> Box:
    assert isinstance(problem.region, Box)
    return problem.region


def _axes(problem: Problem) -> tuple[str, ...]:
    return _box(problem).axes
