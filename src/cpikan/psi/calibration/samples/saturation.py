"""Saturation as the samples show it: values that pile up at either end, and low bits that are never used."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from cpikan.order_statistics import quantile
from cpikan.psi.model.caution import Caution

_FEWEST = 50  # samples in the pile, and
_SHARE = 1e-3  # of all: fewer decide nothing
_HOT = 5e-4  # share of samples above the ceiling: single hot pixels
_TAILS = (1e-3, 1 - 1e-3)
_PILE = 5.0  # times the samples just below; the crests of even fringes without noise have at most 2.4
_DEEP = 4.0  # times the noise: what is cut off at least; half of it at the middle of a fringe, and less by noise alone
_WIDEST = 0.02  # of the range of the samples: how far noise after clipping spreads a ceiling
_SWING = 0.1  # of the range: pixels that change less hold no fringe, and a bright rim is no ceiling
_TOLD = 0.005  # share of saturated pixels that is worth a warning


@dataclass(frozen=True)
class SampleLimits:
    """``saturation_dn``: samples at or above it are saturated; ``quantum_dn``: the step between values, 0 for floats that
    have none; ``piled``: samples pile up there, below the largest value that was told or that the type holds; ``black_dn``:
    samples at or below it are clipped, -inf where they do not pile up; ``swing_dn``: what a pixel with fringes changes at
    least."""

    saturation_dn: float
    quantum_dn: float
    piled: bool = False
    black_dn: float = -math.inf
    swing_dn: float = field(default=0.0, compare=False)

    def clips_black(self, frames: np.ndarray) -> np.ndarray:
        """Tell which pixels (P,) of frames (L, K, P) are clipped at black; what is dark in all frames is not."""
        if math.isinf(self.black_dn):
            return np.zeros(frames.shape[-1], bool)
        low = frames.min(axis=1)
        return np.asarray(((low <= self.black_dn) & (frames.max(axis=1) - low > self.swing_dn)).any(axis=0))

    def caution(self, frames: np.ndarray) -> Caution | None:
        """Warn of shares of pixels of frames (L, K, P) that are clipped at either end and worth a word."""
        if not frames.size:
            return None
        white = float((frames >= self.saturation_dn).any(axis=(0, 1)).mean())
        black = float(self.clips_black(frames).mean())
        told = (self._at_white(white) if white >= _TOLD else "", self._at_black(black) if black >= _TOLD else "")
        text = "; ".join(part for part in told if part)
        return Caution("saturated", text) if text else None

    def _at_white(self, share: float) -> str:
        if math.isinf(self.saturation_dn):
            return f"{share:.1%} of the pixels are infinite in at least one frame and left out: look at what wrote the frames"
        where = f"{self.saturation_dn:g} DN" + (", where samples pile up" if self.piled else "")
        return (
            f"{share:.1%} of the pixels are saturated in at least one frame (at {where}) and left out: take less light, a "
            "shorter exposure or a lower gain"
        )

    def _at_black(self, share: float) -> str:
        return (
            f"{share:.1%} of the pixels are clipped at black in at least one frame (at {self.black_dn:g} DN, where samples "
            "pile up) and left out: raise the black level (offset) of the camera, or take off no background"
        )


def swings(frames: np.ndarray) -> np.ndarray:
    """Tell which pixels (P,) of frames (K, P) change from frame to frame as fringes do; what is dark or still does not."""
    return _swings(frames, _span(frames))


def _swings(frames: np.ndarray, span: float) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # infinite samples
        change = frames.max(axis=0).astype(np.float64) - frames.min(axis=0)
    return np.isfinite(change) & (change > _SWING * span)


def _span(flat: np.ndarray) -> float:
    """Measure the range of samples (K, P), but for a few at either end; 0 where no pixel is finite."""
    finite = flat[:, np.isfinite(flat).all(axis=0)] if flat.dtype.kind == "f" else flat
    low, high = (quantile(finite, share) for share in _TAILS)
    return high - low if finite.size else 0.0


def find_limits(
    frames: np.ndarray, told_dn: float, bit_depth: int | None, noise_dn: Callable[[], float] = lambda: 0.0
) -> SampleLimits:
    """Find the values at which samples of frames (L, K, P) are clipped, at the upper and at the lower end.

    ``told_dn`` is the largest value of the type or of the bit depth that was given, inf for floats. Left-justified data,
    whose low bits are never used, have a bit depth in units of their step. A ceiling below that is one where samples of
    pixels that change from frame to frame gather, many more than just below: fringes without clipping thin out towards
    their crests. Black is where they gather in the same way at the lower end, wherever that lies, of floats at zero or
    below. Noise gathers there too where fringes come near an end: what it puts there changes no phase, and is not clipped;
    ``noise_dn`` tells how much there is, and is asked where samples gather.
    """
    flat = frames.reshape(-1, frames.shape[-1])
    quantum = _quantum(flat, told_dn)
    top = _scaled(told_dn, quantum, bit_depth, float(np.nanmax(flat))) if flat.size else told_dn
    span = _span(flat)
    if span <= 0:
        return SampleLimits(top, quantum)
    swing = _SWING * span
    samples = flat[:, _swings(flat, span)].ravel()
    rising = np.sort(samples.astype(np.uint16) if samples.dtype == np.uint8 else samples).astype(np.float64)
    step = quantum or max(_gap(samples), span / 2**16)
    ends = rising, -rising[::-1]
    white, black = (_pile(ordered, step, span, 0.0) for ordered in ends)
    if white is not None or black is not None:
        least = _DEEP * noise_dn()
        white, black = (_pile(ordered, step, span, least) for ordered in ends)
    floor = -math.inf if black is None else -black
    if flat.dtype.kind == "f" and floor > 0:  # linearised light ends at the first value of its table: that is no black
        floor = -math.inf
    if white is None or white >= top:
        return SampleLimits(top, quantum, black_dn=floor, swing_dn=swing)
    return SampleLimits(white, quantum, piled=True, black_dn=floor, swing_dn=swing)


def _quantum(flat: np.ndarray, told_dn: float) -> float:
    """Find the step between the values of integer samples: above one where low bits are unused."""
    if flat.dtype.kind not in "iu":
        return 0.0 if math.isinf(told_dn) else 1.0
    counted = flat.dtype.kind == "u" and flat.itemsize <= 2
    values = np.flatnonzero(np.bincount(flat.ravel())) if counted else np.unique(flat).astype(np.int64)
    step = int(np.gcd.reduce(values)) if values.size > 2 else 1
    return float(max(step, 1))


def _gap(samples: np.ndarray) -> float:
    """Find the step of counts that are stored as floats, or of means of counts; 0 for values without a common step."""
    gaps = np.diff(np.unique(samples[np.isfinite(samples)]))
    usual = float(np.median(gaps)) if gaps.size else 0.0
    return usual if usual and float(gaps.min()) > usual / 2 else 0.0


def _scaled(told_dn: float, quantum: float, bit_depth: int | None, largest: float) -> float:
    """Give the largest value of data whose values are multiples of ``quantum``."""
    if quantum <= 1 or math.isinf(told_dn):
        return told_dn
    if bit_depth is not None and largest > told_dn:
        return told_dn * quantum
    return told_dn - told_dn % quantum


def _pile(ordered: np.ndarray, quantum: float, span: float, least_depth: float) -> float | None:
    """Find the foot of a pile at the top of rising samples (N,); None where they thin out.

    The samples of the pile over the density just below it are what was cut off: at least ``least_depth``.
    """
    if ordered.size < _FEWEST:
        return None
    top = ordered[-1 - int(_HOT * ordered.size)]
    fewest = max(_FEWEST, _SHARE * ordered.size)
    width = quantum
    while width <= max(_WIDEST * span, quantum):
        # half a step lower: the edges of the windows lie between values
        edges = top - np.array([width, 2 * width]) + quantum / 2
        within, below = ordered.size - np.searchsorted(ordered, edges)
        below = below - within
        times = max(_PILE, least_depth / width)
        if within >= fewest and within > times * (below + 2 * math.sqrt(below) + 1):
            return float(ordered[ordered.size - within])
        width *= 2
    return None
