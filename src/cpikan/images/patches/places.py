"""Where in the images patches are cut: the grid of regular ones, random ones with enough measured pixels."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from cpikan.errors import InputError
from cpikan.images.patches.settings import PatchSettings
from cpikan.images.patches.source import StackSource
from cpikan.partition.intervals import spread_tiles

_TRIES = 64  # random places looked at before the best of them is taken
_CHECK_EVERY = 4  # pixels between those that are counted as measured or not


class Place(NamedTuple):
    """First row and column of one patch, or of two neighbours, in the image number ``source``."""

    source: int
    corners: tuple[tuple[int, int], ...]


def row_range(source: StackSource, settings: PatchSettings) -> tuple[int, int]:
    """Find the image rows that patches of ``source`` may show; InputError where no patch, or pair, fits."""
    height, width = source.shape
    first, last = (round(share * height) for share in settings.rows)
    need = settings.size
    longest = 2 * need - settings.overlap if settings.pairs else need
    if min(last - first, width) < need or max(last - first, width) < longest:
        part = "" if settings.rows == (0.0, 1.0) else f", of which rows {first} to {last} are used"
        what = f"two patches of {need} with overlap {settings.overlap}" if settings.pairs else f"a patch of {need}"
        raise InputError(f"{source.name} has {height} x {width} pixels{part}: {what} does not fit, give a smaller size")
    return first, last


def regular_places(sources: list[StackSource], settings: PatchSettings) -> list[Place]:
    """List all patches (or pairs of neighbours) of an evenly spread grid that show enough measured pixels."""
    found = []
    for number, source in enumerate(sources):
        first, last = row_range(source, settings)
        rows = [first + start for start in _starts(last - first, settings)]
        columns = _starts(source.shape[1], settings)
        corners = itertools.product(rows, columns)
        good = {corner for corner in corners if _share(source, corner, settings.size) >= settings.least_valid}
        if settings.pairs:
            for below, beside in ((1, 0), (0, 1)):
                steps = itertools.product(range(len(rows) - below), range(len(columns) - beside))
                pairs = (((rows[i], columns[j]), (rows[i + below], columns[j + beside])) for i, j in steps)
                found += [Place(number, pair) for pair in pairs if good.issuperset(pair)]
        else:
            found += [Place(number, (corner,)) for corner in sorted(good)]
    return found


def covering_count(source: StackSource, settings: PatchSettings) -> int:
    """Count patches that cover the image once."""
    first, last = row_range(source, settings)
    side = settings.size
    return -(-(last - first) // side) * -(-source.shape[1] // side)


def random_place(source: StackSource, number: int, settings: PatchSettings, draw: np.random.Generator) -> Place:
    """Choose a random patch or pair with enough measured pixels; after 64 tries the best of those seen."""
    first, last = row_range(source, settings)
    best, best_share = None, -1.0
    for _ in range(_TRIES):
        corners = random_corners((first, last), source.shape[1], settings, draw)
        share = min(_share(source, corner, settings.size) for corner in corners)
        if share > best_share:
            best, best_share = corners, share
        if share >= settings.least_valid:
            break
    assert best is not None
    return Place(number, best)


def joint_of(corners: tuple[tuple[int, int], ...], size: int) -> list[int]:
    """Write the overlap of two patches as a row of ``PatchBatch.joints``."""
    (y0, x0), (y1, x1) = corners
    top, left = max(y0, y1), max(x0, x1)
    height, width = min(y0, y1) + size - top, min(x0, x1) + size - left
    return [0, 1, top - y0, left - x0, top - y1, left - x1, height, width]


def _starts(length: int, settings: PatchSettings) -> tuple[int, ...]:
    return spread_tiles(length, settings.size, settings.overlap, 0).starts


def random_corners(
    rows: tuple[int, int], width: int, settings: PatchSettings, draw: np.random.Generator
) -> tuple[tuple[int, int], ...]:
    """Draw where a patch, or a pair that touches or overlaps, begins inside rows [first, last) and all columns."""
    size, (first, last) = settings.size, rows
    if not settings.pairs:
        return ((int(draw.integers(first, last - size + 1)), int(draw.integers(0, width - size + 1))),)
    step = size - settings.overlap
    fits = [last - first >= size + step, width >= size + step]
    below = fits[0] and (not fits[1] or bool(draw.integers(2)))
    down, right = (step, 0) if below else (0, step)
    row = int(draw.integers(first, last - size - down + 1))
    column = int(draw.integers(0, width - size - right + 1))
    return (row, column), (row + down, column + right)


def _share(source: StackSource, corner: tuple[int, int], size: int) -> float:
    """Compute the share of measured pixels of a patch, from every fourth pixel of every fourth row."""
    (row, column), step = corner, _CHECK_EVERY
    return float(source.valid(slice(row, row + size, step), slice(column, column + size, step)).mean())
