"""How far neighbouring tiles disagree before they are blended, and whether they may be."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cpikan.errors import InputError


@dataclass
class Disagreement:
    """Sums over all pixels where two tiles meet; ``period`` makes differences those of values on a circle.

    With ``orders_agree`` a difference of more than half a period is refused: an average of two orders is no height.
    """

    period: float | None = None
    orders_agree: bool = False
    squares: float = 0.0
    reference: float = 0.0
    largest: float = 0.0
    pixels: int = 0

    def add(self, old: np.ndarray, step: np.ndarray) -> None:
        """Count ``step`` = new - old, where the earlier tile has ``old``; pixels without a value do not count."""
        size = float(np.abs(step).max(initial=0.0))
        if not math.isfinite(size):
            there = np.isfinite(step)
            old, step = old[there], step[there]
            size = float(np.abs(step).max(initial=0.0))
        if self.period is not None and size > 0.5 * self.period:
            if self.orders_agree:
                raise InputError(
                    f"heights of neighbouring tiles differ by {size:.6g}, more than half of the period {self.period:g}: "
                    "make their orders agree first, blend phasors, or use window 'halo'"
                )
            step = step - self.period * np.rint(step / self.period)
            size = float(np.abs(step).max(initial=0.0))
        self.largest = max(self.largest, size)
        if size > 0.0:  # tiles that agree everywhere are the common case of exact tilings
            self.squares += float(np.square(step).sum(dtype=np.float64))
        self.reference += float(np.square(old).sum(dtype=np.float64))
        self.pixels += step.size

    def merge(self, other: Disagreement) -> None:
        """Add the sums of another part of the image."""
        self.squares += other.squares
        self.reference += other.reference
        self.largest = max(self.largest, other.largest)
        self.pixels += other.pixels

    @property
    def relative_l2(self) -> float | None:
        """Divide the RMS difference by the RMS of the values; None where no tiles meet."""
        if not self.pixels:
            return None
        return math.sqrt(self.squares / self.reference) if self.reference else (0.0 if not self.squares else math.inf)

    @property
    def rms(self) -> float | None:
        """Compute the RMS difference, in the unit of the values; None where no tiles meet."""
        return math.sqrt(self.squares / self.pixels) if self.pixels else None
