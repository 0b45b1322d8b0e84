"""The journal: what survives a kill, a torn or damaged line, a power cut and a second process."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpikan.errors import InputError, ResumeError
from cpikan.storage.atomic import StorageFull
from cpikan.streaming import journal as module
from cpikan.streaming.journal import Journal, check_same_plan

PLAN = {"settings": {"tile": 512, "range": (0.0, 27e3)}, "shape": [4, 4, 7, 9]}


def _filled(path: Path, steps: int = 3) -> list[dict]:
    journal = Journal.start(path, PLAN)
    for i in range(steps):
        journal.add({"stage": "pixels", "rows": 10 * (i + 1)}, synced=i == 0)
    journal.close()
    return journal.steps


def _resumed(path: Path, plan: dict = PLAN) -> list[dict]:
    journal = Journal.resume(path, plan)
    journal.close()
    return journal.steps


def test_steps_come_back(tmp_path):
    path = tmp_path / "out.journal"
    steps = _filled(path)
    assert steps[0] == {"stage": "pixels", "rows": 10, "synced": True}
    assert _resumed(path) == steps
    again = Journal.resume(path, PLAN)
    again.add({"stage": "unwrap", "components": 2})
    again.close()
    last = Journal.resume(path, PLAN)
    assert last.steps == [*steps, {"stage": "unwrap", "components": 2}]
    assert last.last("pixels") == {"stage": "pixels", "rows": 30}
    assert last.last("nothing") is None
    last.remove()
    assert last.closed
    assert not path.exists()


def test_start_forgets_what_was_there(tmp_path):
    path = tmp_path / "out.journal"
    _filled(path)
    Journal.start(path, PLAN).close()
    assert _resumed(path) == []


def test_nothing_there_starts(tmp_path):
    path = tmp_path / "out.journal"
    assert _resumed(path) == []
    assert path.exists()
    path.write_bytes(b"")  # killed between making the file and its first line
    assert _resumed(path) == []


@given(st.integers(0, 400))
def test_a_cut_anywhere_keeps_the_whole_lines_before_it(tmp_path_factory, lost):
    path = tmp_path_factory.mktemp("cut") / "out.journal"
    steps = _filled(path, steps=5)
    whole = path.read_bytes()
    kept = whole[: max(0, len(whole) - lost)]
    path.write_bytes(kept)
    lines = kept.count(b"\n")
    assert _resumed(path) == steps[: max(0, lines - 1)]
    # what was torn off is gone from the file too, so that the next step starts on a line of its own
    journal = Journal.resume(path, PLAN)
    journal.add({"stage": "more"})
    journal.close()
    assert _resumed(path) == [*steps[: max(0, lines - 1)], {"stage": "more"}]


@given(st.data())
def test_a_flipped_bit_ends_the_journal_before_its_line(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("flip") / "out.journal"
    steps = _filled(path, steps=5)
    whole = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(whole))
    before = path.read_bytes()[:place].count(b"\n")  # whole lines in front of the damage
    assert _resumed(path) == steps[: max(0, before - 1)]


def test_after_another_boot_only_flushed_steps_count(tmp_path, monkeypatch):
    path = tmp_path / "out.journal"
    journal = Journal.start(path, PLAN)
    for rows, synced in ((10, False), (20, True), (30, False)):
        journal.add({"stage": "pixels", "rows": rows}, synced=synced)
    journal.close()
    assert [step["rows"] for step in _resumed(path)] == [10, 20, 30]
    monkeypatch.setattr(module, "_boot", lambda: "another boot")
    journal = Journal.resume(path, PLAN)
    assert [step["rows"] for step in journal.steps] == [10, 20]
    journal.add({"stage": "pixels", "rows": 21})
    journal.close()
    assert [step["rows"] for step in _resumed(path)] == [10, 20, 21]  # not the 30 that the power cut took back
    monkeypatch.undo()
    assert [step["rows"] for step in _resumed(path)] == [10, 20]


def test_without_any_flushed_step_another_boot_starts_over(tmp_path, monkeypatch):
    path = tmp_path / "out.journal"
    journal = Journal.start(path, PLAN)
    journal.add({"stage": "pixels", "rows": 10})
    journal.close()
    monkeypatch.setattr(module, "_boot", lambda: "another boot")
    assert _resumed(path) == []


def test_other_settings_are_refused_by_name(tmp_path):
    path = tmp_path / "out.journal"
    steps = _filled(path)
    other = {"settings": {"tile": 256, "range": (0.0, 27e3)}, "shape": [4, 4, 7, 9]}
    with pytest.raises(ResumeError, match=r"settings\.tile was 512, now 256") as caught:
        Journal.resume(path, other)
    assert "\n" not in str(caught.value)
    assert _resumed(path) == steps  # untouched, and not locked any more


def test_plans_are_compared_key_by_key():
    check_same_plan({"a": {"b": [1, 2]}}, {"a": {"b": (1, 2)}})
    with pytest.raises(ResumeError, match=r"a\.c was null, now true"):
        check_same_plan({"a": {"b": 1}}, {"a": {"b": 1, "c": True}})
    with pytest.raises(ResumeError, match="remove"):
        check_same_plan({"remove": ["tilt"]}, {"remove": []})
    with pytest.raises(ResumeError, match="mask was null"):
        check_same_plan({"mask": None}, {"mask": "x" * 500})


_HOLD = """
    import sys
    from pathlib import Path
    from cpikan.streaming.journal import Journal
    journal = Journal.start(Path(sys.argv[1]), {})
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_at_once(tmp_path):
    path = tmp_path / "out.journal"
    holder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_HOLD), str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        for begin in (Journal.start, Journal.resume):
            started = time.perf_counter()
            with pytest.raises(InputError, match="another run is writing here"):
                begin(path, {})
            assert time.perf_counter() - started < 1.0
    finally:
        holder.kill()
        holder.communicate()
    assert _resumed(path, {}) == []  # a lock dies with its process


def test_a_short_write_is_completed(tmp_path, monkeypatch):
    path = tmp_path / "out.journal"
    write = os.write
    monkeypatch.setattr(module.os, "write", lambda descriptor, data: write(descriptor, bytes(data[:7])))
    steps = _filled(path)
    monkeypatch.undo()
    assert _resumed(path) == steps


def test_a_full_disk_is_told_as_such(tmp_path, monkeypatch):
    path = tmp_path / "out.journal"
    journal = Journal.start(path, PLAN)
    journal.add({"stage": "pixels", "rows": 10})

    def full(descriptor, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module.os, "write", full)
    with pytest.raises(StorageFull, match="--resume"):
        journal.add({"stage": "pixels", "rows": 20})
    monkeypatch.undo()
    journal.close()
    journal.close()  # twice does no harm
    assert _resumed(path) == [{"stage": "pixels", "rows": 10}]


def test_a_lock_on_a_name_that_was_removed_is_no_lock(tmp_path, monkeypatch):
    """Between the open and the lock of this run another one ends and removes the file, and a third one begins."""
    path = tmp_path / "out.journal"
    ended = Journal.start(path, PLAN)
    real, third = module._lock, []

    def late(descriptor: int, name: Path) -> None:
        if not third:
            monkeypatch.setattr(module, "_lock", real)
            ended.remove()
            third.append(Journal.start(path, PLAN))
        real(descriptor, name)

    monkeypatch.setattr(module, "_lock", late)
    with pytest.raises(InputError, match="another run is writing"):
        Journal.start(path, PLAN)
    third[0].close()
    Journal.start(path, PLAN).remove()


def test_a_file_that_was_only_removed_is_made_anew(tmp_path, monkeypatch):
    path = tmp_path / "out.journal"
    ended, real = Journal.start(path, PLAN), module._lock

    def late(descriptor: int, name: Path) -> None:
        ended.remove()
        monkeypatch.setattr(module, "_lock", real)
        real(descriptor, name)

    monkeypatch.setattr(module, "_lock", late)
    mine = Journal.start(path, PLAN)
    mine.add({"stage": "pixels", "rows": 10})
    mine.close()
    assert _resumed(path) == [{"stage": "pixels", "rows": 10}]


@pytest.mark.parametrize("body", ["[1]", "7", '{"boot":""}', '{"plan":[],"boot":""}', "[" * 5000])
def test_lines_that_no_journal_has(tmp_path, body):
    import zlib

    path = tmp_path / "out.journal"
    path.write_bytes(b"%08x %s\n" % (zlib.crc32(body.encode()), body.encode()))
    assert _resumed(path) == []
