"""Maps laid on each other: exact pixels, smooth surfaces, places of tiles without a look at the truth, turns and scales."""

from __future__ import annotations

import numpy as np
import pytest

from cpikan.errors import InputError
from cpikan.registration.affine import Affine, ResampledMap
from cpikan.registration.correlation import find_shift, refine_shift
from cpikan.registration.mosaic import Mosaic, place_maps
from cpikan.registration.similarity import find_similarity


def terrain(size: int, seed: int = 0) -> np.ndarray:
    """50 nm with an amplitude that falls with the square of the frequency."""
    spectrum = np.fft.rfft2(np.random.default_rng(seed).normal(size=(size, size)))
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = np.inf
    heights = np.fft.irfft2(spectrum / frequency**2, (size, size))
    return 50 * heights / heights.std()


def cut(heights: np.ndarray, place: np.ndarray, size: int) -> np.ndarray:
    """A window at any place, sampled exactly: the terrain is periodic and its spectrum ends with the pixels."""
    n = len(heights)
    turn = np.fft.fftfreq(n)[:, None] * place[0] + np.fft.rfftfreq(n)[None] * place[1]
    return np.fft.irfft2(np.fft.rfft2(heights) * np.exp(2j * np.pi * turn), (n, n))[:size, :size]


def test_quarter_turns_mirrors_and_whole_shifts_keep_pixels():
    heights = np.random.default_rng(0).normal(size=(7, 9))
    heights[2, 3] = np.nan
    quarter = ResampledMap(heights, Affine.about((3, 4), (4, 3), turn_deg=90), (9, 7))
    np.testing.assert_array_equal(np.asarray(quarter), np.rot90(heights))
    mirror = ResampledMap(heights, Affine.about((3, 4), (3, 4), mirrored=True), (7, 9))
    np.testing.assert_array_equal(np.asarray(mirror), heights[:, ::-1])
    moved = ResampledMap(heights, Affine.about((0, 0), (1, 2)), (7, 9))
    np.testing.assert_array_equal(np.asarray(moved)[1:, 2:], heights[:-1, :-2])
    assert np.isnan(np.asarray(moved)[0]).all()


def test_a_smooth_surface_is_sampled_to_third_order():
    y, x = np.mgrid[:60, :70]

    def surface(y, x):
        return np.sin(x / 7) + np.cos(y / 9 + x / 20)

    affine = Affine.about((30.2, 31.7), (28, 33.3), 17, 1.03, 1.2)
    found = np.asarray(ResampledMap(surface(y, x), affine, (60, 70)))
    inner = np.isfinite(found)
    assert inner.mean() > 0.8
    # cubic convolution leaves h^3 / 12 of the third derivative, beside borders it is linear: h^2 / 8 of the second
    assert np.abs(found - surface(*affine.at(y, x)))[inner].max() < 1 / 8 / 49 * 2
    back = affine.inverse().at(*affine.at(y, x))
    np.testing.assert_allclose(back, [y, x], atol=1e-10)
    with pytest.raises(InputError, match="pressed onto a line"):
        Affine(np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]])).inverse()


@pytest.mark.parametrize("shift", [(0.0, 0.0), (7.3, -11.6), (-20.0, 4.5)])
def test_a_shift_is_found_to_a_fraction_of_a_pixel(shift):
    heights, random = terrain(256), np.random.default_rng(1)
    one = cut(heights, np.zeros(2), 128) + random.normal(size=(128, 128))
    two = cut(heights, -np.array(shift), 128) + random.normal(size=(128, 128)) + 300
    two[40:50, 60:80] = np.nan
    start = find_shift(one, two, 32)
    assert np.abs(start - shift).max() < 2
    match = refine_shift(one, two, start)
    sigma = np.sqrt(np.diag(np.linalg.inv(match.information)))
    assert np.abs(match.shift_px - shift).max() < 5 * sigma.max() < 0.5
    assert find_shift(np.full((20, 20), np.nan), np.zeros((20, 20)), 5) is None


@pytest.mark.parametrize("whole", [True, False])
def test_tiles_find_their_places_and_planes(whole):
    """One tile is empty and tells nothing. What is left against the truth is at most the noise of a pixel, and less where maps
    are averaged or interpolated."""
    heights, random = terrain(512), np.random.default_rng(2)
    size, step = 150, 112
    y, x = np.mgrid[:size, :size]
    maps, nominal, real = [], [], []
    for k in range(9):
        place = np.array(divmod(k, 3)) * step
        off = random.integers(-8, 9, 2).astype(float) if whole else random.uniform(-8, 8, 2)
        noisy = cut(heights, place + 20 + off, size) + random.normal(size=(size, size))
        tilted = noisy + 500 * random.normal() + random.normal() * y + random.normal() * x
        maps.append(np.full((size, size), np.nan) if k == 4 else tilted)
        nominal.append(place)
        real.append(place + off)
    placement = place_maps(maps, np.array(nominal, float))
    assert placement.matched.tolist() == [k != 4 for k in range(9)]
    away = (placement.places - real)[placement.matched]
    assert np.abs(away - away.mean(0)).max() < 0.4  # overlaps of 38 x 150 pixels
    mosaic = Mosaic(maps, placement)
    found = np.asarray(mosaic)
    truth = cut(heights, mosaic.origin - away.mean(0) + 20, 512)[: found.shape[0], : found.shape[1]]
    used = np.isfinite(found)
    rows, columns = np.nonzero(used)
    design = np.stack([np.ones(rows.size), rows, columns], 1)
    rest = (found - truth)[used]
    rest -= design @ np.linalg.lstsq(design, rest, rcond=None)[0]
    assert rest.std() < 1.2
    np.testing.assert_array_equal(mosaic[30:80, 100:160], found[30:80, 100:160])


@pytest.mark.parametrize(
    ("turn", "scale", "shift"), [(0, 1, (7, -5)), (12.3, 1, (3.3, 4.4)), (-35, 1.08, (9, 2)), (171, 0.95, (0, 4))]
)
def test_a_turn_and_a_scale_are_found(turn, scale, shift):
    heights, random = terrain(384), np.random.default_rng(3)
    reference = heights[92:292, 92:292] + random.normal(size=(200, 200))
    affine = Affine.about((191.5 + shift[0], 191.5 + shift[1]), (99.5, 99.5), turn, scale)
    moving = np.asarray(ResampledMap(heights, affine, (200, 200))) + random.normal(size=(200, 200))
    found = find_similarity(reference, moving)
    corners = np.array([[0, 0, 199, 199], [0, 199, 0, 199]])
    expected = affine.inverse().at(*(corners + 92))
    assert np.abs(found.affine.at(*corners) - expected).max() < 0.15
    assert ((found.turn_deg + turn + 180) % 360 - 180) == pytest.approx(0, abs=0.05)


def test_maps_of_nothing_in_common_are_refused():
    with pytest.raises(InputError, match="in common"):
        find_similarity(np.full((64, 64), np.nan), np.zeros((64, 64)))
