"""Components whose relative order a smooth surface can decide: found, decided, joined; the others stay components."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage
from scipy.linalg import eigh, qr

from cpikan.psi.refine.unwrapped import UnwrappedBlocks

_ROUGHNESS = np.logspace(-12, 6, 55)  # of the process over the noise, in windows of size one
_LEAST_SIGMA = 5e-4  # turns: what blocks of pixels are good for at best


@dataclass(frozen=True)
class Offset:
    """The offset of a side in turns and its standard uncertainty; the density of the nearest integer over the next, as the
    difference of chi squared."""

    turns: float
    sigma: float
    margin: float


def offset_across(position: np.ndarray, turns: np.ndarray, sigma: np.ndarray, other: np.ndarray) -> Offset | None:
    """Estimate how far in turns the side ``other`` (N, bool) lies above the smooth surface through the rest.

    ``position`` (N, 2) in any unit, heights ``turns`` (N,) and their ``sigma`` in turns. None where the points do not
    determine a quadratic and the offset.
    """
    place = position - position.mean(axis=0)
    place = place / max(np.abs(place).max(), 1e-30)
    y, x = place.T
    free = np.column_stack([np.ones_like(x), x, y, x * x, x * y, y * y])
    if min(int(other.sum()), int((~other).sum())) < free.shape[1] or len(x) < 4 * free.shape[1]:
        return None
    noise = np.hypot(sigma, _LEAST_SIGMA)
    square = ((place[:, None] - place[None]) ** 2).sum(axis=-1)
    kernel = -0.5 * square**2 * np.log(np.maximum(square, 1e-30))  # -r^4 log r, positive once quadratics are out
    both = qr(free / noise[:, None])[0]
    rest = both[:, free.shape[1] :]
    values, vectors = eigh(rest.T @ (kernel / noise[:, None] / noise[None]) @ rest)
    turn = vectors.T @ rest.T
    z, a = turn @ (turns / noise), turn @ (other / noise)
    return _mixture(np.maximum(values, 0.0), z, a)


def _mixture(values: np.ndarray, z: np.ndarray, a: np.ndarray) -> Offset | None:
    """Average the offset under every roughness, weighted by its restricted likelihood."""
    scale = values.max()
    if scale <= 0 or not np.isfinite(scale):
        return None
    spread = 1 + (_ROUGHNESS[:, None] * 1e6 / scale) * values
    aa, az, zz = ((u * v / spread).sum(axis=1) for u, v in ((a, a), (a, z), (z, z)))
    many = len(z) - 1
    offset = az / aa
    left = np.maximum(zz - offset * az, 0.0)
    noise = np.maximum(left / many, 1.0)  # at least what the pixels' sigma says
    log = -0.5 * (np.log(spread).sum(axis=1) + np.log(aa) + many * np.log(noise) + left / noise)
    share = np.exp(log - log.max())
    share /= share.sum()
    variance = noise / aa
    mean = float(share @ offset)
    sigma = float(np.sqrt(share @ (variance + (offset - mean) ** 2)))
    nearest = np.rint(mean)
    logs = [
        float(np.logaddexp.reduce(np.log(share + 1e-300) - 0.5 * ((k - offset) ** 2 / variance + np.log(variance))))
        for k in (nearest - 1, nearest, nearest + 1)
    ]
    return Offset(mean, sigma, 2 * (logs[1] - max(logs[0], logs[2])))


SIGMA_MAX = 0.06  # turns: 0.03 wavelengths of height; a quarter wave, half a turn, is eight of it
AGREE = 3.0  # sigmas
EXACT, FAR = 0.04, 0.15  # turns: this near to an integer is near enough, farther is a step
MARGIN = 25.0  # chi squared of the runner-up above that of the best: one in 3e5
FEWEST = 24  # blocks of a component
_REACH = 2.5  # gaps of surface on either side
_LEAST_REACH = 6.0  # blocks
_CELLS, _FEWER_CELLS = 20, 12  # per axis of a window: one block each
_SPOTS = 3  # of a pair
_PAIRS = 100  # that are looked at wholly
_WIDEST = 64.0  # blocks: 512 pixels


@dataclass(frozen=True)
class Joined:
    """What became of the components, arrays by their number (0: no pixel): the ``level`` in turns to add to the orders, and
    the new ``label``, 1, 2, ... by falling size; ``moved`` where the level comes from a bridge. Counts of pairs that were
    looked at, joined, and refused because one side is stepped by no whole turn or bridges contradict each other; of those
    joined so many ``over_frame``, by its background; pairs of components that are ``parted`` by what is no whole turn."""

    level: np.ndarray
    label: np.ndarray
    moved: np.ndarray
    pairs: int
    joined: int
    refused: int
    over_frame: int = 0
    parted: tuple[tuple[int, int], ...] = ()

    @property
    def components(self) -> int:
        return int(self.label.max())


@dataclass(frozen=True)
class _Spot:
    """Where two components come near each other: the middle of the gap and its width, in blocks."""

    first: int
    second: int
    place: tuple[float, float]
    gap: float


def join_components(blocks: UnwrappedBlocks, *, every: bool = False) -> Joined:
    """Join components across gaps of up to 512 pixels wherever the surface on both sides fits one integer, and no other.

    The hundred nearest pairs are looked at; with ``every`` also all others that those did not join already, at one place.

    A pair is joined where the offset of one side, with its sigma in a smooth surface through both, is within 0.06 turns
    known, lies within three of these of an integer, and beats the next integer by 25 units of chi squared, at one place at
    least, and where no other place of the pair says otherwise.
    """
    edges: list[tuple[float, int, int, int]] = []
    parted: list[tuple[int, int]] = []
    met, pairs = np.arange(len(blocks.pixels)), 0
    for spots in _pairs(blocks, every=every):
        first, second = spots[0].first, spots[0].second
        whole_look = pairs < _PAIRS
        if not whole_look and met[first] == met[second]:
            continue
        pairs += 1
        taken, cells = (spots, _CELLS) if whole_look else (spots[:1], _FEWER_CELLS)
        verdict = _verdict([_offset(blocks, spot, cells) for spot in taken])
        if verdict is None:
            continue
        whole, sigma = verdict
        if whole is None:
            parted.append((first, second))
        else:
            edges.append((sigma, first, second, whole))
            met[met == met[second]] = met[first]
    root, level, contradictions = _levels(edges, len(blocks.pixels))
    kept, root_was = [e for e in edges if root[e[1]] not in contradictions], root
    if contradictions:
        root, level, _ = _levels(kept, len(blocks.pixels))
    refused = [(a, b) for _, a, b, _ in edges if root_was[a] in contradictions]
    joined = named(blocks, root, level, (pairs, len(parted) + len(refused)))
    return replace(joined, parted=(*parted, *refused))


def named(blocks: UnwrappedBlocks, root: np.ndarray, level: np.ndarray, counts: tuple[int, int]) -> Joined:
    """Number groups by size; the level of a group is that of its largest component, which has the lowest number."""
    numbers = np.arange(len(root))
    size = np.bincount(root, blocks.pixels, minlength=len(root))
    size[0] = 0
    roots = np.flatnonzero((root == numbers) & (numbers > 0))
    rank = np.zeros(len(root), np.int32)
    rank[roots[np.argsort(-size[roots], kind="stable")]] = np.arange(1, len(roots) + 1)
    moved = (root != numbers) & (numbers > 0)
    return Joined(level.astype(np.int32), rank[root], moved, counts[0], int(moved.sum()), counts[1])


def _pairs(blocks: UnwrappedBlocks, *, every: bool) -> Iterator[list[_Spot]]:
    """Yield pairs of components with the places where they are nearest, the narrowest gaps first; a hundred, or every one."""
    label = np.where((blocks.label > 0) & _large(blocks.label)[blocks.label], blocks.label, 0)
    if len(np.unique(label[label > 0])) < 2:
        return
    distance, nearest = ndimage.distance_transform_edt(label == 0, return_indices=True)
    voronoi = label[tuple(nearest)]
    found = []
    for axis in (0, 1):
        here, there = (np.take(voronoi, range(a, voronoi.shape[axis] + a - 1), axis) for a in (0, 1))
        y, x = np.nonzero(here != there)
        other = (y + 1, x) if axis == 0 else (y, x + 1)
        gap = distance[y, x] + distance[other] + 1
        middle = np.stack([(y + other[0]) / 2, (x + other[1]) / 2], axis=1)
        names = np.stack([voronoi[y, x], voronoi[other]], axis=1)
        found.append((np.sort(names, axis=1), middle, gap))
    names, middle, gap = (np.concatenate(part) for part in zip(*found, strict=True))
    near = np.flatnonzero(gap <= _WIDEST)
    near = near[np.argsort(gap[near], kind="stable")]
    spots: dict[tuple[int, int], list[_Spot]] = {}
    for i in near.tolist():
        pair = (int(names[i, 0]), int(names[i, 1]))
        known = spots.setdefault(pair, []) if every or len(spots) < _PAIRS else spots.get(pair)
        if known is None or len(known) >= _SPOTS:
            continue
        place, width = (float(middle[i, 0]), float(middle[i, 1])), float(gap[i])
        apart = 2 * (_REACH * width + _LEAST_REACH)
        if all(max(abs(place[0] - s.place[0]), abs(place[1] - s.place[1])) > apart for s in known):
            known.append(_Spot(*pair, place, width))
    yield from spots.values()


def _large(label: np.ndarray) -> np.ndarray:
    return np.bincount(label.ravel()) >= FEWEST


def _offset(blocks: UnwrappedBlocks, spot: _Spot, cells: int) -> Offset | None:
    """Estimate how far in turns the second component lies above the first.

    From a window around the gap, one block for every cell of it, so many along an axis.
    """
    reach = spot.gap / 2 + _REACH * spot.gap + _LEAST_REACH
    low = [max(0, int(p - reach)) for p in spot.place]
    high = [min(n, int(p + reach) + 2) for p, n in zip(spot.place, blocks.label.shape, strict=True)]
    part = blocks.window(slice(low[0], high[0]), slice(low[1], high[1]))
    cell = max(1, -(-max(part.label.shape) // cells))
    taken: list[np.ndarray] = []
    for name in (spot.first, spot.second):
        y, x = np.nonzero(part.label == name)
        group = (y // cell) * cells * 2 + x // cell
        order = np.lexsort((part.turns[y, x], group))  # in every cell the block of the median height
        start = np.flatnonzero(np.r_[True, np.diff(group[order]) > 0]) if len(order) else np.zeros(0, int)
        end = np.r_[start[1:], len(order)] if len(order) else start
        middle = order[(start + end) // 2]
        taken.append(np.stack([y[middle], x[middle]]))
    y, x = np.concatenate(taken, axis=1)
    other = np.arange(len(y)) >= taken[0].shape[1]
    place = np.stack([y, x], axis=1) + part.offset_px[:, y, x].T / 8
    return offset_across(place, part.turns[y, x], part.sigma_turns[y, x], other)


def _verdict(offsets: list[Offset | None]) -> tuple[int | None, float] | None:
    """Decide the whole turns to add to the second component, with a sigma; (None, 0): refused; None: unknown."""
    sure = [o for o in offsets if o is not None and o.sigma <= SIGMA_MAX]
    if not sure:
        return None
    if any(abs(o.turns - np.rint(o.turns)) > min(max(AGREE * o.sigma, EXACT), FAR) for o in sure):
        return None, 0.0
    whole = {int(np.rint(o.turns)) for o in sure}
    if len(whole) > 1 or max(o.margin for o in sure) < MARGIN:
        return None, 0.0
    return -whole.pop(), min(o.sigma for o in sure)


def _levels(edges: list[tuple[float, int, int, int]], count: int) -> tuple[np.ndarray, np.ndarray, set[int]]:
    """Find each component's group, its level against the group in turns, and the groups that contradict themselves.

    A group bears the lowest number of its components.
    """
    root, level = np.arange(count), np.zeros(count, np.int64)
    bad: list[int] = []
    for _, first, second, whole in sorted(edges):
        a, b = root[first], root[second]
        # level[second] - level[first] is to be whole
        miss = level[first] + whole - level[second]
        if a == b:
            if miss:
                bad.append(first)
            continue
        inside = root == max(a, b)
        level[inside] += miss if b > a else -miss
        root[inside] = min(a, b)
    return root, level, {int(root[i]) for i in bad}
