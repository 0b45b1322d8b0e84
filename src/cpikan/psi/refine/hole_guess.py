"""What lies in a hole of any size: the smooth background of its surroundings, led on to the rim, with a sigma."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.linalg import spsolve

from cpikan.psi.refine.background import DEGREE, Surface, basis, exponents, fit_surface
from cpikan.psi.refine.background_cells import Frame, Parts, cut_cells
from cpikan.psi.refine.protocol import BLOCK_PX

_CELLS = 48  # along the longer side of the surroundings
_TOO_SURE = 2.0  # a prior that is learnt from what is seen, of what is not: measured, benchmarks/far_gaps.py
_FLOOR_NM = 1e-3  # of a cell: noise-free frames have rounding left
_MEMBRANE = 20_000  # cells of a hole in which differences from the background are led on
_NEAR = 4  # blocks: residuals so near tell what the background does not follow
_NODES = 48  # per axis, between which sigma is interpolated


@dataclass(frozen=True)
class Surroundings:
    """Blocks of 8 x 8 pixels of a window: the mean ``height_nm`` (Hb, Wb) of those with all pixels, NaN elsewhere, the noise
    of a pixel, and which blocks have pixels of the ``hole``."""

    height_nm: np.ndarray
    noise_nm: float
    hole: np.ndarray


@dataclass(frozen=True)
class HoleGuess:
    """Heights of the window: the ``surface`` plus ``rest_nm``, on cells of ``side`` blocks, and sigma at ``nodes_nm``, evenly
    over the window of ``shape`` blocks."""

    shape: tuple[int, int]
    factors: np.ndarray
    rest_nm: np.ndarray
    side: int
    nodes_nm: np.ndarray

    def rows(self, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        """Evaluate pixels of the window: heights and sigma in nm, float32."""
        frame, degree = Frame(self.shape), len(self.factors) - 1
        at = [(np.arange(s.start, s.stop) + 0.5) / BLOCK_PX for s in (rows, columns)]  # blocks
        y, x = (np.polynomial.chebyshev.chebvander(frame.scaled(k, at[k]), degree) for k in (0, 1))
        cell = [a / self.side - 0.5 for a in at]
        node = [a / n * (m - 1) for a, n, m in zip(at, self.shape, self.nodes_nm.shape, strict=True)]
        height = (y @ self.factors @ x.T + _between(self.rest_nm, *cell)).astype(np.float32)
        return height, _between(self.nodes_nm, *node).astype(np.float32)


def _between(values: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Interpolate linearly at all pairs of coordinates, in elements; beyond the outermost as there."""
    for axis, at in enumerate((y, x)):
        at = np.clip(at, 0, values.shape[axis] - 1)
        low = np.minimum(at.astype(int), max(values.shape[axis] - 2, 0))
        high = np.minimum(low + 1, values.shape[axis] - 1)
        share = (at - low)[:, None] if axis == 0 else at - low
        values = np.take(values, low, axis) * (1 - share) + np.take(values, high, axis) * share
    return values


def guess_hole(around: Surroundings, degree: int = DEGREE) -> HoleGuess | None:
    """Guess what lies in the hole; None where too few blocks around have all of their pixels.

    Sigma is twice that of the background's prediction, and the RMS of what blocks near the hole lie off it. Differences at
    the rim are led on by a membrane, so that the guess begins where the measured heights end and overshoots nowhere.
    """
    known = np.isfinite(around.height_nm) & ~around.hole
    longest = max(known.shape)
    noise = max(around.noise_nm / BLOCK_PX, _FLOOR_NM)
    parts = Parts(around.height_nm, np.full(known.shape, noise), known.astype(np.int32))
    surface = fit_surface(cut_cells(parts, max(1, -(-longest // _CELLS)), degree, _FLOOR_NM)) if known.any() else None
    if surface is None:
        return None
    factors = np.zeros((degree + 1, degree + 1))
    factors[tuple(exponents(degree).T)] = surface.mean
    frame = Frame((known.shape[0], known.shape[1]))
    y, x = (frame.means(k, np.arange(n), degree) for k, n in enumerate(known.shape))
    rest = np.where(known, around.height_nm - y @ factors @ x.T, np.nan)
    near = known & ndimage.binary_dilation(around.hole, iterations=_NEAR)
    off = float(np.mean(rest[near] ** 2)) if near.any() else 0.0
    side = max(1, int(np.ceil(np.sqrt(around.hole.sum() / _MEMBRANE))))
    return HoleGuess(
        frame.shape, factors, _membrane(*_coarser(rest, around.hole, side)), side, _nodes(surface, frame, degree, off)
    )


def _nodes(surface: Surface, frame: Frame, degree: int, off_nm2: float) -> np.ndarray:
    """Compute sigma at nodes over the window, the outermost on its edges."""
    at = [np.linspace(0, n, min(n, _NODES) + 1) for n in frame.shape]
    y, x = np.meshgrid(*(frame.scaled(k, a) for k, a in enumerate(at)), indexing="ij")
    sigma = _TOO_SURE * surface.sigma(basis(np.stack([y.ravel(), x.ravel()], axis=1), degree))
    return np.sqrt(sigma.reshape(y.shape) ** 2 + off_nm2)


def _coarser(rest: np.ndarray, hole: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Average over cells of ``side`` blocks; NaN, and of the hole, where no block of them is known."""
    padding = [(0, -n % side) for n in rest.shape]

    def summed(values: np.ndarray) -> np.ndarray:
        wide = np.pad(values.astype(float), padding)
        return wide.reshape(wide.shape[0] // side, side, wide.shape[1] // side, side).sum(axis=(1, 3))

    count = summed(np.isfinite(rest))
    mean = np.where(count > 0, summed(np.nan_to_num(rest)) / np.maximum(count, 1), np.nan)
    return mean, (count == 0) & (summed(hole) > 0)


def _membrane(values: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Fill the hole by the discrete Laplace equation: every cell the mean of its neighbours; what is not known is 0."""
    known, filled = np.isfinite(values), np.nan_to_num(values)
    if not hole.any():
        return filled
    number = np.full(hole.shape, -1)
    number[hole] = np.arange(int(hole.sum()))
    diagonal, right = np.full(int(hole.sum()), 1e-9), np.zeros(int(hole.sum()))
    rows, columns = [np.arange(len(right))], [np.arange(len(right))]
    for axis in (0, 1):
        for step in (-1, 1):
            y, x = np.nonzero(hole)
            to = (y + step, x) if axis == 0 else (y, x + step)
            inside = (to[axis] >= 0) & (to[axis] < hole.shape[axis])
            here, there = number[y, x][inside], (to[0][inside], to[1][inside])
            np.add.at(right, here, np.where(known[there], filled[there], 0.0))
            np.add.at(diagonal, here, (known[there] | hole[there]).astype(float))
            both = hole[there]
            rows.append(here[both])
            columns.append(number[there][both])
    off = np.full(sum(map(len, rows)) - len(right), -1.0)
    where = (np.concatenate(rows), np.concatenate(columns))
    matrix = coo_array((np.r_[diagonal, off], where), shape=(len(right), len(right))).tocsc()
    filled[hole] = spsolve(matrix, right)
    return filled
