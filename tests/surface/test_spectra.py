"""Spectra and correlation against sums written out, Parseval's theorem, known lines and known slopes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cpikan.errors import InputError
from cpikan.surface.spectra import autocorrelation as correlation_module
from cpikan.surface.spectra.autocorrelation import autocorrelation
from cpikan.surface.spectra.power_law import PowerLaw, fit_power_law
from cpikan.surface.spectra.psd import WINDOWS, Spectrum, axis_spectrum, plane_spectrum


def rough(shape: tuple[int, int] = (37, 54), seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    heights = rng.normal(1e3, 5, shape)
    heights[rng.random(shape) < 0.2] = np.nan
    return heights


def weighed_square(heights: np.ndarray, axes: tuple[bool, bool]) -> float:
    """Mean square about the mean under Hann windows along the axes, over valid pixels."""
    weights = np.isfinite(heights).astype(float)
    for axis in (0, 1):
        if axes[axis]:
            n = heights.shape[axis]
            window = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n)
            weights *= window[:, None] if axis == 0 else window
    apart = np.nan_to_num(heights - np.nanmean(heights))
    return float(((apart * weights) ** 2).sum() / (weights**2).sum())


@pytest.mark.parametrize("shape", [(37, 54), (36, 55), (1, 40), (40, 1)])
@pytest.mark.parametrize("window", WINDOWS)
def test_parseval(shape, window):
    heights, hann = rough(shape), window == "hann"
    plane = plane_spectrum(heights, (2.0, 3.0), window)
    expected = weighed_square(heights, (hann, hann))
    assert plane.mean_square_nm2 == pytest.approx(expected, rel=1e-9)
    assert plane.rings().mean_square_nm2 == pytest.approx(expected, rel=1e-9)
    assert plane.density.min() >= 0
    for axis in ("x", "y"):
        along = axis_spectrum(heights, (2.0, 3.0), axis, window)
        assert along.mean_square_nm2 == pytest.approx(
            weighed_square(heights, (hann and axis == "y", hann and axis == "x")), rel=1e-9
        )


@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_line_stands_at_its_frequency(axis):
    x = np.arange(200) * 5.0  # um
    wave = np.tile(7 * np.cos(2 * np.pi * x / 50), (9, 1))
    found = axis_spectrum(wave if axis == "x" else wave.T, 5.0, axis, "none")
    peak = int(found.density.argmax())
    assert found.frequency_per_mm[peak] == pytest.approx(20)
    assert found.density[peak] * found.share_per_mm[peak] == pytest.approx(7**2 / 2, rel=1e-12)
    assert np.delete(found.density, peak).max() < 1e-20
    assert found.rms_nm(longest_mm=0.06, shortest_mm=0.04) == pytest.approx(7 / math.sqrt(2))
    assert found.rms_nm(longest_mm=0.045) < 1e-9
    hann = axis_spectrum(wave if axis == "x" else wave.T, 5.0, axis)
    assert hann.rms_nm(longest_mm=0.06, shortest_mm=0.04) == pytest.approx(7 / math.sqrt(2), rel=1e-9)


def test_scale_and_transposition():
    heights = rough()
    found = plane_spectrum(heights, (2.0, 3.0))
    assert np.allclose(plane_spectrum(heights.T, (3.0, 2.0)).density.T, found.density, rtol=1e-9, atol=1e-15)
    assert np.allclose(plane_spectrum(3 * heights + 5, (2.0, 3.0)).density, 9 * found.density, rtol=1e-9, atol=1e-12)
    wider = plane_spectrum(heights, (4.0, 6.0))
    assert wider.mean_square_nm2 == pytest.approx(found.mean_square_nm2, rel=1e-12)
    along, across = axis_spectrum(heights, (2.0, 3.0), "x"), axis_spectrum(heights.T, (3.0, 2.0), "y")
    assert np.allclose(along.density, across.density, rtol=1e-12, atol=0)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.3, 4.0])
def test_a_law_without_scatter_is_found_exactly(exponent):
    frequency = np.linspace(0.1, 30, 400)
    counts = np.random.default_rng(0).integers(1, 50, 400).astype(float)
    law = fit_power_law(Spectrum(frequency, 3.5 / frequency**exponent, np.full(400, 0.1), counts))
    assert law.exponent == pytest.approx(exponent, abs=1e-9)
    assert law.amplitude == pytest.approx(3.5, rel=1e-9)


def surface(exponent: float, seed: int, size: int = 256) -> np.ndarray:
    """A quarter of a periodic random surface whose density over the plane falls as f^-exponent: its edges do not match."""
    f = np.hypot(np.fft.fftfreq(2 * size)[:, None], np.fft.rfftfreq(2 * size)[None])
    f[0, 0] = np.inf
    noise = np.fft.rfft2(np.random.default_rng(seed).normal(size=(2 * size, 2 * size)))
    return np.fft.irfft2(noise * f ** (-exponent / 2))[:size, :size]


@pytest.mark.parametrize("exponent", [1.5, 2.5, 3.5])
def test_slopes_of_known_spectra(exponent):
    laws = [
        fit_power_law(plane_spectrum(surface(exponent, seed), 10.0).rings(), longest_mm=0.25, shortest_mm=0.03)
        for seed in range(4)
    ]
    found = np.array([law.exponent for law in laws])
    sigma = laws[0].exponent_sigma
    assert abs(found.mean() - exponent) < min(0.02, 3 * sigma / 2)
    assert found.std(ddof=1) < 2.2 * sigma  # 4 values: 3 sigma of a sample's own scatter


def test_missing_pixels_leave_the_slope():
    heights = surface(2.0, 1)
    heights[np.random.default_rng(5).random(heights.shape) < 0.002] = np.nan
    law = fit_power_law(plane_spectrum(heights, 10.0).rings(), longest_mm=0.5, shortest_mm=0.1)
    assert law.exponent == pytest.approx(2.0, abs=4 * law.exponent_sigma)


def test_rms_of_a_law_is_its_integral():
    law = PowerLaw(4.0, 2.0, 0.0)
    assert law.rms_nm(1.0, 0.1) == pytest.approx(math.sqrt(4 * (1 - 0.1)))
    assert PowerLaw(4.0, 1.0, 0.0).rms_nm(1.0, 0.1) == pytest.approx(math.sqrt(4 * math.log(10)))


@pytest.mark.parametrize(("tile", "reach"), [(1024, None), (8, (5, 7)), (16, (3, 20)), (16, (0, 4))])
def test_correlation_is_the_mean_over_pairs(tile, reach, monkeypatch):
    monkeypatch.setattr(correlation_module, "_TILE", tile)
    heights = rough((23, 31))
    apart = heights - np.nanmean(heights)
    found = autocorrelation(heights, reach)
    down, across = found.reach
    assert (down, across) == (reach or (22, 30))
    for dy in range(-down, down + 1):
        for dx in range(-across, across + 1):
            one = apart[max(0, -dy) : 23 - max(0, dy), max(0, -dx) : 31 - max(0, dx)]
            other = apart[max(0, dy) : 23 + min(0, dy), max(0, dx) : 31 + min(0, dx)]
            both = np.isfinite(one * other)
            value = found.products[down + dy, across + dx]
            if both.any():
                assert value == pytest.approx((one * other)[both].mean(), abs=1e-10)
            else:
                assert np.isnan(value)
    assert found.mean_square == pytest.approx(np.nanvar(heights), rel=1e-12)


def test_bad_input_is_told():
    with pytest.raises(InputError, match="no spectrum"):
        plane_spectrum(np.full((3, 3), np.nan), 1.0)
    with pytest.raises(InputError, match="unknown window 'ham'"):
        axis_spectrum(np.eye(3), 1.0, "x", "ham")
    with pytest.raises(InputError, match="pixel size"):
        plane_spectrum(np.eye(3), 0.0)
    with pytest.raises(InputError, match="two at least"):
        fit_power_law(axis_spectrum(rough(), 1.0), longest_mm=1e-9, shortest_mm=1e-10)
    with pytest.raises(InputError, match="give the longer wave first"):
        axis_spectrum(rough(), 1.0).rms_nm(1.0, 2.0)
