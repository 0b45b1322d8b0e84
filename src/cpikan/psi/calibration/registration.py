"""Registration: whether the images of the wavelengths lie on each other, seen where the phases jump."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cpikan.order_statistics import median
from cpikan.psi.kernels import reference
from cpikan.psi.kernels.model import Demodulation
from cpikan.psi.model.caution import Caution

_REACH_PX = 4  # of shifts that are looked for
_JUMP = 6.0  # standard deviations of what neighbours differ by
_LIT = 0.5  # of the median modulation: darker pixels have no phase
_BLOCKS = 8  # of lines, whose shifts tell the standard error
_FEWEST = 50  # pairs of jumps
_LEAST_PX, _CERTAIN = 0.15, 5.0  # the smallest shift that is told, and its standard errors
_SIDES = ("down", "right")
_MAD = 1.4826  # standard deviations of a normal distribution per median absolute deviation


@dataclass(frozen=True)
class ImageShift:
    """The image of wavelength ``number`` (from 0) lies ``pixels`` down and right of that of the first."""

    number: int
    pixels: tuple[float, float]

    @property
    def size(self) -> float:
        """Give the length of the shift in pixels."""
        return float(np.hypot(*self.pixels))

    def caution(self) -> Caution:
        """Say that the images do not lie on each other."""
        way = " and ".join(
            f"{abs(d):.2g} px {side if d > 0 else {'down': 'up', 'right': 'left'}[side]}"
            for d, side in zip(self.pixels, _SIDES, strict=True)
            if abs(d) >= _LEAST_PX
        )
        text = (
            f"the image of wavelength {self.number + 1} lies {way} from that of wavelength 1: beside steps their phases belong "
            "to different places, and pixels there are flagged as doubtful; register the frames, or find what moved"
        )
        return Caution("images-moved", text)


class Window(NamedTuple):
    """Frames (L, K, rows, columns) at ``position``, the rows and columns of the image."""

    frames: np.ndarray
    position: tuple[np.ndarray, np.ndarray]


def image_shifts(windows: Sequence[Window], model: Demodulation) -> tuple[ImageShift, ...]:
    """Find the wavelengths whose image lies elsewhere than that of the first, by windows of the frames.

    Pairs of neighbours whose phases differ by far more than those of most are steps of the surface, which every wavelength
    must show at the same place: the mean distance of the jumps of one from those of the first, up to four pixels, is the
    shift. Where nothing jumps no shift is seen, and none does harm.
    """
    pixels = np.zeros((len(model.noise), 2))
    for window in windows:
        first = _phasor(window, model, 0)
        jumps = {axis: marks for axis in (0, 1) if _may_tell(marks := phase_jumps(*first, axis))}
        for number in range(1, len(pixels)) if jumps else ():
            other = _phasor(window, model, number)
            for axis, one in jumps.items():
                shift = _told(*mean_shift(one, phase_jumps(*other, axis), axis))
                pixels[number, axis] = max(pixels[number, axis], shift, key=abs)
    return tuple(ImageShift(number, (float(y), float(x))) for number, (y, x) in enumerate(pixels) if y or x)


def _may_tell(marks: np.ndarray) -> bool:
    """Tell whether so many marks could have enough pairs: each has one at every distance at most."""
    return int(marks.sum()) * (2 * _REACH_PX + 1) >= _FEWEST


def _phasor(window: Window, model: Demodulation, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute the phasor of one wavelength, (rows, columns), and where it is bright and not saturated."""
    frames = window.frames[number : number + 1]
    phasor = reference.phasor_image(frames, model.of_wavelength(number), window.position)[0]
    size = np.abs(phasor)
    # the two sides of a step that share a pixel may cancel each other
    lit = _closed(size > _LIT * median(size))
    return phasor, lit & ~model.clips(frames[0]).any(axis=0)


def _closed(marks: np.ndarray) -> np.ndarray:
    """Fill gaps of one pixel in marks (rows, columns), beyond which nothing is marked."""
    for join in (np.logical_or, np.logical_and):
        around = np.pad(marks, 1)
        marks = around[1:-1, 1:-1].copy()
        for one in (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]):
            join(marks, one, out=marks)
    return marks


def phase_jumps(phasor: np.ndarray, lit: np.ndarray, axis: int) -> np.ndarray:
    """Mark the neighbours along ``axis`` whose phases jump: bool, one less along the axis than ``phasor`` (rows, columns)."""
    before, after = (slice(-1), slice(1, None)) if axis == 0 else (np.s_[:, :-1], np.s_[:, 1:])
    both = lit[before] & lit[after]
    if not both.any():
        return both
    slope = (phasor[after] * phasor[before].conj())[both]
    turn = np.angle(slope * np.exp(-1j * np.angle(np.mean(slope / np.maximum(np.abs(slope), 1e-300)))))
    turn = np.abs(turn - median(turn))
    both[both] = turn > _JUMP * _MAD * median(turn)
    return both


def mean_shift(one: np.ndarray, other: np.ndarray, axis: int) -> tuple[float, float, int]:
    """Compute by how much marks of ``other`` lie behind those of ``one`` along ``axis``: pixels, standard error, pairs.

    Every pair of marks within four pixels counts; chance pairs lie on both sides alike.
    """
    one, other = (np.moveaxis(marks, axis, 1).astype(np.float64) for marks in (one, other))
    middle = one[:, _REACH_PX:-_REACH_PX]
    if not middle.size:
        return 0.0, np.inf, 0
    reach = np.arange(-_REACH_PX, _REACH_PX + 1)
    pairs = np.stack([(middle * other[:, _REACH_PX + s : _REACH_PX + s + middle.shape[1]]).sum(axis=1) for s in reach])
    count, moment = pairs.sum(axis=0), reach @ pairs
    total = count.sum()
    if total == 0:
        return 0.0, np.inf, 0
    shift = moment.sum() / total
    left = np.array([block.sum() for block in np.array_split(moment - shift * count, _BLOCKS)])
    error = np.sqrt((left**2).sum() * _BLOCKS / (_BLOCKS - 1)) / total
    return float(shift), float(error), int(total)


def _told(shift: float, error: float, pairs: int) -> float:
    """Keep a shift that is certain and large enough to matter; else 0."""
    return shift if pairs >= _FEWEST and abs(shift) > max(_LEAST_PX, _CERTAIN * error) else 0.0
