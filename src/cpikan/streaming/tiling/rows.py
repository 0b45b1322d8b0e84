"""One row of tiles: its image rows come in, the model runs over its tiles in batches, a blended band goes out."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from cpikan.streaming.tiling.blender import Blender, spans
from cpikan.streaming.tiling.grid import TileGrid
from cpikan.streaming.tiling.model import TileModel, checked_output
from cpikan.streaming.tiling.overlap import Disagreement
from cpikan.streaming.tiling.source import ImageSource


@dataclass(frozen=True)
class TilePlan:
    """What is the same for all rows of tiles of a run; it travels to other processes."""

    grid: TileGrid
    window: str
    channels_in: int
    channels_out: int
    batch: int
    finite: bool
    period: float | None
    orders_agree: bool

    def blender(self) -> Blender:
        """A blender that counts the disagreement of its own joints."""
        return Blender(self.grid, self.window, Disagreement(self.period, self.orders_agree))

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Image rows under one row of tiles."""
        return self.channels_in, self.grid.tile[0], self.grid.shape[1]

    @property
    def band_shape(self) -> tuple[int, int, int]:
        """The largest band a row of tiles gives."""
        rows = max(bottom - top for top, bottom in map(self.grid.rows.support, range(len(self.grid.rows))))
        return self.channels_out, min(rows, self.grid.shape[0]), self.grid.shape[1]


@dataclass
class RowFigures:
    """What one row of tiles took: seconds inside the model, seconds per tile of every batch, disagreement across."""

    model_s: float = 0.0
    tile_s: list[float] = field(default_factory=list)
    disagreement: Disagreement = field(default_factory=Disagreement)
    anonymous_mib: float = 0.0


def run_row(plan: TilePlan, model: TileModel, i: int, rows: np.ndarray, band: np.ndarray) -> RowFigures:
    """Run row i of tiles: ``rows`` (C, tile rows, W) in, the blended ``band`` (C', rows of its support, W) out."""
    figures, blender, columns = RowFigures(), plan.blender(), plan.grid.columns
    buffer = np.empty((min(plan.batch, len(columns)), plan.channels_in, *plan.grid.tile), np.float32)
    for span in spans(columns, plan.batch):
        started = time.perf_counter()
        tiles = buffer[: len(span)]
        for tile, j in zip(tiles, span, strict=True):
            _cut_columns(rows, *columns.extent(j), tile)
        before = time.perf_counter()
        values = checked_output(model(tiles), tiles.shape, plan.channels_out)
        figures.model_s += time.perf_counter() - before
        for tile, j in zip(values, span, strict=True):
            blender.across(plan.grid.partition.at((i, j)), tile, band)
        figures.tile_s += [(time.perf_counter() - started) / len(span)] * len(span)
    assert blender.disagreement is not None
    figures.disagreement = blender.disagreement
    return figures


class RowFeed:
    """The image rows under each row of tiles, in order; every row of the source is read once.

    Rows that neighbouring rows of tiles share are copied from the last buffer; rows beyond the image repeat its last.
    """

    def __init__(self, source: ImageSource, grid: TileGrid) -> None:
        self._source, self._grid = source, grid
        self._kept: np.ndarray | None = None

    def view(self, i: int) -> np.ndarray | None:
        """The rows as a view of an image in memory, where it has them all."""
        start, stop = self._grid.rows.extent(i)
        whole = self._source.array
        return whole[:, start:stop] if whole is not None and stop <= self._grid.shape[0] else None

    def fill(self, i: int, out: np.ndarray) -> np.ndarray:
        """Put the rows of row i of tiles into ``out`` (C, tile rows, W) and return it."""
        axis = self._grid.rows
        start, stop = axis.extent(i)
        end = min(stop, self._grid.shape[0])
        kept = 0 if self._kept is None else self._kept.shape[1]
        if self._kept is not None:
            out[:, :kept] = self._kept
        if start + kept < end:
            self._source.fill(start + kept, end, out[:, kept : end - start])
        out[:, end - start :] = out[:, end - start - 1 : end - start]
        shared = stop - axis.starts[i + 1] if i + 1 < len(axis) else 0
        self._kept = out[:, out.shape[1] - shared :].copy() if shared else None
        return out


def _cut_columns(rows: np.ndarray, start: int, stop: int, out: np.ndarray) -> None:
    """Columns [start, stop) of ``rows``; those beyond the image repeat its last."""
    end = min(stop, rows.shape[2])
    out[:, :, : end - start] = rows[:, :, start:end]
    out[:, :, end - start :] = rows[:, :, end - 1 : end]
