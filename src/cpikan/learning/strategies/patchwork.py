"""Patchwork: a problem on the subdomains of a grid with a product Chebyshev series each, as one least-squares system."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from cpikan.fields.decomposed import DecomposedField
from cpikan.fields.levelled import LevelledField
from cpikan.fields.product_chebyshev import ProductChebyshev, interpolate
from cpikan.fields.protocol import Jet
from cpikan.learning.samplers.points import Points, measured_part
from cpikan.learning.share import WHOLE, Share
from cpikan.learning.strategies.cells import Cells, Spots, cells_of, pairs_of
from cpikan.learning.strategies.curve_nodes import nodes_on
from cpikan.learning.strategies.row_set import Residual, RowSet
from cpikan.learning.strategies.window_rows import WindowRows
from cpikan.learning.subdomains import Subdomains
from cpikan.physics.evolution import parts_of
from cpikan.physics.interfaces import couplings, own_faces
from cpikan.physics.problem import Condition, Problem, Side
from cpikan.physics.regions import Box
from cpikan.streaming.ranks import ALONE, Ranks

_PENALTY = 30.0  # weight of interfaces and walls: what they miss is then far below what the equation misses
_ROWS_PER_MODE = 1.4  # points per axis of overlapping windows, of the modes, over the two parts of a subdomain
_DUST = 4e-14  # of the largest coefficient: rounding is no sign of what has not converged
_EXTRA = 2  # points per axis and subdomain beyond the modes
_LEVEL, _LIFT = 1e-4, 1e-2  # weights of zero and of standing still in a start that meets the conditions
_ASIDE = 1e-9  # of the size of a region: how far inside the subdomain of a point on its boundary is looked for


@dataclass
class Patchwork:
    """The series of all subdomains, ``series``, of ``modes`` per axis, and the rows that they have to satisfy.

    ``unit`` (outputs,) is the size of each output. Of several processes each has the rows of its own ``share``.
    """

    problem: Problem
    cut: Subdomains
    modes: tuple[int, ...]
    unit: Tensor
    ranks: Ranks = ALONE

    def __post_init__(self) -> None:
        self.partitions = self.cut.partitions(self.problem)
        # boxes that meet, and intervals under the windows of one level, share rows in pairs
        pairs = self.cut.sharp or (self.problem.dimension == 1 and self.cut.levels == 1)
        self.share = WHOLE if self.ranks.size == 1 else Share(self.ranks, self.places, pairs)
        self._local: list[tuple[RowSet, Spots]] = []
        boxes = [DecomposedField.boxes(one) for one in self.partitions]
        lower, upper = ([bound for pair in boxes for bound in pair[side]] for side in (0, 1))
        self.series = ProductChebyshev(
            self.modes, (lower, upper), outputs=self.problem.outputs, networks=sum(map(len, self.partitions))
        )

    @property
    def places(self) -> Tensor:
        """Give the middle of every subdomain in units of the finest grid, (E, d)."""
        fine = self.partitions[-1]
        found = []
        for level in self.partitions:
            axes = []
            for axis, one in zip(fine.axes, level.axes, strict=True):
                middle = [0.5 * (low + high) for low, high in map(one.core, range(len(one)))]
                places = (axis.lower, *axis.cuts, axis.upper)
                axes.append(np.interp(middle, places, np.arange(len(places))))
            found.append(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes)))
        return torch.from_numpy(np.concatenate(found))

    def field(self) -> DecomposedField | LevelledField:
        """Make the field of the series as they are."""
        sizes = [len(one) for one in self.partitions]
        scaling = self.series.scaling
        parts = zip(
            *(whole.split(sizes) for whole in (scaling.lower, scaling.upper, self.series.coefficients.detach())),
            strict=True,
        )
        levels = []
        for partition, (lower, upper, coefficients) in zip(self.partitions, parts, strict=True):
            own = ProductChebyshev(self.modes, (lower, upper), outputs=self.problem.outputs, networks=len(partition))
            own.set_output_coefficients(coefficients)
            levels.append(DecomposedField(partition, own))
        return levels[0] if len(levels) == 1 else LevelledField(*levels)

    @property
    def points(self) -> int:
        """Count the points at which the equation is taken."""
        return sum(int((spots.weight > 0).sum()) for cells in self._cells for spots in cells.inside)

    def roughness(self) -> list[Tensor]:
        """Tell for every interval of every axis of the finest level how far its series are from having converged, relative.

        The last two coefficients along the axis, and what equation and conditions miss (after ``sets``); of boxes that the
        boundary cuts the latter alone, as they may have large coefficients of what is not seen.
        """
        fine = self.partitions[-1]
        table = self.series.coefficients.detach()[-len(fine) :].abs().unflatten(1, self.modes)
        size = torch.maximum(table.flatten(1, -2).amax(dim=(0, 1)), 1e-6 * table.max()).clamp_min(1e-300)
        missed = self._missed()[-len(fine) :] / float(self.unit.max())
        whole = self._uncut()[-len(fine) :]
        tails = torch.stack(
            [(table / size).movedim(axis + 1, 1)[:, -2:].flatten(1).amax(dim=1) for axis in range(len(self.modes))]
        )
        tails = (tails - _DUST).clamp_min(0.0)
        rough = tails.amax(dim=0).clamp_min(1e-300)
        found = []
        for axis, tail in enumerate(tails):
            inside = torch.maximum(tail, missed * tail / rough)  # along the axis on which it varies most
            score = torch.where(whole, inside, missed).reshape(fine.counts)
            found.append(score.movedim(axis, 0).reshape(fine.counts[axis], -1).amax(dim=1))
        return found

    def _missed(self) -> Tensor:
        """Find the root mean square of what equation and conditions miss in every box, in the unit of the solution, (E,)."""
        found = torch.zeros(len(self.series.coefficients), dtype=torch.float64)
        for rows, spots in self._local:
            block = rows.rows()
            size = spots.weight.expand(1, *spots.weight.shape[1:])[0, : rows.used].square().sum(dim=1)
            count = block.residual.shape[1] // spots.points.shape[1]
            share = (block.residual.square().sum(dim=1) / (count * size).clamp_min(1e-300)).sqrt()
            found.scatter_reduce_(0, block.blocks[:, 0], share, "amax")
        return self.ranks.largest(found)

    def _uncut(self) -> Tensor:
        """Tell which boxes lie inside the region, (E,)."""
        found = torch.zeros(len(self.series.coefficients), dtype=torch.bool)
        for cells in self._cells:
            for spots in cells.inside:
                found[spots.boxes[(spots.weight[0] > 0).all(dim=1)].flatten()] = True
        return found

    def guess(self, start: Callable[[Tensor], Tensor]) -> None:
        """Begin with the values of a function of points (B, d); coarser levels stay at zero."""
        interpolate(self.series, start)
        coarse = len(self.series.coefficients) - len(self.partitions[-1])
        with torch.no_grad():
            self.series.coefficients[:coarse] = 0.0

    def lift(self) -> list[RowSet]:
        """Collect the residuals of a function that meets the conditions and varies as little as they let it."""
        low, high = (
            torch.tensor(end, dtype=torch.float64) for end in (self.problem.region.lower, self.problem.region.upper)
        )

        def still(jet: Jet, x: Tensor, other: Jet | None) -> list[Tensor]:
            slopes = _LIFT * (high - low) * jet.gradient / self.unit[:, None]
            return [*(_LEVEL * jet.value / self.unit).unbind(1), *slopes.flatten(1).unbind(1)]

        found = []
        for everywhere in (spots for cells in self._cells for spots in cells.inside):
            (spots,), _, used = self._mine(everywhere)
            found.append(self._rows(still, used, spots, second=False))
            found[-1].weight = spots.weight
        return [*found, *self._interfaces(), *self._walls(), *self._measured()]

    def sets(self) -> list[RowSet]:
        """Collect all residuals with their weights."""
        self._local.clear()
        found = [rows for cells in self._cells for rows in self._inside(cells)]
        return [*found, *self._interfaces(), *self._walls(), *self._measured()]

    @cached_property
    def _cells(self) -> list[Cells]:
        return cells_of(self.partitions, self.problem.region, self._counts)

    @property
    def _counts(self) -> tuple[int, ...]:
        if self.cut.sharp:
            return tuple(modes + _EXTRA for modes in self.modes)
        return tuple(math.ceil(0.5 * _ROWS_PER_MODE * modes) + _EXTRA for modes in self.modes)

    def _mine(self, *places: Spots) -> tuple[list[Spots], Tensor, int]:
        """Take what this process works on: spots, the numbers of their cells, and how many of them have rows.

        Where it has none the first cell stays, without rows, so that all processes go the same way.
        """
        if self.share.alone:
            return list(places), torch.arange(len(places[0].boxes)), len(places[0].boxes)
        near = self.share.near(torch.cat([spots.boxes for spots in places], dim=1))
        index = near if len(near) else torch.zeros(1, dtype=torch.long)
        chosen = [Spots(spots.points[index], spots.boxes[index], spots.weight[:, index]) for spots in places]
        return chosen, index, len(near)

    def _rows(self, function: Residual, used: int, *places: Spots, second: bool = True) -> RowSet:
        wanted = self.problem.second if second else "none"
        at = [(spots.points, spots.boxes) for spots in places]
        if self.cut.sharp:
            found = RowSet(self.series, self.unit, wanted, function, *at)
        else:
            found = WindowRows(self.partitions, self.series, self.unit, wanted, function, *at)
        found.used = used
        return found

    def _inside(self, cells: Cells) -> list[RowSet]:
        """Weigh the equation by what a change of the solution over a subdomain makes of it: squares make a mean."""

        def equation(jet: Jet, x: Tensor, other: Jet | None) -> list[Tensor]:
            return list(self.problem.interior(jet, x).values())

        found = []
        for everywhere in cells.inside:
            (spots,), _, used = self._mine(everywhere)
            rows = self._rows(equation, used, spots)
            rows.weight = spots.weight / rows.size_scale()
            found.append(rows)
            self._local.append((rows, spots))
        return found

    def _interfaces(self) -> list[RowSet]:
        """Ask for what the coupling makes equal where subdomains meet, slopes in units of values."""
        if not self.cut.sharp:
            return []
        found = []
        for axis, *sides in pairs_of(self.partitions[-1], self.problem.region, self.modes, own_faces(self.problem)):
            (below, above), _, used = self._mine(*sides)
            extent = self.series.scaling.upper - self.series.scaling.lower
            shorter = torch.minimum(extent[below.boxes[:, 0], axis], extent[above.boxes[:, 0], axis])
            for one in couplings(self.problem, axis, self.cut.coupling, self.cut.flux):
                rows = self._rows(_across(one.residual), used, below, above, second=one.second)
                scale = rows.size_scale() if one.second else rows.row_scale(self.share)
                size = 1.0 if one.second else _PENALTY
                if one.slope:
                    scale = (self.modes[axis] / shorter)[None, :, None]
                rows.weight = size * self.cut.weight * below.weight / scale
                found.append(rows)
        return found

    def _walls(self) -> list[RowSet]:
        """Ask for the conditions on parts of the boundary, across periods and breaks."""
        found = []
        for condition in self.problem.conditions:
            if condition.at is not None:
                continue
            for part in parts_of(self.problem, condition):
                for everywhere, normals in self._spots_on(part, condition):
                    places, index, used = self._mine(*everywhere)
                    rows = self._rows(_on_wall(condition, normals[index]), used, *places, second=False)
                    rows.weight = _PENALTY * condition.weight * places[0].weight / rows.row_scale(self.share)
                    found.append(rows)
                    if len(places) == 1:
                        self._local.append((rows, places[0]))
        return found

    def _spots_on(self, part: str, condition: Condition) -> list[tuple[list[Spots], Tensor]]:
        """Place points on a part of the boundary, with those on the other side of a period or a break, and normals."""
        region = self.problem.region
        found: list[tuple[list[Spots], Tensor]] = []
        if not isinstance(region, Box):
            points, normals, weight = nodes_on(region, part, self.partitions, max(self.modes) + _EXTRA)
            size = max(high - low for low, high in zip(region.lower, region.upper, strict=True))
            for cells in self._cells:
                held = cells.holding(points, weight, points - _ASIDE * size * normals)
                found += [([spots], normals[index]) for spots, index in held]
            return found
        if part in region.inner:
            axis, place = region.inner[part]
            for _, below, above in pairs_of(self.partitions[-1], region, self.modes, (), only=(axis, place)):
                found.append(([below, above], _normal(below, axis, 1.0)))
            return found
        axis, end = region.side(part)
        for cells in self._cells:
            here = cells.side(axis, end)
            if here is not None:
                places = [here]
                if condition.period is not None:
                    there = cells.side(region.axes.index(condition.period), 1)
                    assert there is not None
                    places.append(there)
                found.append((places, _normal(here, axis, 2.0 * end - 1.0)))
        return found

    def _measured(self) -> list[RowSet]:
        """Ask for the conditions at points."""
        found = []
        for condition in self.problem.conditions:
            if condition.at is None or condition.across is not None:
                continue
            kept = measured_part(len(condition.at), Points(1, 0))
            points, data = (
                condition.at[kept].double(),
                None if condition.data is None else condition.data[kept].double(),
            )
            for cells in self._cells:
                for everywhere, index in cells.holding(points):
                    (spots,), cell, used = self._mine(everywhere)
                    values = None if data is None else data[index[cell]]
                    rows = self._rows(_at_points(condition, values), used, spots, second=False)
                    rows.weight = _PENALTY * condition.weight * spots.weight / rows.row_scale(self.share)
                    found.append(rows)
        return found


def can_patch(problem: Problem) -> bool:
    """Tell whether a problem is posed by residuals that each belong to one point, of outputs that vary."""
    coupled = any(condition.mix is not None for condition in problem.conditions)
    given = problem.unknowns or problem.constants
    return problem.energy is None and problem.form is None and not coupled and not given


def _across(residual: Callable[[Jet, Side], Tensor]) -> Residual:
    def function(jet: Jet, at: Tensor, other: Jet | None) -> list[Tensor]:
        return [residual(jet, Side(at, torch.zeros_like(at), other))]

    return function


def _on_wall(condition: Condition, normals: Tensor) -> Residual:
    flat = normals.flatten(0, 1)

    def function(jet: Jet, at: Tensor, other: Jet | None) -> list[Tensor]:
        return [condition.residual(jet, Side(at, flat, other))]

    return function


def _at_points(condition: Condition, data: Tensor | None) -> Residual:
    flat = None if data is None else data.flatten()

    def function(jet: Jet, at: Tensor, other: Jet | None) -> list[Tensor]:
        return [condition.residual(jet, Side(at, torch.zeros_like(at), None, flat))]

    return function


def _normal(spots: Spots, axis: int, sign: float) -> Tensor:
    normals = torch.zeros_like(spots.points)
    normals[..., axis] = sign
    return normals
