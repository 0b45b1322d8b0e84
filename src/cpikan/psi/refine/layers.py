"""Surfaces of one wavelength: one per group of components that has heights of its own, each on its own part of the image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from cpikan.psi.refine.field import FittedSurface, guiding_surface, measuring_surface
from cpikan.psi.refine.joining import Joined
from cpikan.psi.refine.protocol import BLOCK_PX, SurfaceRows
from cpikan.psi.refine.unwrapped import UnwrappedBlocks

_FEWEST = 54  # blocks: 1.5 for each of the 36 coefficients that a tile starts with
_AREA = 4.0  # of the image: windows of nested groups overlap, and their fits cost as much as their windows


@dataclass(frozen=True)
class Layer:
    """The surface of the group ``name``, an image of its own whose first pixel is ``corner`` (y, x), with the sigma of its
    blocks."""

    name: int
    corner: tuple[int, int]
    surface: FittedSurface
    sigma_nm: np.ndarray


@dataclass(frozen=True)
class LayeredSurface:
    """The surfaces of the groups that are large enough for one; ``left_out`` counts the others."""

    layers: tuple[Layer, ...]
    left_out: int

    def rows(self, start: int, group: np.ndarray) -> SurfaceRows:
        """Rows from image row ``start`` on, each pixel by the surface of its ``group`` (rows, W); NaN, infinite where none."""
        height = np.full(group.shape, np.nan, np.float32)
        sigma = np.full(group.shape, np.inf, np.float32)
        for layer in self.layers:
            rows, columns = layer.surface.coarse.shape
            top, left = layer.corner
            first, last = max(start, top), min(start + len(group), top + rows)
            if first >= last:
                continue
            part = slice(first - start, last - start), slice(left, left + columns)
            mine = group[part] == layer.name
            if not mine.any():
                continue
            found = layer.surface.rows(first - top, last - top, layer.sigma_nm)
            known = mine & np.isfinite(found.sigma_nm)
            np.copyto(height[part], found.height_nm, where=known)
            np.copyto(sigma[part], found.sigma_nm, where=known)
        return SurfaceRows(height, sigma)

    def summary(self) -> dict[str, Any]:
        """What became of the groups and their tiles, JSON-able."""
        total: Counter[str] = Counter()
        known = 0.0
        for layer in self.layers:
            counts = layer.surface.summary()
            known += counts.pop("blocks_known") * layer.surface.residual_nm.size
            total.update(counts)
        return {"surfaces": len(self.layers), "without_surface": self.left_out, "blocks_fitted": int(known), **total}


def fit_layers(blocks: UnwrappedBlocks, joined: Joined, half_wave_nm: float, *, measuring: bool) -> LayeredSurface:
    """A surface for every group of at least 54 blocks, the largest first, while their windows are not more than four images;
    ``measuring``: for its own sake, otherwise good enough to judge orders."""
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
    """Groups worth a surface, and the windows of blocks that hold them and, by one block more, all of their pixels."""
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
