"""The grid of tiles: cover, even spread, alignment, ramps; windows that sum to one; bad input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpikan.errors import InputError
from cpikan.streaming.tiling.grid import tile_grid
from cpikan.streaming.tiling.ramps import WINDOWS, rising


@st.composite
def layouts(draw):
    multiple = draw(st.sampled_from([1, 1, 2, 4]))
    shape = (draw(st.integers(1, 90)), draw(st.integers(1, 90)))
    units = (draw(st.integers(1, 12)), draw(st.integers(1, 12)))
    overlap = tuple(draw(st.integers(0, (unit - 1) * multiple)) for unit in units)
    return shape, tuple(unit * multiple for unit in units), overlap, multiple


@given(layouts())
def test_tiles_cover_the_image_evenly_with_the_overlap_asked_for(layout):
    shape, tile, overlap, multiple = layout
    grid = tile_grid(shape, tile, overlap, multiple=multiple)
    for axis, length, size, width in zip((grid.rows, grid.columns), shape, tile, overlap, strict=True):
        whole = -(-length // multiple) * multiple
        assert axis.starts[0] == 0
        assert axis.stops[-1] == whole
        assert {stop - start for start, stop in zip(axis.starts, axis.stops, strict=True)} == {min(size, whole)}
        steps = [b - a for a, b in itertools.pairwise(axis.starts)]
        assert all(start % multiple == 0 for start in axis.starts)
        assert not steps or (max(steps) - min(steps) <= multiple and max(steps) <= size - width)
        if len(axis) > 1:  # no fewer tiles would do
            room = -(-width // multiple) * multiple
            assert size + (len(axis) - 2) * (size - room) < whole
    assert all(
        found >= asked for found, asked, n in zip(grid.overlap, overlap, grid.partition.counts, strict=True) if n > 1
    )


@given(layouts(), st.sampled_from(WINDOWS))
def test_windows_sum_to_one_up_to_the_rim(layout, window):
    shape, tile, overlap, multiple = layout
    for axis in tile_grid(shape, tile, overlap, multiple=multiple).partition.axes:
        total = np.zeros(axis.upper)
        for i in range(len(axis)):
            weights = np.zeros(axis.upper)
            first, last = axis.support(i)
            assert axis.starts[i] <= first < last <= axis.stops[i]  # weight only where the tile has pixels
            weights[first:last] = 1
            if i:
                weights[first : first + axis.ramp] = rising(window, axis.ramp)
            if i < len(axis) - 1:
                weights[last - axis.ramp : last] -= rising(window, axis.ramp)
            assert weights.min() >= 0
            total += weights
        # 1 - r is rounded once, r + (1 - r) once more: half an epsilon each
        assert np.abs(total - 1).max() <= np.finfo(float).eps


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


def test_the_counts_of_known_images():
    # 1 + ceil((L - T) / (T - o)): 18 x 24 tiles of 512 with an overlap of 128 on 7000 x 9344
    assert len(tile_grid((7000, 9344), (512, 512), (128, 128))) == 18 * 24
    assert len(tile_grid((16384, 16384), (512, 512), (64, 64))) == 37 * 37
    assert len(tile_grid((5, 700), (512, 512), (64, 64))) == 2


@pytest.mark.parametrize(
    ("tile", "overlap", "options", "message"),
    [
        (64, 64, {}, "overlap 64 is not below the tile 64: give at most 63"),
        (64, 80, {}, "overlap 80 is not below the tile 64"),
        (64, 48, {"ramp": (40, 40)}, "ramp 40 is more than half of the tile 64: give at most 32"),
        (64, 16, {"ramp": (17, 17)}, "ramp 17 is longer than the overlap 16"),
        (60, 16, {"multiple": 8}, "tile 60 is no multiple of 8, which the model needs: give 56"),
        (
            64,
            60,
            {"multiple": 16},
            "tile 64 has no room for the overlap 60 in steps of 16, which the model needs: give a",
        ),
    ],
)
def test_layouts_that_cannot_be_are_refused_in_one_line(tile, overlap, options, message):
    with pytest.raises(InputError) as failure:
        tile_grid((300, 300), (tile, tile), (overlap, overlap), **options)
    assert message in str(failure.value)
    assert "\n" not in str(failure.value)
