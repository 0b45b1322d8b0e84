"""Coarse heights of one wavelength: one per block of 8 x 8 unwrapped pixels, of the component that most of them belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cpikan.compiled import compiled
from cpikan.psi.refine.coarse import CoarseHeights
from cpikan.psi.refine.footprint import MeanPixels
from cpikan.psi.refine.protocol import BLOCK_PX

_FEWEST = 6  # valid pixels of one component in a block
_LEAST_SIGMA = 2e-4  # rad, of a pixel: noise-free frames leave rounding


class UnwrappedRows(NamedTuple):
    """Rows of an unwrapped map, (rows, W): ``phase_rad`` float32 wrapped, its ``sigma_rad``, the integers ``order`` and the
    ``component`` (0: no pixel)."""

    phase_rad: np.ndarray
    sigma_rad: np.ndarray
    order: np.ndarray
    component: np.ndarray

    def part(self, start: int, stop: int) -> UnwrappedRows:
        """Cut out rows [start, stop), as views."""
        return UnwrappedRows(*(array[start:stop] for array in self))


@dataclass(frozen=True)
class UnwrappedBlocks:
    """Blocks of 8 x 8 pixels of an unwrapped image of ``shape``, arrays of ceil(H / 8) x ceil(W / 8).

    ``label`` int32 is the component with the most pixels (0: fewer than six of any), ``turns`` and ``sigma_turns`` float64
    the weighted mean of its pixels' unwrapped phases in turns, ``offset_px`` (2, Hb, Wb) where they lie from the centre of
    the block and ``spread_px2`` (3, Hb, Wb) their second moments about it, by y, by x and mixed. ``pixels`` (N + 1) counts
    the pixels of every component, index 0 those of none.
    """

    shape: tuple[int, int]
    label: np.ndarray
    turns: np.ndarray
    sigma_turns: np.ndarray
    offset_px: np.ndarray
    spread_px2: np.ndarray
    pixels: np.ndarray

    @classmethod
    def empty(cls, shape: tuple[int, int], components: int) -> UnwrappedBlocks:
        """Begin the blocks before any row is added."""
        grid = (-(-shape[0] // BLOCK_PX), -(-shape[1] // BLOCK_PX))
        return cls(
            shape,
            np.zeros(grid, np.int32),
            np.full(grid, np.nan),
            np.full(grid, np.inf),
            np.zeros((2, *grid)),
            np.zeros((3, *grid)),
            np.zeros(components + 1, np.int64),
        )

    def add(self, rows: UnwrappedRows, first_row: int, share: Callable[..., Iterable[Any]] = map) -> None:
        """Add whole rows of blocks: ``first_row`` is a multiple of eight; ``share`` maps over parts, on threads if it likes.

        A pixel more than half a turn from the median of its block, its slope taken off, does not count. The mean has the
        sigma of its pixels, or that of their scatter where they scatter more.
        """
        starts = range(0, len(rows.order), BLOCK_PX)

        def one(start: int) -> None:
            b = (first_row + start) // BLOCK_PX
            part = rows.part(start, start + BLOCK_PX)
            moments = self.offset_px[:, b], self.spread_px2[:, b]
            _block_row(*part, self.label[b], self.turns[b], self.sigma_turns[b], *moments)

        list(share(one, starts))
        self.pixels[:] += np.bincount(rows.component.ravel(), minlength=len(self.pixels))

    def coarse(self, half_wave_nm: float, levels: np.ndarray, wanted: np.ndarray) -> CoarseHeights:
        """Convert the blocks of the ``wanted`` components (bool by number) to heights, raised by ``levels`` (turns)."""
        take = wanted[self.label] & (self.label > 0)
        turns = np.where(take, self.turns + levels[self.label], np.nan)
        sigma = np.where(take, self.sigma_turns, np.inf)
        return CoarseHeights(
            self.shape,
            turns * half_wave_nm,
            sigma * half_wave_nm,
            MeanPixels(self.offset_px, self.spread_px2),
            np.where(take, turns, 0.0)[None],
            np.where(take, self.sigma_turns, 1.0)[None] ** -2,
            np.array([half_wave_nm]),
        )

    def window(self, rows: slice, columns: slice) -> UnwrappedBlocks:
        """Cut out the blocks of a window (in blocks), as an image of its own."""
        ends = [min(s.stop * BLOCK_PX, n) for s, n in zip((rows, columns), self.shape, strict=True)]
        shape = (ends[0] - rows.start * BLOCK_PX, ends[1] - columns.start * BLOCK_PX)
        where = (..., rows, columns)
        return UnwrappedBlocks(
            shape,
            self.label[where],
            self.turns[where],
            self.sigma_turns[where],
            self.offset_px[where],
            self.spread_px2[where],
            self.pixels,
        )


@compiled
def _block_row(phase, sigma, order, component, label, turns, spread, offset, moments):  # type: ignore[no-untyped-def]
    """Reduce every block of one row to its component, turns, sigma, centroid and second moments."""
    per_turn = 1 / (2 * np.pi)
    half = (BLOCK_PX - 1) / 2
    rows, width = order.shape
    u, flat, w = np.empty(BLOCK_PX**2), np.empty(BLOCK_PX**2), np.empty(BLOCK_PX**2)
    py, px = np.empty(BLOCK_PX**2), np.empty(BLOCK_PX**2)
    for c in range(len(label)):
        left, right = c * BLOCK_PX, min(c * BLOCK_PX + BLOCK_PX, width)
        name, most = _largest(component, left, right)
        if most < _FEWEST:
            continue
        n, down, downs, across, acrosses = 0, 0.0, 0, 0.0, 0
        for y in range(rows):
            for x in range(left, right):
                if component[y, x] != name:
                    continue
                here = order[y, x] + phase[y, x] * per_turn
                if y + 1 < rows and component[y + 1, x] == name:
                    d = order[y + 1, x] + phase[y + 1, x] * per_turn - here
                    if abs(d) < 0.5:
                        down += d
                        downs += 1
                if x + 1 < right and component[y, x + 1] == name:
                    d = order[y, x + 1] + phase[y, x + 1] * per_turn - here
                    if abs(d) < 0.5:
                        across += d
                        acrosses += 1
                noise = max(sigma[y, x], _LEAST_SIGMA) * per_turn
                u[n], w[n], py[n], px[n] = here, 1 / (noise * noise), y - half, x - left - half
                n += 1
        down, across = down / max(downs, 1), across / max(acrosses, 1)
        for i in range(n):
            flat[i] = u[i] - down * py[i] - across * px[i]
        middle = np.sort(flat[:n])[n // 2]
        total, mean, level, kept = 0.0, 0.0, 0.0, 0
        my, mx, yy, xx, yx = 0.0, 0.0, 0.0, 0.0, 0.0
        for i in range(n):
            if abs(flat[i] - middle) < 0.5:
                total += w[i]
                mean += w[i] * u[i]
                level += w[i] * flat[i]
                my += w[i] * py[i]
                mx += w[i] * px[i]
                yy += w[i] * py[i] * py[i]
                xx += w[i] * px[i] * px[i]
                yx += w[i] * py[i] * px[i]
                kept += 1
        if kept < _FEWEST or 2 * kept <= n:
            continue
        level /= total
        chi2 = 0.0
        for i in range(n):
            if abs(flat[i] - middle) < 0.5:
                chi2 += w[i] * (flat[i] - level) ** 2
        label[c], turns[c] = name, mean / total
        offset[0, c], offset[1, c] = my / total, mx / total
        moments[0, c], moments[1, c], moments[2, c] = yy / total, xx / total, yx / total
        spread[c] = np.sqrt(max(1.0, chi2 / (kept - 1)) / total)


@compiled
def _largest(component, left, right):  # type: ignore[no-untyped-def]
    """Find the component with the most pixels in a block, and how many; the lower number where two are as large."""
    name, most = 0, 0
    for y in range(component.shape[0]):
        for x in range(left, right):
            this = component[y, x]
            if this == 0 or this == name:
                continue
            count = 0
            for v in range(component.shape[0]):
                for h in range(left, right):
                    count += component[v, h] == this
            if count > most or (count == most and this < name):
                name, most = this, count
            if 2 * most > component.shape[0] * (right - left):
                return name, most
    return name, most
