"""Rows shared among threads: every row once, results in order, failures raised; libraries limited to one thread."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from cpikan.streaming.threads import RowPool, single_threaded, threads_limited


@given(st.integers(1, 4), st.integers(0, 40), st.one_of(st.none(), st.integers(1, 50)), st.integers(0, 9))
def test_pieces_cover_the_rows_once_and_come_back_in_order(threads, height, step, first):
    with RowPool(threads) as pool:
        pieces = pool.map(lambda start, stop: (start, stop), height, step, first)
    rows = [row for start, stop in pieces for row in range(start, stop)]
    assert rows == list(range(first, first + height))
    assert all(stop - start == (step or -(-height // threads)) for start, stop in pieces[:-1])
    assert len(pieces) <= (threads if step is None else -(-height // step))


def test_pieces_run_at_the_same_time():
    """Each piece waits for the other one: with one thread this would never end."""
    meeting = threading.Barrier(2, timeout=30)
    with RowPool(2) as pool:
        assert sorted(pool.map(lambda start, stop: meeting.wait(), 10)) == [0, 1]


def test_one_thread_is_the_calling_one():
    with RowPool(1) as pool:
        assert pool.map(lambda start, stop: threading.get_ident(), 10, 2) == [threading.get_ident()] * 5
    with RowPool(0) as pool:
        assert pool.threads == 1


@pytest.mark.parametrize("threads", [1, 3])
def test_a_failed_piece_is_raised(threads):
    def fails(start, stop):
        if start == 4:
            raise KeyError(start)

    with RowPool(threads) as pool, pytest.raises(KeyError, match="4"):
        pool.map(fails, 10, 2)


def test_threads_write_into_one_array():
    image = np.zeros((1000, 3))

    def fill(start, stop):
        image[start:stop] = np.arange(start, stop)[:, None]

    with RowPool(3) as pool:
        pool.map(fill, 500, 7)
        pool.map(fill, 500, 7, first=500)
    assert np.array_equal(image, np.repeat(np.arange(1000.0)[:, None], 3, axis=1))


def _blas_threads():
    return [entry["num_threads"] for entry in threadpool_info() if entry["user_api"] == "blas"]


def test_libraries_are_limited_inside_and_free_again_outside():
    torch.set_num_threads(2)
    before = _blas_threads(), torch.get_num_threads()
    with single_threaded():
        assert set(_blas_threads()) == {1}
        assert torch.get_num_threads() == 1
        with threads_limited(None):
            assert torch.get_num_threads() == 1
    assert (_blas_threads(), torch.get_num_threads()) == before
    with pytest.raises(KeyError), single_threaded():
        raise KeyError
    assert (_blas_threads(), torch.get_num_threads()) == before


def test_items_are_shared_in_their_order():
    with RowPool(3) as pool:
        assert pool.share(lambda item: item**2, iter(range(7))) == [0, 1, 4, 9, 16, 25, 36]
        assert pool.share(str, []) == []
