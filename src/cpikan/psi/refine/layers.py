"""Surfaces of one wavelength: one per group of components that has heights of its own, each on its own part of the image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from cpikan.psi.refine.field import FittedSurface, guiding_surface, measuring_surface
from cpikan.psi.refine.joining import Joined
from cpikan.psi.refine.protocol import BLOCK_PX, SurfaceRows
from cpikan.psi.refine.slopes import SLOPE_SIGMAS, SLOPES, SlopeMaps
from cpikan.psi.refine.unwrapped import UnwrappedBlocks

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
    for name, window in _windows(group, count):
        part = blocks.window(*window)
        coarse = part.coarse(half_wave_nm, joined.level, joined.label == name)
        surface = (measuring_surface if measuring else guiding_surface)(coarse)
        sigma = surface.sigma_nm() if measuring else surface.allowed_nm
        layers.append(Layer(name, (window[0].start * BLOCK_PX, window[1].start * BLOCK_PX), surface, sigma))
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
