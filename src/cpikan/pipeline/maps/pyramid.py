"""The coarser levels of a Zarr output, each pixel made of two by two of the level below."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from cpikan.errors import InputError
from cpikan.storage.atomic import full_disk_named, sync_tree
from cpikan.storage.maps import ZarrMap
from cpikan.storage.writers.layout import QUANTITIES, Quantity
from cpikan.streaming.engine import Band, split_bands, stream
from cpikan.streaming.events import Progress

if TYPE_CHECKING:
    import zarr

_TOP = 512  # the larger side of the coarsest level is at most this
# columns halved at a time, whole chunks: the finer rows, four times the coarser, are never there at once
_COLUMNS = 2048


@runtime_checkable
class HasPyramid(Protocol):
    """A writer whose output takes pyramids, and the folder they are built in before it finishes."""

    pyramid_root: Path


def build_pyramid(target: object, *, progress: Progress | None = None) -> None:
    """Write the pyramid levels of every quantity of a writer's partial output, or of a Zarr folder given by its path.

    Nothing is done for a writer whose format has no pyramids. Call it when all rows are written, before ``finish``. It
    may be killed and called again at any moment: levels are made anew from the finest. Memory is a few bands of 512
    rows. ``progress`` is told of ``pyramid_rows`` rows in all. Raises InputError for a folder that is not an output or
    whose chunks are missing, StorageFull when the disk is full.
    """
    if isinstance(target, HasPyramid):
        root = target.pyramid_root
    elif isinstance(target, str | Path):
        root = Path(target)
    else:
        return
    names = [name for name in QUANTITIES if (root / name / "0").is_dir()]
    if not names:
        raise InputError(f"{root} holds no maps: give a .zarr output")
    for name in names:
        _build_quantity(root, QUANTITIES[name], progress)


def level_shapes(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """List the shapes of all levels, finest first: halved (rounded up) until the larger side is at most 512."""
    shapes = [shape]
    while max(shapes[-1]) > _TOP:
        height, width = shapes[-1]
        shapes.append((-(-height // 2), -(-width // 2)))
    return shapes


def pyramid_rows(shape: tuple[int, int], quantities: int) -> int:
    """Count the rows that the pass writes for maps of ``shape``; for the length of a progress bar."""
    return quantities * sum(height for height, _ in level_shapes(shape)[1:])


def halve(fine: np.ndarray, quantity: str) -> np.ndarray:
    """Halve a map, to shape ((h + 1) // 2, (w + 1) // 2); the last row or column may have but one of two pixels.

    ``Quantity.coarsen`` names the rule. The components take the first of the four that has a number (0 = none), so that
    no number is made up.
    """
    rule = QUANTITIES[quantity].coarsen
    if rule == "or":
        return np.bitwise_or.reduce(_quarters(fine, 0))
    if rule == "first":
        quarters = _quarters(fine, 0)
        return np.select([quarter != 0 for quarter in quarters], quarters, 0).astype(fine.dtype)
    return _mean(_quarters(fine, np.nan))


def _mean(quarters: list[np.ndarray]) -> np.ndarray:
    """Compute the mean of four arrays without their NaN; NaN where all four are."""
    one, two, three, four = quarters
    total = one + two + three + four
    mean = total * total.dtype.type(0.25)
    holes = np.isnan(total)
    if holes.any():
        best = np.fmax(np.fmax(one, two), np.fmax(three, four))  # NaN only where all four are
        cells = np.nonzero(holes & ~np.isnan(best))  # the rims of holes: few, so counting them costs little
        some = np.stack([quarter[cells] for quarter in quarters])
        mean[cells] = np.nansum(some, axis=0) / (~np.isnan(some)).sum(axis=0).astype(some.dtype)
    return mean


def _quarters(fine: np.ndarray, pad: float) -> list[np.ndarray]:
    """Take the upper left, upper right, lower left and lower right pixels of all two by two cells."""
    odd = [(0, size % 2) for size in fine.shape]
    even = np.pad(fine, odd, constant_values=pad) if any(after for _, after in odd) else fine
    return [even[y::2, x::2] for y in (0, 1) for x in (0, 1)]


def _build_quantity(root: Path, quantity: Quantity, progress: Progress | None) -> None:
    from cpikan.storage.writers.zarr import create_level, describe_levels, open_level, sweep

    sweep(root / quantity.name)
    fine = ZarrMap(root / quantity.name / "0", open_level(root, quantity.name, 0))
    shapes = level_shapes(fine.shape)
    needed = sum(height * width for height, width in shapes[1:]) * quantity.dtype.itemsize
    with full_disk_named(root, needed):
        for level, shape in enumerate(shapes[1:], start=1):
            coarse = create_level(root, quantity, level, shape)
            _fill(fine, coarse, quantity, progress)
            fine = ZarrMap(root / quantity.name / str(level), coarse)
        describe_levels(root, quantity, shapes)
        sync_tree(root / quantity.name)


def _fill(fine: ZarrMap, coarse: zarr.Array[Any], quantity: Quantity, progress: Progress | None) -> None:
    """Write one level, whole shards at a time; a missing chunk of the finer one raises."""

    def read(band: Band) -> np.ndarray:
        rows = slice(2 * band.start, 2 * band.stop)
        pieces = [
            halve(fine[rows, left : left + _COLUMNS], quantity.name) for left in range(0, fine.shape[1], _COLUMNS)
        ]
        return np.concatenate(pieces, axis=1)

    def write(band: Band, rows: np.ndarray) -> None:
        coarse[band.start : band.stop] = rows

    bands = split_bands(coarse.shape[0], _TOP)
    stream(bands, read, lambda band, rows: rows, write, depth=1, progress=progress)
