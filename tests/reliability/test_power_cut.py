"""A power cut: what was not flushed is gone, in part or whole; no step of a journal counts without its data."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from long_form import times

from cpikan.storage.atomic import sync_path
from cpikan.streaming import journal as module
from cpikan.streaming.journal import Journal

PLAN = {"plan": 1}


class Disk:
    """How much of each file a flush has put on the disk; the rest is there, torn, or not, as luck will have it."""

    def __init__(self, draw: random.Random, flush: Callable[[int], None]) -> None:
        self._draw, self._flush = draw, flush
        self._flushed: dict[int, int] = {}

    def fsync(self, descriptor: int) -> None:
        self._flush(descriptor)
        facts = os.fstat(descriptor)
        self._flushed[facts.st_ino] = facts.st_size

    def cut(self, path: Path) -> None:
        facts = path.stat()
        whole = self._flushed.get(facts.st_ino, 0)
        kept = self._draw.randint(whole, facts.st_size)
        data = bytearray(path.read_bytes()[:kept])
        for at in range(whole, kept):
            if self._draw.random() < 0.3:  # pages that were not written
                data[at] = 0
        path.write_bytes(data)


@pytest.mark.parametrize("seed", range(times(20, 100)))
def test_no_step_counts_without_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    draw = random.Random(seed)
    disk = Disk(draw, os.fsync)
    monkeypatch.setattr(os, "fsync", disk.fsync)
    data, path = tmp_path / "rows", tmp_path / "rows.journal"
    synced = 0
    with closing(Journal.start(path, PLAN)) as journal:
        for row in range(draw.randint(1, 12)):
            with open(data, "ab") as file:
                file.write(bytes([row + 1]) * 100)
            flushed = draw.random() < 0.4
            if flushed:
                sync_path(data)
                synced = row + 1
            journal.add({"row": row}, synced=flushed)
    disk.cut(data)
    disk.cut(path)
    monkeypatch.setattr(module, "_boot", lambda: "another")
    with closing(Journal.resume(path, PLAN)) as journal:
        counted = [step["row"] for step in journal.steps]
    assert counted == list(range(synced))  # all that was flushed, and nothing else
    assert all(data.read_bytes()[100 * row :][:100] == bytes([row + 1]) * 100 for row in counted)
