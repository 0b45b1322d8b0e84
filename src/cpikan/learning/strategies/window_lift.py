"""WindowLift: what a window of time begins with, written as series, and carried on as far as closed forms can."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from cpikan.fields.constrained import Ansatz
from cpikan.fields.lifted import Lift
from cpikan.fields.piecewise import PiecewiseChebyshev
from cpikan.fields.product_chebyshev import ProductChebyshev
from cpikan.fields.protocol import Jet
from cpikan.fields.rounded_kink import RoundedKink
from cpikan.learning.strategies.line_series import from_nodes, line_series, nodes
from cpikan.physics.evolution import Evolution
from cpikan.physics.linearise import pullback
from cpikan.physics.local_flow import LocalFlow
from cpikan.physics.problem import Problem
from cpikan.physics.regions import Box

_TIMES = 12  # modes of the data along time
_PLACES = 16  # modes along space on each interval
_EXACT = 1e-13  # tolerance of the series, relative
_KINK = 1e-3  # jump of the slope, of the largest value and slope at the ends: what is less is no kink
_NARROW = 12.0  # times the root of D t: what the layer of a kink may have of the axis
_SAME = 1e-9
_TRIED = 400  # points where lifts are compared
Values = Callable[[Tensor], Tensor]


class WindowLift:
    """The lift of a problem on the box of a window, from an ansatz that holds the values at its start.

    The series are on the intervals that the start needs, of as many modes in time as the data need. Where nothing but the
    start is held the start may be carried on by the local flow (`LocalFlow`), if that leaves less of the equation.
    """

    def __init__(self, problem: Problem, evolution: Evolution, ansatz: Ansatz) -> None:
        assert isinstance(problem.region, Box)
        self._problem, self._box, self._time, self._ansatz = problem, problem.region, evolution.time, ansatz
        self._space = [axis for axis in range(problem.dimension) if axis != self._time]

    def made(self) -> Lift:
        """Make the lift that leaves less of the equation."""
        still = self._rounded(self._series([self._start], self._held))
        flow = LocalFlow(self._problem, self._time) if self._space and self._start_alone() else None
        if flow is None or flow.along(*self._sample(), self._times()) is None:
            return still

        def last(x: Tensor) -> Tensor:
            return self._followed(flow, x, self._times()[-1:])[0]

        moved = self._series([self._start, last], lambda grid: self._moved(flow, grid))
        return min((still, self._rounded(moved)), key=self._left)

    def _start_alone(self) -> bool:
        """Tell whether the ansatz holds values at the start and nowhere else."""
        ends: object = getattr(self._ansatz.distance, "ends", None)
        return ends == (((self._time, False),),) * self._problem.outputs

    def _times(self) -> Tensor:
        """Give the times of the modes, rising."""
        low, high = self._box.lower[self._time], self._box.upper[self._time]
        return low + (high - low) * (torch.from_numpy(nodes(_TIMES)[::-1].copy()) + 1) / 2

    def _at(self, x: Tensor, time: float) -> Tensor:
        return torch.where(torch.arange(x.shape[-1]) == self._time, time, x)

    def _sample(self) -> tuple[Tensor, Tensor]:
        """Give a few points of the start with their values."""
        unit = np.random.default_rng(1).random((8, self._problem.dimension))
        x = self._at(torch.from_numpy(self._box.inside(unit, False)), self._box.lower[self._time])
        return x, self._ansatz.lift(x)

    def _start(self, x: Tensor) -> Tensor:
        """Evaluate the start at points (B, d) of any time, (B, outputs)."""
        return self._ansatz.lift(self._at(x, self._box.lower[self._time]))

    def _followed(self, flow: LocalFlow, x: Tensor, times: Tensor) -> Tensor:
        """Follow the start at points (B, d) through times (m,), (m, B, outputs)."""
        begin = self._at(x, self._box.lower[self._time])
        found = flow.along(begin, self._ansatz.lift(begin), times)
        return begin.new_full((len(times), len(x), self._problem.outputs), torch.nan) if found is None else found

    def _held(self, grid: Tensor) -> Tensor:
        """Evaluate the ansatz's lift on a grid (N, modes..., d), (N, modes..., outputs)."""
        return self._ansatz.lift(grid.reshape(-1, grid.shape[-1])).reshape(*grid.shape[:-1], -1)

    def _moved(self, flow: LocalFlow, grid: Tensor) -> Tensor:
        """Follow the start on a grid (N, modes..., d), less what its interpolant in time misses at the beginning."""
        at = grid.select(self._time + 1, 0)
        flat = at.reshape(-1, at.shape[-1])
        values = self._followed(flow, flat, self._times()).flip(0)  # in the order of the nodes
        basis = np.polynomial.chebyshev.chebvander([-1.0], _TIMES - 1) @ from_nodes(_TIMES)
        first = torch.tensordot(torch.from_numpy(basis), values, dims=([1], [0]))
        exact = values - first + self._start(flat)
        return exact.movedim(0, 1).reshape(*at.shape[:-1], _TIMES, -1).movedim(-2, self._time + 1)

    def _series(self, ends: Sequence[Values], values: Values) -> PiecewiseChebyshev:
        """Interpolate values on a grid, on the intervals that functions of space ask for."""
        box, axes = self._box, range(self._problem.dimension)
        knots = [np.array([low, high]) for low, high in zip(box.lower, box.upper, strict=True)]
        for axis in self._space:
            knots[axis] = self._knots(ends, axis)
        modes = [_TIMES if axis == self._time else _PLACES for axis in axes]
        low = torch.tensor(list(itertools.product(*(k[:-1] for k in knots))), dtype=torch.float64)
        high = torch.tensor(list(itertools.product(*(k[1:] for k in knots))), dtype=torch.float64)
        unit = torch.from_numpy(np.stack(np.meshgrid(*(nodes(m) for m in modes), indexing="ij"), -1))
        middle, half = ((high + sign * low).reshape(-1, *(1,) * len(modes), len(modes)) / 2 for sign in (1, -1))
        with torch.no_grad():
            table = values(middle + half * unit)
        for axis in axes:
            matrix = torch.from_numpy(from_nodes(modes[axis]))
            table = torch.movedim(torch.tensordot(matrix, table, dims=([1], [axis + 1])), 0, axis + 1)
        table, modes[self._time] = _trimmed(table, self._time + 1)
        series = ProductChebyshev(modes, (low, high), outputs=table.shape[-1], networks=len(low))
        series.set_output_coefficients(table.flatten(1, -2))
        return PiecewiseChebyshev(series)

    def _knots(self, ends: Sequence[Values], axis: int) -> np.ndarray:
        """Find the intervals on which functions of space converge."""

        @torch.no_grad()
        def values(x: np.ndarray) -> np.ndarray:
            points = torch.full((len(x), self._problem.dimension), self._box.lower[self._time], dtype=torch.float64)
            points[:, axis] = torch.from_numpy(x)
            return np.concatenate([function(points).numpy() for function in ends], axis=-1)

        return line_series(values, self._box.lower[axis], self._box.upper[axis], _EXACT).knots

    @torch.no_grad()
    def _left(self, lift: Lift) -> float:
        """Give the mean square that a lift leaves of the equation."""
        unit = np.random.default_rng(2).random((_TRIED, self._problem.dimension))
        x = torch.from_numpy(self._box.inside(unit, False))
        found = self._problem.interior(lift.jet(x, self._problem.second), x).values()
        size = float(sum(value.square().mean() for value in found))
        return size if np.isfinite(size) else np.inf

    def _rounded(self, series: PiecewiseChebyshev) -> Lift:
        """Round the kink of a series where the period closes, if it has one, diffusion is constant, and the layer narrow."""
        for axis in self._space:
            if any(condition.period == self._box.axes[axis] for condition in self._problem.conditions):
                kink = self._kink(series, axis)
                if kink is not None:
                    return kink
        return series

    @torch.no_grad()
    def _kink(self, series: PiecewiseChebyshev, axis: int) -> RoundedKink | None:
        """Round the kink at the ends of an axis; None where there is none to be rounded."""
        box, times = self._box, self._times().flip(0)
        ends = torch.tensor(box.lower, dtype=torch.float64).repeat(2, len(times), 1)
        ends[1, :, axis] = box.upper[axis]
        ends[..., self._time] = times
        jet = series.jet(ends, "none")
        slope = jet.gradient[..., axis]
        jump = torch.from_numpy(from_nodes(len(times))) @ (slope[0] - slope[1])
        size = max(float(jet.value.abs().max()), float(slope.abs().max()))
        if not float(jump[0].abs().max()) > _KINK * size:
            return None
        rate = self._diffusivity(self._at(ends[0, :1], box.lower[self._time]), series, axis)
        length, last = box.upper[axis] - box.lower[axis], box.upper[self._time] - box.lower[self._time]
        if rate is None or _NARROW * float((rate * last).sqrt().max()) > length / 2:
            return None
        return RoundedKink(series, axis, self._time, (box.lower, box.upper), rate.tolist(), jump)

    def _diffusivity(self, x: Tensor, series: PiecewiseChebyshev, axis: int) -> Tensor | None:
        """Read the factors D of u_t = D u_xx + ... off the equation at a point (1, d), one for each output; None where each
        output does not have one of its own."""
        if self._problem.second not in ("axes", "full"):
            return None
        with torch.enable_grad():
            jet = Jet(*(part.requires_grad_() for part in series.jet(x, self._problem.second)))
            pushes = [pullback(value, [jet])[0] for value in self._problem.interior(jet, x).values()]
        by_rate = torch.cat([push.gradient[..., self._time] for push in pushes])
        place = (..., axis) if self._problem.second == "axes" else (..., axis, axis)
        by_bend = torch.cat([push.second[place] for push in pushes])
        if by_rate.shape[0] != by_rate.shape[1] or float(torch.linalg.det(by_rate)) == 0.0:
            return None
        found = -torch.linalg.solve(by_rate, by_bend)
        rate = found.diagonal()
        apart = (found - torch.diag(rate)).abs().max() <= _SAME * rate.abs().max()
        return rate if bool(apart) and bool((rate > 0).all()) else None


def _trimmed(table: Tensor, axis: int) -> tuple[Tensor, int]:
    """Leave out the last coefficients along an axis that are rounding; gives their number too."""
    sizes = torch.movedim(table, axis, 0).flatten(1).abs().amax(dim=1)
    needed = torch.nonzero(sizes > 10 * _EXACT * sizes.amax())
    count = int(needed.max()) + 1 if len(needed) else 1
    return torch.narrow(table, axis, 0, count), count
