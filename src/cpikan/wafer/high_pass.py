"""Nanotopography: heights of a front face without their long waves, by a polynomial and a Gaussian that is applied twice."""

from __future__ import annotations

import math

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from cpikan.surface.filters.gaussian import GaussianMean
from cpikan.surface.filters.gaussian_axis import ALPHA, sigma_px
from cpikan.wafer.kernels import cell_sums, remove_rows
from cpikan.wafer.outline import Wafer

FloatArray = NDArray[np.float64]

CUTOFF_MM = 20.0  # half of a wave of this length passes the Gaussian
ORDER = 10  # of the polynomial: a mean over half a neighbourhood follows neither slope nor bow at an edge
_SAMPLES = 100  # of a radius, for the polynomial
_FEWEST_SAMPLES, _LOW_ORDER = 1000, 2
_CELLS_PER_SIGMA = 20


class HighPass:
    """Takes P, G r and G (r - G r) off the heights within ``radius_mm``, r = z - P; NaN outside.

    P is the polynomial of total degree 10 of least squares over every n-th pixel of every n-th row, n a hundredth of the
    radius.
    G is the Gaussian of ISO 16610-61 with a cutoff of 20 mm over the valid pixels within the radius, of zero order. It is
    evaluated on cells of a twentieth of its standard deviation: a mean over a cell counts in its middle, the spread within a
    cell is taken off the variance of the Gaussian, and what comes out is interpolated by cubics. In turn: `sample` all bands,
    `gather` all bands, `rows` of any. Memory of a few bands and the cells.
    """

    def __init__(self, wafer: Wafer, radius_mm: float, shape: tuple[int, int]) -> None:
        down, across = wafer.pixel_mm
        self._shape, self._middle, self._radius = shape, (wafer.y, wafer.x), (radius_mm / down, radius_mm / across)
        self._step = tuple(max(1, int(reach / _SAMPLES)) for reach in self._radius)
        self._samples: list[FloatArray] = []
        nesting = CUTOFF_MM / down, CUTOFF_MM / across
        cell = [max(1, int(sigma_px(one) / _CELLS_PER_SIGMA)) for one in nesting]
        self._nesting = _in_cells(nesting[0], cell[0]), _in_cells(nesting[1], cell[1])
        self.spans = spans_of(wafer, radius_mm, shape)
        used = self.spans[self.spans[:, 0] < self.spans[:, 1]]
        ends = (used[:, 0].min() // cell[1], used[:, 1].max() // cell[1] + 1) if used.size else (0, 1)
        left = max(int(ends[0]) - 2, 0)  # cubics ask for two cells beyond
        right = min(int(ends[1]) + 2, -(-shape[1] // cell[1]))
        self._cell = np.array([*cell, left])
        self._forms: FloatArray | None = None
        self._sums = np.zeros((2, -(-shape[0] // cell[0]), right - left))
        self._waves: FloatArray | None = None

    def sample(self, start: int, heights: FloatArray) -> None:
        """Take rows from ``start`` for the polynomial, heights in nm."""
        rows = np.arange(start + -start % self._step[0], start + len(heights), self._step[0])
        for row in rows:
            first, last = self.spans[row]
            columns = np.arange(first + -first % self._step[1], last, self._step[1])
            z = heights[row - start, columns]
            good = np.isfinite(z)
            if good.any():
                self._samples.append(np.stack([np.full(good.sum(), float(row)), columns[good].astype(float), z[good]]))

    def gather(self, start: int, heights: FloatArray) -> None:
        """Take rows from ``start`` for the Gaussian, heights in nm."""
        if self._forms is None:
            self._forms = self._fitted()
        cell_sums(heights, start, self.spans, self._forms, self._scale, self._cell, self._sums)

    def rows(self, start: int, heights: FloatArray) -> FloatArray:
        """Filter rows from ``start``, heights in nm."""
        assert self._forms is not None
        if self._waves is None:
            self._waves = self._filtered()
        out = np.empty(heights.shape)
        first, weights = _cubics(start + np.arange(len(heights)), int(self._cell[0]))
        top, bottom = int(first.min()), int(first.max()) + 4
        near = np.zeros((len(heights), bottom - top))
        near[np.arange(len(heights))[:, None], first[:, None] - top + np.arange(4)] = weights
        long = near @ self._waves[top:bottom]
        across = _cubics(np.arange(int(self._cell[1])), int(self._cell[1]))[1]
        remove_rows(heights, start, self.spans, self._forms, self._scale, self._cell, across, long, out)
        return out

    @property
    def _scale(self) -> FloatArray:
        return np.array([self._middle[1], 1 / self._radius[1]])

    def _fitted(self) -> FloatArray:
        """Fit the polynomial; its coefficients along each row, by powers of the column's place in the radius."""
        y, x, z = np.concatenate(self._samples, 1) if self._samples else np.zeros((3, 0))
        order = ORDER if z.size >= _FEWEST_SAMPLES else _LOW_ORDER
        powers = [(a, b) for a in range(order + 1) for b in range(order + 1 - a)]
        v, u = (y - self._middle[0]) / self._radius[0], (x - self._middle[1]) / self._radius[1]
        across, down = chebyshev.chebvander(u, order), chebyshev.chebvander(v, order)
        mean = float(z.mean()) if z.size else 0.0
        design = np.stack([down[:, a] * across[:, b] for a, b in powers], 1)
        found = np.linalg.lstsq(design, z - mean, rcond=1e-12)[0]
        series = np.zeros((order + 1, order + 1))
        series[tuple(np.array(powers).T)] = found
        series[0, 0] += mean
        places = (np.arange(self._shape[0]) - self._middle[0]) / self._radius[0]
        along = chebyshev.chebvander(places, order) @ series
        to_powers = np.zeros((order + 1, order + 1))
        for k in range(order + 1):
            own = chebyshev.cheb2poly([0.0] * k + [1.0])
            to_powers[k, : own.size] = own
        return np.ascontiguousarray(along @ to_powers)

    def _filtered(self) -> FloatArray:
        """Compute G r + G (r - G r) in the middles of the cells, with two more cells on every side."""
        cells, counts = self._sums
        with np.errstate(invalid="ignore"):
            cells /= counts  # NaN where no pixel is valid

        def weights(first: int, rows: NDArray[np.float64]) -> NDArray[np.float64]:
            return counts[first : first + len(rows)]

        total = np.zeros_like(cells)
        if (counts > 0).any():
            for _ in range(2):
                mean = GaussianMean(cells, self._nesting, weights=weights).rows(0, len(cells))
                total += np.nan_to_num(mean, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
                cells -= mean
        return np.pad(total, 2, mode="edge")


def _in_cells(nesting_px: float, size: int) -> float:
    """Give the nesting index in cells, less what the mean over a cell has widened."""
    if size == 1:
        return nesting_px
    variance = (sigma_px(nesting_px) / size) ** 2 - (1 - size**-2) / 12
    return math.sqrt(variance * 2 * math.pi) / ALPHA


def spans_of(wafer: Wafer, radius_mm: float, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Find the columns [first, last) of every row whose centres lie within the radius."""
    y = (wafer.y - np.arange(shape[0])) * wafer.pixel_mm[0]
    half = np.sqrt(np.maximum(radius_mm**2 - y * y, 0)) / wafer.pixel_mm[1]
    first = np.clip(np.ceil(wafer.x - half), 0, shape[1]).astype(np.int64)
    last = np.clip(np.floor(wafer.x + half) + 1, 0, shape[1]).astype(np.int64)
    inside = np.abs(y) <= radius_mm
    return np.stack([np.where(inside, first, 0), np.where(inside, np.maximum(first, last), 0)], 1)


def _cubics(pixels: NDArray[np.int64], size: int) -> tuple[NDArray[np.int64], FloatArray]:
    """Give the first of the four cells around pixels, counted from cell -2, and their weights (Keys' cubic convolution)."""
    place = (pixels - (size - 1) / 2) / size
    base = np.floor(place).astype(np.int64)
    t = place - base
    weights = np.stack(
        [
            ((-0.5 * t + 1.0) * t - 0.5) * t,
            (1.5 * t - 2.5) * t * t + 1.0,
            ((-1.5 * t + 2.0) * t + 0.5) * t,
            (0.5 * t - 0.5) * t * t,
        ],
        1,
    )
    return base + 1, weights
