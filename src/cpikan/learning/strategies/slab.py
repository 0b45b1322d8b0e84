"""Slab: a problem in one stime_scale axis and time between two times, on intervals of x with a product series each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cpikan.fields.protocol import Jet
from cpikan.fields.tensor_chebyshev import TensorChebyshev
from cpikan.learning.methods.gauss_newton import gauss_newton
from cpikan.learning.objective import half_squares
from cpikan.learning.strategies.block_band import BlockRows, folded, natural, solve_band
from cpikan.physics.linearise import contract, jet_at, pullback
from cpikan.physics.problem import Condition, Problem, Side

Residual = Callable[[Jet, Tensor, Jet | None], Tensor]
_PENALTY = 30.0  # weight of interfaces and walls: what they miss is then far below what the equation misses
_EXTRA = 2  # points per axis and interval beyond the modes
_STEPS, _HALVINGS = 25, 10
_DONE, _LEAST = 1e-9, 1e-13  # relative change of the cost, step


@dataclass
class Slab:
    """Times [begin, end] on intervals between ``knots`` (E + 1,); ``series`` holds their coefficients.

    ``before`` gives value and rate at ``begin`` from the slab before, None where the problem's own start holds.
    """

    problem: Problem
    knots: Tensor
    begin: float
    end: float
    modes: tuple[int, int]
    before: Callable[[Tensor], Jet] | None = None
    series: TensorChebyshev = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.knots) - 1
        lower = torch.stack([self.knots[:-1], torch.full((count,), self.begin, dtype=torch.float64)], -1)
        upper = torch.stack([self.knots[1:], torch.full((count,), self.end, dtype=torch.float64)], -1)
        self.series = TensorChebyshev(self.modes, (lower, upper), networks=count)

    @property
    def widths(self) -> Tensor:
        """Divide the lengths of the intervals by that of the axis, (E,)."""
        return self.knots.diff() / (self.knots[-1] - self.knots[0])

    def guess(self, start: Callable[[Tensor], Tensor]) -> None:
        """Set the coefficients to those of a function ``start`` of points (B, 2), interpolated at Chebyshev nodes."""
        x = self._grid(*self.modes)
        features = self.series.features(x)
        values = start(x.flatten(0, 1)).reshape(*x.shape[:2], 1)
        # the default driver (gelsy) begins from pivots that are not set: its last bits differ from run to run
        self.series.set_output_coefficients(torch.linalg.lstsq(features, values, driver="gels").solution)

    def solve(self) -> int:
        """Solve by Gauss-Newton from the coefficients as they are; gives the number of steps."""
        order = (folded if any(c.period for c in self.problem.conditions) else natural)(len(self.widths))
        return gauss_newton(_SlabSystem(self, order), _STEPS, _HALVINGS, _DONE, _LEAST)[1]

    def largest(self) -> float:
        """Find the largest absolute value of the series at its Chebyshev nodes."""
        with torch.no_grad():
            return float(self.series(self._grid(*self.modes)).abs().max())

    def tails(self) -> tuple[Tensor, Tensor]:
        """Find the largest of the last two coefficients along x and along t, per interval (E,)."""
        size = self.series.coefficients.detach().abs()
        return size[:, -2:].amax(dim=(1, 2)), size[:, :, -2:].amax(dim=(1, 2))

    def _grid(self, nx: int, nt: int) -> Tensor:
        """Place Chebyshev nodes in every box, (E, nx nt, 2)."""
        grid = torch.cartesian_prod(_nodes(nx), _nodes(nt))
        return self.series.scaling.inverse(grid.expand(len(self.knots) - 1, -1, -1))

    def _sets(self) -> list[_Set]:
        nx, nt = (m + _EXTRA for m in self.modes)
        problem, series = self.problem, self.series
        grid = (self._grid(nx, nt), torch.arange(len(self.widths)))
        inside = _Set(self, lambda jet, at, _: torch.cat(list(problem.interior(jet, at).values())), grid)
        inside.weight = ((self.widths / (nx * nt)).sqrt() / inside.time_scale(self.end - self.begin))[:, None]
        line = series.scaling.inverse(_line(_nodes(nx), -1.0, 1).expand(len(self.widths), -1, -1))
        starts = self._starts(line)
        for rows in starts:
            rows.weight = (self.widths / nx).sqrt()[:, None]
        tight = torch.as_tensor(_PENALTY / nt**0.5)
        low, high = (
            series.scaling.inverse(_line(_nodes(nt), end, 0).expand(len(self.widths), -1, -1)) for end in (-1.0, 1.0)
        )
        walls = [
            rows for c in problem.conditions if c.on != ("t=min",) for rows in self._walls(c, low[:1], high[-1:], tight)
        ]
        return [inside, *starts, *self._interfaces(low, high, tight), *walls]

    def _starts(self, line: Tensor) -> list[_Set]:
        """Collect the residuals at the start: of the problem's conditions, or against the end of the slab before."""
        conditions = [c for c in self.problem.conditions if c.on == ("t=min",)]
        place = (line, torch.arange(len(line)))
        if self.before is None:
            return [_Set(self, _condition(c, "t=min"), place) for c in conditions]
        known, span = self.before(line.flatten(0, 1)), self.end - self.begin
        sets = [_Set(self, lambda jet, at, _: jet.value[..., 0] - known.value[..., 0], place)]
        if len(conditions) > 1:  # second order in time
            rate = known.gradient[..., 0, 1]
            sets.append(_Set(self, lambda jet, at, _: span * (jet.gradient[..., 0, 1] - rate), place))
        return sets

    def _interfaces(self, low: Tensor, high: Tensor, tight: Tensor) -> list[_Set]:
        """Collect the residuals of equal values and slopes where intervals meet."""
        left = torch.arange(len(self.widths) - 1)
        if not len(left):
            return []
        sets = [_Set(self, _jump(number), (high[:-1], left), (low[1:], left + 1)) for number in (0, 1)]
        sets[0].weight, sets[1].weight = tight, tight * self._reach(left)[:, None]
        return sets

    def _walls(self, condition: Condition, low: Tensor, high: Tensor, tight: Tensor) -> list[_Set]:
        """Collect the residuals of a condition at one or both ends of the axis, or across it."""
        ends = {"x=min": (low, torch.tensor([0])), "x=max": (high, torch.tensor([len(self.widths) - 1]))}
        if condition.period is not None:
            found = [_Set(self, _condition(condition, "x=min"), *ends.values())]
        else:
            names = condition.on if condition.on is not None else self.problem.region.walls
            found = [_Set(self, _condition(condition, name), ends[name]) for name in names]
        for rows in found:
            rows.weight = tight / rows.row_scale()
        return found

    def _reach(self, chosen: Tensor) -> Tensor:
        """Divide the shorter of two neighbouring intervals by the modes: slopes times this are value differences."""
        size = self.knots.diff()
        return torch.minimum(size[chosen], size[chosen + 1]) / self.modes[0]


class _SlabSystem:
    """The least-squares problem of a slab's coefficients; what was linearised for a trial serves the next step."""

    def __init__(self, slab: Slab, order: Tensor) -> None:
        self._slab, self._order = slab, order
        self._sets = slab._sets()
        self._rows: list[BlockRows] = []

    def position(self) -> Tensor:
        return self._slab.series.coefficients.detach().clone()

    @torch.no_grad()
    def put(self, position: Tensor) -> None:
        self._slab.series.coefficients.copy_(position)
        self._rows = []

    def cost(self) -> float:
        """Sum the squares of all residuals; infinite where the sum is not finite."""
        self._rows = self._rows or [one.rows() for one in self._sets]
        cost = sum(float(2 * half_squares(one.residual)) for one in self._rows)
        return cost if math.isfinite(cost) else math.inf

    def step(self) -> tuple[float, Tensor]:
        cost = self.cost()
        return cost, solve_band(self._rows, self._order).reshape(self._slab.series.coefficients.shape)


class _Set:
    """Residuals of one kind at one or two ``places``: points (N, B, 2) and the boxes (N,) that they lie in."""

    def __init__(self, slab: Slab, function: Residual, *places: tuple[Tensor, Tensor]) -> None:
        self._slab, self._function = slab, function
        self._points = places[0][0]
        self._boxes = [boxes for _, boxes in places]
        self._bases = [self._basis(*place) for place in places]
        self.weight = torch.ones(())

    def _basis(self, points: Tensor, index: Tensor) -> Jet:
        scaling = self._slab.series.scaling
        some = TensorChebyshev(self._slab.modes, (scaling.lower[index], scaling.upper[index]), networks=len(index))
        return some.features_jet(points, self._slab.problem.second)

    def row_scale(self) -> float:
        """Compute the RMS length of the rows over that of a value's rows: conditions on slopes are brought to it."""
        _, blocks, _ = self._linearised()
        plain = self._bases[0].value.square().sum(-1).mean()
        return float((blocks[0].square().sum(-1).mean() / plain).sqrt())

    def time_scale(self, span: float) -> float:
        """Estimate the change of a residual per change of the value over a time ``span``; the quotient is a value."""
        _, _, push = self._linearised()
        first = push.gradient[..., 0, 1].square().mean().sqrt() / span
        curve = torch.zeros(1)
        if push.second.numel():
            curve = push.second[..., 0, 1] if push.second.ndim == push.gradient.ndim else push.second[..., 0, 1, 1]
        found = float(first + 8 * curve.square().mean().sqrt() / span**2)
        return found if found > 0 else 1.0

    def rows(self) -> BlockRows:
        """Compute weighted residuals and Jacobian at the coefficients as they are."""
        residual, blocks, _ = self._linearised()
        jacobian = torch.stack([self.weight[..., None] * block for block in blocks], dim=1)
        second = self._boxes[1] if len(self._boxes) > 1 else None
        return BlockRows(self._boxes[0], second, jacobian, self.weight * residual)

    def _linearised(self) -> tuple[Tensor, list[Tensor], Jet]:
        """Compute residuals (N, rows), Jacobians (N, rows, K) by both boxes, and dr/djet of the last equation."""
        coefficients = self._slab.series.output_coefficients().detach()
        jets = [jet_at(basis, coefficients[index]) for basis, index in zip(self._bases, self._boxes, strict=True)]
        n, b = self._points.shape[:2]
        flat = [Jet(*(part.flatten(0, 1) for part in jet)) for jet in jets]
        residual = self._function(flat[0], self._points.flatten(0, 1), flat[1] if len(flat) > 1 else None)
        residual = residual.reshape(-1, n, b)
        pushes = [pullback(one, jets) for one in residual]
        blocks = [
            torch.cat([contract([basis], [push[number]]) for push in pushes], dim=1)
            for number, basis in enumerate(self._bases)
        ]
        return residual.detach().movedim(0, 1).flatten(1), blocks, pushes[-1][0]


def _jump(number: int) -> Residual:
    def jump(jet: Jet, at: Tensor, other: Jet | None) -> Tensor:
        assert other is not None
        if number == 0:
            return jet.value[..., 0] - other.value[..., 0]
        return jet.gradient[..., 0, 0] - other.gradient[..., 0, 0]

    return jump


_NORMALS = {"t=min": (0.0, -1.0), "x=min": (-1.0, 0.0), "x=max": (1.0, 0.0)}


def _condition(condition: Condition, part: str) -> Residual:
    def residual(jet: Jet, at: Tensor, other: Jet | None) -> Tensor:
        normals = torch.tensor(_NORMALS[part], dtype=at.dtype).expand(len(at), -1)
        return condition.residual(jet, Side(at, normals, other, None))

    return residual


def _nodes(count: int) -> Tensor:
    return -torch.cos(torch.pi * (torch.arange(count, dtype=torch.float64) + 0.5) / count)


def _line(nodes: Tensor, end: float, axis: int) -> Tensor:
    """Place points of the scaled square along a side: ``axis`` is fixed at ``end``."""
    fixed = torch.full_like(nodes, end)
    return torch.stack([fixed, nodes] if axis == 0 else [nodes, fixed], dim=-1)
