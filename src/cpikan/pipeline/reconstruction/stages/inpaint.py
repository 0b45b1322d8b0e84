"""In-painting: the holes of a finished map, found in all of it, filled one by one, kept apart from what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from scipy import ndimage

from cpikan.pipeline.reconstruction.block_means import BlockMeans, Rows
from cpikan.pipeline.reconstruction.stage import Arrays, Context, FormedMap, Stage
from cpikan.psi.refine.background import DEGREE
from cpikan.psi.refine.hole_guess import HoleGuess, Surroundings, guess_hole
from cpikan.psi.refine.inpaint import inpaint, required_bytes
from cpikan.psi.refine.protocol import BLOCK_PX
from cpikan.streaming.engine import Band

_MARGIN = 4  # pixels of measured surface around a hole
_MEMORY = 5 << 28  # bytes, 1.25 GiB: what a plate in one hole may take of the two of a run; about 230 000 pixels
_REACH = 6 * BLOCK_PX  # pixels of surroundings at least; as many as the hole is wide otherwise
_TINY = 64  # pixels of a hole that a plate fills without a look at blocks around: there may be thousands
_SMALL_DEGREE = 8  # of the polynomials around small holes
_STRIP = 32 * BLOCK_PX  # rows that are written at a time
_RIM = 2  # blocks around a hole that say which component it lies in
_GROUP = 256  # small holes whose centres lie in one square of this side are filled together
_COUNTS = (
    "holes",
    "holes_filled",
    "holes_between_components",
    "holes_without_rim",
    "pixels_filled",
    "pixels_left_open",
)
_EIGHT = np.ones((3, 3), bool)


@dataclass(frozen=True)
class _Group:
    """Holes that are filled together: a window and their labels."""

    window: tuple[slice, slice]
    labels: tuple[int, ...]


def fill_holes(
    rows: Rows, bands: list[Band], out: tuple[np.ndarray, np.ndarray], gap: np.ndarray | None = None
) -> dict[str, Any]:
    """Fill ``out``, heights and sigma (H, W) of their own, inside the holes of the map that ``rows`` gives, NaN elsewhere.

    ``rows(band)`` are final heights, and components where those have heights of their own. A hole is a connected set of
    pixels without height that does not reach the edge of the image, and what of one that does lies in ``gap``, blocks of
    8 x 8 pixels between parts that were joined. One between two components, whose relative height nobody knows, stays open.
    Where too few whole blocks around tell of a background, a plate fills it, without a sigma, up to about 230 000 pixels
    (1.25 GiB). Returns counts of holes and pixels: ``holes``, of them ``holes_filled``, ``holes_between_components`` and
    ``holes_without_rim`` (fewer than three pixels around, or too few blocks), ``pixels_filled`` and ``pixels_left_open``.
    """
    empty = np.empty(out[0].shape, bool)
    for band in bands:
        part = slice(band.start, band.stop)
        empty[part] = ~np.isfinite(rows(band)[0])
        for array in out:
            array[part] = np.nan
    labels, count = ndimage.label(empty, _EIGHT)
    report = dict.fromkeys(_COUNTS, 0)
    edges = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    inner = np.setdiff1d(np.arange(1, count + 1), edges)
    if gap is not None:
        inner = np.r_[inner, _cut_gaps(labels, edges, count, gap)]
    for group in _groups(labels, inner):
        for name, number in _fill(rows, labels, group, out).items():
            report[name] += number
    return report


def _cut_gaps(labels: np.ndarray, edges: np.ndarray, count: int, gap: np.ndarray) -> np.ndarray:
    """Give pixels of holes that reach the edge labels of their own where they lie in a gap; those labels."""
    reaches = np.zeros(count + 1, bool)
    reaches[edges[edges > 0]] = True
    names = ndimage.label(gap, _EIGHT)[0]
    columns = np.arange(labels.shape[1]) // BLOCK_PX
    found: set[int] = set()
    for start in range(0, len(labels), _STRIP):
        part = labels[start : start + _STRIP]
        name = names[(start + np.arange(len(part))) // BLOCK_PX][:, columns]
        mine = reaches[part] & (name > 0)
        part[mine] = count + name[mine]
        found.update(np.unique(part[mine]).tolist())
    return np.array(sorted(found), int)


def _groups(labels: np.ndarray, inner: np.ndarray) -> Iterator[_Group]:
    """Group holes: large ones alone, small ones by the square they lie in."""
    boxes = ndimage.find_objects(labels)
    small: dict[tuple[int, int], list[int]] = {}
    for label in inner.tolist():
        y, x = boxes[label - 1]
        if max(y.stop - y.start, x.stop - x.start) > _GROUP:
            yield _Group(_window([boxes[label - 1]], labels.shape), (label,))
        else:
            small.setdefault((y.start // _GROUP, x.start // _GROUP), []).append(label)
    for members in small.values():
        yield _Group(_window([boxes[k - 1] for k in members], labels.shape), tuple(members))


def _window(boxes: list[tuple[slice, slice]], shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Find the rectangle around boxes, with a margin."""
    ends = []
    for axis in (0, 1):
        first, last = min(b[axis].start for b in boxes), max(b[axis].stop for b in boxes)
        ends.append(slice(max(0, first - _MARGIN), min(shape[axis], last + _MARGIN)))
    return ends[0], ends[1]


def _fill(rows: Rows, labels: np.ndarray, group: _Group, out: tuple[np.ndarray, np.ndarray]) -> dict[str, int]:
    """Fill the holes of a group; counts of holes and pixels."""
    here = labels[group.window]
    if len(group.labels) == 1 and required_bytes(pixels := int((here == group.labels[0]).sum())) > _MEMORY:
        return _fill_large(rows, labels, group, pixels, out)
    window = group.window
    height, component = rows(Band(0, window[0].start, window[0].stop))
    found = dict.fromkeys(_COUNTS, 0) | {"holes": len(group.labels)}
    wanted = []
    for label in group.labels:
        hole = here == label
        rim = ndimage.binary_dilation(hole, _EIGHT) & ~hole
        sides = (
            1 if component is None else len(np.unique(component[:, window[1]][rim & np.isfinite(height[:, window[1]])]))
        )
        if sides > 1:
            found["holes_between_components"] += 1
            found["pixels_left_open"] += int(hole.sum())
        else:
            wanted.append(label)
    if not wanted:
        return found
    hole = np.isin(here, wanted)
    tiny = max(int((here == label).sum()) for label in wanted) <= _TINY
    guessed = None if tiny else _guess_small(rows, labels, (window, hole))
    # a plate over some pixels is as good as the pixels that it rests on
    noise = _noise_nm(height[:, window[1]]) if tiny else np.nan
    filled, sigma = guessed or (inpaint(height[:, window[1]], hole), np.full(hole.shape, noise))
    for target, values in zip(out, (filled, sigma), strict=True):
        np.copyto(target[window], values, where=hole)
    done = np.isfinite(filled)
    full = sum(bool(done[here == label].all()) for label in wanted)
    pixels = int(done[hole].sum())
    found |= {"holes_filled": full, "holes_without_rim": len(wanted) - full, "pixels_filled": pixels}
    found["pixels_left_open"] += int(hole.sum()) - pixels
    return found


def _noise_nm(height: np.ndarray) -> float:
    """Estimate the noise of a pixel: second differences along rows have six times its variance; NaN where there are none."""
    bends = np.diff(height.astype(np.float64), 2, axis=1)
    known = np.isfinite(bends)
    return float(np.sqrt(np.mean(bends[known] ** 2) / 6)) if known.any() else float("nan")


def _surroundings(window: tuple[slice, slice], shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Widen a window by its own size, to whole blocks."""
    reach = max(_REACH, *(s.stop - s.start for s in window))
    low, high = ([(s.start - reach) // BLOCK_PX * BLOCK_PX for s in window], [s.stop + reach for s in window])
    y, x = (slice(max(0, a), min(n, b)) for a, b, n in zip(low, high, shape, strict=True))
    return y, x


def _guess(
    rows: Rows, hole: Callable[[int, int], np.ndarray], window: tuple[slice, slice], degree: int
) -> HoleGuess | Literal["between"] | None:
    """Guess what lies in the hole from blocks of the component around it; "between" where there are several."""
    means = BlockMeans.gather(rows, hole, window)
    height = means.height_nm
    if means.component is not None:
        rim = ndimage.binary_dilation(means.hole, _EIGHT, _RIM) & (means.component > 0)
        sides = np.unique(means.component[rim])
        if len(sides) > 1:
            return "between"
        height = np.where(np.isin(means.component, sides), height, np.nan)
    return guess_hole(Surroundings(height, means.noise_nm, means.hole), degree)


def _guess_small(
    rows: Rows, labels: np.ndarray, holes: tuple[tuple[slice, slice], np.ndarray]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Guess heights and sigma of holes, a window and its pixels; None where nothing around tells them."""
    (y, x), mine = holes
    around = _surroundings((y, x), labels.shape)

    def hole(start: int, stop: int) -> np.ndarray:
        part = np.zeros((stop - start, labels.shape[1]), bool)
        first, last = max(start, y.start), min(stop, y.stop)
        if first < last:
            part[first - start : last - start, x] = mine[first - y.start : last - y.start]
        return part

    found = _guess(rows, hole, around, _SMALL_DEGREE)
    if not isinstance(found, HoleGuess):
        return None
    inner = [slice(s.start - a.start, s.stop - a.start) for s, a in zip((y, x), around, strict=True)]
    return found.rows(inner[0], inner[1])


def _fill_large(
    rows: Rows, labels: np.ndarray, group: _Group, pixels: int, out: tuple[np.ndarray, np.ndarray]
) -> dict[str, int]:
    """Fill one hole by the background of its surroundings, some rows at a time; counts of holes and pixels."""
    (label,), (y, x) = group.labels, group.window
    around = _surroundings((y, x), labels.shape)
    found = _guess(rows, lambda start, stop: labels[start:stop] == label, around, DEGREE)
    report = dict.fromkeys(_COUNTS, 0) | {"holes": 1}
    if not isinstance(found, HoleGuess):
        name = "holes_between_components" if found == "between" else "holes_without_rim"
        return report | {name: 1, "pixels_left_open": pixels}
    columns = slice(x.start - around[1].start, x.stop - around[1].start)
    for start in range(y.start, y.stop, _STRIP):
        part = slice(start, min(start + _STRIP, y.stop))
        guessed = found.rows(slice(part.start - around[0].start, part.stop - around[0].start), columns)
        for target, values in zip(out, guessed, strict=True):
            np.copyto(target[part, x], values, where=labels[part, x] == label)
    return report | {"holes_filled": 1, "pixels_filled": pixels}


def bridged(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Find the blocks between parts that were joined: in its row or column a block has one of them on either side.

    ``before`` and ``after`` joining are the components at one pixel of each block, 0 where nothing was measured.
    """
    group = np.zeros(int(before.max()) + 1, np.int64)
    group[before.ravel()] = after.ravel()
    group[0] = 0
    between = np.zeros(before.shape, bool)
    for axis in (0, 1):
        ahead, behind = (_last(before, axis, backwards=b) for b in (False, True))
        both = (before == 0) & (ahead > 0) & (behind > 0) & (ahead != behind)
        between |= both & (group[ahead] == group[behind])
    return ndimage.binary_dilation(between, _EIGHT)


def _last(values: np.ndarray, axis: int, *, backwards: bool) -> np.ndarray:
    """Repeat the last number that is not 0 along an axis."""
    lines = np.moveaxis(values, axis, 1)
    lines = lines[:, ::-1] if backwards else lines
    at = np.maximum.accumulate(np.where(lines > 0, np.arange(lines.shape[1]), 0), axis=1)
    found = np.take_along_axis(lines, at, axis=1)
    return np.moveaxis(found[:, ::-1] if backwards else found, 1, axis)


@dataclass(frozen=True)
class Inpaint(Stage):
    """Fills the holes of the finished map in an array of guesses of its own."""

    name: ClassVar[str] = "inpaint"
    clock: ClassVar[str] = "refine"
    once: ClassVar[bool] = True
    writes: tuple[str, ...] = ("guess_nm", "guess_sigma_nm")

    def run(self, arrays: Arrays, context: Context) -> dict[str, Any]:
        """Guess, and count the holes."""
        formed = FormedMap.of(arrays, context)

        def rows(band: Band) -> tuple[np.ndarray, np.ndarray | None]:
            parts = formed.heights(band)
            return parts["height_nm"], parts.get("component")

        gap = None
        if "component" in arrays:
            before, after = (
                np.array(whole[BLOCK_PX // 2 :: BLOCK_PX, BLOCK_PX // 2 :: BLOCK_PX])
                for whole in (arrays.oldest("component"), arrays.current("component"))
            )
            size = [-(-n // BLOCK_PX) - m for n, m in zip(arrays.shape, before.shape, strict=True)]
            gap = np.pad(bridged(before, after), [(0, n) for n in size], mode="edge")
        out = arrays.of(self, "guess_nm"), arrays.of(self, "guess_sigma_nm")
        return {"inpainting": fill_holes(rows, list(formed.sweep()), out, gap)}
