"""Cover: which subdomains hold which points, and their windows there with derivatives."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cpikan.errors import InputError
from cpikan.partition import Intervals, Partition
from cpikan.partition.windows import ramp

_SLACK = {2: 1e-2, 4: 1e-5, 8: 1e-9}  # of the domain, by bytes of a number: what rounding may put outside


@dataclass(frozen=True)
class Group:
    """Subdomains ``boxes`` (G,) with M places each for points: the rows ``index`` (G, M) of the list of points.

    ``window`` (G, M), ``window_gradient`` (G, M, d) and ``window_hessian`` (G, M, d, d) are zero in places that are left
    over; those repeat a point of the same box.
    """

    boxes: Tensor
    index: Tensor
    window: Tensor
    window_gradient: Tensor
    window_hessian: Tensor


@dataclass(frozen=True)
class Cover:
    """The points that were sorted into subdomains: ``points`` of them, in groups of boxes with about equally many."""

    points: int
    groups: tuple[Group, ...]


def cover(partition: Partition[Any], x: Tensor) -> Cover:
    """Sort points (..., d), as one list of P, into the supports of the boxes; at most 2^d boxes hold a point.

    Points outside the domain are refused, but for rounding. Boxes are grouped by the power of two that their number of
    points lies under, so at most half of the places are left over. Inside a box points are sorted by their coordinates:
    permuted points are the same product, and give permuted values exactly.
    """
    axes = len(partition.axes)
    if x.shape[-1:] != (axes,):
        raise InputError(f"points of shape {tuple(x.shape)} for a partition of {axes} axes: give (..., {axes})")
    places = _plain(x).reshape(-1, axes)
    if not np.isfinite(places).all():
        raise InputError("points are not all finite: leave out the ones that are NaN or infinite")
    _check_inside(partition, places)
    sides = [_axis(axis, places[:, d]) for d, axis in enumerate(partition.axes)]
    found: list[list[np.ndarray]] = [[], [], [], [], []]  # rows, boxes, values, first and second derivatives
    for choice in itertools.product((0, 1), repeat=axes):
        pieces = np.stack([sides[d].piece[side] for d, side in enumerate(choice)])
        held = np.flatnonzero((pieces >= 0).all(axis=0))
        found[0].append(held)
        found[1].append(np.ravel_multi_index(tuple(pieces[:, held]), partition.counts))
        for store, part in zip(found[2:], ("value", "d1", "d2"), strict=True):
            store.append(np.stack([getattr(sides[d], part)[side][held] for d, side in enumerate(choice)], axis=1))
    members = _Members(*map(np.concatenate, found))
    rank = np.empty(len(places), dtype=np.intp)
    rank[np.lexsort(places.T)] = np.arange(len(places))
    return Cover(len(places), tuple(_groups(members, rank, x)))


def among(covered: Cover, members: Sequence[int]) -> Cover:
    """Keep the subdomains ``members`` (rising) of a cover, numbered from 0 in their order."""
    groups = []
    for group in covered.groups:
        wanted = torch.tensor(members, device=group.boxes.device)
        held = torch.nonzero(torch.isin(group.boxes, wanted)).squeeze(1)
        if len(held):
            parts = (group.index, group.window, group.window_gradient, group.window_hessian)
            groups.append(Group(torch.searchsorted(wanted, group.boxes[held]), *(part[held] for part in parts)))
    return Cover(covered.points, tuple(groups))


def _check_inside(partition: Partition[Any], places: np.ndarray) -> None:
    """Raise InputError for points that no subdomain holds."""
    lower, upper = (np.array([getattr(axis, end) for axis in partition.axes], float) for end in ("lower", "upper"))
    slack = _SLACK[places.dtype.itemsize] * np.maximum(upper - lower, np.maximum(abs(lower), abs(upper)))
    outside = ((places < lower - slack) | (places > upper + slack)).any(axis=1)
    if outside.any():
        first = tuple(round(float(v), 6) for v in places[outside.argmax()])
        raise InputError(
            f"{int(outside.sum())} of {len(places)} points lie outside the subdomains, which reach from {lower.tolist()} to "
            f"{upper.tolist()}; the first is {first}: leave them out, or cover them"
        )


def _plain(x: Tensor) -> np.ndarray:
    """Copy the numbers of a tensor; inside a transform of torch.func there are none to be had."""
    try:
        # inside a transform of the parameters alone, points have numbers that neither a copy nor Tensor.numpy can look into
        plain = x.device.type == "cpu" and not x.requires_grad
        return np.from_dlpack(x) if plain else x.detach().cpu().numpy()
    except (RuntimeError, BufferError):
        raise InputError("points inside a transform cannot be sorted: call .cover(x) before and pass it on") from None


@dataclass(frozen=True)
class _Axis:
    """Two candidates per point: its owner and, on a ramp, the neighbour (else -1), with their windows, (2, P) each."""

    piece: np.ndarray
    value: np.ndarray
    d1: np.ndarray
    d2: np.ndarray


@dataclass(frozen=True)
class _Members:
    """Pairs of point and box with the windows' one-dimensional factors, (pairs,) and (pairs, d)."""

    row: np.ndarray
    box: np.ndarray
    value: np.ndarray
    d1: np.ndarray
    d2: np.ndarray


def _axis(axis: Intervals[Any], x: np.ndarray) -> _Axis:
    starts = np.array([-np.inf, *axis.ramps, np.inf], x.dtype)
    owner = np.searchsorted(np.array(axis.cuts, x.dtype), x, side="right")
    neighbour = np.full_like(owner, -1)
    if axis.ramp > 0:  # in the arithmetic of ``ramp``, so that nothing with weight is left out by rounding
        below, above = ((x - starts[owner + side]) / axis.ramp for side in (0, 1))
        neighbour = np.where(below < 1, owner - 1, np.where(above > 0, owner + 1, -1))
    piece = np.stack([owner, neighbour])
    safe, both = np.maximum(piece, 0), np.broadcast_to(x, piece.shape)
    up, down = (ramp(both, starts[safe + side], axis.ramp) for side in (0, 1))
    return _Axis(piece, up.value - down.value, up.d1 - down.d1, up.d2 - down.d2)


def _groups(members: _Members, rank: np.ndarray, x: Tensor) -> list[Group]:
    order = np.lexsort((rank[members.row], members.box))
    boxes, first, counts = np.unique(members.box[order], return_index=True, return_counts=True)
    size = np.ceil(np.log2(counts)).astype(int)
    groups = []
    for level in np.unique(size):
        chosen = np.flatnonzero(size == level)
        most = counts[chosen].max()
        place = np.arange(most)
        filled = place < counts[chosen, None]
        pair = order[first[chosen, None] + np.where(filled, place, 0)]
        groups.append(_group(members, boxes[chosen], pair, filled, x))
    return groups


def _group(members: _Members, boxes: np.ndarray, pair: np.ndarray, filled: np.ndarray, x: Tensor) -> Group:
    value, d1, d2 = (getattr(members, part)[pair] * filled[..., None] for part in ("value", "d1", "d2"))
    arrays = products(value, d1, d2)
    window, slope, bend = (torch.from_numpy(array).to(device=x.device, dtype=x.dtype) for array in arrays)
    index = torch.from_numpy(members.row[pair]).to(x.device)
    return Group(torch.from_numpy(boxes).to(x.device), index, window, slope, bend)


def products(value: np.ndarray, d1: np.ndarray, d2: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Multiply functions of one coordinate each, (..., d) with derivatives: value (...), gradient and second derivatives."""
    axes = value.shape[-1]
    gradient = np.empty_like(value)
    hessian = np.empty((*value.shape, axes), value.dtype)
    for a in range(axes):
        gradient[..., a] = d1[..., a] * np.delete(value, a, axis=-1).prod(axis=-1)
        hessian[..., a, a] = d2[..., a] * np.delete(value, a, axis=-1).prod(axis=-1)
        for b in range(a):
            others = np.delete(value, [a, b], axis=-1).prod(axis=-1)
            hessian[..., a, b] = hessian[..., b, a] = d1[..., a] * d1[..., b] * others
    return value.prod(axis=-1), gradient, hessian
