"""Events: what the line on stderr says and when it stays silent, how stages are told, and how a run is cancelled."""

from __future__ import annotations

import io
import mmap
import re
import sys
import time

import pytest

from cpikan.streaming import events as module
from cpikan.streaming.engine import split_bands, stream
from cpikan.streaming.events import SILENT, Cancelled, Progress, ProgressLine, as_events, hint, note, report
from cpikan.streaming.memory import PeakMemory, anonymous_mib


class Clock:
    """A clock that moves only when told."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Heard:
    """Events that remember; ``stop`` cancels once so many units are done."""

    def __init__(self, stop=None):
        self.calls, self.warnings, self.stop = [], [], stop

    def progress(self, stage, done, of):
        self.calls.append((stage, done, of))

    def warning(self, text):
        self.warnings.append(text)

    def cancelled(self):
        return self.stop is not None and self.calls[-1][1] >= self.stop


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "anonymous_mib", lambda: 123.4)
    return clock


def run(clock, seconds, *, stderr, monkeypatch, progress=True):
    """A run of 100 rows of 10^6 pixels, one row per ``seconds / 100``; returns what was shown."""
    monkeypatch.setattr(sys, "stderr", stderr)
    with Progress("rows", 100, 1_000_000, progress) as rows:
        for _ in range(100):
            clock.now += seconds / 100
            rows.advance(1)
    return stderr.getvalue()


def shown(clock, monkeypatch, line_of, *calls):
    """The last line on a terminal after calls (seconds later, progress arguments, figures)."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    line = line_of()
    for later, arguments, figures in calls:
        clock.now += later
        line.progress(*arguments, **figures)
    return sys.stderr.getvalue().split("\r")[-1].removesuffix("\n").removesuffix("\x1b[K")


def test_the_line_tells_share_rate_time_left_and_memory(clock, monkeypatch):
    calls = [(0, ("demodulate", 0, 100e6), {}), (5.0, ("demodulate", 25e6, 100e6), {})]
    text = "frames to phases [#####...............]  25%     5.0 MPix/s, 0:15 left, memory 123 MiB"
    assert shown(clock, monkeypatch, ProgressLine, *calls) == text


def test_what_was_done_before_the_stage_began_counts_for_the_share_alone(clock, monkeypatch):
    calls = [(0, ("train", 500, 1000), {}), (4.0, ("train", 600, 1000), {"loss": 0.0123449, "rate": 1e-3})]
    text = "train [############........]  60%    25.0 patches/s, 0:16 left, loss 0.01234, rate 0.001, memory 123 MiB"
    assert shown(clock, monkeypatch, lambda: ProgressLine("patches", 1), *calls) == text


def test_without_a_unit_there_is_no_rate_and_minutes_are_written_as_minutes(clock, monkeypatch):
    calls = [(0, ("solve", 0, 100), {}), (7.505, ("solve", 1, 100), {})]
    text = "solve [....................]   1% 12:23 left, memory 123 MiB"  # 99 * 7.505 s = 743 s
    assert shown(clock, monkeypatch, lambda: ProgressLine(""), *calls) == text


@pytest.mark.parametrize("of", [10, 0])
def test_before_anything_is_done_the_time_left_is_not_known(clock, monkeypatch, of):
    calls = [(0, ("x", 0, of), {}), (3.0, ("x", 0, of), {})]
    assert "  0%     0.0 MPix/s, ? left" in shown(clock, monkeypatch, ProgressLine, *calls)


def test_a_stage_that_begins_anew_has_its_own_clock(clock, monkeypatch):
    calls = [
        (0, ("first", 0, 8e6), {}),
        (4.0, ("first", 8e6, 8e6), {}),
        (0, ("second", 0, 8e6), {}),
        (1.9, ("second", 4e6, 8e6), {}),  # too short to be shown
    ]
    assert shown(clock, monkeypatch, ProgressLine, *calls) == "second ..."
    assert "first [####################] 100%" in sys.stderr.getvalue()
    again = [*calls[:2], (1.0, ("first", 0, 8e6), {}), (2.0, ("first", 4e6, 8e6), {})]
    assert "50%     2.0 MPix/s, 0:02 left" in shown(clock, monkeypatch, ProgressLine, *again)


def test_short_runs_stay_silent(clock, monkeypatch):
    assert run(clock, 1.9, stderr=io.StringIO(), monkeypatch=monkeypatch) == ""


def test_what_goes_on_is_seen_at_once_in_a_terminal_and_leaves_no_trace_of_a_short_stage(clock, monkeypatch):
    text = run(clock, 1.9, stderr=Terminal(), monkeypatch=monkeypatch)
    assert text == "\rrows ...\x1b[K\r\x1b[K"


def test_a_hint_is_for_a_terminal_alone(monkeypatch):
    for stderr, told in ((io.StringIO(), ""), (Terminal(), "\rsteps of the frames ...\x1b[K\r\x1b[K")):
        monkeypatch.setattr(sys, "stderr", stderr)
        line = ProgressLine()
        hint(line, "steps of the frames")
        line.close()
        hint(SILENT, "nobody hears this")
        assert stderr.getvalue() == told


def test_a_line_is_never_longer_than_the_terminal(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    text = run(clock, 10, stderr=Terminal(), monkeypatch=monkeypatch)
    assert max(len(line.removesuffix("\n").removesuffix("\x1b[K")) for line in text.split("\r")) < 40


def test_without_a_terminal_plain_lines_come_now_and_then(clock, monkeypatch):
    text = run(clock, 24, stderr=io.StringIO(), monkeypatch=monkeypatch)
    lines = text.splitlines()
    assert len(lines) == 4  # a little after 5, 10, 15 and 20 seconds; none is due after that
    assert all(
        re.fullmatch(r"rows \[[#.]{20}\] +\d+% .* MPix/s, \d+:\d\d left, memory \d+ MiB", line) for line in lines
    )
    assert "\r" not in text
    assert "\x1b" not in text


def test_on_a_terminal_one_line_is_redrawn_and_closed(clock, monkeypatch):
    text = run(clock, 10, stderr=Terminal(), monkeypatch=monkeypatch)
    assert text.count("\r") > 20
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert "100%" in text.split("\r")[-1]


@pytest.mark.parametrize("progress", [lambda: True, ProgressLine], ids=["a switch", "a line of the caller"])
def test_a_stage_that_fails_closes_its_line(clock, monkeypatch, progress):
    monkeypatch.setattr(sys, "stderr", Terminal())

    def fails():
        with Progress("rows", 100, 1_000_000, progress()) as rows:
            for later in (3, 1):
                clock.now += later
                rows.advance(10)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert sys.stderr.getvalue().endswith("MiB\x1b[K\n")


def test_a_warning_begins_on_a_line_of_its_own(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    line = ProgressLine()
    line.progress("rows", 0, 10)
    clock.now += 3
    line.progress("rows", 5, 10)
    line.warning("too few frames")
    assert sys.stderr.getvalue().split("\x1b[K")[-1] == "\ncpikan: warning: too few frames\n"


def test_switched_off_it_says_nothing(clock, monkeypatch):
    assert run(clock, 100, stderr=Terminal(), monkeypatch=monkeypatch, progress=False) == ""


def test_progress_of_a_public_function_is_a_switch_or_events():
    heard = Heard()
    assert as_events(heard) is heard
    assert as_events(False) is SILENT
    assert isinstance(as_events(True), ProgressLine)
    assert not SILENT.cancelled()
    assert not ProgressLine().cancelled()


def test_rows_are_told_to_events_in_pixels():
    heard = Heard()
    with Progress("rows", 5, 7, heard) as rows:
        rows.advance(2)
        rows.advance(3)
    assert heard.calls == [("rows", 0, 35), ("rows", 14, 35), ("rows", 35, 35)]


def test_a_stage_that_is_cancelled_ends_where_it_reports():
    heard = Heard(stop=3)
    report(heard, "fit", 2, 9)
    with pytest.raises(Cancelled, match="fit was cancelled"):
        report(heard, "fit", 3, 9)
    assert heard.calls[-1] == ("fit", 3, 9)


def test_a_cancelled_stream_keeps_what_is_written_and_stops():
    written, heard = [], Heard(stop=4 * 10)
    with pytest.raises(Cancelled), Progress("rows", 100, 10, heard) as rows:
        stream(
            split_bands(100, 1),
            lambda band: band.index,
            lambda band, item: item,
            lambda band, item: written.append(item),
            progress=rows,
        )
    assert written == [0, 1, 2, 3]


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


def test_a_note_is_told_when_the_work_begins(capsys):
    """A run that is refused while it is still looking says its reason alone."""
    line = ProgressLine()
    note(line, "compiling\nthe kernels")
    line.close()
    assert capsys.readouterr().err == ""
    line.progress("demodulate", 0, 7)
    line.progress("demodulate", 3, 7)
    assert capsys.readouterr().err == "cpikan: compiling the kernels\n"


def test_events_without_notes_are_not_asked():
    note(SILENT, "nobody hears this")
