"""Sums over the pixels of a height map, fed with blocks of rows: heights, slopes, a fit and its rest, errors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64
from numpy.typing import NDArray

from cpikan.metrics import NORMAL_95
from cpikan.surface.forms.zernike import modes_up_to
from cpikan.surface.sums.tally_kernels import area_sums, difference_sums, height_sums
from cpikan.units import PixelUm, pixel_pair

FloatArray = NDArray[np.float64]

PVR_MODES = modes_up_to("fringe", 36)  # the piston is the first of the 36


@dataclass
class HeightTally:
    """Moments of heights about ``around_nm``, fed with blocks in any order; NaN ignored. Figures are None without a pixel.

    Sa needs ``around_nm`` to be the mean; the other moments are corrected to the mean, and lose digits only when the two
    are many Sq apart. Without it the mean of the first block that has a pixel is taken.
    """

    around_nm: float | None = None
    pixels: int = 0
    min_nm: float = math.inf
    max_nm: float = -math.inf
    _powers: FloatArray = field(default_factory=lambda: np.zeros(4), repr=False)
    _absolute: float = field(default=0.0, repr=False)

    def add(self, height_nm: Float[np.ndarray, ...]) -> None:
        """Take a block of heights in nm, of any shape."""
        heights = np.asarray(height_nm)
        if self.around_nm is None:
            finite = heights[np.isfinite(heights)]
            if not finite.size:
                return
            self.around_nm = float(finite.mean(dtype=np.float64))
        found = height_sums(heights.reshape(-1, heights.shape[-1]), self.around_nm)
        self.pixels += int(found[0])
        self.min_nm, self.max_nm = min(self.min_nm, float(found[1])), max(self.max_nm, float(found[2]))
        self._absolute += float(found[3])
        self._powers += found[4:]

    @property
    def mean_nm(self) -> float | None:
        return (self.around_nm or 0.0) + float(self._powers[0] / self.pixels) if self.pixels else None

    @property
    def pv_nm(self) -> float | None:
        return self.max_nm - self.min_nm if self.pixels else None

    @property
    def rms_nm(self) -> float | None:
        """Compute the RMS about the mean in nm."""
        return math.sqrt(self._central()[0]) if self.pixels else None

    @property
    def sa_nm(self) -> float | None:
        return self._absolute / self.pixels if self.pixels else None

    @property
    def skewness(self) -> float | None:
        """Compute the skewness; None of a flat map too, as is the kurtosis."""
        variance, third, _ = self._central()
        cubed = math.sqrt(variance) ** 3  # may vanish where the variance does not
        return third / cubed if cubed > 0 else None

    @property
    def kurtosis(self) -> float | None:
        variance, _, fourth = self._central()
        squared = variance**2
        return fourth / squared if squared > 0 else None

    def _central(self) -> tuple[float, float, float]:
        """Compute the second to fourth moment about the mean."""
        off, second, third, fourth = (float(value) for value in self._powers / max(1, self.pixels))
        variance = max(0.0, second - off**2)
        third_moment = third - 3 * off * second + 2 * off**3
        return variance, third_moment, fourth - 4 * off * third + 6 * off**2 * second - 3 * off**4


@dataclass
class _Differences:
    """Sums over differences: their squares, and the extremes of what is shown in their place."""

    count: int = 0
    square: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def add(
        self, left: NDArray[np.floating], right: NDArray[np.floating], shown: NDArray[np.floating] | None = None
    ) -> None:
        count, square, low, high = difference_sums(left, right, shown)
        self.count += int(count)
        self.square += square
        self.low, self.high = min(self.low, low), max(self.high, high)


class SlopeTally:
    """Differences of neighbouring valid pixels along x and y, fed with bands of rows from top to bottom."""

    def __init__(self) -> None:
        self._x, self._y = _Differences(), _Differences()
        # row number and heights of the row above the next band
        self._last: tuple[int, NDArray[np.floating]] | None = None

    def add(self, start: int, height_nm: Float[np.ndarray, "rows w"]) -> None:
        """Take rows [start, start + n) of heights in nm."""
        heights = np.asarray(height_nm)
        self._x.add(heights[:, :-1], heights[:, 1:])
        self._y.add(heights[:-1], heights[1:])
        if self._last is not None and self._last[0] == start - 1:
            self._y.add(self._last[1], heights[:1])
        self._last = (start + len(heights) - 1, heights[-1:].copy())

    def rms(self, axis: Literal["x", "y"]) -> float | None:
        """Compute the RMS about zero of the differences along an axis, nm per pixel."""
        sums = self._x if axis == "x" else self._y
        return math.sqrt(sums.square / sums.count) if sums.count else None

    def pv(self, axis: Literal["x", "y"]) -> float | None:
        """Compute maximum minus minimum of the differences along an axis, nm per pixel."""
        sums = self._x if axis == "x" else self._y
        return sums.high - sums.low if sums.count else None


class AreaTally:
    """The area of the surface between valid pixels, fed with bands of rows from top to bottom; nothing without a pixel size."""

    def __init__(self, pixel_um: PixelUm | None) -> None:
        pair = pixel_pair(pixel_um)
        self._pixel_nm = None if pair is None else (1000 * pair[0], 1000 * pair[1])
        self._cells, self._excess = 0, 0.0
        self._last: tuple[int, NDArray[np.floating]] | None = None  # the row above the next band

    def add(self, start: int, height_nm: Float64[np.ndarray, "rows w"]) -> None:
        """Take rows [start, start + n) of heights in nm."""
        if self._pixel_nm is None:
            return
        heights = np.asarray(height_nm)
        if self._last is not None and self._last[0] == start - 1:
            heights = np.concatenate([self._last[1], heights])
        cells, excess = area_sums(heights, *self._pixel_nm)
        self._cells, self._excess = self._cells + int(cells), self._excess + excess
        self._last = (start + len(height_nm) - 1, heights[-1:].copy())

    @property
    def excess(self) -> float | None:
        """Divide the area by that of its projection, minus 1; None without a cell of four valid pixels."""
        return self._excess / self._cells if self._cells else None


class FitTally:
    """PVr from a fitted form and what it leaves, fed with blocks in any order; see ``pvr_nm`` of the registry."""

    def __init__(self) -> None:
        self._sums = _Differences()

    def add(self, height_nm: Float64[np.ndarray, "rows w"], fit_nm: Float64[np.ndarray, "rows w"]) -> None:
        """Take heights and their fit in nm, of one shape; a pixel counts where both are finite."""
        self._sums.add(fit_nm, height_nm, fit_nm)

    @property
    def pvr_nm(self) -> float | None:
        # as many terms as pixels leave no residual to speak of
        if self._sums.count <= len(PVR_MODES):
            return None
        return self._sums.high - self._sums.low + 3 * math.sqrt(self._sums.square / self._sums.count)


@dataclass
class ErrorTally:
    """The figures of `cpikan.metrics` accumulated over blocks of pixels, in any order, in float64.

    ``add`` takes the errors in nm (NaN where there is none), the truth in nm about any fixed origin near its mean, and
    sigma in nm or None.
    """

    limit_nm: float
    pixels: int = 0
    wrong: int = 0
    max_abs_nm: float = 0.0
    _hits: int = 0
    _has_sigma: bool = False
    _square_right: float = 0.0
    _square_all: float = 0.0
    _truth_sum: float = 0.0
    _truth_square: float = 0.0

    def add(
        self,
        error_nm: Float[np.ndarray, "*pixels"],
        truth_nm: Float[np.ndarray, "*pixels"],
        sigma_nm: Float[np.ndarray, "*pixels"] | None = None,
    ) -> None:
        valid = np.isfinite(error_nm)
        error = np.asarray(error_nm, np.float64)[valid]
        truth = np.asarray(truth_nm, np.float64)[valid]
        size = np.abs(error)
        right = size[size <= self.limit_nm]
        self.pixels += error.size
        self.wrong += error.size - right.size
        self._square_right += float(right @ right)
        self._square_all += float(error @ error)
        self._truth_sum += float(truth.sum())
        self._truth_square += float(truth @ truth)
        if right.size:
            self.max_abs_nm = max(self.max_abs_nm, float(right.max()))
        if sigma_nm is not None:
            self._has_sigma = True
            # a wrong order is a miss even where sigma is large enough to hide it
            hits = (size <= NORMAL_95 * np.asarray(sigma_nm)[valid]) & (size <= self.limit_nm)
            self._hits += int(np.count_nonzero(hits))

    @property
    def rms_nm(self) -> float | None:
        right = self.pixels - self.wrong
        return math.sqrt(self._square_right / right) if right else None

    @property
    def relative_l2(self) -> float | None:
        if not self.pixels:
            return None
        spread = self._truth_square - self._truth_sum**2 / self.pixels
        # below this the difference of the two sums is rounding only: the truth is flat
        if spread <= 1e-14 * self._truth_square:
            return None
        return math.sqrt(self._square_all / spread)

    def summary(self) -> dict[str, float | int | None]:
        """Summarise the figures under the names of ``cpikan evaluate``; None where a figure does not exist."""
        right = self.pixels - self.wrong
        return {
            "rms_nm": self.rms_nm,
            "relative_l2": self.relative_l2,
            "max_abs_nm": self.max_abs_nm if right else None,
            "wrong_order_fraction": self.wrong / self.pixels if self.pixels else None,
            "coverage_95": self._hits / self.pixels if self._has_sigma and self.pixels else None,
            "pixels": self.pixels,
        }
