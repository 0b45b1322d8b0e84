"""The progress line: what it says, and when it stays silent."""

from __future__ import annotations

import io
import mmap
import re
import sys
import time

import pytest

from cpikan.streaming import progress as module
from cpikan.streaming.memory import PeakMemory, anonymous_mib
from cpikan.streaming.progress import Progress


class Clock:
    """A clock that moves only when told."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def run(clock, seconds, *, stream, monkeypatch, enabled=True):
    """A run of 100 rows of 10^6 pixels, one row per ``seconds / 100``; returns what was shown."""
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress("rows", 100, 1_000_000, enabled=enabled) as progress:
        for _ in range(100):
            clock.now += seconds / 100
            progress.advance(1)
    return stream.getvalue()


def test_the_line_tells_share_rate_time_left_and_memory(monkeypatch):
    monkeypatch.setattr(module, "anonymous_mib", lambda: 123.4)
    progress = Progress("demodulate", 400, 250_000)
    progress.advance(100)
    assert progress.line(5.0) == "demodulate [#####...............]  25%     5.0 MPix/s, 0:15 left, memory 123 MiB"
    progress.advance(300)
    assert "[####################] 100%" in progress.line(10.0)
    assert "10.0 MPix/s, 0:00 left" in progress.line(10.0)


def test_minutes_are_written_as_minutes(monkeypatch):
    monkeypatch.setattr(module, "anonymous_mib", lambda: 0.0)
    progress = Progress("x", 100, 1)
    progress.advance(1)
    assert "12:23 left" in progress.line(7.505)  # 99 * 7.505 s = 743 s


def test_before_the_first_row_there_is_a_line_too():
    assert "  0%     0.0 MPix/s" in Progress("x", 10, 10).line(0.0)
    assert "100%" not in Progress("x", 0, 10).line(1.0)


def test_short_runs_stay_silent(clock, monkeypatch):
    for stream in (io.StringIO(), Terminal()):
        assert run(clock, 1.9, stream=stream, monkeypatch=monkeypatch) == ""


def test_without_a_terminal_plain_lines_come_now_and_then(clock, monkeypatch):
    text = run(clock, 24, stream=io.StringIO(), monkeypatch=monkeypatch)
    lines = text.splitlines()
    assert len(lines) == 4  # a little after 5, 10, 15 and 20 seconds; none is due after that
    assert all(
        re.fullmatch(r"rows \[[#.]{20}\] +\d+% .* MPix/s, \d+:\d\d left, memory \d+ MiB", line) for line in lines
    )
    assert "\r" not in text
    assert "\x1b" not in text


def test_on_a_terminal_one_line_is_redrawn_and_closed(clock, monkeypatch):
    text = run(clock, 10, stream=Terminal(), monkeypatch=monkeypatch)
    assert text.count("\r") > 20
    assert text.count("\n") == 1
    assert text.endswith("\n")


def test_switched_off_it_says_nothing(clock, monkeypatch):
    assert run(clock, 100, stream=Terminal(), monkeypatch=monkeypatch, enabled=False) == ""


def test_peak_memory_sees_what_was_owned_and_given_back():
    size_mib = 64
    before = anonymous_mib()
    with PeakMemory(every_s=0.002) as peak:
        # pages of its own: the heap may hold freed ones that count already
        block = mmap.mmap(-1, size_mib * 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for page in range(0, len(block), 4096):
            block[page] = 1
        time.sleep(0.2)  # the watcher samples: give it many times its period
        block.close()
    assert peak.mib - before > size_mib * 0.9
    assert anonymous_mib() - before < size_mib * 0.5
