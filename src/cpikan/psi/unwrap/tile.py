"""Orders inside one tile: a raster scan where that is exact, smoothing and a minimum-cost flow where it is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cpikan.psi.unwrap.edges import edge_costs
from cpikan.psi.unwrap.faces import edge_ends, follow_steps, number_faces
from cpikan.psi.unwrap.flow import balance
from cpikan.psi.unwrap.guide import guide_phasors, patched_phase
from cpikan.psi.unwrap.phasor import angles, relative_quality
from cpikan.psi.unwrap.raster import raster_unwrap
from cpikan.psi.unwrap.relax import fewer_jumps

_TURN = 2 * np.pi


@dataclass(frozen=True)
class TileOrders:
    """Orders (h, w) int32 and labels (h, w) int32 of the 4-connected components (1, 2, ... by first pixel; 0 = no
    pixel).

    ``method`` says how they were found: ``raster`` (no inconsistency in the tile), ``smoothed`` (none after smoothing)
    or ``flow`` (the cheapest cuts). Orders are relative to an arbitrary constant per component.
    """

    orders: np.ndarray
    labels: np.ndarray
    count: int
    method: Literal["raster", "smoothed", "flow"]


def unwrap_tile(phase_rad: np.ndarray, quality: np.ndarray | None = None) -> TileOrders:
    """Find integer orders k of a wrapped phase (h, w) float32 so that phase + 2 pi k is continuous; NaN = no pixel.

    Without inconsistent loops all paths agree and one scan is exact. Otherwise the phase is smoothed along its local
    slope, weighted with ``quality`` (h, w; higher is better, such as 1 / sigma^2): around a few residues, or all of it.
    Loops that still disagree, around a residue or a hole, are balanced by the flow of least cost (see ``edge_costs``
    and ``balance``). Each pixel then takes the order that brings it nearest to the smoothed surface; where that surface
    is itself noise, the order with the fewest jumps (see ``fewer_jumps``).
    """
    phase_rad = np.ascontiguousarray(phase_rad, np.float32)
    orders, labels = np.empty(phase_rad.shape, np.int32), np.empty(phase_rad.shape, np.int32)
    count = raster_unwrap(phase_rad, orders, labels)
    if count >= 0:
        return TileOrders(orders, labels, count, "raster")
    given = np.ones_like(phase_rad) if quality is None else np.ascontiguousarray(quality, np.float32)
    weight = relative_quality(phase_rad, given)
    patched, few = patched_phase(phase_rad, weight)
    if few:
        count = raster_unwrap(patched, orders, labels)
        if count >= 0:
            return TileOrders(_nearest_orders(phase_rad, patched, orders), labels, count, "smoothed")
    return _by_flow(phase_rad, weight, orders, labels)


def _by_flow(phase_rad: np.ndarray, weight: np.ndarray, orders: np.ndarray, labels: np.ndarray) -> TileOrders:
    real, imag = guide_phasors(phase_rad, weight)
    valid = weight > 0
    steps, rise, fall = edge_costs(real, imag, valid)
    node, nodes = number_faces(valid)
    gain, loss = edge_ends(node, valid)
    searches = balance(steps, rise, fall, gain, loss, nodes)
    count = follow_steps(valid, steps, orders, labels)
    smoothed = angles(real, imag, weight)
    found = _nearest_orders(phase_rad, smoothed, orders)
    fewer_jumps(phase_rad, found, smoothed + np.float32(_TURN) * orders, np.hypot(real, imag))
    return TileOrders(found, labels, count, "flow" if searches else "smoothed")


def _nearest_orders(phase_rad: np.ndarray, smoothed: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Find the orders that bring each pixel nearest to the smoothed surface (congruence), 0 where there is no pixel."""
    step = np.rint((smoothed - phase_rad) * np.float32(1 / _TURN))
    return orders + np.where(np.isfinite(step), step, 0).astype(np.int32)
