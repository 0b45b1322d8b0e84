"""The Gaussian filter against direct convolution by the standard's weights, closed forms, and what any mean keeps."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from cpikan.errors import InputError
from cpikan.surface.filters.gaussian import GaussianMean, gaussian_filter
from cpikan.surface.filters.gaussian_axis import GaussianAxis

CASES = [
    ((24, 31), 0.5),
    ((24, 31), 5.0),
    ((24, 31), (7.0, 26.0)),
    ((24, 31), (60.0, 22.0)),
    ((24, 31), 300.0),
    ((1, 60), 40.0),
    ((60, 1), 6.0),
    ((1, 1), 8.0),
]


def direct(heights: np.ndarray, nesting: float | tuple[float, float], order: int = 0) -> np.ndarray:
    """The weights of ISO 16610-61 written out, pixel by pixel, and a least-squares fit by them."""
    ny, nx = nesting if isinstance(nesting, tuple) else (nesting, nesting)
    alpha, valid = math.sqrt(math.log(2) / math.pi), np.isfinite(heights)
    rows, columns = np.nonzero(valid)
    out = np.full(heights.shape, np.nan)
    for i, j in zip(rows, columns, strict=True):
        y, x = (rows - i) / ny, (columns - j) / nx
        weight = np.exp(-np.pi * (y**2 + x**2) / alpha**2)
        if order == 0:
            out[i, j] = weight @ heights[valid] / weight.sum()
        else:
            terms = np.stack([np.ones_like(y), x, y, x * x, x * y, y * y], 1) * np.sqrt(weight)[:, None]
            out[i, j] = np.linalg.lstsq(terms, heights[valid] * np.sqrt(weight), rcond=1e-12)[0][0]
    return out


def rough(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A walk far from zero with scattered dropouts, a wide hole, and one pixel alone in the middle of it."""
    rng = np.random.default_rng(seed)
    heights = rng.normal(0, 1, shape).cumsum(1) + 1e5
    heights[rng.random(shape) < 0.3] = np.nan
    if min(shape) > 20:
        heights[3:20, 3:20] = np.nan
        heights[11, 11] = 1e5 - 20
    heights[0, 0] = 1e5
    return heights


@pytest.mark.parametrize(("shape", "nesting"), CASES)
@pytest.mark.parametrize("order", [0, 2])
def test_it_is_direct_convolution_renormalised_over_valid_pixels(shape, nesting, order):
    heights = rough(shape)
    found, expected = gaussian_filter(heights, nesting, order), direct(heights, nesting, order)
    assert np.array_equal(np.isnan(found), np.isnan(heights))
    spread = max(np.nanmax(heights) - np.nanmin(heights), 1.0)
    # nodes: 6e-9 of every weight and axis, twice for a mean; heights of 1e5 are stored to 1.5e-11
    assert np.nanmax(np.abs(found - expected)) <= 4e-8 * spread


@pytest.mark.parametrize("nesting", [21.0, 22.0, 63.0, 150.0])
def test_every_weight_by_way_of_nodes_is_the_standards(nesting):
    """The bound that the axis promises, of each weight that counts: relative, not of the largest."""
    axis = GaussianAxis(300, nesting)
    first, last = axis.near(100, 200)
    pixels, up = np.arange(300), axis.up(100, 200)
    weights = up.T if not axis.split else up.T @ axis.down(0, 300)[first:last] * axis.step
    offset = pixels[None, first:last] if not axis.split else pixels[None, :]
    exact = np.exp(-np.pi * ((offset - np.arange(100, 200)[:, None]) / (0.46971863934982566 * nesting)) ** 2)
    scale = weights[50].max()
    counts = exact > 1e-11
    bound = 2 * 2 * math.exp(-(math.pi**2) * 2.0) if axis.split else 1e-12
    assert np.abs(weights[counts] / scale / exact[counts] - 1).max() <= bound


def test_a_second_order_surface_is_its_own_large_scale_part_for_order_2():
    y, x = np.mgrid[:30.0, :40.0]
    heights = 3 + 0.2 * y - 0.7 * x + 0.05 * y * x - 0.02 * x * x + 0.01 * y * y
    heights[rough((30, 40)) != rough((30, 40))] = np.nan
    found = gaussian_filter(heights, 25.0, 2)
    assert np.nanmax(np.abs(found - heights)) <= 1e-8 * np.ptp(heights[np.isfinite(heights)])
    assert np.nanmax(np.abs(gaussian_filter(heights, 25.0) - heights)) > 0.1  # order 0 bends at its edge


@pytest.mark.parametrize("nesting", [16.0, 40.0])
def test_a_wave_of_the_nesting_index_passes_by_half(nesting):
    """And one of length p by exp(-pi (alpha n / p)^2), far from the edges."""
    x = np.arange(400.0)
    for period in (nesting, 2 * nesting, nesting / 1.5):
        wave = np.tile(np.cos(2 * np.pi * (x - 200) / period), (3, 1))
        passed = gaussian_filter(wave, nesting)[1, 200]
        # the sum over pixels in place of the integral: the next order of the wave, one whole sampling rate away
        assert passed == pytest.approx(2.0 ** -((nesting / period) ** 2), abs=1e-7)


def test_what_every_mean_keeps():
    heights = rough((30, 41))
    found = gaussian_filter(heights, (30.0, 9.0))
    assert np.allclose(gaussian_filter(heights.T, (9.0, 30.0)).T, found, rtol=0, atol=1e-8, equal_nan=True)
    turned = np.rot90(gaussian_filter(np.rot90(heights), (9.0, 30.0)), -1)
    assert np.allclose(turned, found, rtol=0, atol=1e-8, equal_nan=True)
    assert np.allclose(
        gaussian_filter(-2 * heights + 7, (30.0, 9.0)), -2 * found + 7, rtol=0, atol=1e-8, equal_nan=True
    )
    flat = gaussian_filter(np.where(np.isnan(heights), np.nan, 5.0), 30.0)
    assert np.array_equal(flat, np.where(np.isnan(heights), np.nan, 5.0), equal_nan=True)
    assert np.isnan(gaussian_filter(np.full((4, 5), np.nan), 3.0)).all()
    masked = np.ma.masked_invalid(heights)
    assert np.array_equal(gaussian_filter(masked, 9.0), gaussian_filter(heights, 9.0), equal_nan=True)


class Watched:
    """Rows of a map that count how many are read."""

    def __init__(self, heights: np.ndarray) -> None:
        self.heights, self.shape, self.read = heights, heights.shape, 0

    def __getitem__(self, key: slice) -> np.ndarray:
        self.read += key.stop - key.start
        return self.heights[key]


@pytest.mark.parametrize("nesting", [12.0, 90.0])
def test_bands_are_the_whole_map(nesting):
    heights = rough((700, 30)).astype(np.float32)
    source = Watched(heights)
    mean = GaussianMean(source, nesting)
    bands = [mean.rows(start, min(start + 150, 700)) for start in range(0, 700, 150)]
    whole = gaussian_filter(heights, nesting)
    assert np.allclose(np.concatenate(bands)[np.isfinite(heights)], whole[np.isfinite(heights)], rtol=0, atol=1e-7)
    # by nodes the map is read once; else each band with the rows that its pixels reach
    assert source.read <= (700 if nesting > 22 else 700 + 5 * 2 * 18)
    assert np.array_equal(mean.rows(300, 301), GaussianMean(heights, nesting).rows(300, 301))


def test_memory_is_that_of_bands_and_nodes():
    heights = np.zeros((6000, 400), np.float32)
    mean = GaussianMean(heights, 400.0)
    tracemalloc.start()
    for start in range(0, 6000, 500):
        mean.rows(start, start + 500)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6000 * 400 * 8  # less than the map once in float64


def test_weights_of_pixels():
    heights = rough((24, 31))
    weights = np.random.default_rng(1).random(heights.shape)
    weights[5:8] = 0
    found = GaussianMean(heights, 30.0, weights=lambda start, rows: weights[start : start + len(rows)]).rows(0, 24)
    alpha, valid = math.sqrt(math.log(2) / math.pi), np.isfinite(heights)
    y, x = np.nonzero(valid)
    weight = weights[valid] * np.exp(-np.pi * ((y - 6) ** 2 + (x - 25) ** 2) / (alpha * 30) ** 2)
    assert found[6, 25] == pytest.approx(weight @ heights[valid] / weight.sum(), abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((np.zeros(4), 3.0), "two dimensions"),
        ((np.zeros((4, 4)), 0.0), "not positive"),
        ((np.zeros((4, 4)), (3.0, math.nan)), "not positive"),
        ((np.zeros((4, 4)), 1e6), "200 at most"),
        ((np.zeros((4, 4)), 3.0, 1), "order 1"),
    ],
)
def test_bad_input_is_told(arguments, told):
    with pytest.raises(InputError, match=told):
        gaussian_filter(*arguments)
