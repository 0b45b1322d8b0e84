"""The row ring: complete rows, exact identity, a plain oracle, memory that does not grow with the image."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpikan.partition import Partition
from cpikan.partition.windows import sample_window
from cpikan.streaming.ring import RowRing, blend


def collect(partition, compute, leading=()):
    """Run ``compute(box)`` over all tiles; return the image of the emitted rows, which must arrive in order."""
    ring, due, pieces = RowRing(partition), 0, []
    for box in partition:
        done = ring.add(box, compute(box))
        assert (done is not None) == (box.position[1] == partition.counts[1] - 1)
        if done is not None:
            start, rows = done
            assert start == due  # every row once, none left out
            assert rows.shape[:-2] == leading
            due += rows.shape[-2]
            pieces.append(rows)
    assert due == partition.shape[0]
    return np.concatenate(pieces, axis=-2)


def plain_blend(partition, compute, leading=()):
    """The definition: sum of window times tile, in float64."""
    total = np.zeros((*leading, *partition.shape))
    for box in partition:
        wy, wx = (sample_window(axis, i, np.float64) for axis, i in zip(partition.axes, box.position, strict=True))
        view = box.view(total)
        view += wy[:, None] * wx * compute(box)
    return total


@st.composite
def partitions(draw):
    shape = tuple(draw(st.integers(1, 60)) for _ in range(2))
    tile = tuple(draw(st.integers(1, 40)) for _ in range(2))
    overlap = tuple(draw(st.integers(0, length // 2)) for length in tile)
    halo_only = draw(st.booleans())
    return Partition.tiles(shape, tile, overlap, ramp=0 if halo_only else None)


@settings(max_examples=200, deadline=None)
@given(partitions(), st.integers(0, 2**32 - 1))
def test_tiles_that_agree_come_back_exactly(partition, seed):
    # The blend adds ramp * (new - old), which is zero where two tiles agree: no tolerance, for any overlap.
    image = np.random.default_rng(seed).normal(0, 1e3, partition.shape).astype(np.float32)
    assert np.array_equal(collect(partition, lambda box: box.view(image)), image)


@settings(max_examples=200, deadline=None)
@given(partitions(), st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_tiles_that_differ_are_weighted_by_their_windows(partition, seed, channels):
    def compute(box):
        tile = np.random.default_rng((seed, box.index)).uniform(-1, 1, (channels, *box.shape))
        return tile.astype(np.float32)

    got = collect(partition, compute, (channels,))
    # With |values| <= 1 and u = 2^-24: the ramp is off by 4u (grid u, argument 1u, polynomial 2u) times a difference of
    # at most 2, the difference itself by 2u, the product by 2u, the sum by u: 13u per axis, 26u for both.
    assert np.abs(got - plain_blend(partition, compute, (channels,))).max() <= 26 * 2.0**-24
    assert got.dtype == np.float32


@pytest.mark.parametrize(
    ("given_dtype", "kept"),
    [("uint8", "float32"), ("float16", "float32"), ("float64", "float64"), ("complex64", "complex64")],
)
def test_sums_are_never_narrower_than_float32(given_dtype, kept):
    partition = Partition.tiles((20, 20), 8, 4)
    image = np.random.default_rng(1).integers(0, 255, (20, 20)).astype(given_dtype)
    got = collect(partition, lambda box: box.view(image))
    assert got.dtype == kept
    assert np.array_equal(got, image)


def test_a_dead_pixel_stays_in_its_tiles():
    # NaN outside the support of a window must not leak through a weight of zero.
    partition = Partition.tiles((40, 40), 16, 4)
    image = np.ones((40, 40), np.float32)
    image[13, 20] = np.nan
    got = collect(partition, lambda box: box.view(image))
    assert np.array_equal(np.isnan(got), np.isnan(image))


def test_a_constant_step_between_tiles_becomes_the_ramp():
    partition = Partition.tiles((1, 12), (1, 8), (0, 4))
    got = collect(partition, lambda box: np.full(box.shape, float(box.index)))[0]
    t = (np.arange(4) + 0.5) / 4
    # The quintic of the definition; stored on a grid of one epsilon, so within half of one (and its own rounding).
    expected = [*[0.0] * 4, *(6 * t**5 - 15 * t**4 + 10 * t**3), *[1.0] * 4]
    assert np.abs(got - expected).max() <= 2 * np.finfo(float).eps


def test_tiles_out_of_order_or_of_the_wrong_shape_are_refused():
    partition = Partition.tiles((20, 20), 8, 4)
    ring = RowRing(partition)
    with pytest.raises(ValueError, match="tile 1 came where tile 0 was due"):
        ring.add(partition[1], np.zeros((8, 8)))
    with pytest.raises(ValueError, match="has shape"):
        ring.add(partition[0], np.zeros((8, 7)))
    ring.add(partition[0], np.zeros((8, 8)))
    with pytest.raises(ValueError, match="tile 0 came where tile 1 was due"):
        ring.add(partition[0], np.zeros((8, 8)))
    with pytest.raises(ValueError, match="no image rows"):
        RowRing(Partition.tiles((20,), 8, 4))


def peak_bytes(height):
    """Peak of the memory the ring allocates while blending constant tiles over an image of this height."""
    partition = Partition.tiles((height, 300), 32, 8)
    tile = np.zeros((32, 32), np.float32)
    ring = RowRing(partition)
    tracemalloc.start()
    for box in partition:
        ring.add(box, tile)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_height():
    low, high = peak_bytes(200), peak_bytes(2000)
    row = 300 * 4
    # Tile + ramp rows of the image, the ramp rows once more while they are blended, and some kilobytes of interpreter.
    assert high <= (32 + 2 * 8) * row + 32_000
    assert high <= low + 8_000
    assert high < 2000 * row / 10


@pytest.mark.timeout(60)
@pytest.mark.parametrize("shape", [(97, 61), (1, 50), (50, 1), (16, 16)])
def test_blend_runs_on_the_stream(shape):
    frames = np.random.default_rng(2).normal(size=(3, *shape)).astype(np.float32)
    partition = Partition.tiles(shape, 16, 4)
    out = np.full((2, *shape), np.nan, np.float32)
    starts, advanced = [], []

    class Count:
        def advance(self, rows):
            advanced.append(rows)

    def compute(box, tile):
        assert np.shares_memory(tile, frames)
        return np.stack([tile[0], tile.sum(axis=0)])

    def write(start, rows):
        starts.append(start)
        out[:, start : start + rows.shape[-2]] = rows

    timings = blend(partition, lambda box: box.view(frames), compute, write, depth=1, progress=Count())
    assert np.array_equal(out, np.stack([frames[0], frames.sum(axis=0)]))
    assert starts == sorted(set(starts))
    assert sum(advanced) == shape[0]
    assert timings.compute > 0


@pytest.mark.timeout(60)
def test_rows_given_away_are_not_touched_again():
    # The writer may be slow: what it holds must not change while later tiles are blended.
    image = np.random.default_rng(4).normal(size=(64, 40)).astype(np.float32)
    partition = Partition.tiles((64, 40), 16, 8)
    held = []
    blend(partition, lambda box: box.view(image), lambda box, tile: tile, lambda start, rows: held.append(rows))
    assert np.array_equal(np.concatenate(held), image)


@pytest.mark.timeout(60)
def test_a_failing_tile_ends_the_blend():
    partition = Partition.tiles((64, 40), 16, 8)
    rows_written = []

    def compute(box, tile):
        if box.index == len(partition) // 2:
            raise RuntimeError("tile failed")
        return tile

    with pytest.raises(RuntimeError, match="tile failed"):
        blend(partition, lambda box: np.zeros(box.shape), compute, lambda start, rows: rows_written.append(start))
    assert rows_written == sorted(rows_written)
