"""The pool of buffers: what was given back is handed out again, across threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from cpikan.streaming.buffers import BufferPool


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
