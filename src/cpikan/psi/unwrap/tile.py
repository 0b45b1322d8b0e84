"""Orders inside one tile: a raster scan where that is exact, smoothing and a spanning tree where it is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cpikan.psi.unwrap.kruskal import kruskal_unwrap, pixel_cost
from cpikan.psi.unwrap.phasor import angles, phasors, relative_quality, smooth
from cpikan.psi.unwrap.raster import raster_unwrap

_TURN = 2 * np.pi
_PASSES = 2  # of smoothing between two attempts
_ATTEMPTS = 2
_COST_FLOOR = np.float32(0.1)  # rad^2: below this roughness the quality alone ranks the pixels


@dataclass(frozen=True)
class TileOrders:
    """Orders (h, w) int32 and labels (h, w) int32 of the 4-connected components (1, 2, ... by first pixel; 0 = no
    pixel).

    ``method`` says how they were found: ``raster`` (no inconsistency in the tile), ``smoothed`` (none after smoothing)
    or ``tree`` (quality-guided). Orders are relative to an arbitrary constant per component.
    """

    orders: np.ndarray
    labels: np.ndarray
    count: int
    method: Literal["raster", "smoothed", "tree"]


def unwrap_tile(phase_rad: np.ndarray, quality: np.ndarray | None = None) -> TileOrders:
    """Integer orders k of a wrapped phase (h, w) float32, so that phase + 2 pi k is continuous; NaN = no pixel.

    Without inconsistent loops all paths agree and one scan is exact. Otherwise the phase is smoothed along its local
    slope, weighted with ``quality`` (h, w; higher is better, such as 1 / sigma^2), and the smoothed phase is unwrapped:
    by a scan, or along the tree of the most reliable edges (second differences as in Herraez et al., Appl. Opt. 41,
    7437 (2002), divided by the quality). Each pixel then takes the order that brings it nearest to the smoothed
    surface.
    """
    phase_rad = np.ascontiguousarray(phase_rad, np.float32)
    orders, labels = np.empty(phase_rad.shape, np.int32), np.empty(phase_rad.shape, np.int32)
    count = raster_unwrap(phase_rad, orders, labels)
    if count >= 0:
        return TileOrders(orders, labels, count, "raster")
    given = np.ones_like(phase_rad) if quality is None else np.ascontiguousarray(quality, np.float32)
    weight = relative_quality(phase_rad, given)
    real, imag = phasors(phase_rad, weight)
    for _ in range(_ATTEMPTS):
        for _ in range(_PASSES):
            real, imag = smooth(real, imag)
        smoothed = angles(real, imag, weight)
        count = raster_unwrap(smoothed, orders, labels)
        if count >= 0:
            return TileOrders(_nearest_orders(phase_rad, smoothed, orders), labels, count, "smoothed")
    cost = (pixel_cost(smoothed) + _COST_FLOOR) / np.maximum(weight, np.float32(1e-6))
    count = kruskal_unwrap(smoothed, cost, orders, labels)
    return TileOrders(_nearest_orders(phase_rad, smoothed, orders), labels, count, "tree")


def _nearest_orders(phase_rad: np.ndarray, smoothed: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Orders that bring each pixel nearest to the smoothed surface (congruence), 0 where there is no pixel."""
    step = np.rint((smoothed - phase_rad) * np.float32(1 / _TURN))
    return orders + np.where(np.isfinite(step), step, 0).astype(np.int32)
