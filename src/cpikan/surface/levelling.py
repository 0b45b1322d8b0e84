"""Piston and tilt of a height map by least squares, over rows that arrive in any order, without holding the map."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cpikan.errors import InputError, unknown_name

FloatArray = NDArray[np.floating]
TERMS = ("piston", "tilt")

_BLOCK_PIXELS = 1 << 20  # rows are worked off in blocks of about this many pixels


def check_terms(terms: Iterable[str]) -> tuple[str, ...]:
    """Return the terms without repeats, in the order of ``TERMS``; raises InputError for any other name."""
    given = [terms] if isinstance(terms, str) else list(terms)
    for name in given:
        if name not in TERMS:
            raise unknown_name("term to remove", name, TERMS)
    return tuple(name for name in TERMS if name in given)


def scaled_coordinates(count: int) -> NDArray[np.float64]:
    """Pixel centres of an axis mapped to [-1, 1]; a single pixel lies at 0."""
    return np.linspace(-1.0, 1.0, count) if count > 1 else np.zeros(count)


@dataclass(frozen=True)
class Plane:
    """``piston_nm + tilt_y_nm * y + tilt_x_nm * x`` on an image of ``shape`` (H, W), y and x running from -1 to 1."""

    shape: tuple[int, int]
    piston_nm: float = 0.0
    tilt_y_nm: float = 0.0
    tilt_x_nm: float = 0.0

    def rows(self, start: int, stop: int) -> NDArray[np.float64]:
        """Values in rows [start, stop), float64 of shape (stop - start, W), in nm."""
        y = scaled_coordinates(self.shape[0])[start:stop, None]
        x = scaled_coordinates(self.shape[1])[None, :]
        return self.piston_nm + self.tilt_y_nm * y + self.tilt_x_nm * x

    def remove(self, height_nm: FloatArray, start: int = 0) -> NDArray[np.float64]:
        """Heights in nm, rows from ``start``, without the plane; float64, NaN stays NaN."""
        return np.asarray(height_nm, np.float64) - self.rows(start, start + len(height_nm))

    @property
    def slope_nm_per_pixel(self) -> tuple[float, float]:
        """Slope along y and x in nm per pixel."""
        height, width = self.shape
        return 2 * self.tilt_y_nm / max(height - 1, 1), 2 * self.tilt_x_nm / max(width - 1, 1)


class PlaneFit:
    """Least-squares piston and tilt of a map of ``shape`` (H, W), fed with rows through ``add``.

    A constant is always fitted along with a tilt, so that ``terms=("tilt",)`` removes the slope and leaves the mean.
    With ``around`` (an earlier fit) and ``scale_nm``, pixels off that plane by much more than the scale lose their
    weight (Cauchy weights 1 / (1 + (r/s)^2)): one such second sweep keeps steps and wrong orders from tilting the
    plane. Raises InputError for an unknown term.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        terms: Sequence[str] = TERMS,
        *,
        around: Plane | None = None,
        scale_nm: float = 1.0,
    ) -> None:
        self._shape = shape
        self._terms = check_terms(terms)
        self._around, self._scale_nm = around, scale_nm
        self._y, self._x = scaled_coordinates(shape[0]), scaled_coordinates(shape[1])
        self._normal = np.zeros((3, 3))
        self._right = np.zeros(3)

    def add(self, start: int, height_nm: FloatArray, weights: NDArray | None = None) -> None:
        """Take rows [start, start + n) of heights in nm (NaN ignored); ``weights`` (or a mask) has the same shape."""
        step = max(1, _BLOCK_PIXELS // max(self._shape[1], 1))
        for first in range(0, len(height_nm), step):
            part = slice(first, min(first + step, len(height_nm)))
            self._add_block(start + first, height_nm[part], None if weights is None else weights[part])

    def _add_block(self, start: int, height_nm: FloatArray, weights: NDArray | None) -> None:
        values = np.asarray(height_nm, np.float64)
        weight = np.isfinite(values).astype(np.float64)
        if weights is not None:
            weight *= weights
        if self._around is not None:
            residual = np.nan_to_num(self._around.remove(values, start), nan=0.0, posinf=0.0, neginf=0.0)
            weight /= 1 + (residual / self._scale_nm) ** 2
        values = np.where(weight > 0, values, 0.0)
        y, x = self._y[start : start + len(values)], self._x
        weighted = weight * values
        # separable sums: every moment is a product of row sums with the coordinates
        row, row_x, row_xx = weight.sum(1), weight @ x, weight @ x**2
        self._normal += np.array(
            [
                [row.sum(), y @ row, row_x.sum()],
                [y @ row, y**2 @ row, y @ row_x],
                [row_x.sum(), y @ row_x, row_xx.sum()],
            ]
        )
        self._right += np.array([weighted.sum(), y @ weighted.sum(1), (weighted @ x).sum()])

    def solve(self) -> Plane:
        """The plane of the wanted terms; the zero plane without a valid pixel, the minimum-norm one for a line of
        pixels.
        """
        if not self._terms or self._normal[0, 0] <= 0:
            return Plane(self._shape)
        size = 3 if "tilt" in self._terms else 1
        # the cut-off is relative: a direction that no pixel constrains has a zero eigenvalue and gets no slope
        found = np.linalg.lstsq(self._normal[:size, :size], self._right[:size], rcond=1e-12)[0]
        coefficients = np.zeros(3)
        coefficients[:size] = found
        if "piston" not in self._terms:
            coefficients[0] = 0.0
        return Plane(self._shape, *(float(value) for value in coefficients))


def fit_terms(
    height_nm: FloatArray,
    weights: NDArray | None = None,
    terms: Sequence[str] = TERMS,
    *,
    reweight: bool = False,
) -> Plane:
    """Fit piston and tilt to a whole map (H, W) in nm, NaN ignored; ``weights`` is a mask or non-negative weights.

    ``reweight`` repeats the fit once with Cauchy weights at the scale of the median absolute residual, which holds the
    plane against steps on a minority of the pixels. Raises InputError for an unknown term or a map that is not
    two-dimensional.
    """
    if np.ndim(height_nm) != 2:
        raise InputError(f"a height map has two dimensions, got {np.ndim(height_nm)}: give an array of shape (H, W)")
    shape = (int(height_nm.shape[0]), int(height_nm.shape[1]))
    fit = PlaneFit(shape, terms)
    fit.add(0, height_nm, weights)
    plane = fit.solve()
    if not reweight:
        return plane
    residual = np.abs(plane.remove(height_nm))
    used = np.isfinite(residual) if weights is None else np.isfinite(residual) & (np.asarray(weights) > 0)
    scale = float(np.median(residual[used])) if used.any() else 0.0
    if scale <= 0:
        return plane
    again = PlaneFit(shape, terms, around=plane, scale_nm=scale)
    again.add(0, height_nm, weights)
    return again.solve()


def remove(height_nm: FloatArray, terms: Sequence[str] = TERMS, weights: NDArray | None = None) -> NDArray[np.float64]:
    """Heights (H, W) in nm without their least-squares piston and tilt, as far as the terms name them; float64."""
    return fit_terms(height_nm, weights, terms).remove(height_nm)
