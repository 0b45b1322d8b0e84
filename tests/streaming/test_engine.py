"""The stream: order, bounded memory, back-pressure, and no failure that hangs, gets lost or leaves a thread behind."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpikan.streaming.engine import split_bands, stream

pytestmark = pytest.mark.timeout(60)  # a hang is a failure

WAIT_S = 20.0  # for events that must come; far beyond any pause of a busy machine


@pytest.fixture(autouse=True)
def _no_thread_stays():
    before = set(threading.enumerate())
    yield
    left = [t for t in threading.enumerate() if t not in before and t.name.startswith("cpikan-")]
    assert not left


class Payload:
    """An item whose life can be watched."""

    def __init__(self, alive):
        alive.add(self)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.integers(1, 4), st.data())
def test_every_band_passes_each_stage_once_in_order(count, depth, data):
    slow = {
        name: data.draw(st.sets(st.integers(0, 39), max_size=3), label=name) for name in ("read", "compute", "write")
    }
    seen = {"read": [], "compute": [], "write": []}
    bands = split_bands(count, 1)

    def pass_through(name, band):
        if band.index in slow[name]:
            time.sleep(0.002)
        seen[name].append(band.index)

    def read(band):
        pass_through("read", band)
        return band.index * 10

    def compute(band, item):
        pass_through("compute", band)
        assert item == band.index * 10
        return item + 1

    def write(band, result):
        pass_through("write", band)
        assert result == band.index * 10 + 1

    stream(bands, read, compute, write, depth=depth)
    order = list(range(count))
    assert seen == {"read": order, "compute": order, "write": order}


def test_stages_run_where_they_should():
    names = {}
    caller = threading.current_thread().name
    stream(
        split_bands(3, 1),
        lambda band: names.setdefault("read", threading.current_thread().name),
        lambda band, item: names.setdefault("compute", threading.current_thread().name),
        lambda band, result: names.setdefault("write", threading.current_thread().name),
    )
    assert names["compute"] == caller
    assert len({*names.values()}) == 3


def test_reading_goes_on_while_computing_and_writing():
    # Each stage waits until the other two are at work on other bands: it would time out if they ran in turns.
    reading, writing = threading.Event(), threading.Event()

    def read(band):
        if band.index == 2:
            reading.set()
            assert writing.wait(WAIT_S)
        return

    def compute(band, item):
        if band.index == 1:
            assert reading.wait(WAIT_S)
            assert writing.wait(WAIT_S)

    def write(band, result):
        if band.index == 0:
            writing.set()
            assert reading.wait(WAIT_S)

    stream(split_bands(3, 1), read, compute, write)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("blocked", ["compute", "write"])
def test_a_slow_stage_holds_back_the_reader(depth, blocked):
    # One band in the reader's hands, depth in the first queue, one computing: depth + 2 have been read when compute
    # stands still. When the writer stands still it holds one more, and the second queue depth: 2 * depth + 3.
    bound = depth + 2 if blocked == "compute" else 2 * depth + 3
    reads, release, full = [], threading.Event(), threading.Event()

    def read(band):
        reads.append(band.index)
        if len(reads) >= bound:
            full.set()
        return

    def hold(*_):
        if not release.is_set():
            assert full.wait(WAIT_S)  # the queues do fill up to the bound ...
            time.sleep(0.2)
            assert len(reads) == bound  # ... and not beyond, however long this stage takes
            release.set()

    stages = {"compute": lambda *_: None, "write": lambda *_: None, blocked: hold}
    stream(split_bands(30, 1), read, stages["compute"], stages["write"], depth=depth)
    assert len(reads) == 30


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("slow", ["read", "compute", "write"])
def test_items_alive_are_bounded(depth, slow):
    # What was read: one in the reader's hands, depth queued, one computing, one just being replaced: depth + 3; the
    # same for what was computed. References that outlive their stage would show here as memory.
    items, results = weakref.WeakSet(), weakref.WeakSet()
    most = {"items": 0, "results": 0}
    lock = threading.Lock()

    def look(name):
        if name == slow:
            time.sleep(0.005)
        with lock:
            most["items"] = max(most["items"], len(items))
            most["results"] = max(most["results"], len(results))

    def read(band):
        item = Payload(items)
        look("read")
        return item

    def compute(band, item):
        result = Payload(results)
        look("compute")
        return result

    gc.collect()
    stream(split_bands(25, 1), read, compute, lambda band, result: look("write"), depth=depth)
    assert 1 <= most["items"] <= depth + 3
    assert 1 <= most["results"] <= depth + 3
    assert most["items"] + most["results"] <= 2 * depth + 6


class StageError(Exception):
    pass


def failing(stage, at, kind):
    """Three stages, one of which raises at a band; returns them and the list of written bands."""
    written = []

    def act(name, band):
        if name == stage and band.index == at:
            raise kind(f"{name} {at}")

    def write(band, result):
        act("write", band)
        written.append(band.index)

    return lambda band: act("read", band), lambda band, item: act("compute", band), write, written


@pytest.mark.parametrize("at", [0, 5, 19])
@pytest.mark.parametrize("stage", ["read", "compute", "write"])
@pytest.mark.parametrize("kind", [StageError, MemoryError, KeyboardInterrupt, SystemExit])
def test_a_failure_in_any_stage_ends_the_run_and_is_raised(stage, at, kind):
    read, compute, write, written = failing(stage, at, kind)
    with pytest.raises(kind, match=f"{stage} {at}"):
        stream(split_bands(20, 1), read, compute, write, depth=1)
    assert written == list(range(len(written)))  # the bands before the failure, in order, and none after it
    assert len(written) <= at


def test_a_failing_writer_stops_a_reader_that_waits_for_room():
    reads = []

    def write(band, result):
        time.sleep(0.1)  # by now the queues are full and both other threads wait
        raise StageError

    with pytest.raises(StageError):
        stream(split_bands(100, 1), lambda band: reads.append(band.index), lambda band, item: None, write, depth=1)
    assert len(reads) <= 2 * 1 + 3


def test_a_failing_reader_wakes_a_waiting_compute():
    def read(band):
        if band.index:
            time.sleep(0.1)  # compute and the writer wait by now
            raise StageError
        return

    with pytest.raises(StageError):
        stream(split_bands(10, 1), read, lambda band, item: None, lambda band, result: None)


def test_a_failing_progress_ends_the_run():
    class Broken:
        def advance(self, rows):
            raise StageError

    with pytest.raises(StageError):
        stream(split_bands(9, 1), lambda b: None, lambda b, i: None, lambda b, r: None, progress=Broken())


def test_ctrl_c_while_computing_lets_a_write_finish():
    started, written = threading.Event(), []

    def write(band, result):
        started.set()
        time.sleep(0.1)
        written.append(band.index)

    def compute(band, item):
        if band.index == 1:
            assert started.wait(WAIT_S)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream(split_bands(10, 1), lambda band: None, compute, write)
    assert written == [0]  # whole, not torn; and nothing is written after the interrupt has been raised


@pytest.mark.parametrize("stage", ["read", "write"])
def test_a_real_ctrl_c_reaches_a_waiting_main_thread(stage):
    def interrupt(band, *_):
        if band.index == 5:  # with a depth of 1 the main thread is long in its loop, waiting for this very band
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    act = {"read": lambda band: None, "write": lambda band, result: None, stage: interrupt}
    try:
        with pytest.raises(KeyboardInterrupt):
            stream(split_bands(20, 1), act["read"], lambda band, item: None, act["write"], depth=1)
    finally:
        signal.signal(signal.SIGINT, previous)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_before_the_second_thread_runs_leaves_no_thread(kind, monkeypatch):
    # Ctrl-C, or no room for a thread, in the moment between the two starts.
    started = []
    start = threading.Thread.start

    def interrupted_start(thread):
        if started:
            raise kind("between the starts")
        started.append(thread)
        thread.daemon = True  # should this test fail, the thread that stays must not keep the interpreter from ending
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted_start)
    with pytest.raises(kind, match="between the starts"):
        stream(split_bands(20, 1), lambda band: None, lambda band, item: None, lambda band, result: None, depth=1)
    assert not started[0].is_alive()


def test_the_first_failure_is_the_one_that_is_raised():
    computing, failed = threading.Event(), threading.Event()

    def read(band):
        if band.index:
            assert computing.wait(WAIT_S)
            failed.set()
            raise StageError("disk gone")
        return

    def compute(band, item):
        computing.set()
        assert failed.wait(WAIT_S)
        time.sleep(0.2)  # the reader's failure is on record by now
        raise RuntimeError("a consequence")

    with pytest.raises(StageError, match="disk gone"):
        stream(split_bands(5, 1), read, compute, lambda band, result: None)


@pytest.mark.parametrize("depth", [0, -1])
def test_a_depth_that_would_not_bound_the_queues_is_refused(depth):
    # queue.Queue takes zero and less for "without limit".
    with pytest.raises(ValueError, match="depth"):
        stream(split_bands(3, 1), lambda band: None, lambda band, item: None, lambda band, result: None, depth=depth)


def test_progress_counts_rows_that_are_written():
    steps, written = [], []

    class Count:
        def advance(self, rows):
            steps.append((rows, len(written)))

    stream(
        split_bands(10, 4),
        lambda band: None,
        lambda band, item: None,
        lambda band, result: written.append(band.index),
        progress=Count(),
    )
    assert steps == [(4, 1), (4, 2), (2, 3)]  # rows of each band, counted after its write


def test_timings_are_the_busy_times():
    def nap(*_):
        time.sleep(0.02)

    timings = stream(split_bands(3, 1), nap, nap, nap)
    for busy in (timings.read, timings.compute, timings.write):
        assert busy >= 3 * 0.02 * 0.9


def test_no_bands_is_a_run_that_does_nothing():
    def never(*_):
        raise AssertionError

    timings = stream((), never, never, never)
    assert (timings.read, timings.compute, timings.write) == (0, 0, 0)
