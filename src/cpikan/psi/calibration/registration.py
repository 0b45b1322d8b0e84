"""Registration: whether the images of the wavelengths lie on each other, seen where the phases jump."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.ndimage import binary_closing

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
        jumps = [
            [phase_jumps(one, lit, axis) for axis in (0, 1)] for one, lit in zip(*_phasors(window, model), strict=True)
        ]
        for number, other in enumerate(jumps[1:], start=1):
            for axis, one, two in zip((0, 1), jumps[0], other, strict=True):
                shift = _told(*mean_shift(one, two, axis))
                pixels[number, axis] = max(pixels[number, axis], shift, key=abs)
    return tuple(ImageShift(number, (float(y), float(x))) for number, (y, x) in enumerate(pixels) if y or x)


def _phasors(window: Window, model: Demodulation) -> tuple[np.ndarray, np.ndarray]:
    """Compute the phasors of frames, (L, rows, columns), and where they are bright and not saturated."""
    phasor = reference.noise_image(window.frames, model, window.position)[1]
    size = np.abs(phasor)
    lit = size > _LIT * np.median(size, axis=(1, 2), keepdims=True)
    # the two sides of a step that share a pixel may cancel each other
    lit = np.stack([binary_closing(one) for one in lit])
    return phasor, lit & ~model.clips(window.frames).any(axis=1)


def phase_jumps(phasor: np.ndarray, lit: np.ndarray, axis: int) -> np.ndarray:
    """Mark the neighbours along ``axis`` whose phases jump: bool, one less along the axis than ``phasor`` (rows, columns)."""
    one, two = (np.take(phasor, range(k, phasor.shape[axis] - 1 + k), axis) for k in (0, 1))
    both = np.take(lit, range(phasor.shape[axis] - 1), axis) & np.take(lit, range(1, phasor.shape[axis]), axis)
    slope = two * one.conj()
    if not both.any():
        return both
    turn = np.angle(slope * np.exp(-1j * np.angle(np.mean(slope[both] / np.maximum(np.abs(slope[both]), 1e-300)))))
    turn -= np.median(turn[both])
    return both & (np.abs(turn) > _JUMP * _MAD * np.median(np.abs(turn[both])))


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
