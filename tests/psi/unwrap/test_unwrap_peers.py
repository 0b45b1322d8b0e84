"""Cases of other unwrappers' own test suites and demonstrations, rebuilt from their descriptions.

scikit-image's ramps and masks (a ramp with and without a mask, three ramps, all masked, one pixel left; its NaN is the
mask here) and snaphu-py's ramps, masks and its U over four tiles are in test_unwrap.py. Maps of three dimensions, which
scikit-image also unwraps, are refused, and axes that close on themselves are not offered. PUMA's "longs" terrain is not
free and was not rebuilt. The criteria are those of the suites or stricter; all their tolerances in rad (1e-3, 1e-2 over
tiles) follow from right orders, since a congruent answer differs from the truth by whole turns and float32 rounding.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from cpikan.errors import InputError
from cpikan.psi.unwrap.unwrap import unwrap

TURN = 2 * np.pi


def wrap(phase: np.ndarray) -> np.ndarray:
    return phase - TURN * np.rint(phase / TURN)


def wrong_fraction(orders: np.ndarray, surface: np.ndarray, wrapped: np.ndarray, component: np.ndarray) -> float:
    """Share of the valid pixels off the commonest difference from the truth in their component."""
    wrong = 0
    for label in range(1, component.max() + 1):
        inside = component == label
        difference = (orders - np.rint((surface - wrapped) / TURN))[inside].astype(np.int64)
        wrong += difference.size - np.bincount(difference - difference.min()).max()
    return wrong / np.count_nonzero(component)


def diamond_square(exponent: int, smoothness: float, seed: int) -> np.ndarray:
    """Fractal terrain of 2**exponent + 1 pixels squared, first level of unit variance."""
    random = np.random.default_rng(seed)
    z = random.normal(size=(2, 2))
    for level in range(exponent):
        amplitude = 2.0 ** (-smoothness * level)
        n = 2 * z.shape[0] - 1
        finer = np.zeros((n, n))
        finer[::2, ::2] = z
        middle = (z[1:, 1:] + z[:-1, 1:] + z[1:, :-1] + z[:-1, :-1]) / 4
        finer[1::2, 1::2] = middle + amplitude * random.normal(size=middle.shape)
        cross = ndimage.convolve(finer, [[0, 0.25, 0], [0.25, 0, 0.25], [0, 0.25, 0]], mode="mirror")
        odd = np.add.outer(np.arange(n), np.arange(n)) % 2 == 1
        finer[odd] = (cross + amplitude * random.normal(size=finer.shape))[odd]
        z = finer
    return z


def topographic_phase(height: np.ndarray) -> np.ndarray:
    """Radar geometry of tophu's simulation: 24 cm wavelength, 500 m baseline, 37 degrees, a ramp; 900 km of range
    are assumed here."""
    y, x = np.mgrid[0 : 1 : height.shape[0] * 1j, 0 : 1 : height.shape[1] * 1j]
    scale = 4 * np.pi / 0.24 * 500 / 900e3 * np.sin(np.radians(37))
    return scale * height + 50 * y + 50 * x


def decorrelated(surface: np.ndarray, coherence: float | np.ndarray, looks: int, seed: int) -> np.ndarray:
    """Wrapped phase of ``looks`` averaged pairs of correlated speckle."""
    random = np.random.default_rng(seed)
    total = np.zeros(surface.shape, complex)
    for _ in range(looks):
        one, other = random.normal(size=(2, *surface.shape)) + 1j * random.normal(size=(2, *surface.shape))
        total += one.conj() * (coherence * one + np.sqrt(1 - np.square(coherence)) * other)
    return np.angle(total * np.exp(1j * surface)).astype(np.float32)


# --- scikit-image: what is not offered is refused


def test_three_dimensions_are_refused() -> None:
    with pytest.raises(InputError, match="shape"):
        unwrap(np.zeros((8, 12, 16), np.float32))


@pytest.mark.parametrize("axis", [0, 1])
def test_scikit_image_ramp_whose_ends_do_not_meet(axis: int) -> None:
    """Its wrap-around test without the wrapping around: 12 pi over 100 pixels, so the ends are 12 pi apart."""
    ramp = np.linspace(0, 12 * np.pi, 100)
    surface = np.broadcast_to(ramp[:, None] if axis == 0 else ramp, (100, 100))
    result = unwrap(wrap(surface), tile=40, overlap=8)
    unwrapped = wrap(surface) + TURN * result.orders
    np.testing.assert_allclose(unwrapped - unwrapped[0, 0], surface, atol=1e-12)  # a few units in the last place


# --- snaphu-py


def ramp_map(size: int, extent: float) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.ogrid[-extent : extent : size * 1j, -extent : extent : size * 1j]
    surface = np.pi * (x + y)
    return surface, np.angle(np.exp(1j * surface)).astype(np.float32)


def test_snaphu_bands_of_zero_magnitude() -> None:
    """Bands without any signal: phase zero, quality zero, but not masked. The rest is right and in one piece."""
    surface, wrapped = ramp_map(512, 3)
    quality = np.ones_like(wrapped)
    wrapped[100:120, 40:], quality[100:120, 40:] = 0, 0
    wrapped[:400, 300:310], quality[:400, 300:310] = 0, 0
    result = unwrap(wrapped, quality)
    good = quality > 0
    assert result.report.components == 1
    assert wrong_fraction(result.orders, surface, wrapped, good.astype(int)) < 1e-3


def test_snaphu_any_number_of_workers() -> None:
    """1024 x 1024 in 2 x 2 tiles, 128 shared; exact without noise, and the same for any number of workers with it."""
    surface, wrapped = ramp_map(1024, 6)
    for phase in (wrapped, decorrelated(surface, 0.8, 1, 0)):
        first, *others = (unwrap(phase, tile=576, overlap=128, threads=threads) for threads in (1, 2, 5))
        assert first.report.tiles == 4
        assert wrong_fraction(first.orders, surface, phase, first.component) < (1e-2 if phase is not wrapped else 1e-9)
        for other in others:
            assert np.array_equal(first.orders, other.orders)
            assert np.array_equal(first.ambiguous, other.ambiguous)


# --- tophu


@pytest.mark.parametrize("size", [1023, 1024])
def test_tophu_terrain_by_tiles(size: int) -> None:
    surface = topographic_phase(2000 * diamond_square(10, 0.9, 123)[:size, :size])
    wrapped = wrap(surface).astype(np.float32)
    result = unwrap(wrapped, tile=560, overlap=96)
    assert result.report.tiles == 4
    assert result.report.components == 1
    assert wrong_fraction(result.orders, surface, wrapped, result.component) < 1e-3  # theirs: 99.9 % right


def test_tophu_two_islands() -> None:
    """Islands in a sea of coherence 0.01; what does not measure is masked here, so the sea has no component."""
    surface = topographic_phase(1000 * diamond_square(9, 0.9, 7)[:512, :512])
    y, x = np.mgrid[:512, :512]
    islands = (np.hypot(y - 128, x - 160) < 100) | ((np.abs(y - 380) < 90) & (np.abs(x - 350) < 120))
    wrapped = decorrelated(surface, np.where(islands, 0.99, 0.01), 20, 1)
    wrapped[~islands] = np.nan
    result = unwrap(wrapped, tile=288, overlap=64)
    assert set(np.unique(result.component)) == {0, 1, 2}
    assert result.component[380, 350] == 1
    assert result.component[128, 160] == 2
    assert wrong_fraction(result.orders, surface, wrapped, result.component) < 1e-3


def test_tophu_islands_in_an_unmasked_sea() -> None:
    """The same without a mask: quality alone keeps the noise from spoiling the islands, each up to its piston."""
    surface = topographic_phase(1000 * diamond_square(9, 0.9, 7)[:512, :512])
    y, x = np.mgrid[:512, :512]
    islands, _ = ndimage.label((np.hypot(y - 128, x - 160) < 100) | ((np.abs(y - 380) < 90) & (np.abs(x - 350) < 120)))
    coherence = np.where(islands > 0, 0.99, 0.01)
    wrapped = decorrelated(surface, coherence, 20, 1)
    result = unwrap(wrapped, (coherence**2 / (1 - coherence**2)).astype(np.float32))
    assert wrong_fraction(result.orders, surface, wrapped, islands) < 1e-3


def test_tophu_noisy_terrain() -> None:
    surface = topographic_phase(4000 * diamond_square(10, 0.9, 1234)[:512, :1024])
    wrapped = decorrelated(surface, 0.9, 1, 2)
    result = unwrap(wrapped, tile=512)
    assert result.report.tiles == 3
    assert result.report.components == 1
    assert wrong_fraction(result.orders, surface, wrapped, result.component) < 0.01  # theirs: 95 % right


# --- kamui and PUMA


def puma_gaussian() -> np.ndarray:
    y, x = np.mgrid[:100, :100] - 50.0
    return 14 * np.pi * np.exp(-(y * y) / 200 - x * x / 450)


@pytest.mark.parametrize("form", ["whole", "sector", "quarter"])
def test_puma_gaussian(form: str) -> None:
    """14 pi high, 0.4 cycles per pixel at its flank, coherence 0.95; then with a part cut down to zero, whose walls
    are far steeper than half an order."""
    surface = puma_gaussian()
    y, x = np.mgrid[:100, :100] - 50.0
    if form == "sector":
        surface[(y > 0) & (np.abs(x) < 0.3 * y)] = 0
    if form == "quarter":
        surface[(y > 0) & (x > 0)] = 0
    wrapped = decorrelated(surface, 0.95, 1, 3)
    result = unwrap(wrapped)
    limit = {"whole": 0.003, "sector": 0.01, "quarter": 0.01}[form]  # kamui 0.002, 0.017, 0.24 on these
    assert wrong_fraction(result.orders, surface, wrapped, result.component) < limit


def test_kamui_peaks() -> None:
    """The demonstration surface "peaks", about 10 orders high."""
    y, x = np.mgrid[-3:3:200j, -3:3:200j]
    peaks = (
        3 * (1 - x) ** 2 * np.exp(-(x**2) - (y + 1) ** 2)
        - 10 * (x / 5 - x**3 - y**5) * np.exp(-(x**2) - y**2)
        - np.exp(-((x + 1) ** 2) - y**2) / 3
    )
    surface = 4 * peaks
    wrapped = wrap(surface + 0.4 * np.random.default_rng(0).normal(size=x.shape)).astype(np.float32)
    result = unwrap(wrapped)
    assert wrong_fraction(result.orders, surface, wrapped, result.component) < 1e-4
