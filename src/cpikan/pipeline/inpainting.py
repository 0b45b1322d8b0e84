"""Holes of a finished map: found in all of it, filled one by one, kept apart from what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from cpikan.psi.refine.inpaint import inpaint
from cpikan.streaming.bands import Band

_MARGIN = 4  # pixels of measured surface around a hole
_LARGEST = 250_000  # pixels: larger holes stay open, a guess across them says little and takes long
_GROUP = 256  # small holes whose centres lie in one square of this side are filled together
_EIGHT = np.ones((3, 3), bool)

Rows = Callable[[Band], tuple[np.ndarray, np.ndarray | None]]


@dataclass(frozen=True)
class _Group:
    """Holes that are filled together: a window and their labels."""

    window: tuple[slice, slice]
    labels: tuple[int, ...]


def fill_holes(rows: Rows, bands: list[Band], guess: np.ndarray) -> dict[str, Any]:
    """Fill ``guess`` (H, W), a map of its own, inside the holes of the map that ``rows`` gives, NaN elsewhere.

    ``rows(band)`` are final heights, and components where those have heights of their own. A hole is a connected set of
    pixels without height that does not reach the edge of the image; one between two components, whose relative height
    nobody knows, stays open, and so does one above 250 000 pixels. Returns counts of holes and pixels.
    """
    empty = np.empty(guess.shape, bool)
    for band in bands:
        part = slice(band.start, band.stop)
        empty[part] = ~np.isfinite(rows(band)[0])
        guess[part] = np.nan
    labels, count = ndimage.label(empty, _EIGHT)
    report = {"holes": 0, "holes_filled": 0, "pixels_filled": 0}
    edges = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    for group in _groups(labels, np.setdiff1d(np.arange(1, count + 1), edges)):
        report["holes"] += len(group.labels)
        filled = _fill(rows, labels, group, guess)
        report["holes_filled"] += filled[0]
        report["pixels_filled"] += filled[1]
    return report


def _groups(labels: np.ndarray, inner: np.ndarray) -> Iterator[_Group]:
    """Large holes alone, small ones by the square they lie in."""
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
    """The rectangle around boxes, with a margin."""
    ends = []
    for axis in (0, 1):
        first, last = min(b[axis].start for b in boxes), max(b[axis].stop for b in boxes)
        ends.append(slice(max(0, first - _MARGIN), min(shape[axis], last + _MARGIN)))
    return ends[0], ends[1]


def _fill(rows: Rows, labels: np.ndarray, group: _Group, guess: np.ndarray) -> tuple[int, int]:
    """Fill the holes of a group; how many, and how many pixels."""
    window = group.window
    height, component = rows(Band(0, window[0].start, window[0].stop))
    here = labels[window]
    wanted = []
    for label in group.labels:
        hole = here == label
        rim = ndimage.binary_dilation(hole, _EIGHT) & ~hole
        sides = 1 if component is None else len(np.unique(component[:, window[1]][rim]))
        if sides == 1 and hole.sum() <= _LARGEST:
            wanted.append(label)
    hole = np.isin(here, wanted)
    if not wanted:
        return 0, 0
    filled = inpaint(height[:, window[1]], hole)
    target = guess[window]
    target[hole] = filled[hole]
    return len(wanted), int(np.isfinite(filled[hole]).sum())
