"""Slopes and curvature of a fitted surface at every pixel, exact, with what they are worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import ndimage

from cpikan.fields.grid_slopes import GridSlopes
from cpikan.partition.windows import window
from cpikan.psi.refine.closed_form import QUANTITIES, ClosedForm, fitted_products, joined, posterior_sigma
from cpikan.psi.refine.field import FittedSurface, guiding_surface, measuring_surface
from cpikan.psi.refine.joining import Joined
from cpikan.psi.refine.protocol import BLOCK_PX, SurfaceRows
from cpikan.psi.refine.unwrapped import UnwrappedBlocks

if TYPE_CHECKING:
    from cpikan.psi.refine.field import FittedSurface


SLOPES = ("slope_y_nm_per_px", "slope_x_nm_per_px", "curvature_nm_per_px2")
SLOPE_SIGMAS = ("slope_sigma_nm_per_px", "curvature_sigma_nm_per_px2")
_REACH = 4  # blocks: residuals within this distance say how large the error of the model is
_SURE = 3.0  # standard deviations: beyond them differences of residuals are no noise


class SlopeMaps:
    """Rows of ``SLOPES`` and ``SLOPE_SIGMAS`` of a surface: exact derivatives of what it draws, windows included, in nm per
    pixel and nm per pixel^2; the sigmas, one per block of 8 x 8 pixels, are those of `sigmas`. NaN where the surface knows
    nothing."""

    def __init__(self, surface: FittedSurface) -> None:
        self._width = surface.coarse.shape[1]
        y, x = ((np.arange(n) + 0.5) / BLOCK_PX for n in surface.coarse.shape)
        networks = surface.networks if surface.networks is not None and surface.networks.kept else None
        self._grids = [GridSlopes(fit.field, y, x) for fit in (surface.closed, networks) if fit is not None]
        self._sigmas = np.where(np.isfinite(surface.allowed_nm), sigmas(surface), np.nan).astype(np.float32)

    def rows(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Compute image rows [start, stop), float32 (rows, W) each."""
        out = np.zeros((3, stop - start, self._width), np.float32)
        for grid in self._grids:
            grid.add(start, out)
        out /= np.array([BLOCK_PX, BLOCK_PX, BLOCK_PX**2], np.float32)[:, None, None]
        blocks = self._sigmas[:, np.arange(start, stop) // BLOCK_PX]
        spread = np.ascontiguousarray(blocks[:, :, np.arange(self._width) // BLOCK_PX])
        unknown = ~(np.isfinite(spread).all(axis=0) & np.isfinite(out).all(axis=0))
        out[:, unknown] = np.nan
        spread[:, unknown] = np.nan
        return dict(zip((*SLOPES, *SLOPE_SIGMAS), (*out, *spread), strict=True))


def sigmas(surface: FittedSurface) -> np.ndarray:
    """Estimate standard uncertainties of slope (the larger of the two) and curvature at the blocks, (2, Hb, Wb).

    The sum of four variances: that of the coefficients; an error of the model of size e that repeats as fast as the first
    polynomial that was left out, whose local wave number is k = modes * |dx/dpx| / sqrt(1 - x^2) (from T_n(cos t) = cos nt),
    e k for the slope, e k^2 for the curvature, e^2 the mean product of residuals of neighbouring blocks, which noise reaches
    only by way of the fit; differences of residuals around beyond what noise explains: steps and details; and, where tiles
    are blended, the difference of their errors times the derivatives of the window.
    """
    closed, coarse = surface.closed, surface.coarse
    value, *slope, curvature = posterior_sigma(closed, tuple(QUANTITIES), outermost=True)
    rest = surface.residual_nm
    waves, windows = _wave_numbers(closed), _window_slopes(closed)
    # a wave of that number has e^2 cos(k d) as its mean product over a distance d; beyond 60 degrees that says little
    model = _model_variance(rest, fitted_products(closed)) / np.cos(np.minimum(waves.max(axis=0) * BLOCK_PX, np.pi / 3))
    noise = np.where(np.isfinite(rest), coarse.sigma_nm, 0.0) ** 2
    total = value**2 + model
    found = []
    for axis in (0, 1):
        own = (slope[axis] / BLOCK_PX) ** 2 + model * waves[axis] ** 2 + _beyond_noise(rest, noise, _step(axis), 2)
        found.append((own, own + 2 * windows[axis, 0] ** 2 * total))
    steep = np.maximum(found[0][1], found[1][1])
    bent = (curvature / BLOCK_PX**2) ** 2 + model * (waves[0] ** 4 + waves[1] ** 4)
    bent += _beyond_noise(rest, noise, _bend, 20)
    for axis in (0, 1):
        bent += 8 * windows[axis, 0] ** 2 * found[axis][0] + 2 * windows[axis, 1] ** 2 * total
    return np.sqrt(np.stack([steep, bent]))


def _model_variance(rest: np.ndarray, followed: np.ndarray) -> np.ndarray:
    """Average products of residuals of neighbouring blocks in nm^2, over the blocks around.

    Noise is not correlated, but for the part ``followed`` (2, Hb, Wb) by the fit, and falls out.
    """
    total, count = np.zeros(rest.shape), np.zeros(rest.shape)
    for axis in (0, 1):
        after = np.roll(rest, -1, axis)
        after[(slice(None), -1) if axis else -1] = np.nan
        product = rest * after + followed[axis]
        known = np.isfinite(product)
        total, count = total + np.where(known, product, 0.0), count + known
    return np.asarray(np.maximum(_summed(total, _REACH) / np.maximum(_summed(count, _REACH), 1), 0.0))


def _step(axis: int) -> Callable[[np.ndarray], np.ndarray]:
    """Make the function that takes the difference of neighbouring blocks along ``axis``, per pixel.

    Half of the difference across a block is the mean of the two to its neighbours, at most the larger of them.
    """

    def differences(rest: np.ndarray) -> np.ndarray:
        return np.diff(rest, axis=axis, append=np.nan) / BLOCK_PX

    return differences


def _bend(rest: np.ndarray) -> np.ndarray:
    """Compute the five-point Laplacian per pixel^2."""
    wide = np.pad(rest, 1, constant_values=np.nan)
    around = wide[2:, 1:-1] + wide[:-2, 1:-1] + wide[1:-1, 2:] + wide[1:-1, :-2]
    return np.asarray((around - 4 * rest) / BLOCK_PX**2)


def _beyond_noise(
    rest: np.ndarray, noise: np.ndarray, difference: Callable[[np.ndarray], np.ndarray], gain: int
) -> np.ndarray:
    """Compute the mean square of residual differences over 3 x 3 blocks less that of noise, where it is surely more.

    ``gain`` is the sum of the squares of the coefficients of the difference, in units of a block.
    """
    found = difference(rest)
    known = np.isfinite(found)
    scale = BLOCK_PX**2 if gain == 2 else BLOCK_PX**4
    count = np.maximum(_summed(known.astype(float), 1), 1)
    mean = _summed(np.where(known, found, 0.0) ** 2, 1) / count
    expected = gain / scale * _summed(np.where(known, noise, 0.0), 1) / count
    # neighbours share blocks: the squares count for about half of their number
    sure = mean > expected * (1 + _SURE * np.sqrt(2 / (count / 2)))
    return np.where(sure, mean - expected, 0.0)


def _summed(values: np.ndarray, reach: int) -> np.ndarray:
    """Sum over the blocks within ``reach``."""
    for axis in (0, 1):
        padded = np.pad(values, [(reach + 1, reach) if a == axis else (0, 0) for a in (0, 1)])
        sums = np.cumsum(padded, axis=axis)
        n = values.shape[axis]
        low, high = (np.take(sums, np.arange(n) + shift, axis=axis) for shift in (0, 2 * reach + 1))
        values = high - low
    return values


def _wave_numbers(closed: ClosedForm) -> np.ndarray:
    """Compute local wave numbers (2, Hb, Wb), rad per pixel, of the first polynomials left out in y and in x."""
    sizes = closed.tiles.height.shape[1:]
    places = [(2 * np.arange(n) + 1) / n - 1 for n in sizes]
    rates = [2 / (n * BLOCK_PX) / np.sqrt(1 - x**2) for n, x in zip(sizes, places, strict=True)]
    y, x = np.meshgrid(*rates, indexing="ij")
    return joined(closed.tiles.partition, closed.modes.numpy()[:, None, None, None] * np.stack([y, x]))


def _window_slopes(closed: ClosedForm) -> np.ndarray:
    """Compute first and second derivatives per pixel of tile windows at their own blocks, (axis, order, Hb, Wb)."""
    partition = closed.tiles.partition
    found = np.empty((len(partition), 4, *closed.tiles.height.shape[1:]))
    for box, mine in zip(partition, found, strict=True):
        for axis, (start, stop) in enumerate(box.extent):
            profile = window(partition.axes[axis], box.position[axis], np.arange(start, stop) + 0.5)
            for order, values in enumerate((profile.d1, profile.d2)):
                mine[2 * axis + order] = values[None] if axis else values[:, None]
    scale = np.array([1 / BLOCK_PX, 1 / BLOCK_PX**2] * 2)[:, None, None]
    whole = joined(partition, found) * scale
    return whole.reshape(2, 2, *whole.shape[1:])


_FEWEST = 54  # blocks: 1.5 for each of the 36 coefficients that a tile starts with
_AREA = 4.0  # of the image: windows of nested groups overlap, and their fits cost as much as their windows


class _Place(NamedTuple):
    """A window of some rows of the image, the rows of a layer that cover it, and which of its pixels are the layer's."""

    part: tuple[slice, slice]
    first: int
    last: int
    mine: np.ndarray


@dataclass(frozen=True)
class Layer:
    """The surface of the group ``name``, an image of its own whose first pixel is ``corner`` (y, x), with the sigma of its
    blocks."""

    name: int
    corner: tuple[int, int]
    surface: FittedSurface
    sigma_nm: np.ndarray

    def place(self, start: int, group: np.ndarray) -> _Place | None:
        """Find the pixels of the layer among rows from image row ``start`` on; None where the layer has none."""
        rows, columns = self.surface.coarse.shape
        top, left = self.corner
        first, last = max(start, top), min(start + len(group), top + rows)
        if first >= last:
            return None
        part = slice(first - start, last - start), slice(left, left + columns)
        mine = group[part] == self.name
        return _Place(part, first - top, last - top, mine) if mine.any() else None


@dataclass(frozen=True)
class LayeredSurface:
    """The surfaces of the groups that are large enough for one; ``left_out`` counts the others."""

    layers: tuple[Layer, ...]
    left_out: int

    def rows(self, start: int, group: np.ndarray) -> SurfaceRows:
        """Evaluate rows from image row ``start`` on, each pixel by the surface of its ``group`` (rows, W).

        Without a surface the height is NaN and the sigma infinite.
        """
        height = np.full(group.shape, np.nan, np.float32)
        sigma = np.full(group.shape, np.inf, np.float32)
        for layer in self.layers:
            place = layer.place(start, group)
            if place is None:
                continue
            found = layer.surface.rows(place.first, place.last, layer.sigma_nm)
            known = place.mine & np.isfinite(found.sigma_nm)
            np.copyto(height[place.part], found.height_nm, where=known)
            np.copyto(sigma[place.part], found.sigma_nm, where=known)
        return SurfaceRows(height, sigma)

    def summary(self) -> dict[str, Any]:
        """Count what became of the groups and their tiles, JSON-able."""
        total: Counter[str] = Counter()
        known = 0.0
        for layer in self.layers:
            counts = layer.surface.summary()
            known += counts.pop("blocks_known") * layer.surface.residual_nm.size
            total.update(counts)
        return {"surfaces": len(self.layers), "without_surface": self.left_out, "blocks_fitted": int(known), **total}


class LayeredSlopes:
    """Rows of slopes and curvature of a `LayeredSurface`, by quantity, each pixel by the surface of its group."""

    def __init__(self, surface: LayeredSurface) -> None:
        self._maps = [(layer, SlopeMaps(layer.surface)) for layer in surface.layers]

    def rows(self, start: int, group: np.ndarray) -> dict[str, np.ndarray]:
        """Compute rows from image row ``start`` on, float32.

        NaN where ``group`` (rows, W) has no surface or the surface knows nothing.
        """
        out = {name: np.full(group.shape, np.nan, np.float32) for name in (*SLOPES, *SLOPE_SIGMAS)}
        for layer, maps in self._maps:
            place = layer.place(start, group)
            if place is None:
                continue
            for name, rows in maps.rows(place.first, place.last).items():
                np.copyto(out[name][place.part], rows, where=place.mine)
        return out


def fit_layers(blocks: UnwrappedBlocks, joined: Joined, half_wave_nm: float, *, measuring: bool) -> LayeredSurface:
    """Fit a surface to every group of at least 54 blocks, the largest first.

    Groups are taken while their windows are not more than four images; ``measuring``: for its own sake, otherwise good
    enough to judge orders.
    """
    group = joined.label[blocks.label]
    count = np.bincount(group.ravel(), minlength=joined.components + 1)
    layers: list[Layer] = []
    for name, (y, x) in _windows(group, count):
        part = blocks.window(y, x)
        coarse = part.coarse(half_wave_nm, joined.level, joined.label == name)
        surface = (measuring_surface if measuring else guiding_surface)(coarse)
        sigma = surface.sigma_nm() if measuring else surface.allowed_nm
        layers.append(Layer(name, (y.start * BLOCK_PX, x.start * BLOCK_PX), surface, sigma))
    return LayeredSurface(tuple(layers), joined.components - len(layers))


def _windows(group: np.ndarray, count: np.ndarray) -> Iterator[tuple[int, tuple[slice, slice]]]:
    """Yield groups worth a surface with their windows of blocks, which by one block more hold all of their pixels."""
    boxes, area = ndimage.find_objects(group), 0
    for name in range(1, len(count)):
        if count[name] < _FEWEST:
            continue
        y, x = (
            slice(max(0, s.start - 1), min(n, s.stop + 1)) for s, n in zip(boxes[name - 1], group.shape, strict=True)
        )
        area += (y.stop - y.start) * (x.stop - x.start)
        if area > _AREA * group.size:
            return
        yield name, (y, x)
