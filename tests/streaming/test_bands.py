"""Bands cover the rows once, in order, from any first row; buffers that come back are handed out again."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

from hypothesis import example, given
from hypothesis import strategies as st

from cpikan.streaming.engine import Band, BufferPool, split_bands


@given(st.integers(1, 5000), st.integers(1, 600), st.integers(0, 600))
@example(1, 1, 0)
@example(7000, 512, 512)
@example(1, 3, 7)
def test_bands_cover_every_row_once(left, rows, first):
    height = first + left
    bands = split_bands(height, rows, first)
    assert [band.index for band in bands] == list(range(len(bands)))
    assert bands[0].start == first
    assert bands[-1].stop == height
    assert all(earlier.stop == later.start for earlier, later in itertools.pairwise(bands))
    assert all(band.rows == band.stop - band.start > 0 for band in bands)
    assert all(band.rows <= rows for band in bands)
    assert all(band.rows == rows for band in bands[:-1])


def test_known_bands():
    assert split_bands(10, 4) == (Band(0, 0, 4), Band(1, 4, 8), Band(2, 8, 10))
    assert split_bands(10, 4, first_row=5) == (Band(0, 5, 9), Band(1, 9, 10))
    assert split_bands(10, 4, first_row=10) == ()
    assert split_bands(4, 100) == (Band(0, 0, 4),)
    assert split_bands(0, 4) == ()


def test_buffers_come_round():
    made: list[bytearray] = []

    def make() -> bytearray:
        made.append(bytearray(1))
        return made[-1]

    pool = BufferPool(make)
    first, second = pool.take(), pool.take()
    assert first is not second
    pool.give(first)
    assert pool.take() is first
    assert len(made) == 2


def test_no_buffer_is_ever_in_two_hands():
    pool = BufferPool(lambda: [0])

    def work(_: int) -> None:
        buffer = pool.take()
        assert buffer[0] == 0
        buffer[0] = 1
        buffer[0] = 0
        pool.give(buffer)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(2000)))
