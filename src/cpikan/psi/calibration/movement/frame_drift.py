"""Drift of the frames of one wavelength against each other: seen beside edges, where samples of a pixel contradict each other.

A pixel beside a step, or beside what has no fringes, mixes two places; where frames lie elsewhere each mixes them in another
way, which is the cosine of no phase.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, binary_opening, distance_transform_cdt

from cpikan.psi.calibration.picture import Picture
from cpikan.psi.model.caution import Caution

_STRUCK = 6.0  # standard deviations of what frames hold beside the model
_MAD = 1.4826  # standard deviations of a normal distribution per median absolute deviation
_FEWEST = 100  # pixels beside edges
_BESIDE, _STILL = (
    0.05,
    0.02,
)  # share of them that contradict themselves beyond that of pixels far off, and farther from the edge
_REACH_PX = 4  # of drifts: what reaches farther has another cause
_FEWEST_WAVES = 2  # a row that was lost, or text in a frame, is in one


@dataclass(frozen=True)
class FrameDrift:
    """Frames of the wavelengths ``numbers`` (from 0) lie apart: pixels up to ``reach_px`` from an edge mix different places."""

    numbers: tuple[int, ...]
    reach_px: int

    def caution(self) -> Caution:
        """Say that the frames do not lie on each other."""
        which = ", ".join(str(number + 1) for number in self.numbers)
        text = (
            f"the frames of wavelengths {which} do not lie on each other: up to {self.reach_px} px from steps and from the rim "
            "of what has fringes their samples contradict each other, and pixels there are flagged as doubtful; register the "
            "frames, or find what moved while they were taken"
        )
        return Caution("images-moved", text)


def frame_drift(pictures: Sequence[Picture]) -> FrameDrift | None:
    """Find whether the frames of several wavelengths lie apart, and how far from edges that does harm; None where not."""
    if sum(_may_drift(pictures, i) for i in range(len(pictures[0].phasor))) < _FEWEST_WAVES:
        return None
    reaches = [_reach(pictures, i) for i in range(len(pictures[0].phasor))]
    numbers = tuple(i for i, reach in enumerate(reaches) if reach)
    return FrameDrift(numbers, max(reaches)) if len(numbers) >= _FEWEST_WAVES else None


def _may_drift(pictures: Sequence[Picture], number: int) -> bool:
    """Tell whether pixels that contradict themselves are enough for a reach, wherever they lie: most often there are none."""
    return sum(int((np.abs(picture.parity[number]) > _STRUCK).sum()) for picture in pictures) >= _BESIDE * _FEWEST


def _reach(pictures: Sequence[Picture], number: int) -> int:
    """Count the pixels from an edge up to which samples contradict each other more than elsewhere; 0 for none."""
    struck, there = np.zeros(_REACH_PX + 2), np.zeros(_REACH_PX + 2)
    for picture in pictures:
        more = _struck_by_distance(picture, number)
        struck, there = struck + more[0], there + more[1]
    if there[0] < _FEWEST or there[-1] < _FEWEST:
        return 0
    share = struck / np.maximum(there, 1) - struck[-1] / there[-1]
    still = share > np.where(np.arange(share.size) == 0, _BESIDE, _STILL)
    reach = int(np.argmin(still))
    return reach if reach <= _REACH_PX else 0


def _struck_by_distance(picture: Picture, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Count pixels whose samples contradict each other, and all, by their distance from edges: 0 to 4 pixels, and farther."""
    lit, parity = picture.lit[number], np.abs(picture.parity[number])
    inside = np.zeros_like(lit)
    inside[1:-1, 1:-1] = True
    seen = binary_opening(lit, np.ones((3, 3))) & inside  # single samples that were struck shine in the dark
    edges = picture.beside_jumps(number, lines=True) | (seen & binary_dilation(~lit & inside))
    if not edges.any() or not seen.any():
        return np.zeros(_REACH_PX + 2), np.zeros(_REACH_PX + 2)
    distance = np.minimum(distance_transform_cdt(~edges), _REACH_PX + 1)[seen]
    usual = _MAD * np.median(parity[seen])
    struck = parity[seen] > _STRUCK * max(usual, 1.0)
    counts = [np.bincount(distance, weights, _REACH_PX + 2) for weights in (struck, np.ones(struck.size))]
    return counts[0], counts[1]
