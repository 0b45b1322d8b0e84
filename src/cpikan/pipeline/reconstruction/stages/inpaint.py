"""In-painting: the holes of a finished map, found in all of it, filled one by one, kept apart from what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy import ndimage

from cpikan.pipeline.reconstruction.stage import Arrays, Context, FormedMap, Stage
from cpikan.psi.refine.inpaint import inpaint, required_bytes
from cpikan.streaming.engine import Band

_MARGIN = 4  # pixels of measured surface around a hole
_MEMORY = 5 << 28  # bytes, 1.25 GiB: what filling one hole may take of the two of a run; about 230 000 pixels
_GROUP = 256  # small holes whose centres lie in one square of this side are filled together
_COUNTS = (
    "holes",
    "holes_filled",
    "holes_too_large",
    "holes_between_components",
    "holes_without_rim",
    "pixels_filled",
    "pixels_left_open",
)
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
    nobody knows, stays open, and so does one whose filling would take more than 1.25 GiB (about 230 000 pixels). Returns
    counts of holes and pixels: ``holes``, of them ``holes_filled``, ``holes_too_large``, ``holes_between_components`` and
    ``holes_without_rim`` (fewer than three pixels around), ``pixels_filled`` and ``pixels_left_open``.
    """
    empty = np.empty(guess.shape, bool)
    for band in bands:
        part = slice(band.start, band.stop)
        empty[part] = ~np.isfinite(rows(band)[0])
        guess[part] = np.nan
    labels, count = ndimage.label(empty, _EIGHT)
    report = dict.fromkeys(_COUNTS, 0)
    edges = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    for group in _groups(labels, np.setdiff1d(np.arange(1, count + 1), edges)):
        for name, number in _fill(rows, labels, group, guess).items():
            report[name] += number
    return report


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


def _fill(rows: Rows, labels: np.ndarray, group: _Group, guess: np.ndarray) -> dict[str, int]:
    """Fill the holes of a group; counts of holes and pixels."""
    window = group.window
    height, component = rows(Band(0, window[0].start, window[0].stop))
    here = labels[window]
    found = dict.fromkeys(_COUNTS, 0) | {"holes": len(group.labels)}
    wanted = []
    for label in group.labels:
        hole = here == label
        rim = ndimage.binary_dilation(hole, _EIGHT) & ~hole
        sides = 1 if component is None else len(np.unique(component[:, window[1]][rim]))
        pixels = int(hole.sum())
        if sides > 1:
            found["holes_between_components"] += 1
        elif required_bytes(pixels) > _MEMORY:
            found["holes_too_large"] += 1
        else:
            wanted.append(label)
            continue
        found["pixels_left_open"] += pixels
    if not wanted:
        return found
    hole = np.isin(here, wanted)
    filled = inpaint(height[:, window[1]], hole)
    target = guess[window]
    target[hole] = filled[hole]
    done = np.isfinite(filled)
    full = sum(bool(done[here == label].all()) for label in wanted)
    pixels = int(done[hole].sum())
    found |= {"holes_filled": full, "holes_without_rim": len(wanted) - full, "pixels_filled": pixels}
    found["pixels_left_open"] += int(hole.sum()) - pixels
    return found


@dataclass(frozen=True)
class Inpaint(Stage):
    """Fills the holes of the finished map in an array of guesses of its own."""

    name: ClassVar[str] = "inpaint"
    clock: ClassVar[str] = "refine"
    once: ClassVar[bool] = True
    writes: tuple[str, ...] = ("guess_nm",)

    def run(self, arrays: Arrays, context: Context) -> dict[str, Any]:
        """Guess, and count the holes."""
        formed = FormedMap.of(arrays, context)

        def rows(band: Band) -> tuple[np.ndarray, np.ndarray | None]:
            parts = formed.heights(band)
            return parts["height_nm"], parts.get("component")

        return {"inpainting": fill_holes(rows, list(formed.sweep()), arrays.of(self, "guess_nm"))}
