"""Cells: parts of a region in which the same subdomains make the solution, and points in them, on their sides and faces."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cpikan.fields.product_chebyshev import chebyshev_nodes
from cpikan.partition import Partition
from cpikan.physics.regions import Box, Region

_DENSER = 2  # times as many points per axis in cells that the boundary cuts


class Spots(NamedTuple):
    """Points (N, B, d) in N cells, the boxes (N, M) that make the solution there, and weights (1, N, B) of the points.

    The squares of the weights of all points of a kind add up to one, but for cells without: squares make a mean. Places
    that are left over repeat a point with weight zero.
    """

    points: Tensor
    boxes: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Cells:
    """N boxes from ``lower`` to ``upper`` (N, d), in each of which the M subdomains ``boxes`` (N, M) make the solution.

    ``inside`` are points in them, one set for those inside the region and one for those that its boundary cuts; ``counts``
    are points per axis, and ``bounds`` the ends of the whole.
    """

    lower: Tensor
    upper: Tensor
    boxes: Tensor
    inside: tuple[Spots, ...]
    counts: tuple[int, ...]
    bounds: tuple[Tensor, Tensor]

    def side(self, axis: int, end: int) -> Spots | None:
        """Place points on the sides of cells at one end of an axis of the whole; None where there are none."""
        here = self.upper[:, axis] == self.bounds[1][axis] if end else self.lower[:, axis] == self.bounds[0][axis]
        index = torch.nonzero(here).squeeze(1)
        if not len(index):
            return None
        nodes = [chebyshev_nodes(count) for count in self.counts]
        nodes[axis] = torch.tensor([2.0 * end - 1.0]).double()
        points = _placed(self.lower[index], self.upper[index], nodes)
        points[..., axis] = self.bounds[end][axis]
        share = _share(self.lower[index], self.upper[index], self.bounds, axis)
        return Spots(
            points, self.boxes[index], (share / points.shape[1]).sqrt()[None, :, None].expand(-1, -1, points.shape[1])
        )

    def holding(
        self, points: Tensor, weight: Tensor | None = None, aside: Tensor | None = None
    ) -> list[tuple[Spots, Tensor]]:
        """Sort points (n, d) into the cells that hold them, those of about equally many together; with their numbers (N, B).

        ``weight`` (n,) is that of every point, by default the root of its share in all. Points ``aside`` of them say which cell
        it is where a boundary runs along a side.
        """
        weight = torch.full((len(points),), len(points) ** -0.5, dtype=torch.float64) if weight is None else weight
        order, owner = self._owners(points if aside is None else aside)
        if not len(order):
            return []
        cells, counts = torch.unique_consecutive(owner, return_counts=True)
        starts = counts.cumsum(0) - counts
        size = torch.ceil(torch.log2(counts.double()))
        found = []
        for level in size.unique():
            chosen = torch.nonzero(size == level).squeeze(1)
            place = torch.arange(int(counts[chosen].max()))
            filled = place < counts[chosen, None]
            index = order[starts[chosen, None] + torch.where(filled, place, 0)]
            spots = Spots(points[index], self.boxes[cells[chosen]], (weight[index] * filled)[None])
            found.append((spots, index))
        return found

    def _owners(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """List numbers of points, sorted by cells, and the cell of each: those half open boxes that hold them."""
        last = self.upper == self.bounds[1]
        rows, owners = [], []
        for start in range(0, len(points), 512):
            x = points[start : start + 512, None]
            held = ((x >= self.lower) & ((x < self.upper) | (last & (x <= self.upper)))).all(dim=-1)
            pair = torch.nonzero(held)
            rows.append(pair[:, 0] + start)
            owners.append(pair[:, 1])
        row, owner = torch.cat(rows), torch.cat(owners)
        order = torch.argsort(owner, stable=True)
        return row[order], owner[order]


def cells_of(partitions: Sequence[Partition[float]], region: Region, counts: tuple[int, ...]) -> list[Cells]:
    """Cut the box around a region where a window begins or ends, and group the cells by how many subdomains make them."""
    axes = range(len(partitions[0].axes))
    places = [_ends(partitions, axis) for axis in axes]
    lower, upper = (
        torch.cartesian_prod(*[ends[side : len(ends) - 1 + side] for ends in places]).reshape(-1, len(places))
        for side in (0, 1)
    )
    middles = 0.5 * (lower + upper)
    lists = [_boxes_at(partitions, middle) for middle in middles.tolist()]
    bounds = (torch.stack([ends[0] for ends in places]), torch.stack([ends[-1] for ends in places]))
    found = []
    for many in sorted({len(one) for one in lists}):
        index = torch.tensor([number for number, one in enumerate(lists) if len(one) == many])
        boxes = torch.tensor([lists[number] for number in index.tolist()])
        spots = _inside(lower[index], upper[index], boxes, region, counts, bounds)
        found.append(Cells(lower[index], upper[index], boxes, spots, counts, bounds))
    return found


def pairs_of(
    partition: Partition[float],
    region: Region,
    modes: Sequence[int],
    without: Sequence[tuple[int, float]],
    only: tuple[int, float] | None = None,
) -> list[tuple[int, Spots, Spots]]:
    """Place points on the faces between boxes that meet, axis by axis: as many as there are modes along the face.

    Faces at places ``without`` are left out, or those at ``only`` are taken alone; points outside the region have no weight.
    """
    numbers = torch.arange(len(partition)).reshape(partition.counts)
    lower, upper = _cores(partition)
    bounds = (lower.amin(dim=0), upper.amax(dim=0))
    found = []
    for axis in range(len(partition.axes)):
        count = partition.counts[axis]
        if only is not None and axis != only[0]:
            continue
        kept = [n for n, cut in enumerate(partition.axes[axis].cuts) if _taken(axis, cut, without, only)]
        if count < 2 or not kept:
            continue
        below, above = (numbers.index_select(axis, torch.tensor(kept) + side).flatten() for side in (0, 1))
        share = _share(lower[below], upper[below], bounds, axis)
        whole = torch.zeros(len(below), dtype=torch.bool)
        for dense in (1, _DENSER):  # on faces that the boundary cuts there are more points, of which those inside count
            nodes = [chebyshev_nodes(dense * m) for m in modes]
            nodes[axis] = torch.tensor([1.0]).double()
            points = _placed(lower[below], upper[below], nodes)
            held = torch.from_numpy(region.contains(points.flatten(0, 1).numpy()).reshape(points.shape[:2]))
            met = held.all(dim=1) if dense == 1 else held.any(dim=1) & ~whole
            whole = held.all(dim=1)
            if bool(met.any()):
                weight = ((share / points.shape[1]).sqrt()[:, None] * held)[met][None]
                points = _repeated(points[met], held[met])
                pair = [Spots(points, side[met][:, None], weight) for side in (below, above)]
                found.append((axis, pair[0], pair[1]))
    return found


def _taken(axis: int, cut: float, without: Sequence[tuple[int, float]], only: tuple[int, float] | None) -> bool:
    near = [math.isclose(cut, place, rel_tol=1e-12, abs_tol=1e-300) for a, place in without if a == axis]
    return not any(near) and (only is None or math.isclose(cut, only[1], rel_tol=1e-12, abs_tol=1e-300))


def _ends(partitions: Sequence[Partition[float]], axis: int) -> Tensor:
    """List where a window begins, ends or hands over, along an axis."""
    places = set()
    for partition in partitions:
        one = partition.axes[axis]
        places |= {one.lower, one.upper}
        for start, cut in zip(one.ramps, one.cuts, strict=True):
            places |= {max(start, one.lower), min(start + one.ramp, one.upper)} if one.ramp else {cut}
    ordered = sorted(places)
    least = 1e-9 * (ordered[-1] - ordered[0])
    kept = [ordered[0], *(b for a, b in itertools.pairwise(ordered) if b - a > least)]
    kept[-1] = ordered[-1]
    return torch.tensor(kept, dtype=torch.float64)


def _boxes_at(partitions: Sequence[Partition[float]], point: Sequence[float]) -> list[int]:
    """List the subdomains of all levels whose windows hold a point, numbered through."""
    found, first = [], 0
    for partition in partitions:
        held = []
        for axis, x in zip(partition.axes, point, strict=True):
            owner = axis.owner(x)
            near = [i for i in (owner - 1, owner, owner + 1) if 0 <= i < len(axis)]
            held.append([i for i in near if axis.support(i)[0] <= x < axis.support(i)[1] or i == owner])
        positions = itertools.product(*held)
        found += [first + int(np.ravel_multi_index(position, partition.counts)) for position in positions]
        first += len(partition)
    return found


def _inside(
    lower: Tensor, upper: Tensor, boxes: Tensor, region: Region, counts: tuple[int, ...], bounds: tuple[Tensor, Tensor]
) -> tuple[Spots, ...]:
    """Place Chebyshev nodes in cells; in those that the boundary cuts more of them, of which the ones inside count."""
    share = _share(lower, upper, bounds, None)
    nodes = [chebyshev_nodes(count) for count in counts]
    points = _placed(lower, upper, nodes)
    if isinstance(region, Box):
        return (Spots(points, boxes, (share / points.shape[1]).sqrt()[None, :, None].expand(-1, -1, points.shape[1])),)
    dense = _placed(lower, upper, [chebyshev_nodes(_DENSER * count) for count in counts])
    held = torch.from_numpy(region.contains(dense.flatten(0, 1).numpy()).reshape(dense.shape[:2]))
    whole, cut = held.all(dim=1), held.any(dim=1) & ~held.all(dim=1)
    found = []
    for some, at, inside in ((whole, points, torch.ones(points.shape[:2], dtype=torch.bool)), (cut, dense, held)):
        if bool(some.any()):
            weight = ((share / at.shape[1]).sqrt()[:, None] * inside)[some][None]
            found.append(Spots(_repeated(at[some], inside[some]), boxes[some], weight))
    return tuple(found)


def _repeated(points: Tensor, held: Tensor) -> Tensor:
    """Put the first point that is held in place of those that are not: an equation need not be defined outside."""
    first = held.int().argmax(dim=1)
    return torch.where(held[..., None], points, points[torch.arange(len(points)), first][:, None])


def _share(lower: Tensor, upper: Tensor, bounds: tuple[Tensor, Tensor], without: int | None) -> Tensor:
    """Divide volumes of cells, or areas of their sides across an axis, by those of the whole, (N,)."""
    part = (upper - lower) / (bounds[1] - bounds[0])
    if without is not None:
        part[:, without] = 1.0
    return part.prod(dim=1)


def _cores(partition: Partition[float]) -> tuple[Tensor, Tensor]:
    cores = torch.tensor([box.core for box in partition], dtype=torch.float64)
    return cores[..., 0], cores[..., 1]


def _placed(lower: Tensor, upper: Tensor, nodes: Sequence[Tensor]) -> Tensor:
    """Place a grid of scaled nodes per axis in every box, (N, B, d)."""
    grid = torch.cartesian_prod(*nodes).reshape(-1, len(nodes))
    return lower[:, None] + 0.5 * (grid + 1) * (upper - lower)[:, None]
