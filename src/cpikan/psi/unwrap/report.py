"""The maps that an unwrapping fills, and how far they can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cpikan.psi.model.caution import Caution


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


_DENSE = 0.4  # cycles per pixel
_DENSE_SHARE = 0.01  # of the blocks
_BLOCK = 8
_COHERENT = 0.5  # |mean| of the phase steps of a block: below it they are noise
_PARTS = 10
_LARGEST_SHARE = 0.8  # of the pixels, that the largest part holds where a map is in one piece


def dense_fringes(rows_rad: np.ndarray) -> Caution | None:
    """Warn of fringes above 0.4 cycles per pixel in bands of wrapped phase (n, 9, W): steps across and along, by blocks."""
    unit = np.exp(1j * np.asarray(rows_rad, np.float64))
    unit[~np.isfinite(unit)] = 0
    width = (unit.shape[-1] - 1) // _BLOCK * _BLOCK
    if not width or not len(unit):
        return None
    across = unit[:, :-1, 1 : width + 1] * unit[:, :-1, :width].conj()
    down = unit[:, 1:, :width] * unit[:, :-1, :width].conj()
    found = []
    for steps in (across, down):
        blocks = steps.reshape(len(unit), _BLOCK, -1, _BLOCK).mean(axis=(1, 3))
        known = np.abs(blocks) > _COHERENT
        if known.any():
            found.append(float((np.abs(np.angle(blocks[known])) > 2 * np.pi * _DENSE).mean()))
    share = max(found, default=0.0)
    if share < _DENSE_SHARE:
        return None
    return Caution(
        "fringes-dense",
        f"fringes reach 0.4 cycles per pixel and more in {share:.0%} of the field: beyond 0.5 they count as less, with the "
        "opposite slope; tilt the part back, or take more pixels",
    )


def in_pieces(report: UnwrapReport) -> Caution | None:
    """Warn of a map that falls into many parts, none of which is nearly all of it."""
    sizes, total = report.component_sizes, sum(report.component_sizes)
    if report.components < _PARTS or not total or sizes[0] > _LARGEST_SHARE * total:
        return None
    return Caution(
        "map-in-pieces",
        f"the map falls into {report.components} parts, the largest with {sizes[0] / total:.0%} of the pixels; one wavelength "
        "does not know their heights against each other: look for noise, wrong steps or lost light, or use --method hybrid",
    )
