"""Power spectral densities of a map: along an axis, over the plane, over rings of equal frequency, and what a band holds.

Heights in nm, frequencies in 1/mm. Parseval's theorem holds for each: the sum over all frequencies, times the step, is the
mean square of the heights about their mean under the window, over the window's own (Bendat and Piersol 2010, chapter 11).
Pixels that are missing are part of the window. Without a window ("none") what does not repeat over the map leaks into high
frequencies as 1 / f^2; "hann" holds it within two steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64
from numpy.typing import NDArray

from cpikan.errors import InputError, check_name
from cpikan.units import PixelUm, pixel_pair

FloatArray = NDArray[np.float64]
Window = Literal["hann", "none"]

WINDOWS: tuple[Window, ...] = ("hann", "none")


@dataclass(frozen=True)
class Spectrum:
    """A density at rising frequencies: ``density`` times ``share_per_mm`` summed is the mean square in nm^2.

    ``share_per_mm`` is the step of frequency (1/mm) of a spectrum along an axis, whose density (nm^2 mm) is that of both
    signs together; it is the area (1/mm^2) of a ring of one over the plane, whose density is in nm^2 mm^2. ``counts`` is
    the number of independent values that a density is the mean of.
    """

    frequency_per_mm: FloatArray
    density: FloatArray
    share_per_mm: FloatArray
    counts: FloatArray

    @property
    def mean_square_nm2(self) -> float:
        return float(self.density @ self.share_per_mm)

    def rms_nm(self, longest_mm: float = math.inf, shortest_mm: float = 0.0) -> float:
        """Compute the RMS in nm of waves from ``shortest_mm`` to ``longest_mm``, both included (band-limited RMS)."""
        if not 0 <= shortest_mm < longest_mm:
            raise InputError(f"a band from {shortest_mm} to {longest_mm} mm is empty: give the longer wave first")
        above = self.frequency_per_mm * longest_mm >= 1 if longest_mm < math.inf else self.frequency_per_mm > 0
        within = above & (self.frequency_per_mm * shortest_mm <= 1)
        return math.sqrt(float(self.density[within] @ self.share_per_mm[within]))


@dataclass(frozen=True)
class PlaneSpectrum:
    """A two-sided density (fy, fx) in nm^2 mm^2, frequencies in the order of ``numpy.fft``, of pixels of (y, x) mm.

    ``independent`` is the share of its values that are independent: the window ties neighbours together.
    """

    density: Float64[np.ndarray, "fy fx"]
    pixel_mm: tuple[float, float]
    independent: float = 1.0

    @property
    def frequencies_per_mm(self) -> tuple[FloatArray, FloatArray]:
        """List the frequencies along y and along x, in 1/mm."""
        height, width = self.density.shape
        y = np.fft.fftfreq(height, self.pixel_mm[0]).astype(np.float64)
        return y, np.fft.fftfreq(width, self.pixel_mm[1]).astype(np.float64)

    @property
    def steps_per_mm(self) -> tuple[float, float]:
        y, x = (1 / (n * one) for n, one in zip(self.density.shape, self.pixel_mm, strict=True))
        return y, x

    @property
    def mean_square_nm2(self) -> float:
        return float(self.density.sum()) * math.prod(self.steps_per_mm)

    def rings(self) -> Spectrum:
        """Average over rings as wide as the larger step: the isotropic spectrum; all frequencies are in some ring."""
        y, x = self.frequencies_per_mm
        radius = np.hypot(y[:, None], x[None, :])
        # an axis of one pixel has no frequencies
        steps = [step for step, n in zip(self.steps_per_mm, self.density.shape, strict=True) if n > 1]
        ring = np.rint(radius / max(steps, default=1.0)).astype(np.int64).reshape(-1)
        counts = np.bincount(ring).astype(np.float64)
        used = counts > 0
        density = np.bincount(ring, self.density.reshape(-1))[used] / counts[used]
        frequency = np.bincount(ring, radius.reshape(-1))[used] / counts[used]
        # f and -f are one value
        independent = np.maximum(1.0, counts[used] / 2 * self.independent)
        return Spectrum(frequency, density, counts[used] * math.prod(self.steps_per_mm), independent)


def axis_spectrum(
    height_nm: Float[np.ndarray, "h w"], pixel_um: PixelUm, axis: Literal["x", "y"] = "x", window: Window = "hann"
) -> Spectrum:
    """Average the spectra of all rows (``axis`` "x") or columns of a map (H, W) about its mean; see `Spectrum`.

    Raises InputError for a map without valid pixels or an unknown window.
    """
    check_name("axis", axis, ("x", "y"))
    values, weights = _windowed(height_nm, window, (axis == "y", axis == "x"))
    if axis == "y":
        values, weights = values.T, weights.T
    size = values.shape[1]
    step_mm = _pixel_mm(pixel_um)["yx".index(axis)]
    power = np.zeros(size // 2 + 1)
    for first in range(0, len(values), 256):
        power += (np.abs(np.fft.rfft(values[first : first + 256], axis=1)) ** 2).sum(0)
    both = np.full(power.size, 2.0)
    both[0] = 1.0
    if size % 2 == 0:
        both[-1] = 1.0
    density = both * power * step_mm / float((weights**2).sum())
    share = np.full(power.size, 1 / (size * step_mm))
    lines = _independent(weights) / size
    frequency = np.fft.rfftfreq(size, step_mm).astype(np.float64)
    return Spectrum(frequency, density, share, np.full(power.size, lines))


def plane_spectrum(height_nm: Float[np.ndarray, "h w"], pixel_um: PixelUm, window: Window = "hann") -> PlaneSpectrum:
    """Compute the spectrum of a map (H, W) about its mean over the plane; about 50 bytes a pixel are in use.

    Raises InputError for a map without valid pixels or an unknown window.
    """
    from scipy.fft import fft2

    values, weights = _windowed(height_nm, window, (True, True))
    y_mm, x_mm = _pixel_mm(pixel_um)
    density = np.abs(fft2(values)) ** 2 * (y_mm * x_mm / float((weights**2).sum()))
    return PlaneSpectrum(density, (y_mm, x_mm), _independent(weights) / weights.size)


def _windowed(
    height_nm: Float[np.ndarray, "h w"], window: str, axes: tuple[bool, bool]
) -> tuple[FloatArray, FloatArray]:
    """Give heights about their mean times the window of the axes, and the window, 0 where pixels are missing."""
    check_name("window", window, WINDOWS)
    heights = np.asarray(height_nm, np.float64)
    if heights.ndim != 2 or not np.isfinite(heights).any():
        raise InputError(f"a map of shape {heights.shape} has no spectrum: give one (H, W) with valid pixels")
    weights = np.isfinite(heights).astype(np.float64)
    for axis, wanted in enumerate(axes):
        if wanted and window == "hann":
            size = heights.shape[axis]
            profile = np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2
            weights *= profile[:, None] if axis == 0 else profile[None, :]
    valid = np.isfinite(heights)
    return np.where(valid, heights - heights[valid].mean(), 0.0) * weights, weights


def _pixel_mm(pixel_um: PixelUm) -> tuple[float, float]:
    pair = pixel_pair(pixel_um)
    if pair is None:
        raise InputError(f"pixel size {pixel_um} um is not positive: give one above zero, or (y, x)")
    return pair[0] / 1000, pair[1] / 1000


def _independent(weights: FloatArray) -> float:
    """Count the independent values that windowed heights are worth."""
    return float((weights**2).sum() ** 2 / (weights**4).sum())
