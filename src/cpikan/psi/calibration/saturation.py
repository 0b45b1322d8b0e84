"""Saturation as the samples show it: values that pile up at a ceiling, and low bits that are never used."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cpikan.order_statistics import quantile
from cpikan.psi.model.caution import Caution

_FEWEST = 50  # samples in the pile, and
_SHARE = 1e-3  # of all: fewer decide nothing
_HOT = 5e-4  # share of samples above the ceiling: single hot pixels
_TAILS = (1e-3, 1 - 1e-3)
_PILE = 5.0  # times the samples just below; the crests of even fringes without noise have at most 2.4
_WIDEST = 0.02  # of the range of the samples: how far noise after clipping spreads a ceiling
_SWING = 0.1  # of the range: pixels that change less hold no fringe, and a bright rim is no ceiling
_TOLD = 0.005  # share of saturated pixels that is worth a warning


@dataclass(frozen=True)
class Ceiling:
    """``saturation_dn``: samples at or above it are saturated; ``quantum_dn``: the step between values, 0 for floats that
    have none; ``piled``: samples pile up there, below the largest value that was told or that the type holds."""

    saturation_dn: float
    quantum_dn: float
    piled: bool = False

    def caution(self, frames: np.ndarray) -> Caution | None:
        """Warn of a share of saturated pixels of frames (L, K, P) that is worth a word."""
        share = float((frames >= self.saturation_dn).any(axis=(0, 1)).mean()) if frames.size else 0.0
        if share < _TOLD:
            return None
        if math.isinf(self.saturation_dn):
            text = f"{share:.1%} of the pixels are infinite in at least one frame and left out: look at what wrote the frames"
            return Caution("saturated", text)
        where = f"{self.saturation_dn:g} DN" + (", where samples pile up" if self.piled else "")
        return Caution(
            "saturated",
            f"{share:.1%} of the pixels are saturated in at least one frame (at {where}) and left out: take less light, a "
            "shorter exposure or a lower gain",
        )


def find_ceiling(frames: np.ndarray, told_dn: float, bit_depth: int | None) -> Ceiling:
    """Find the value at which samples of frames (L, K, P) saturate.

    ``told_dn`` is the largest value of the type or of the bit depth that was given, inf for floats. Left-justified data,
    whose low bits are never used, have a bit depth in units of their step. A ceiling below that is one where samples of
    pixels that change from frame to frame gather, many more than just below: fringes without clipping thin out towards
    their crests.
    """
    flat = frames.reshape(-1, frames.shape[-1])
    quantum = _quantum(flat, told_dn)
    top = _scaled(told_dn, quantum, bit_depth, float(np.nanmax(flat))) if flat.size else told_dn
    finite = np.isfinite(flat).all(axis=0)
    inside = flat[:, finite]
    low, high = (quantile(inside, share) for share in _TAILS)
    span = high - low if inside.size else 0.0
    if span <= 0:
        return Ceiling(top, quantum)
    swinging = inside.max(axis=0).astype(np.float64) - inside.min(axis=0) > _SWING * span
    found = _pile(inside[:, swinging].ravel(), quantum or span / 2**16, span)
    if found is None or found >= top:
        return Ceiling(top, quantum)
    return Ceiling(found, quantum, piled=True)


def _quantum(flat: np.ndarray, told_dn: float) -> float:
    """Find the step between the values of integer samples: above one where low bits are unused."""
    if flat.dtype.kind not in "iu":
        return 0.0 if math.isinf(told_dn) else 1.0
    counted = flat.dtype.kind == "u" and flat.itemsize <= 2
    values = np.flatnonzero(np.bincount(flat.ravel())) if counted else np.unique(flat).astype(np.int64)
    step = int(np.gcd.reduce(values)) if values.size > 2 else 1
    return float(max(step, 1))


def _scaled(told_dn: float, quantum: float, bit_depth: int | None, largest: float) -> float:
    """Give the largest value of data whose values are multiples of ``quantum``."""
    if quantum <= 1 or math.isinf(told_dn):
        return told_dn
    if bit_depth is not None and largest > told_dn:
        return told_dn * quantum
    return told_dn - told_dn % quantum


def _pile(samples: np.ndarray, quantum: float, span: float) -> float | None:
    """Find the foot of a pile at the top of samples (N,); None where they thin out."""
    if samples.size < _FEWEST:
        return None
    ordered = np.sort(samples.astype(np.uint16) if samples.dtype == np.uint8 else samples).astype(np.float64)
    top = ordered[-1 - int(_HOT * ordered.size)]
    fewest = max(_FEWEST, _SHARE * ordered.size)
    width = quantum
    while width <= max(_WIDEST * span, quantum):
        # half a step lower: the edges of the windows lie between values
        edges = top - np.array([width, 2 * width]) + quantum / 2
        within, below = ordered.size - np.searchsorted(ordered, edges)
        below = below - within
        if within >= fewest and within > _PILE * (below + 2 * math.sqrt(below) + 1):
            return float(ordered[ordered.size - within])
        width *= 2
    return None
