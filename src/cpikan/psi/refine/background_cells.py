"""Cells of a background: means over squares of blocks, each of one part of the image, of the values and the polynomials."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from cpikan.psi.refine.background import Cells, exponents
from cpikan.psi.refine.protocol import BLOCK_PX

LEAST_SIGMA = 5e-4  # of a cell, in units of the values' own: what means of many are good for at best


@dataclass(frozen=True)
class Frame:
    """The square, centred on a window of ``shape`` blocks, on which polynomials of both coordinates run from -1 to 1."""

    shape: tuple[int, int]

    def scaled(self, axis: int, place: np.ndarray) -> np.ndarray:
        """Convert places along an axis, in blocks from the edge of the window, to coordinates."""
        return np.asarray((2 * place - self.shape[axis]) / max(self.shape))

    def means(self, axis: int, blocks: np.ndarray, degree: int) -> np.ndarray:
        """Average every polynomial over the pixels of each block, (N, degree + 1)."""
        pixels = blocks[:, None] + (np.arange(BLOCK_PX) + 0.5) / BLOCK_PX
        return np.asarray(np.polynomial.chebyshev.chebvander(self.scaled(axis, pixels), degree).mean(axis=1))


@dataclass(frozen=True)
class Parts:
    """Values of blocks (Hb, Wb), their sigma, and the part of each, 1, 2, ... (0: none)."""

    value: np.ndarray
    sigma: np.ndarray
    part: np.ndarray


def cut_cells(parts: Parts, side: int, degree: int, floor: float) -> Cells:
    """Average over squares of ``side`` blocks, weighted; ``floor`` is the least sigma of a cell.

    The polynomials are averaged with the same weights, so that a cell of any shape counts as what it is.
    """
    frame = Frame((parts.part.shape[0], parts.part.shape[1]))
    rows: list[tuple[np.ndarray, ...]] = []
    for number, box in enumerate(ndimage.find_objects(parts.part), 1):
        if box is None:
            continue
        for top in range(box[0].start // side * side, box[0].stop, side):
            window = slice(max(top, box[0].start), min(top + side, box[0].stop)), box[1]
            rows += _row(parts, number, window, frame, (side, degree, floor))
    columns = [np.concatenate(column) for column in zip(*rows, strict=True)]
    return Cells(columns[0], columns[1], columns[2], columns[3] - 1, degree, max(frame.shape) / side)


def _row(
    parts: Parts, number: int, window: tuple[slice, slice], frame: Frame, how: tuple[int, int, float]
) -> list[tuple[np.ndarray, ...]]:
    """Average the cells of one row of them that belong to a part."""
    side, degree, floor = how
    mine = parts.part[window] == number
    weight = np.where(mine, parts.sigma[window] ** -2.0, 0.0)
    across = np.arange(window[1].start, window[1].stop)
    starts = np.flatnonzero(np.r_[True, across[1:] % side == 0])
    total = np.add.reduceat(weight.sum(axis=0), starts)
    there = total > 0
    if not there.any():
        return []
    of_y, of_x = exponents(degree).T
    y = frame.means(0, np.arange(window[0].start, window[0].stop), degree)
    x = frame.means(1, across, degree)
    products = (y.T @ weight)[of_y] * x.T[of_x]
    design = np.add.reduceat(products, starts, axis=1)[:, there] / total[there]
    summed = np.where(mine, parts.value[window] * weight, 0.0).sum(axis=0)
    value = np.add.reduceat(summed, starts)[there] / total[there]
    sigma = np.hypot(total[there] ** -0.5, floor)
    return [(design.T, value, sigma, np.full(len(value), number))]
