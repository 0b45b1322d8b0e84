"""Nodes on a curved part of a boundary: as many in every subdomain that it passes through."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cpikan.partition import Partition
from cpikan.physics.regions import Region

_SEEN = 4001  # places along a part where it is looked at first
_BISECTIONS = 45
_SHORT = 1e-12  # share of a part that is no piece of it


def nodes_on(
    region: Region, part: str, partitions: Sequence[Partition[float]], count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Place ``count`` Chebyshev nodes on every piece of a part between two cuts of the grid.

    Gives points and outward normals, (n, d) each, and the root of each point's share of the part (n,). Off the plane, where
    a part is no curve, points are spread evenly.
    """
    if len(region.lower) != 2:
        unit = np.random.default_rng(11).random(
            (count ** (len(region.lower) - 1) * sum(map(len, partitions)), len(region.lower) - 1)
        )
        points, normals = (torch.from_numpy(one) for one in region.on(part, unit, False))
        return points, normals, torch.full((len(points),), len(points) ** -0.5, dtype=torch.float64)
    ends = _crossings(region, part, partitions)
    lengths = np.diff(ends)
    ends, lengths = ends[:-1][lengths > _SHORT], lengths[lengths > _SHORT]
    share = 0.5 - 0.5 * np.cos(np.pi * (np.arange(count) + 0.5) / count)
    unit = (ends[:, None] + lengths[:, None] * share).reshape(-1, 1)
    points, normals = (torch.from_numpy(np.ascontiguousarray(one)) for one in region.on(part, unit, False))
    return points, normals, torch.from_numpy(np.sqrt(np.repeat(lengths, count) / count))


def _crossings(region: Region, part: str, partitions: Sequence[Partition[float]]) -> np.ndarray:
    """List the shares of a part at which it crosses a cut, its ends among them, in rising order."""
    unit = np.linspace(0.0, 1.0, _SEEN)
    seen, _ = region.on(part, unit[:, None], False)
    found = [np.array([0.0, 1.0])]
    for axis in range(2):
        places = sorted({place for one in partitions for place in _places(one, axis)})
        for place in places:
            above = seen[:, axis] >= place
            index = np.flatnonzero(above[1:] != above[:-1])
            if len(index):
                found.append(_bisected(region, part, (axis, place), (unit[index], unit[index + 1]), above[index]))
    return np.unique(np.concatenate(found))


def _bisected(
    region: Region, part: str, at: tuple[int, float], ends: tuple[np.ndarray, np.ndarray], above: np.ndarray
) -> np.ndarray:
    """Find where a part crosses a cut between two places each, on one side of it at the first."""
    low, high = ends
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        points, _ = region.on(part, middle[:, None], False)
        same = (points[:, at[0]] >= at[1]) == above
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return 0.5 * (low + high)


def _places(partition: Partition[float], axis: int) -> list[float]:
    """List where windows begin, end and hand over along an axis."""
    one = partition.axes[axis]
    return [*one.cuts] if not one.ramp else [*one.ramps, *(start + one.ramp for start in one.ramps)]
