"""The areal Gaussian filter of ISO 16610-61, renormalised over the pixels that are there, for maps of any size.

The large-scale part at a pixel is the mean of the valid heights around it, weighted by exp(-pi (d / (alpha n))^2), alpha =
sqrt(ln 2 / pi), n the nesting index: a wave of that length passes by half. At edges and holes the weights are renormalised
over the valid pixels (regression of zero order); ``order=2`` fits a polynomial of second order by those weights instead
(ISO 16610-31, 16610-71), which follows slope and curvature up to an edge.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Float64
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.masked import without_mask
from cpikan.surface.filters.gaussian_axis import GaussianAxis
from cpikan.surface.filters.local_fit import TERMS, Powers, fitted_height, moments_needed

FloatArray = NDArray[np.float64]

_BAND_PIXELS = 1 << 20
_LONGEST = 50  # nesting index in lengths of the map: beyond, it is the mean (or one polynomial)


class Rows(Protocol):
    """A map (H, W), NaN where nothing was measured, that gives its rows by slices: an array, or one on disk."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, key: Any) -> Any: ...


def gaussian_filter(
    height_nm: Float[np.ndarray, "h w"], nesting_px: float | tuple[float, float], order: int = 0
) -> Float64[np.ndarray, "h w"]:
    """Filter a whole map (H, W): its large-scale part, NaN where the map is NaN; what a filter removed is the rest.

    ``nesting_px`` is the nesting index in pixels, (y, x) where pixels are not square. Raises InputError for a map that is
    not two-dimensional, a nesting index that is not positive, or an order other than 0 and 2.
    """
    height_nm = np.asarray(without_mask(height_nm))
    mean = GaussianMean(height_nm, nesting_px, order)
    out = mean.rows(0, height_nm.shape[0])
    out[~np.isfinite(height_nm)] = np.nan
    return out


@dataclass
class _Nodes:
    """Moments at the nodes of both axes: node rows from ``first``, of heights and weights by powers (y, x)."""

    first: int
    around: float | None
    heights: dict[Powers, FloatArray]
    weights: dict[Powers, FloatArray]


class GaussianMean:
    """The large-scale part of a map that is read in bands of rows, evaluated at any of its rows.

    Memory is that of a few bands and of the nodes: 16 bytes for every step_y x step_x pixels, where a step is an eighth of
    the nesting index that is left over 1 (a nesting index of 800 pixels has steps of 74), and nothing below 22 pixels,
    where the rows around are read again. The map is swept once when the first rows are asked for.
    """

    def __init__(
        self,
        source: Rows,
        nesting_px: float | tuple[float, float],
        order: int = 0,
        weights: Callable[[int, NDArray[Any]], NDArray[Any]] | None = None,
    ) -> None:
        """Set up; ``weights(first row, heights (rows, W))`` gives non-negative weights of pixels, None for 1."""
        height, width = _checked_shape(source)
        across = _checked_nesting(nesting_px, (height, width))
        if order not in TERMS:
            raise InputError(f"order {order} of a Gaussian regression is not offered: give 0 or 2")
        self._source, self._order, self._weigh = source, order, weights
        self._y, self._x = GaussianAxis(height, across[0]), GaussianAxis(width, across[1])
        self._moments = moments_needed(order)
        self._ups = {
            (power, block): self._x.up(*block, power) for block in self._x.blocks for power in range(2 * order + 1)
        }
        self._all: _Nodes | None = None

    def rows(self, start: int, stop: int) -> Float64[np.ndarray, "rows w"]:
        """Evaluate rows [start, stop), (stop - start, W): also where the map is NaN and pixels with weight are near."""
        out = np.empty((stop - start, self._x.length))
        step = self._band(512)
        for first in range(start, stop, step):
            last = min(first + step, stop)
            nodes = self._near(first, last)
            for top in range(first, last, self._y.block):
                bottom = min(top + self._y.block, last)
                for left, right in self._x.blocks:
                    out[top - start : bottom - start, left:right] = self._tile(nodes, (top, bottom), (left, right))
        return out

    def _band(self, rows: int) -> int:
        return max(1, min(rows, _BAND_PIXELS // self._x.length))

    def _near(self, first: int, last: int) -> _Nodes:
        """Find the nodes that rows [first, last) need: all of them, kept, or those of the rows around."""
        if not (self._y.split or self._x.split):
            start, stop = self._y.near(first, last)
            return self._swept(start, stop)
        if self._all is None:
            self._all = self._swept(0, self._y.length)
        return self._all

    def _swept(self, start: int, stop: int) -> _Nodes:
        first, last = self._y.near(start, stop) if self._y.split else (start, stop)
        shape = (last - first, self._x.nodes)
        heights, weights = ({powers: np.zeros(shape) for powers in self._kept(part)} for part in self._moments)
        nodes = _Nodes(first, None, heights, weights)
        step = self._band(512)
        for begin in range(start, stop, step):
            self._add(nodes, begin, np.asarray(self._source[begin : min(begin + step, stop)]))
        return nodes

    def _kept(self, moments: tuple[Powers, ...]) -> list[Powers]:
        """Keep moments about nodes apart from pixels only where nodes are apart from pixels."""
        return [(a, b) for a, b in moments if (self._y.split or a == 0) and (self._x.split or b == 0)]

    def _add(self, nodes: _Nodes, start: int, heights: NDArray[Any]) -> None:
        valid = np.isfinite(heights)
        weight = valid.astype(np.float64)
        if self._weigh is not None:
            weight *= np.where(valid, self._weigh(start, heights), 0.0)
        if nodes.around is None and valid.any():
            nodes.around = float(heights[valid].mean(dtype=np.float64))
        # about a height of the map: what is summed is as small as its range
        high = np.where(valid, heights, 0.0) - np.where(valid, nodes.around or 0.0, 0.0)
        stop = start + len(heights)
        top, bottom = self._y.near(start, stop) if self._y.split else (start, stop)
        for sums, pixels in ((nodes.heights, high * weight), (nodes.weights, weight)):
            for (power_y, power_x), total in sums.items():
                down_y = self._y.down(start, stop, power_y)
                rows = pixels if down_y is None else down_y @ pixels
                into = total[top - nodes.first : bottom - nodes.first]
                if not self._x.split:
                    into += rows
                    continue
                for block in self._x.blocks:
                    left, right = self._x.near(*block)
                    down_x = self._x.down(*block, power_x)
                    assert down_x is not None
                    into[:, left:right] += rows[:, slice(*block)] @ down_x.T

    def _tile(self, nodes: _Nodes, rows: tuple[int, int], columns: tuple[int, int]) -> FloatArray:
        top, bottom = self._y.near(*rows)
        left, right = self._x.near(*columns)
        window = (slice(top - nodes.first, bottom - nodes.first), slice(left, right))
        ups = [self._y.up(*rows, power) for power in range(2 * self._order + 1)]

        def moment(sums: dict[Powers, FloatArray], powers: Powers) -> FloatArray:
            """Move moments about nodes to moments about pixels, by the binomial theorem in each axis."""
            total = np.zeros((rows[1] - rows[0], columns[1] - columns[0]))
            for (a, b), at_nodes in sums.items():
                if a <= powers[0] and b <= powers[1]:
                    factor = math.comb(powers[0], a) * math.comb(powers[1], b)
                    across = at_nodes[window] @ self._ups[powers[1] - b, columns]
                    total += factor * (ups[powers[0] - a].T @ across)
            return total

        found = fitted_height(self._order, lambda p: moment(nodes.heights, p), lambda p: moment(nodes.weights, p))
        return found + (nodes.around or 0.0)


def _checked_shape(source: Rows) -> tuple[int, int]:
    if len(source.shape) != 2 or min(source.shape) < 1:
        raise InputError(f"a height map has two dimensions, got the shape {tuple(source.shape)}: give an array (H, W)")
    return int(source.shape[0]), int(source.shape[1])


def _checked_nesting(nesting_px: float | tuple[float, float], shape: tuple[int, int]) -> tuple[float, float]:
    """Give the nesting index of both axes, no longer than makes a difference."""
    y, x = nesting_px if isinstance(nesting_px, tuple) else (nesting_px, nesting_px)
    if not (0 < y < math.inf and 0 < x < math.inf):
        raise InputError(f"nesting index {nesting_px} in pixels is not positive: give one above zero, or (y, x)")
    longest = _LONGEST * max(shape)
    if max(y, x) > longest:
        raise InputError(
            f"nesting index of {max(y, x):g} pixels on a map of {shape[1]} x {shape[0]} pixels: give {longest} at most"
        )
    return float(y), float(x)
