"""Stacks that arrive: given once, when whole, whatever the clock and the tool that writes them do."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from cpikan.errors import InputError
from cpikan.fleet.arrivals import Arrivals, signature_of
from small_stacks import folder_of

FRAMES = np.zeros((1, 5, 4, 4), np.uint8)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def arrivals(place: Path, clock: Clock, **more) -> Arrivals:
    return Arrivals(place, {}, None, clock=clock, **more)


def names(found: list) -> list[str]:
    return [one.name for one in found]


def test_a_stack_is_given_once_when_it_has_not_changed_for_a_while(tmp_path: Path, clock: Clock) -> None:
    watched = arrivals(tmp_path, clock, settle_s=2.0)
    assert watched.look() == []
    folder = folder_of(tmp_path / "w1", FRAMES)
    assert watched.look() == []
    clock.now = 1.9
    with open(folder / "frames.npy", "ab") as file:  # the tool still writes
        file.write(b"more")
    assert (watched.look(), watched.waiting) == ([], 1)
    clock.now = 3.8
    assert watched.look() == []
    clock.now = 3.95
    (found,) = watched.look()
    assert (found.name, found.signature) == ("w1", signature_of(folder))
    clock.now = 100.0
    assert (watched.look(), watched.waiting) == ([], 0)


def test_files_that_change_make_it_another_stack_and_so_does_one_that_comes_back(tmp_path: Path, clock: Clock) -> None:
    watched = arrivals(tmp_path, clock, settle_s=0.0)
    folder = folder_of(tmp_path / "w1", FRAMES)
    assert names(watched.look()) == ["w1"]
    os.utime(folder / "frames.npy", ns=(5, 5))  # a clock that was set back
    assert names(watched.look()) == ["w1"]
    shutil.rmtree(folder)
    assert watched.look() == []
    folder_of(tmp_path / "w1", FRAMES)
    assert names(watched.look()) == ["w1"]


def test_what_was_known_before_is_not_given_unless_it_changed(tmp_path: Path, clock: Clock) -> None:
    folder_of(tmp_path / "w1", FRAMES)
    folder_of(tmp_path / "w2", FRAMES)
    known = {"w1": signature_of(tmp_path / "w1") or "", "w2": "of other files"}
    watched = arrivals(tmp_path, clock, settle_s=0.0, known=known)
    assert names(watched.look()) == ["w2"]
    assert watched.waiting == 0


def test_a_marker_says_that_a_stack_is_whole(tmp_path: Path, clock: Clock) -> None:
    watched = arrivals(tmp_path, clock, settle_s=1e9, marker="done")
    folder_of(tmp_path / "w1", FRAMES)
    np.save(tmp_path / "w2.npy", FRAMES)
    assert watched.look() == []
    (tmp_path / "w1" / "done").touch()
    assert names(watched.look()) == ["w1"]
    (tmp_path / "w2.npy.done").touch()
    assert names(watched.look()) == ["w2"]


def test_a_folder_renamed_into_place_is_found_under_its_name(tmp_path: Path, clock: Clock) -> None:
    watched = arrivals(tmp_path / "in", clock, settle_s=1.0)
    folder_of(tmp_path / "in" / ".w1.part", FRAMES)
    watched.look()
    clock.now = 5.0
    assert (watched.look(), watched.waiting) == ([], 0)  # hidden names are nobody's yet
    (tmp_path / "in" / ".w1.part").rename(tmp_path / "in" / "w1")
    watched.look()
    clock.now = 6.0
    assert names(watched.look()) == ["w1"]


def test_two_stacks_of_one_name_block_nobody(tmp_path: Path, clock: Clock) -> None:
    watched = arrivals(tmp_path, clock, settle_s=0.0)
    folder_of(tmp_path / "w 1", FRAMES)
    folder_of(tmp_path / "w_1", FRAMES)
    folder_of(tmp_path / "w2", FRAMES)
    found = names(watched.look())
    assert len(set(found)) == 3
    assert sum(name.startswith("w_1-") for name in found) == 1


def test_a_folder_that_is_none_is_told(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(InputError, match="is no folder"):
        arrivals(tmp_path / "none", clock).look()
    assert signature_of(tmp_path / "none") is None
