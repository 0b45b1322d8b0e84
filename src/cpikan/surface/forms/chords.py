"""Rows of a pupil as chords, on each of which a polynomial of the image is a short Chebyshev series.

A row of ten thousand pixels enters the normal equations of degree n only through its first 2n + 1 Chebyshev moments, and
leaves them as a series of n + 1 terms: fitting and removing 36 Zernike terms costs little more than fitting a plane.

         . - - - - - .
       (---------------)          row above the hole: one chord; t = -1 at its left rim, +1 at its right rim
      (     . - - .     )
      |----|       |----|         row through the hole: two chords; columns below ``split`` lie on the first
      (     ' - - '     )         t = (column - centre) / half is within [-1, 1] on each, and so is every T_j(t)
       (               )
         ' - - - - - '
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpikan.compiled import compiled
from cpikan.surface.apertures.aperture import EDGE, Circle
from cpikan.surface.forms.zernike import ZernikeBasis

FloatArray = NDArray[np.float64]

_BLOCK = 256
_jit: Any = functools.partial(compiled, error_model="numpy", boundscheck=False)
_jit_sums: Any = functools.partial(_jit, fastmath={"reassoc", "contract", "nsz"})


@dataclass(frozen=True)
class Chords:
    """The chords of rows from ``start`` of a pupil: two where a row crosses the hole of an annulus, else one.

    Columns below ``split`` (rows,) belong to the first chord of their row. ``centre`` and ``half`` (rows, chords) are
    their middles and half lengths in pixels; all pixels of the pupil lie on them. On its chord a basis function is
    bounded, so neither moments nor series cancel, whatever the degree and the width of an annulus.
    """

    pupil: Circle
    start: int
    split: NDArray[np.int64]
    centre: FloatArray
    half: FloatArray

    @classmethod
    def of(cls, pupil: Circle, start: int, rows: int, width: int) -> Chords:
        """Find the chords of rows [start, start + rows) of an image that is ``width`` wide."""
        square = ((start + np.arange(rows) - pupil.y) * pupil.aspect) ** 2
        outer = np.sqrt(np.maximum((pupil.radius * EDGE) ** 2 - square, 0.25))
        if not pupil.inner:
            return cls(pupil, start, np.full(rows, width), np.full((rows, 1), float(pupil.x)), outer[:, None])
        hole = (pupil.inner / EDGE) ** 2 - square
        inner = np.sqrt(np.maximum(hole, 0.0))
        crossed = hole > 0
        reach = np.where(crossed, (outer + inner) / 2, 0.0)  # from the middle of the pupil to that of a chord
        half = np.maximum(np.where(crossed, (outer - inner) / 2, outer), 0.5)
        split = np.where(crossed, np.clip(np.ceil(pupil.x), 0, width), width).astype(np.int64)
        centre = np.stack([pupil.x - reach, pupil.x + reach], 1)
        return cls(pupil, start, split, centre, np.stack([half, half], 1))

    def node_values(self, basis: ZernikeBasis, count: int) -> FloatArray:
        """Evaluate basis functions at ``count`` Chebyshev nodes of every chord, shape (modes, rows, chords, count)."""
        columns = self.centre[..., None] + self.half[..., None] * np.cos(_angles(count))
        rows = self.start + np.arange(len(self.split), dtype=np.float64)
        down = (rows[:, None, None] - self.pupil.y) * self.pupil.aspect
        return basis.values(down / self.pupil.radius, (columns - self.pupil.x) / self.pupil.radius)

    def series(self, basis: ZernikeBasis) -> FloatArray:
        """Expand the basis functions along every chord in Chebyshev terms, (modes, rows, chords, order + 1)."""
        count = degree(basis) + 1
        return self.node_values(basis, count) @ _to_series(count)


def degree(basis: ZernikeBasis) -> int:
    """Return the highest radial order of a basis, 0 of an empty one."""
    return max((n for n, _ in basis.modes), default=0)


def _angles(count: int) -> FloatArray:
    return np.pi * (np.arange(count) + 0.5) / count


def _to_series(count: int) -> FloatArray:
    """Make the matrix (nodes, terms) from values at Chebyshev nodes to coefficients."""
    matrix = np.cos(np.outer(_angles(count), np.arange(count))) * (2 / count)
    matrix[:, 0] /= 2
    return matrix


def node_weights(moments: FloatArray, count: int) -> FloatArray:
    """Compute weights at ``count`` nodes of given Chebyshev moments (..., up to ``count``): sums of polynomials become
    sums over nodes.
    """
    weights: FloatArray = moments @ _to_series(count)[:, : moments.shape[-1]].T
    return weights


@_jit_sums
def chord_moments(heights, weights, split, centre, half, of_weight, of_height):  # type: ignore[no-untyped-def]
    """Add the moments of weights and of weighted heights along every chord; returns the number of pixels that count.

    ``heights`` (maps, rows, W), ``weights`` (rows, W): a pixel with weight 0 is not looked at. ``of_weight``
    (rows, chords, 2n + 1) and ``of_height`` (maps, rows, chords, n + 1) take the sums of T_j.
    """
    maps, rows, width = heights.shape
    chords, high, low = of_weight.shape[1], of_weight.shape[2], of_height.shape[3]
    t, last, now = np.empty(_BLOCK), np.empty(_BLOCK), np.empty(_BLOCK)
    w, wh = np.empty(_BLOCK), np.empty((maps, _BLOCK))
    pixels = 0
    for y in range(rows):
        for s in range(chords):
            first, end = (0, split[y]) if s == 0 else (split[y], width)
            for x0 in range(first, end, _BLOCK):
                n = min(_BLOCK, end - x0)
                used = 0
                for i in range(n):
                    w[i] = weights[y, x0 + i]
                    used += w[i] > 0
                if used == 0:
                    continue
                pixels += used
                for k in range(maps):
                    for i in range(n):
                        wh[k, i] = w[i] * heights[k, y, x0 + i] if w[i] > 0 else 0.0
                for i in range(n):
                    t[i] = (x0 + i - centre[y, s]) / half[y, s]
                    if w[i] <= 0:
                        t[i] = 0.0  # far outside a chord the polynomials would overflow
                    last[i], now[i] = t[i], 1.0
                for j in range(high):
                    total = 0.0
                    for i in range(n):
                        total += w[i] * now[i]
                    of_weight[y, s, j] += total
                    if j < low:
                        for k in range(maps):
                            total = 0.0
                            for i in range(n):
                                total += wh[k, i] * now[i]
                            of_height[k, y, s, j] += total
                    for i in range(n):
                        following = 2 * t[i] * now[i] - last[i]
                        last[i], now[i] = now[i], following
    return pixels


@_jit_sums
def group_sums(height, group, weights, split, centre, half, series, of_mode, of_height):  # type: ignore[no-untyped-def]
    """Add the sums of the basis functions (groups, modes) and of the heights (groups,) over each group of pixels.

    ``series`` (rows, chords, modes, terms) are the basis functions along every chord.
    """
    rows, width = height.shape
    chords, modes, terms = series.shape[1], series.shape[2], series.shape[3]
    moments = np.empty(terms)
    t, last, now = np.empty(_BLOCK), np.empty(_BLOCK), np.empty(_BLOCK)
    for y in range(rows):
        for s in range(chords):
            x, end = (0, split[y]) if s == 0 else (split[y], width)
            while x < end:
                if not weights[y, x] > 0:
                    x += 1
                    continue
                number, first, total = group[y, x], x, 0.0
                moments[:] = 0.0
                # a run of pixels of one group, a block at a time
                while x < end and x - first < _BLOCK and weights[y, x] > 0 and group[y, x] == number:
                    i = x - first
                    total += height[y, x]
                    t[i] = (x - centre[y, s]) / half[y, s]
                    last[i], now[i] = t[i], 1.0
                    x += 1
                n = x - first
                for j in range(terms):
                    moment = 0.0
                    for i in range(n):
                        moment += now[i]
                        following = 2 * t[i] * now[i] - last[i]
                        last[i], now[i] = now[i], following
                    moments[j] = moment
                of_height[number] += total
                for k in range(modes):
                    value = 0.0
                    for j in range(terms):
                        value += series[y, s, k, j] * moments[j]
                    of_mode[number, k] += value


@_jit
def chord_values(series, wanted, split, centre, half, out):  # type: ignore[no-untyped-def]
    """Evaluate Chebyshev series (surfaces, rows, chords, terms) by Clenshaw, (surfaces, rows, W); NaN if not wanted.

    Each pixel is a function of its own row and column alone, so bands and threads do not change a bit.
    """
    surfaces, rows, width = out.shape
    chords, terms = series.shape[2], series.shape[3]
    t, b1, b2 = np.empty(_BLOCK), np.empty(_BLOCK), np.empty(_BLOCK)
    for k in range(surfaces):
        for y in range(rows):
            for s in range(chords):
                first, end = (0, split[y]) if s == 0 else (split[y], width)
                for x0 in range(first, end, _BLOCK):
                    n = min(_BLOCK, end - x0)
                    for i in range(n):
                        t[i] = (x0 + i - centre[y, s]) / half[y, s]
                        b1[i], b2[i] = 0.0, 0.0
                    for j in range(terms - 1, 0, -1):
                        c = series[k, y, s, j]
                        for i in range(n):
                            b = c + 2 * t[i] * b1[i] - b2[i]
                            b2[i], b1[i] = b1[i], b
                    c = series[k, y, s, 0]
                    for i in range(n):
                        value = c + t[i] * b1[i] - b2[i]
                        out[k, y, x0 + i] = value if wanted[y, x0 + i] else np.nan
