"""Coarse heights: one per block of 8 x 8 pixels, from its mean phasors, its order searched jointly by all wavelengths."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cpikan.psi.kernels.cpu import search_orders
from cpikan.psi.kernels.model import OrderSearch
from cpikan.psi.refine.blocks import BlockSums, Empty, strips
from cpikan.psi.refine.footprint import Footprint, PhasorPixels

_STRIP_BLOCKS = 2**15  # worked on at a time: some tens of MB
_FEWEST = 6  # valid pixels of a block
_LEAST_COHERENCE = 0.3  # of a block's mean phasor: below it a steep slope or a step has smeared the phase
_AGREE = 5  # of the up to eight neighbours of a block, for a verdict on it


@dataclass(frozen=True)
class CoarseHeights:
    """Heights of blocks (Hb, Wb) float64, NaN where unknown, with their ``sigma_nm``.

    ``footprint`` is where the pixels of the blocks lie; ``turns`` (L, Hb, Wb) and ``weight`` (turns^-2) are the mean phases
    behind the heights, of wavelengths whose turn is ``nm_per_turn`` (L,). ``shape`` is that of the image in pixels.
    """

    shape: tuple[int, int]
    height_nm: np.ndarray
    sigma_nm: np.ndarray
    footprint: Footprint
    turns: np.ndarray
    weight: np.ndarray
    nm_per_turn: np.ndarray

    @property
    def known(self) -> np.ndarray:
        return np.isfinite(self.height_nm)

    @property
    def half_wave_nm(self) -> float:
        """Give the height of one order of the shortest wavelength in nm."""
        return float(self.nm_per_turn.min())


def coarse_heights(sums: BlockSums, search: OrderSearch, empty: Empty = np.empty) -> CoarseHeights:
    """Find block heights by the joint order search on the blocks' mean phasors; arrays of blocks are made by ``empty``.

    Blocks that none of their neighbours bear out are left out. Rows of blocks are worked on some at a time, so that memory
    does not grow with the image beyond those arrays.
    """
    rows, columns = sums.pixels.shape
    half, waves = search.half_wave_nm, len(sums.phasor)
    whole = [empty(size, np.float64) for size in [(rows, columns)] * 2 + [(waves, rows, columns)] * 2]
    offset = empty((2, rows, columns), np.float64)
    for first in range(0, rows, step := max(1, _STRIP_BLOCKS // columns)):
        last = min(first + step, rows)
        low, high = max(first - 1, 0), min(last + 1, rows)  # a neighbour on either side has a say
        part, keep = sums.part(low, high), slice(first - low, last - low)
        height, sigma, turns, weight = _searched(part, search)
        height = _borne_out(height, half)
        sigma = np.where(np.isfinite(height), sigma, np.inf)
        for target, found in zip(whole, (height, sigma, turns, weight), strict=True):
            target[..., first:last, :] = found[..., keep, :]
        offset[:, first:last] = (part.moment / np.maximum(part.weight.sum(axis=0), 1e-30))[:, keep]
    nm_per_turn = half / search.ratio
    return CoarseHeights(
        sums.shape, whole[0], whole[1], PhasorPixels(sums.pixels, offset, nm_per_turn), whole[2], whole[3], nm_per_turn
    )


def _searched(sums: BlockSums, search: OrderSearch) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Find heights, NaN where unknown, and sigmas in nm, and the mean turns and weights behind them.

    The noise of a mean phase is that of its pixels over their number, divided by the squared coherence: a slope inside the
    block smears the phasors and makes them worth less.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        coherence = np.abs(sums.phasor) / sums.weight
        weight = sums.weight * coherence**2
    usable = (sums.valid >= _FEWEST) & (np.nan_to_num(coherence).min(axis=0) >= _LEAST_COHERENCE)
    turns = np.angle(sums.phasor) / (2 * np.pi)
    weight = np.where(usable, weight, 1.0)
    half = search.half_wave_nm
    shape = usable.shape
    flat = turns.reshape(len(turns), -1), (1 / weight).reshape(len(turns), -1)
    order, shift, best, second = search_orders(search.ratio)(*flat, search.low_nm / half, search.range_nm / half)
    height = ((flat[0][0] + order + shift) * half).reshape(shape)
    sigma = half / np.sqrt((weight * (search.ratio**2)[:, None, None]).sum(axis=0))
    doubtful = (second - best < search.margin_min).reshape(shape)
    return np.where(usable & ~doubtful, height, np.nan), sigma, turns, weight


def _borne_out(height: np.ndarray, half_wave_nm: float) -> np.ndarray:
    """Drop heights that lie half an order or more from the median of a neighbourhood that agrees with itself."""
    padded = np.pad(height, 1, constant_values=np.nan)
    around = np.stack(
        [
            padded[1 + dy : padded.shape[0] - 1 + dy, 1 + dx : padded.shape[1] - 1 + dx]
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
            if dy or dx
        ]
    )
    known = np.isfinite(around)
    filled = np.sort(np.where(known, around, np.inf), axis=0)
    middle = np.maximum(known.sum(axis=0) - 1, 0) // 2
    median = np.take_along_axis(filled, middle[None], axis=0)[0]
    with np.errstate(invalid="ignore"):  # nothing known around: the median is infinite
        agree = (np.abs(np.where(known, around, np.inf) - median) < half_wave_nm / 2).sum(axis=0)
        alone = (np.abs(height - median) > half_wave_nm / 2) & (agree >= _AGREE)
    return np.where(alone, np.nan, height)


def shifted(coarse: CoarseHeights, shift_nm: np.ndarray, empty: Empty = np.empty) -> CoarseHeights:
    """Subtract ``shift_nm`` (L, Hb, Wb), what blocks lie above their centres by every wavelength, from the heights.

    Arrays of blocks are made by ``empty``.
    """
    height, turns = empty(coarse.height_nm.shape, np.float64), empty(coarse.turns.shape, np.float64)
    for rows in strips(len(height)):
        shift = shift_nm[:, rows]
        height[rows] = coarse.height_nm[rows] - joint(coarse, shift, rows)
        turns[:, rows] = coarse.turns[:, rows] - shift / coarse.nm_per_turn[:, None, None]
    return replace(coarse, height_nm=height, turns=turns)


def joint(coarse: CoarseHeights, values_nm: np.ndarray, rows: slice) -> np.ndarray:
    """Average values in nm by wavelength (L, n, Wb) of ``rows`` of blocks, each wavelength weighted as in the height."""
    weight = coarse.weight[:, rows] / (coarse.nm_per_turn**2)[:, None, None]
    return np.asarray((weight * values_nm).sum(axis=0) / weight.sum(axis=0))
