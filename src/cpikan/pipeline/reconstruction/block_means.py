"""Means over blocks of a window of a finished map, gathered band by band: for holes that are larger than memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cpikan.psi.refine.protocol import BLOCK_PX
from cpikan.streaming.engine import Band

Rows = Callable[[Band], tuple[np.ndarray, np.ndarray | None]]
_BAND_ROWS = 32 * BLOCK_PX


@dataclass(frozen=True)
class BlockMeans:
    """Blocks of 8 x 8 pixels of a window: the mean height (Hb, Wb) in nm of those with all pixels, of one component, NaN
    elsewhere; that ``component`` (0: none), or None where heights have none; blocks with pixels of the ``hole``; the median
    ``noise_nm`` of a pixel."""

    height_nm: np.ndarray
    component: np.ndarray | None
    hole: np.ndarray
    noise_nm: float

    @classmethod
    def gather(cls, rows: Rows, hole: Callable[[int, int], np.ndarray], window: tuple[slice, slice]) -> BlockMeans:
        """Average a window that begins at multiples of eight; ``hole(start, stop)`` are rows (n, W) of the hole's pixels."""
        columns = window[1]
        parts = []
        for start in range(window[0].start, window[0].stop, _BAND_ROWS):
            stop = min(start + _BAND_ROWS, window[0].stop)
            height, component = rows(Band(0, start, stop))
            mine = None if component is None else component[:, columns]
            parts.append(_reduced(height[:, columns], mine, hole(start, stop)[:, columns]))
        height, component, of_hole, bends = (np.concatenate(part) for part in zip(*parts, strict=True))
        noise = float(np.sqrt(np.median(bends[np.isfinite(bends)]))) if np.isfinite(bends).any() else 0.0
        return cls(height, component if (component >= 0).any() else None, of_hole, noise)


def _reduced(
    height: np.ndarray, component: np.ndarray | None, hole: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Reduce rows: mean heights, components (-1: heights have none), blocks of the hole, squared noise of a pixel."""
    blocks = _blocks(height.astype(np.float64), np.nan)
    mean = blocks.mean(axis=(1, 3))
    # second differences of noise have six times its variance
    bend = (np.diff(blocks, 2, axis=3) ** 2).mean(axis=(1, 3)) / 6
    if component is None:
        name = np.full(mean.shape, -1)
    else:
        parts = _blocks(component, 0)
        low, high = parts.min(axis=(1, 3)), parts.max(axis=(1, 3))
        mean = np.where(low == high, mean, np.nan)
        name = np.where(np.isfinite(mean), low, 0)
    return mean, name, np.asarray(_blocks(hole, False).any(axis=(1, 3))), bend


def _blocks(values: np.ndarray, beyond: float) -> np.ndarray:
    """Cut (n, w) into (n / 8, 8, w / 8, 8), with ``beyond`` past the edge."""
    wide = np.pad(values, [(0, -n % BLOCK_PX) for n in values.shape], constant_values=beyond)
    return wide.reshape(wide.shape[0] // BLOCK_PX, BLOCK_PX, wide.shape[1] // BLOCK_PX, BLOCK_PX)
