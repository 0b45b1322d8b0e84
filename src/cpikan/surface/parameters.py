"""Surface numbers of a height map: PV, PVr, RMS, Sa to Sku and slopes, summed over its rows."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from cpikan.surface.tally_kernels import fit_sums, height_sums, step_sums
from cpikan.surface.zernike import modes_up_to

FloatArray = NDArray[np.float64]

PVR_MODES = modes_up_to("fringe", 36)  # the piston is the first of the 36


@dataclass(frozen=True)
class SurfaceParameters:
    """Numbers of one surface over its valid pixels, heights in nm about their mean; None where one does not exist.

    ``pv_nm`` = ``sz_nm`` = ``sp_nm`` + ``sv_nm`` is the plain maximum minus minimum; ``rms_nm`` = ``sq_nm`` is about
    the mean; ``sa_nm``, ``ssk``, ``sku`` as in ISO 25178-2:2021 (kurtosis 3 for a normal distribution). ``pvr_nm`` is the
    robust PV of Evans (OSA Optical Fabrication and Testing 2008, OWA4): PV, over the valid pixels, of the fit of 36
    Zernike terms (fringe 1 to 36) plus three times the RMS of what it leaves. Slopes are differences of neighbouring
    valid pixels, their RMS about zero, in nm per pixel, and in mrad when the pixel size is known; ``sdq`` is the RMS
    gradient. ``mean_nm`` is what is left of a mean after the form was removed.
    """

    pixels: int
    mean_nm: float | None = None
    pv_nm: float | None = None
    pvr_nm: float | None = None
    rms_nm: float | None = None
    sa_nm: float | None = None
    sq_nm: float | None = None
    sp_nm: float | None = None
    sv_nm: float | None = None
    sz_nm: float | None = None
    ssk: float | None = None
    sku: float | None = None
    slope_rms_x_nm_per_pixel: float | None = None
    slope_rms_y_nm_per_pixel: float | None = None
    slope_pv_x_nm_per_pixel: float | None = None
    slope_pv_y_nm_per_pixel: float | None = None
    slope_rms_x_mrad: float | None = None
    slope_rms_y_mrad: float | None = None
    slope_pv_x_mrad: float | None = None
    slope_pv_y_mrad: float | None = None
    sdq: float | None = None

    def summary(self) -> dict[str, float | int | None]:
        """The numbers by name."""
        return asdict(self)


@dataclass
class HeightTally:
    """Moments of heights about ``around_nm``, fed with blocks in any order; NaN ignored.

    Sa needs ``around_nm`` to be the mean; the other moments are corrected to the mean, and lose digits only when the two
    are many Sq apart.
    """

    around_nm: float = 0.0
    pixels: int = 0
    min_nm: float = math.inf
    max_nm: float = -math.inf
    _powers: FloatArray = field(default_factory=lambda: np.zeros(4), repr=False)
    _absolute: float = field(default=0.0, repr=False)

    def add(self, height_nm: NDArray[np.floating]) -> None:
        """Take a block of heights in nm, of any shape."""
        heights = np.asarray(height_nm)
        found = height_sums(heights.reshape(-1, heights.shape[-1]), self.around_nm)
        self.pixels += int(found[0])
        self.min_nm, self.max_nm = min(self.min_nm, float(found[1])), max(self.max_nm, float(found[2]))
        self._absolute += float(found[3])
        self._powers += found[4:]

    def numbers(self) -> dict[str, float]:
        """mean, PV, RMS, Sa, Sq, Sp, Sv, Sz, Ssk and Sku by their names; {} without a pixel; no Ssk, Sku of a flat map."""
        if not self.pixels:
            return {}
        off, second, third, fourth = (float(value) for value in self._powers / self.pixels)
        mean = self.around_nm + off
        variance = max(0.0, second - off**2)
        sq = math.sqrt(variance)
        pv = self.max_nm - self.min_nm
        found = {"mean_nm": mean, "pv_nm": pv, "rms_nm": sq, "sa_nm": self._absolute / self.pixels, "sq_nm": sq}
        found |= {"sp_nm": self.max_nm - mean, "sv_nm": mean - self.min_nm, "sz_nm": pv}
        if sq > 0:
            found["ssk"] = (third - 3 * off * second + 2 * off**3) / sq**3
            found["sku"] = (fourth - 4 * off * third + 6 * off**2 * second - 3 * off**4) / variance**2
        return found


@dataclass
class _SlopeAxis:
    count: int = 0
    square: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def add(self, left: NDArray[np.floating], right: NDArray[np.floating]) -> None:
        count, square, low, high = step_sums(left, right)
        self.count += int(count)
        self.square += square
        self.low, self.high = min(self.low, low), max(self.high, high)


class SlopeTally:
    """Differences of neighbouring valid pixels along x and y, fed with bands of rows from top to bottom."""

    def __init__(self) -> None:
        self._x, self._y = _SlopeAxis(), _SlopeAxis()
        self._last: tuple[int, NDArray[np.floating]] | None = (
            None  # row number and heights of the row above the next band
        )

    def add(self, start: int, height_nm: NDArray[np.floating]) -> None:
        """Take rows [start, start + n) of heights in nm."""
        heights = np.asarray(height_nm)
        self._x.add(heights[:, :-1], heights[:, 1:])
        self._y.add(heights[:-1], heights[1:])
        if self._last is not None and self._last[0] == start - 1:
            self._y.add(self._last[1], heights[:1])
        self._last = (start + len(heights) - 1, heights[-1:].copy())

    def numbers(self, pixel_um: float | None = None) -> dict[str, float]:
        """RMS and PV of the slopes by name; the RMS gradient needs the pixel size."""
        found: dict[str, float] = {}
        for axis, slopes in (("x", self._x), ("y", self._y)):
            if slopes.count:
                found[f"slope_rms_{axis}_nm_per_pixel"] = math.sqrt(slopes.square / slopes.count)
                found[f"slope_pv_{axis}_nm_per_pixel"] = slopes.high - slopes.low
        if pixel_um is not None:
            # 1 nm per um is a slope of 1/1000
            found |= {name.replace("nm_per_pixel", "mrad"): value / pixel_um for name, value in found.items()}
            if self._x.count and self._y.count:
                found["sdq"] = math.hypot(found["slope_rms_x_mrad"], found["slope_rms_y_mrad"]) / 1000
        return found


@dataclass
class FitTally:
    """PVr from a fitted form and what it leaves, fed with blocks in any order; see ``SurfaceParameters``."""

    pixels: int = 0
    low_nm: float = math.inf
    high_nm: float = -math.inf
    _square: float = field(default=0.0, repr=False)

    def add(self, height_nm: FloatArray, fit_nm: FloatArray) -> None:
        """Take heights and their fit in nm, of one shape; a pixel counts where both are finite."""
        count, square, low, high = fit_sums(height_nm, fit_nm)
        self.pixels += int(count)
        self._square += square
        self.low_nm, self.high_nm = min(self.low_nm, low), max(self.high_nm, high)

    @property
    def pvr_nm(self) -> float | None:
        # as many terms as pixels leave no residual to speak of
        if self.pixels <= len(PVR_MODES):
            return None
        return self.high_nm - self.low_nm + 3 * math.sqrt(self._square / self.pixels)
