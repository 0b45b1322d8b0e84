"""tile_image and blend_tiles: views, exact identity, the definition as oracle, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cpikan
from cpikan.errors import InputError
from cpikan.streaming.tiling.blend import WINDOWS, rising


@st.composite
def cuts(draw):
    shape = (draw(st.integers(1, 60)), draw(st.integers(1, 60)))
    tile = (draw(st.integers(1, 24)), draw(st.integers(1, 24)))
    return shape, tile, tuple(draw(st.integers(0, length - 1)) for length in tile)


def plain_blend(tiles, grid, window):
    """The definition: the sum of window times tile, in float64."""
    total = np.zeros((*np.shape(tiles[0])[:-2], *grid.shape))
    for box, tile in zip(grid, tiles, strict=True):
        profiles = []
        for axis, i in zip(grid.axes, box.position, strict=True):
            start, stop = axis.extent(i)
            first, last = axis.support(i)
            profile = np.zeros(stop - start)
            profile[first - start : last - start] = 1
            if i:
                profile[first - start : first - start + axis.ramp] = rising(window, axis.ramp)
            if i < len(axis) - 1:
                profile[last - start - axis.ramp : last - start] -= rising(window, axis.ramp)
            profiles.append(profile)
        view = box.view(total)
        view += profiles[0][:, None] * profiles[1] * tile
    return total


@given(cuts(), st.sampled_from(WINDOWS), st.integers(0, 2**32 - 1))
def test_tiles_of_an_image_come_back_exactly(cut, window, seed):
    shape, tile, overlap = cut
    image = np.random.default_rng(seed).normal(0, 1e3, (2, *shape)).astype(np.float32)
    tiles, grid = cpikan.tile_image(image, tile, overlap)
    assert all(np.shares_memory(piece, image) for piece in tiles)
    assert len({piece.shape for piece in tiles}) == 1
    # the blend adds ramp * (new - old), which is zero where tiles agree: no tolerance, at any overlap
    assert np.array_equal(cpikan.blend_tiles(tiles, grid, window), image)


@given(cuts(), st.sampled_from(WINDOWS), st.integers(0, 2**32 - 1))
def test_tiles_that_differ_are_weighted_by_their_windows(cut, window, seed):
    shape, tile, overlap = cut
    _, grid = cpikan.tile_image(np.empty(shape, np.float32), tile, overlap)
    rng = np.random.default_rng(seed)
    tiles = [rng.uniform(-1, 1, (2, *box.shape)).astype(np.float32) for box in grid]
    got = cpikan.blend_tiles(iter(tiles), grid, window)
    # |values| <= 1 and u = 2^-24: the ramp is off by u / 2 times a difference of at most 2, the difference and the
    # product by 2u each, the sum by u, per axis: 6u, twice 12u.
    assert np.abs(got - plain_blend(tiles, grid, window)).max() <= 12 * 2.0**-24
    assert got.dtype == np.float32


def test_halo_takes_every_pixel_from_its_owner_and_keeps_the_type():
    image = np.arange(40 * 30).reshape(40, 30) % 251
    _, grid = cpikan.tile_image(image, 16, 6)
    numbers = cpikan.blend_tiles((np.full(box.shape, box.index, np.uint8) for box in grid), grid, "halo")
    assert numbers.dtype == np.uint8
    for box in grid:
        assert np.all(box.core_view(numbers) == box.index)


def test_phasors_are_blended_as_complex_numbers():
    # two tiles whose phases differ by 2 pi - 0.2: their average phase lies between them on the circle, not near zero
    _, grid = cpikan.tile_image(np.empty((8, 24)), 16, 8)
    tiles = [np.full((8, 16), np.exp(1j * phase)) for phase in (np.pi - 0.1, -np.pi + 0.1)]
    assert np.abs(np.angle(cpikan.blend_tiles(tiles, grid))).min() >= np.pi - 0.1 - 1e-12


def test_a_dead_pixel_stays_in_its_tiles():
    image = np.ones((60, 60), np.float32)
    image[25, 30] = np.nan
    for window in WINDOWS:
        tiles, grid = cpikan.tile_image(image, 32, 8)
        assert np.array_equal(np.isnan(cpikan.blend_tiles(tiles, grid, window)), np.isnan(image))


def test_a_memory_map_is_cut_without_reading_it(tmp_path):
    np.save(tmp_path / "image.npy", np.zeros((64, 64), np.uint8))
    tiles, _ = cpikan.tile_image(np.load(tmp_path / "image.npy", mmap_mode="r"), 32, 8)
    assert all(isinstance(tile, np.memmap) for tile in tiles)


def test_what_does_not_fit_is_refused():
    tiles, grid = cpikan.tile_image(np.zeros((40, 40)), 16, 4)
    with pytest.raises(InputError, match="8 tiles were given for a partition of 9"):
        cpikan.blend_tiles(tiles[:8], grid)
    with pytest.raises(InputError, match="more than 9 tiles"):
        cpikan.blend_tiles([*tiles, tiles[0]], grid)
    with pytest.raises(InputError, match=r"tile 1 has the shape \(16, 15\)"):
        cpikan.blend_tiles([tiles[0], tiles[1][:, 1:]], grid)
    with pytest.raises(InputError, match="did you mean 'hann'"):
        cpikan.blend_tiles(tiles, grid, "hanning")
    with pytest.raises(InputError, match="overlap 16 is not below the tile 16"):
        cpikan.tile_image(np.zeros((40, 40)), 16, 16)
    with pytest.raises(InputError, match="no image"):
        cpikan.tile_image(np.zeros(40), 16, 4)
    with pytest.raises(InputError, match="not made of whole numbers"):
        cpikan.tile_image(np.zeros((40, 40)), 16.5, 4)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("length", [2, 7, 64])
def test_a_ramp_rises_and_is_its_own_mirror_image(window, length):
    ramp = rising(window, length)
    assert np.all(np.diff(ramp) >= 0)
    if window == "halo":
        assert set(ramp) == {0.0, 1.0}
        return
    assert 0 < ramp[0] < ramp[-1] < 1
    assert np.abs(ramp + ramp[::-1] - 1).max() <= 2 * np.finfo(float).eps


def test_ramps_are_the_windows_of_that_name():
    from scipy.signal import windows

    # A symmetric window of 2n + 1 points has its peak at n; every second of those of 2 (2n) + 1 sits at a half pixel.
    n = 16
    hann = windows.hann(4 * n + 1)[1 : 2 * n : 2]
    hamming = windows.hamming(4 * n + 1)[1 : 2 * n : 2]
    assert np.allclose(rising("hann", n), hann, rtol=0, atol=1e-15)
    assert np.allclose(rising("hamming", n), hamming / 1.08, rtol=0, atol=1e-15)
    t = (np.arange(n) + 0.5) / n
    assert np.allclose(rising("smooth", n), np.polyval([6, -15, 10, 0, 0, 0], t), rtol=0, atol=1e-15)
