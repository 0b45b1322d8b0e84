"""The slow form of a map, from differences of neighbours: steps, holes and pieces at other heights do not bend it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64
from numpy.polynomial.chebyshev import chebvander

_DEGREE = 7
_MOST = 6000  # differences along an axis
_PER_TERM = 20  # differences that each term needs
_SCALES = 2.0  # of the misfit, beyond which a difference counts for less and less
_ROUNDS, _SETTLED = 30, 1e-3
_NORMAL = 0.6745  # the median of |N(0, 1)|
_TINY_NM = 1e-9


@dataclass(frozen=True)
class SlowForm:
    """A polynomial in y and x, of no use as a height: its constant is none.

    ``coefficients_nm`` of Chebyshev polynomials in y and x of the whole image (H, W), ``shape``; ``slope_nm`` how much it
    typically rises from pixel to pixel.
    """

    coefficients_nm: Float64[np.ndarray, "n n"]
    shape: tuple[int, int]
    slope_nm: float

    @classmethod
    def fitted(
        cls,
        heights_nm: Float[np.ndarray, "pairs rows w"],
        valid: Bool[np.ndarray, "pairs rows w"],
        firsts: Sequence[int],
        shape: tuple[int, int],
    ) -> SlowForm:
        """Fit differences between neighbours within pairs of rows, whose first rows of the image are ``firsts``.

        Least squares with weights after Cauchy, so that steps count for little. The degree is seven, or less where there are
        few differences; with none the form is flat.
        """
        across, down = (_Differences.along(axis, heights_nm, valid, firsts) for axis in (2, 1))
        count = across.count + down.count
        fitting = [n for n in range(_DEGREE + 1) if _PER_TERM * len(_terms(n)) <= count]
        terms = _terms(max(fitting))
        size = max(fitting) + 1
        table = np.zeros((size, size))
        if not len(terms):
            return cls(table, shape, 0.0)
        parts = [one.series(shape, size)[:, terms[:, 0], terms[:, 1]] for one in (across, down)]
        found = _robust(np.concatenate(parts), np.concatenate([across.values_nm, down.values_nm]))
        table[terms[:, 0], terms[:, 1]] = found
        slopes = [float(np.median(np.abs(part @ found))) if len(part) else 0.0 for part in parts]
        return cls(table, shape, float(np.hypot(slopes[0], slopes[1])))

    def rows(self, start: int, stop: int) -> Float64[np.ndarray, "rows w"]:
        """Evaluate rows [start, stop) in nm, (stop - start, W): the same bits whatever the rows asked for together."""
        size = len(self.coefficients_nm)
        y, x = (chebvander(_scaled(np.arange(n), n), size - 1) for n in self.shape)
        out = np.zeros((stop - start, self.shape[1]))
        # one term after the other: a product of matrices may sum in another order for another number of rows
        for i in range(size):
            along = np.zeros(self.shape[1])
            for j in range(size - i):
                along += self.coefficients_nm[i, j] * x[:, j]
            out += y[start:stop, i, None] * along
        return out


@dataclass(frozen=True)
class _Differences:
    """Pixels (rows, columns) and how much the next one along ``axis`` (1: down, 2: across) is higher."""

    axis: int
    rows: np.ndarray
    columns: np.ndarray
    values_nm: np.ndarray

    @classmethod
    def along(cls, axis: int, heights_nm: np.ndarray, valid: np.ndarray, firsts: Sequence[int]) -> _Differences:
        lower, upper = (np.take(valid, range(a, valid.shape[axis] - 1 + a), axis) for a in (0, 1))
        places = np.flatnonzero(lower & upper)
        places = places[np.linspace(0, len(places) - 1, min(len(places), _MOST)).round().astype(int)]
        pair, row, column = np.unravel_index(places, lower.shape)
        values = np.diff(heights_nm.astype(np.float64), axis=axis)[pair, row, column]
        return cls(axis, np.asarray(firsts, int)[pair] + row, column, values)

    @property
    def count(self) -> int:
        return len(self.values_nm)

    def series(self, shape: tuple[int, int], size: int) -> np.ndarray:
        """Compute how much every product of Chebyshev polynomials rises, (differences, size, size)."""
        y, x = (chebvander(_scaled(at, n), size - 1) for at, n in zip((self.rows, self.columns), shape, strict=True))
        if self.axis == 1:
            y = chebvander(_scaled(self.rows + 1, shape[0]), size - 1) - y
        else:
            x = chebvander(_scaled(self.columns + 1, shape[1]), size - 1) - x
        return y[:, :, None] * x[:, None, :]


def _terms(degree: int) -> np.ndarray:
    """List the powers (i, j) of all terms up to a degree but the constant."""
    found = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i) if i + j]
    return np.array(found, int).reshape(-1, 2)


def _scaled(at: np.ndarray, length: int) -> np.ndarray:
    """Map pixels 0 to length - 1 to -1 to 1."""
    return 2 * at / max(length - 1, 1) - 1


def _robust(matrix: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Solve by least squares whose weights are Cauchy's, until the scale of the misfit settles."""
    weight, scale = np.ones(len(values)), np.inf
    found = np.zeros(matrix.shape[1])
    for _ in range(_ROUNDS):
        root = np.sqrt(weight)
        found = np.linalg.lstsq(matrix * root[:, None], values * root, rcond=1e-10)[0]
        misfit = values - matrix @ found
        before, scale = scale, max(float(np.median(np.abs(misfit))) / _NORMAL, _TINY_NM)
        weight = 1 / (1 + (misfit / (_SCALES * scale)) ** 2)
        if abs(before - scale) <= _SETTLED * scale:
            break
    return found
