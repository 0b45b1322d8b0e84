"""The areal spline filter of ISO 16610-62: the surface that bends least for how near it comes to the valid heights.

It minimises the sum of (height - w)^2 over the valid pixels plus the sum of (a_x w_xx)^2 + 2 a_x a_y w_xy^2 + (a_y w_yy)^2
over all, differences of neighbours, a = 1 / (2 sin(pi / n))^2 for a nesting index of n pixels: a wave of that length passes by
half in every direction. Nothing is said about edges (natural ends): a plane passes unchanged, whatever the mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from cpikan.errors import InputError
from cpikan.surface.filters.gaussian import Rows

FloatArray = NDArray[np.float64]

_ENOUGH, _MOST_STEPS = 1e-10, 500
_SHORTEST_PX = 2.0
_PIXEL_BYTES = 112


class SplineSurface:
    """The large-scale part of a map by the spline filter; the whole map is held, about 112 bytes a pixel.

    Conjugate gradients, preconditioned by the filter of a map without holes whose ends are mirrored, which a cosine
    transform solves. Raises InputError for a nesting index below two pixels, for a map that is larger than the memory that
    is free, and where the steps do not suffice.
    """

    def __init__(self, source: Rows, nesting_px: float | tuple[float, float]) -> None:
        y, x = nesting_px if isinstance(nesting_px, tuple) else (nesting_px, nesting_px)
        if not (_SHORTEST_PX <= y < math.inf and _SHORTEST_PX <= x < math.inf):
            raise InputError(f"nesting index {nesting_px} in pixels is too short for a spline: give 2 or more")
        self._source = source
        self._stiff = tuple(1 / (2 * math.sin(math.pi / n)) ** 2 for n in (y, x))

    def rows(self, start: int, stop: int) -> Float64[np.ndarray, "rows w"]:
        """Evaluate rows [start, stop), (stop - start, W): also where the map is NaN; NaN everywhere without a valid pixel."""
        return self._surface[start:stop].copy()

    @cached_property
    def _surface(self) -> FloatArray:
        _check_memory(tuple(int(size) for size in self._source.shape))
        heights = np.asarray(self._source[0 : int(self._source.shape[0])], np.float64)
        valid = np.isfinite(heights)
        if not valid.any():
            return np.full(heights.shape, np.nan)
        around = float(heights[valid].mean())
        wanted = np.where(valid, heights - around, 0.0)
        return self._solved(wanted, valid.astype(np.float64)) + around

    def _solved(self, wanted: FloatArray, mask: FloatArray) -> FloatArray:
        """Solve for the surface by conjugate gradients from the mirrored filter's answer."""
        filled = self._mirrored(mask.shape, float(mask.mean()))
        found = filled(wanted)
        rest = wanted - self._applied(found, mask)
        way = filled(rest)
        along, size = float((rest * way).sum()), float(np.sqrt((wanted**2).sum()))
        for _ in range(_MOST_STEPS):
            if np.sqrt((rest**2).sum()) <= _ENOUGH * size:
                return found
            bent = self._applied(way, mask)
            step = along / float((way * bent).sum())
            found += step * way
            rest -= step * bent
            nearer = filled(rest)
            before, along = along, float((rest * nearer).sum())
            way = nearer + along / before * way
        raise InputError(
            f"the spline filter did not settle in {_MOST_STEPS} steps: fill holes, or give a shorter nesting index"
        )

    def _applied(self, surface: FloatArray, mask: FloatArray) -> FloatArray:
        """Apply the normal equations: the mask, and the bending by differences and their transposes."""
        down, across = self._stiff
        out = mask * surface
        for axis, stiff in ((0, down), (1, across)):
            if surface.shape[axis] > 2:
                out += stiff**2 * _second_transposed(np.diff(surface, 2, axis), axis)
        if min(surface.shape) > 1:
            twist = np.diff(np.diff(surface, axis=0), axis=1)
            out += 2 * down * across * _first_transposed(_first_transposed(twist, 1), 0)
        return out

    def _mirrored(self, shape: tuple[int, ...], share: float) -> Callable[[FloatArray], FloatArray]:
        from scipy.fft import dctn, idctn

        y, x = (4 * np.sin(np.pi * np.arange(n) / (2 * n)) ** 2 * a for n, a in zip(shape, self._stiff, strict=True))
        scale = 1 / (share + (y[:, None] + x[None, :]) ** 2)
        return lambda right: idctn(scale * dctn(right, norm="ortho"), norm="ortho")


def _check_memory(shape: tuple[int, ...]) -> None:
    import psutil

    needed, free = _PIXEL_BYTES * math.prod(shape), int(psutil.virtual_memory().available)
    if needed > free:
        raise InputError(
            f"the spline filter of {shape[0]} x {shape[1]} pixels takes {needed / 2**30:.1f} GiB of memory and "
            f"{free / 2**30:.1f} are free: crop the map, or take gaussian2 or robust2, which are swept"
        )


def _first_transposed(values: FloatArray, axis: int) -> FloatArray:
    ends = [(0, 0), (0, 0)]
    ends[axis] = (1, 1)
    return -np.diff(np.pad(values, ends), axis=axis)


def _second_transposed(values: FloatArray, axis: int) -> FloatArray:
    return _first_transposed(_first_transposed(values, axis), axis)
