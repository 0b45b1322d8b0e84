"""The maps that an unwrapping fills, and how far they can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class OrderMaps(NamedTuple):
    """Arrays (H, W) that an unwrapping fills: ``orders`` int16 or int32, ``component`` int32, ``ambiguous`` bool."""

    orders: np.ndarray
    component: np.ndarray
    ambiguous: np.ndarray


@dataclass(frozen=True)
class UnwrapReport:
    """Counts of one unwrapping.

    ``residues``: 2 x 2 loops of valid pixels whose wrapped differences do not sum to zero. ``component_sizes``: pixels
    per component, largest first. ``tiles_by_method``: how many tiles were unwrapped by which method (``raster`` is
    exact, see TileOrders). ``regions``: how many groups of tiles that disagreed were unwrapped again as one.
    ``overlap_disagreement``: fraction of the pixels in overlaps whose orders differ between the two tiles after the
    offsets. ``seam_violations``: pairs of neighbours across a border of cores that are more than pi apart although both
    tiles alone keep them within pi. ``jumps``: pairs of neighbours anywhere that are more than pi apart.
    ``congruence_rad``: largest |wrap(unwrapped - wrapped)|. ``offsets_exact``: the offsets between the tiles are proven
    optimal.
    """

    residues: int
    components: int
    component_sizes: tuple[int, ...]
    tiles: int
    tiles_by_method: dict[str, int]
    regions: int
    overlap_pixels: int
    overlap_disagreement: float
    seam_violations: int
    jumps: int
    ambiguous_pixels: int
    congruence_rad: float
    offsets_exact: bool


@dataclass(frozen=True)
class UnwrapResult:
    """``orders`` (H, W) int16 or int32, ``component`` (H, W) int32 (1, 2, ... by falling size; 0 = no pixel),
    ``ambiguous`` (H, W) bool, and the report. The unwrapped phase is ``phase_rad + 2 * pi * orders`` where ``component
    > 0``."""

    orders: np.ndarray
    component: np.ndarray
    ambiguous: np.ndarray
    report: UnwrapReport
