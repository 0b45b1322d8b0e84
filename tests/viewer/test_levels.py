"""Coarser levels: means of what was measured, with the pixels that stand out kept in sight."""

from __future__ import annotations

import numpy as np
import pytest

from cpikan.viewer.levels import CHUNK, Levels

SIZES = [(700, 1100), (513, 1025), (512, 512), (1, 3000), (1537, 5)]


def noisy(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (0.3 * x - 0.2 * y + rng.normal(0, 0.5, shape)).astype(np.float32)


def whole(levels: Levels, level: int) -> np.ndarray:
    height, width = levels.shapes[level]
    out = np.full(
        (-(-height // CHUNK) * CHUNK, -(-width // CHUNK) * CHUNK),
        np.nan if levels.dtype.kind == "f" else 0,
        levels.dtype,
    )
    for row in range(out.shape[0] // CHUNK):
        for column in range(out.shape[1] // CHUNK):
            tile = levels.tile(level, row, column)
            assert tile.shape == (CHUNK, CHUNK)
            out[row * CHUNK : (row + 1) * CHUNK, column * CHUNK : (column + 1) * CHUNK] = tile
    return out[:height, :width]


def cell_means(heights: np.ndarray, factor: int) -> np.ndarray:
    """Average the finite pixels of cells, in double precision."""
    height, width = (-(-size // factor) for size in heights.shape)
    cells = np.full((height * factor, width * factor), np.nan)
    cells[: heights.shape[0], : heights.shape[1]] = np.where(np.isfinite(heights), heights, np.nan)
    cells = cells.reshape(height, factor, width, factor)
    count = np.isfinite(cells).sum(axis=(1, 3))
    return np.nansum(cells, axis=(1, 3)) / np.where(count, count, np.nan)


@pytest.mark.parametrize("shape", SIZES)
def test_the_finest_level_is_the_map_and_the_rest_of_a_tile_is_empty(shape: tuple[int, int]) -> None:
    heights = noisy(shape)
    levels = Levels("height_nm", heights)
    np.testing.assert_array_equal(whole(levels, 0), heights)
    last = levels.tile(0, (shape[0] - 1) // CHUNK, (shape[1] - 1) // CHUNK)
    assert np.isfinite(last).sum() == ((shape[0] - 1) % CHUNK + 1) * ((shape[1] - 1) % CHUNK + 1)


@pytest.mark.parametrize("shape", [(700, 1100), (513, 1025)])
def test_coarser_levels_are_means_of_finite_pixels(shape: tuple[int, int]) -> None:
    heights = noisy(shape)
    heights[100:140, 300:301] = np.nan
    heights[-3:, -200:] = np.inf
    levels = Levels("height_nm", heights)
    levels.fill_all()
    for level in (1, 2):
        # 16 values below 400 in single precision
        np.testing.assert_allclose(
            whole(levels, level), cell_means(heights, 1 << level), atol=400 * 16 * 2**-24, rtol=0
        )


def test_levels_above_the_kept_one_halve_it() -> None:
    heights = noisy((2100, 4200))
    levels = Levels("height_nm", heights)
    levels.fill_all()
    assert levels.shapes[3] == (263, 525)
    fine = whole(levels, 2).astype(float)[:524, :1050]
    expected = fine.reshape(262, 2, 525, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(whole(levels, 3)[:262], expected, atol=1e-3, rtol=0)


def test_one_pixel_of_twenty_sigma_is_seen_in_every_level() -> None:
    heights = noisy((1100, 1300))
    pits = {
        (333, 777): -10,
        (511, 300): 10,
        (512, 611): -10,
        (1023, 1024): 10,
        (700, 1023): -10,
        (1, 1): 10,
        (1098, 1298): -10,
    }
    for place, depth in pits.items():
        heights[place] += np.float32(depth)
    levels = Levels("height_nm", heights)
    levels.fill_all()
    for level in range(len(levels.shapes)):
        shown = whole(levels, level)
        for y, x in pits:
            assert shown[y >> level, x >> level] == heights[y, x], (level, y, x)


@pytest.mark.parametrize(
    "edge", [lambda y, x: x > 150, lambda y, x: y > 130, lambda y, x: x + y > 400, lambda y, x: abs(x - y) < 2]
)
def test_steps_and_scratches_are_not_taken_for_pits(edge) -> None:  # type: ignore[no-untyped-def]
    heights = noisy((1000, 1220))
    y, x = np.mgrid[:300, :520]
    heights[:300, :520] += np.where(edge(y, x), np.float32(100), np.float32(0))
    levels = Levels("height_nm", heights)
    levels.fill_all()
    np.testing.assert_allclose(
        whole(levels, 2)[:74, :129], cell_means(heights[:300, :520], 4)[:74, :129], atol=0.05, rtol=0
    )


def test_bands_in_any_order_make_the_same_levels() -> None:
    heights = noisy((1700, 1300), 3)
    one, other = Levels("height_nm", heights), Levels("height_nm", heights)
    one.fill_all()
    for start in (1536, 0, 1024, 512):
        other.fill(start, min(1700, start + 512))
    for level in range(len(one.shapes)):
        np.testing.assert_array_equal(whole(one, level), whole(other, level))


def test_what_was_not_filled_is_empty() -> None:
    levels = Levels("height_nm", noisy((1100, 1100)))
    levels.fill(0, 512)
    assert np.isfinite(whole(levels, 2)[:128]).all()
    assert np.isnan(whole(levels, 2)[128:]).all()


def test_flags_of_a_cell_are_those_of_all_its_pixels() -> None:
    flags = np.zeros((700, 1100), np.uint8)
    flags[301, 402], flags[302, 403] = 2, 8
    levels = Levels("flags", flags)
    levels.fill_all()
    assert levels.tile(1, 0, 0)[150, 201] == 2
    assert levels.tile(2, 0, 0)[75, 100] == 10
    assert whole(levels, 2).astype(int).sum() == 10


@pytest.mark.parametrize("place", [(0, 2, 0), (0, 0, 3), (0, -1, 0), (5, 0, 0)])
def test_tiles_outside_are_refused(place: tuple[int, int, int]) -> None:
    with pytest.raises(IndexError):
        Levels("height_nm", noisy((700, 1100))).tile(*place)
