"""A picture of a part of the image: phasors of all wavelengths side by side, as steps and slopes of the surface show in it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import maximum_filter1d

from cpikan.order_statistics import median
from cpikan.psi.kernels import reference
from cpikan.psi.kernels.model import Demodulation

_LIT = 0.5  # of the median modulation: darker pixels have no phase
_BOTH_WAYS = 2  # pixels that a line goes on for
_JUMP = 6.0  # standard deviations of what neighbours differ by
_MAD = 1.4826  # standard deviations of a normal distribution per median absolute deviation


class Window(NamedTuple):
    """Frames (L, K, rows, columns) at ``position``, the rows and columns of the image."""

    frames: np.ndarray
    position: tuple[np.ndarray, np.ndarray]


class Picture(NamedTuple):
    """``phasor``; ``parity``, what the frames hold beside any phasor, in standard deviations of noise; ``lit``, whether a pixel
    is bright and not saturated: (L, rows, columns), at ``position``, the rows and columns of the image. ``jumps``: for each
    wavelength the marks of `phase_jumps` along rows and along columns."""

    phasor: np.ndarray
    parity: np.ndarray
    lit: np.ndarray
    position: tuple[np.ndarray, np.ndarray]
    jumps: list[list[np.ndarray]]

    @classmethod
    def of(cls, window: Window, model: Demodulation) -> Picture:
        """Demodulate a window."""
        parity, phasor = reference.noise_image(window.frames, model, window.position)
        size = np.abs(phasor)
        # the two sides of a step that share a pixel may cancel each other
        lit = np.stack([_closed(one > _LIT * median(one)) for one in size])
        lit &= ~model.clips(window.frames).any(axis=1)
        jumps = [[phase_jumps(*one, axis) for axis in (0, 1)] for one in zip(phasor, lit, strict=True)]
        return cls(phasor, parity, lit, window.position, jumps)

    def beside_jumps(self, number: int, *, lines: bool = False) -> np.ndarray:
        """Mark the pixels of a wavelength from which the phase jumps to a neighbour: bool (rows, columns).

        With ``lines`` only where the pixels beside do so too: a step is a line, a struck pixel is alone.
        """
        found = np.zeros_like(self.lit[number])
        for axis in (0, 1):
            marks = self.jumps[number][axis]
            for _ in range(_BOTH_WAYS if lines else 0):
                marks = marks & _goes_on(marks, axis)
            found |= np.insert(marks, 0, False, axis) | np.insert(marks, marks.shape[axis], False, axis)
        return found


def _closed(marks: np.ndarray) -> np.ndarray:
    """Fill gaps of one pixel in marks (rows, columns), beyond which nothing is marked."""
    for join in (np.logical_or, np.logical_and):
        around = np.pad(marks, 1)
        marks = around[1:-1, 1:-1].copy()
        for one in (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]):
            join(marks, one, out=marks)
    return marks


def _goes_on(marks: np.ndarray, axis: int) -> np.ndarray:
    """Tell where marks of jumps along ``axis`` have others beside them on both sides, at most a pixel further or nearer."""
    wide = maximum_filter1d(marks, 3, axis, mode="constant")
    before, after = (np.roll(wide, by, 1 - axis) for by in (1, -1))
    return np.asarray(before & after)


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
