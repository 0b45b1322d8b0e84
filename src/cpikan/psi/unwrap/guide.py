"""The guide of an inconsistent tile: its phase smoothed along the slope, as little as each place allows.

A pyramid without decimation; every pixel takes the first level on which its surroundings are coherent enough::

    level   spacing  passes   taken at coherence   reaches to each side
      0        1       2           0.55                2 pixels
      1        1       2           0.45                4
      2        2       2           0.4                 8
      3        4       2           any                16
"""

from __future__ import annotations

import numpy as np

from cpikan.compiled import compiled
from cpikan.psi.unwrap.phasor import angles, box_sum, phasors, smooth
from cpikan.psi.unwrap.residues import is_residue

_LEVELS = ((1, 2), (1, 2), (2, 2), (4, 2))  # spacing in pixels and passes from one level to the next
# Coherence at which a level is taken; the last one takes the rest. Noise alone has 0.2 to 0.35 after two passes.
_ENOUGH = (0.55, 0.45, 0.4, -1.0)
_INSIDE, _AROUND = 8, 16  # pixels to each side of a residue that are smoothed, and that are looked at for that
_LARGEST_SHARE = 0.7  # of a tile in patches: beyond that the whole is smoothed


@compiled
def guide_phasors(phase_rad: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smooth a phase to phasors (real, imaginary; float32 (h, w)) whose modulus is the coherence, 0 to 1.

    ``weight`` (h, w) float32 is zero where there is no pixel. Each pixel takes the finest level of a pyramid (without
    decimation, each step compensated by the local slope) on which its surroundings are coherent, so that edges and
    steep slopes stay sharp and only what is drowned in noise is smoothed over up to about 30 pixels.
    """
    real, imag = phasors(phase_rad, weight)
    missing = weight > 0
    out_real, out_imag = np.zeros_like(real), np.zeros_like(imag)
    for level in range(len(_LEVELS)):
        spacing, passes = _LEVELS[level]
        for _ in range(passes):
            real, imag, weight = smooth(real, imag, weight, spacing)
        if _take(real, imag, weight, missing, np.float32(_ENOUGH[level]), out_real, out_imag) == 0:
            break
    return out_real, out_imag


@compiled
def patched_phase(phase_rad: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, bool]:
    """Smooth the phase (h, w) float32 only around its residues; the second value is False where that was given up.

    Residues may be so many that it would be no faster than smoothing all.
    """
    height, width = phase_rad.shape
    out = phase_rad.copy()
    allowed = _LARGEST_SHARE * height * width
    if _patches(phase_rad) * (2 * _AROUND) ** 2 > allowed:
        return out, False
    smoothed = np.zeros((height, width), np.bool_)
    looked_at = 0
    for y in range(height - 1):
        for x in range(width - 1):
            if smoothed[y, x] or not is_residue(phase_rad, y, x):
                continue
            top, left = max(0, y - _AROUND), max(0, x - _AROUND)
            bottom, right = min(height, y + _AROUND), min(width, x + _AROUND)
            looked_at += (bottom - top) * (right - left)
            if looked_at > allowed:
                return out, False
            patch = weight[top:bottom, left:right].copy()
            real, imag = guide_phasors(phase_rad[top:bottom, left:right].copy(), patch)
            turned = angles(real, imag, patch)
            for row in range(max(top, y - _INSIDE), min(bottom, y + _INSIDE)):
                for column in range(max(left, x - _INSIDE), min(right, x + _INSIDE)):
                    out[row, column] = turned[row - top, column - left]
                    smoothed[row, column] = True
    return out, True


@compiled
def _patches(phase_rad: np.ndarray) -> int:
    """Estimate how many patches the residues need: cells of the patches' size that hold one."""
    height, width = phase_rad.shape
    side = 2 * _INSIDE
    found = np.zeros((height // side + 1, width // side + 1), np.bool_)
    for y in range(height - 1):
        for x in range(width - 1):
            if is_residue(phase_rad, y, x):
                found[y // side, x // side] = True
    return int(found.sum())


@compiled
def _modulus(real: np.ndarray, imag: np.ndarray) -> np.ndarray:
    height, width = real.shape
    out = np.empty((height, width), np.float32)
    for y in range(height):
        row, a, b = out[y], real[y], imag[y]
        for x in range(width):
            row[x] = np.sqrt(a[x] * a[x] + b[x] * b[x])
    return out


@compiled
def _take(
    real: np.ndarray,
    imag: np.ndarray,
    weight: np.ndarray,
    missing: np.ndarray,
    enough: np.float32,
    out_real: np.ndarray,
    out_imag: np.ndarray,
) -> int:
    """Fill in the missing pixels around which the coherence is above ``enough``; returns how many stay missing."""
    modulus, next_pixel = _modulus(real, imag), np.intp(1)  # no literal: `box_sum` would be compiled once more
    around, weights = box_sum(modulus, next_pixel), box_sum(weight, next_pixel)
    left = 0
    for y in range(missing.shape[0]):
        for x in range(missing.shape[1]):
            if not missing[y, x]:
                continue
            if around[y, x] > enough * weights[y, x]:
                scale = 1 / weight[y, x]
                out_real[y, x], out_imag[y, x] = real[y, x] * scale, imag[y, x] * scale
                missing[y, x] = False
            else:
                left += 1
    return left
