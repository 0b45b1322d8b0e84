"""Sums over blocks of pixels: phasors per wavelength, how many pixels, where they lie, how many are in doubt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cpikan.compiled import compiled
from cpikan.psi.kernels.model import DemodulatedRows
from cpikan.psi.model.flags import Flag
from cpikan.psi.refine.protocol import BLOCK_PX, CELL_PX
from cpikan.streaming.ranks import Ranks

_INVALID, _AMBIGUOUS = int(Flag.INVALID), int(Flag.AMBIGUOUS)
Empty = Callable[[tuple[int, ...], Any], np.ndarray]  # `numpy.empty`, or what makes arrays elsewhere than in memory
_WEIGHT_CAP = np.float32(1e9)  # turns^-2: noise of 2e-4 rad; noise-free frames would make sums infinite


_STRIP = 64  # rows of blocks that are looked at together


def strips(rows: int) -> list[slice]:
    """Cut rows of blocks into strips: what is computed for one at a time takes no memory that grows with the image."""
    return [slice(first, min(first + _STRIP, rows)) for first in range(0, rows, _STRIP)]


@dataclass(frozen=True)
class BlockSums:
    """Sums over blocks of 8 x 8 pixels of an image of ``shape`` (H, W); arrays of ceil(H / 8) x ceil(W / 8).

    ``phasor`` (L, Hb, Wb) complex128: sum of w exp(2 pi i turns); ``weight`` (L, Hb, Wb): sum of w; ``moment`` (2, Hb, Wb):
    sum of w y and w x from the block's centre, over all wavelengths; ``pixels`` uint64: a bit for every valid one, row by row;
    ``valid`` and ``doubtful``: how many.
    """

    shape: tuple[int, int]
    phasor: np.ndarray
    weight: np.ndarray
    moment: np.ndarray
    pixels: np.ndarray
    valid: np.ndarray
    doubtful: np.ndarray

    @classmethod
    def zeros(cls, wavelengths: int, shape: tuple[int, int], empty: Empty = np.empty) -> BlockSums:
        """Begin the sums before any pixel is added, in arrays that ``empty`` makes."""
        grid = (-(-shape[0] // BLOCK_PX), -(-shape[1] // BLOCK_PX))
        kinds = (
            ((wavelengths, *grid), np.complex128),
            ((wavelengths, *grid), np.float64),
            ((2, *grid), np.float64),
            (grid, np.uint64),
            (grid, np.int32),
            (grid, np.int32),
        )
        arrays = [empty(size, dtype) for size, dtype in kinds]
        for array in arrays:
            array.fill(0)
        return cls(shape, *arrays)

    def part(self, first: int, last: int) -> BlockSums:
        """Cut out block rows [first, last), as views."""
        cut = slice(first, last)
        rows = min(self.shape[0], last * BLOCK_PX) - first * BLOCK_PX
        sums = (self.phasor, self.weight, self.moment, self.pixels, self.valid, self.doubtful)
        return BlockSums((rows, self.shape[1]), *(array[..., cut, :] for array in sums))

    def add(self, rows: DemodulatedRows, first_row: int) -> None:
        """Add rows that start at image row ``first_row``, in order: sums of floats depend on the order alone."""
        parts = (self.phasor, self.weight, self.moment, self.pixels, self.valid, self.doubtful)
        _add(rows.phase_cycles, rows.weight, rows.flags, first_row, *parts)

    def join(self, ranks: Ranks) -> None:
        """Add, in place, what the processes have summed over rows of blocks that each has for itself."""
        import torch  # what the sums are sent by

        for array in (self.phasor, self.weight, self.moment, self.pixels, self.valid, self.doubtful):
            flat = array.reshape(-1).view(np.float64 if array.dtype.kind in "fc" else np.int32)
            flat[:] = ranks.joined(torch.from_numpy(flat)).numpy()

    def doubtful_share(self) -> np.ndarray:
        """Compute the share of valid pixels in doubt in every 64-pixel cell, (ceil(H / 64), ceil(W / 64)) float64."""
        doubtful, valid = (_cells(counts) for counts in (self.doubtful, self.valid))
        return doubtful / np.maximum(valid, 1)


def _cells(blocks: np.ndarray) -> np.ndarray:
    """Sum over the blocks of every cell."""
    n = CELL_PX // BLOCK_PX
    rows = np.add.reduceat(blocks, np.arange(0, blocks.shape[0], n), axis=0)
    return np.add.reduceat(rows, np.arange(0, blocks.shape[1], n), axis=1)


@compiled
def _add(turns, weight, flags, first_row, phasor, total, moment, pixels, valid, doubtful):  # type: ignore[no-untyped-def]
    half = (BLOCK_PX - 1) / 2
    for r in range(flags.shape[0]):
        y = first_row + r
        b = y // BLOCK_PX
        for x in range(flags.shape[1]):
            if flags[r, x] & _INVALID:
                continue
            c = x // BLOCK_PX
            worth = 0.0
            for i in range(turns.shape[0]):
                w = min(weight[i, r, x], _WEIGHT_CAP)
                angle = np.float32(2 * np.pi) * turns[i, r, x]
                phasor[i, b, c] += complex(w * np.cos(angle), w * np.sin(angle))
                total[i, b, c] += w
                worth += w
            moment[0, b, c] += worth * (y - b * BLOCK_PX - half)
            moment[1, b, c] += worth * (x - c * BLOCK_PX - half)
            pixels[b, c] |= np.uint64(1) << np.uint64((y % BLOCK_PX) * BLOCK_PX + x % BLOCK_PX)
            valid[b, c] += 1
            if flags[r, x] & _AMBIGUOUS:
                doubtful[b, c] += 1
