"""Ring: tiles in, finished image rows out, in the memory of one row of tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from cpikan.partition import Box, Intervals, Partition
from cpikan.partition.windows import sample_ramp
from cpikan.streaming.bands import Band
from cpikan.streaming.engine import ProgressSink, StreamTimings, stream

Item = TypeVar("Item")
Rows = tuple[int, np.ndarray]


class RowRing:
    """Blend the tiles of a two-dimensional partition and let go of every row that no later tile touches.

    Tiles come in the order of the partition, shape (..., h, w) with any leading axes (channels). With windows that are
    differences of ramps, ``sum w_i u_i = u_0 + sum ramp_i (u_i - u_(i-1))``: no weight map and no division, and where
    neighbours agree the blend returns exactly their value. It works in float32, or in float64 or complex numbers when
    the tiles do, never below. Memory is tile + ramp rows of the image, whatever its height.
    """

    def __init__(self, partition: Partition[int]) -> None:
        if len(partition.axes) != 2:
            raise ValueError(f"a partition of {len(partition.axes)} axes has no image rows")
        self._partition = partition
        self._next = 0
        self._band: np.ndarray | None = None  # rows of the support of this row of boxes, whole image width
        self._carry: np.ndarray | None = None  # the ramp rows of the row of boxes above, not yet blended

    def add(self, box: Box[int], values: np.ndarray) -> Rows | None:
        """Take one tile; after the last tile of a row of boxes return (first row, finished rows (..., n, W)).

        The returned array belongs to the caller. Raises ValueError for a tile out of order or of another shape.
        """
        if box.index != self._next:
            raise ValueError(f"tile {box.index} came where tile {self._next} was due")
        if values.shape[-2:] != box.shape:
            raise ValueError(f"tile {box.index} has shape {values.shape}, not (..., {box.shape[0]}, {box.shape[1]})")
        rows, columns = self._partition.axes
        i, j = box.position
        top, bottom = rows.support(i)
        if self._band is None:
            dtype = np.result_type(values.dtype, np.float32)
            self._band = np.empty((*values.shape[:-2], bottom - top, columns.upper), dtype)
        first = rows.starts[i]
        self._place(columns, j, values[..., top - first : bottom - first, :])
        self._next += 1
        return self._finish(i, top) if j == len(columns) - 1 else None

    def _place(self, columns: Intervals[int], j: int, values: np.ndarray) -> None:
        """Set the columns that are this tile's so far, and blend those it shares with the tile on its left."""
        assert self._band is not None
        start, stop = columns.support(j)
        shared = columns.ramp if j else 0
        tile = values[..., start - columns.starts[j] : stop - columns.starts[j]]
        self._band[..., start + shared : stop] = tile[..., shared:]
        if shared:
            _hand_over(
                self._band[..., start : start + shared], tile[..., :shared], sample_ramp(columns, self._band.real.dtype)
            )

    def _finish(self, i: int, top: int) -> Rows:
        """Blend the rows shared with the band above; keep the rows shared with the band below."""
        assert self._band is not None
        rows, band = self._partition.axes[0], self._band
        if self._carry is not None:
            weights = sample_ramp(rows, band.real.dtype)[:, None]
            _hand_over(self._carry, band[..., : rows.ramp, :], weights)
            band[..., : rows.ramp, :] = self._carry
        last = i == len(rows) - 1
        done = band.shape[-2] if last else rows.ramps[i] - top
        self._band = None
        self._carry = None if last or not rows.ramp else band[..., done:, :].copy()
        return top, band[..., :done, :]


def _hand_over(old: np.ndarray, new: np.ndarray, weights: np.ndarray) -> None:
    """``old += weights * (new - old)``, in place."""
    step = np.subtract(new, old, dtype=old.dtype)
    step *= weights
    old += step


def blend(
    partition: Partition[int],
    read_tile: Callable[[Box[int]], Item],
    compute: Callable[[Box[int], Item], np.ndarray],
    write_rows: Callable[[int, np.ndarray], None],
    *,
    depth: int = 2,
    progress: ProgressSink | None = None,
) -> StreamTimings:
    """Carry every tile of an image through ``compute`` and write the blended rows in order, each exactly once.

    ``read_tile`` runs in the reader's thread for one row of boxes at a time, ``compute`` (returning the tile's values,
    shape (..., h, w)) in this thread, ``write_rows(start, rows)`` in the writer's thread. Blend heights only when their
    orders agree, and never wrapped phase. Failures end the run as in ``stream``.
    """
    ring = RowRing(partition)
    boxes = list(partition.bands())

    def read(band: Band) -> list[Item]:
        return [read_tile(box) for box in boxes[band.index]]

    def merge(band: Band, items: list[Item]) -> Rows:
        for box, item in zip(boxes[band.index], items, strict=True):
            done = ring.add(box, compute(box, item))
        assert done is not None
        return done

    def write(band: Band, done: Rows) -> None:
        write_rows(*done)

    return stream(emitted_bands(partition.axes[0]), read, merge, write, depth=depth, progress=progress)


def emitted_bands(rows: Intervals[int]) -> tuple[Band, ...]:
    """The image rows each row of boxes finishes: from the start of its ramp to the start of the next one."""
    edges = (rows.lower, *rows.ramps, rows.upper)
    return tuple(Band(i, edges[i], edges[i + 1]) for i in range(len(rows)))
