"""The order of a batch: memory, attempts, the ledger; with an engine that does as it is told."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cpikan.errors import InputError, ResumeError
from cpikan.fleet import batch as module
from cpikan.fleet.batch import Batch, BatchSettings
from cpikan.fleet.engines.engine import Answer
from cpikan.fleet.ledger import DEAD, DONE, NAME, Ledger
from cpikan.fleet.recipe import Recipe
from cpikan.fleet.sources import Source
from cpikan.fleet.wafer_task import WaferTask
from cpikan.streaming.events import Cancelled
from cpikan.streaming.journal import Journal
from heard_events import Heard

Play = Callable[[WaferTask], dict[str, Any] | None]
RECIPE = Recipe.from_table({"limits": {"a.b_nm": {"max": 2}}})


class Scripted:
    """Ends the tasks that run all at once, as ``play`` says: an outcome, or None for the death of the worker."""

    about = "a script"
    memory_mib: float | None = None

    def __init__(self, play: Play, slots: int = 2) -> None:
        self.play, self.slots = play, slots
        self.running: list[WaferTask] = []
        self.rounds: list[list[WaferTask]] = []

    def free(self) -> int:
        return self.slots - len(self.running)

    def submit(self, task: WaferTask) -> bool:
        assert len(self.running) < self.slots
        self.running.append(task)
        return True

    def wait(self, seconds: float) -> list[Answer]:
        tasks, self.running = self.running, []
        self.rounds.append(tasks)
        return [Answer(task, self.play(task), "the worker died") for task in tasks]

    def abandon(self, name: str) -> bool:
        self.running = [task for task in self.running if task.name != name]
        return True

    def close(self) -> None:
        pass


def done(task: WaferTask, **more: Any) -> dict[str, Any]:
    return {"state": "done", "name": task.name, "stamp": "s", "figures": {"a.b_nm": 1.0}, "warnings": [], **more}


def ran(
    folder: Path, play: Play, count: int = 4, slots: int = 2, resume: bool = False, **more: Any
) -> tuple[Batch, Scripted]:
    engine = Scripted(play, slots)
    ledger = Ledger.open(folder, RECIPE, resume=resume, overwrite=False)
    settings = BatchSettings(**{"memory_mib": 100.0 * slots, **more})
    batch = Batch(folder, RECIPE, ledger, engine, settings)
    try:
        batch.run([Source(f"/in/{n}", f"w{n}") for n in range(count)], Heard())
    finally:
        ledger.close()
    return batch, engine


def test_all_are_done_and_judged(tmp_path: Path) -> None:
    batch, engine = ran(tmp_path, lambda task: done(task, figures={"a.b_nm": float(task.name[1:])}))
    rows = batch.rows()
    assert [row["verdict"] for row in rows] == ["pass", "pass", "pass", "fail"]
    assert rows[3]["figures"]["a.b_nm"] == {"value": 3.0, "low": None, "high": 2.0, "verdict": "fail"}
    assert len({row["key"] for row in rows}) == 4
    assert [len(tasks) for tasks in engine.rounds] == [2, 2]
    assert all(task.reconstruct["hash_frames"] for task in engine.rounds[0])


def test_a_stack_that_kills_its_worker_spends_its_own_attempts_and_no_other_does(tmp_path: Path) -> None:
    calls: list[str] = []

    def play(task: WaferTask) -> dict[str, Any] | None:
        calls.append(task.name)
        return None if task.name == "w1" else done(task)

    batch, _ = ran(tmp_path, play, attempts=3)
    assert calls.count("w1") == 3
    assert all(calls.count(name) == 1 for name in ("w0", "w2", "w3"))
    entries = {row["name"]: row for row in batch.rows()}
    assert (entries["w1"]["state"], entries["w1"]["reason"]) == (DEAD, "the worker died")
    assert [entries[name]["state"] for name in ("w0", "w2", "w3")] == [DONE] * 3


def test_one_that_fails_once_is_done_at_its_second_attempt_and_a_refused_one_has_no_second(tmp_path: Path) -> None:
    seen: list[str] = []

    def play(task: WaferTask) -> dict[str, Any]:
        seen.append(task.name)
        if task.name == "w0" and seen.count("w0") == 1:
            return {"state": "failed", "reason": "OSError: later"}
        return {"state": "refused", "reason": "no frames"} if task.name == "w2" else done(task)

    batch, _ = ran(tmp_path, play)
    assert {row["name"]: row["state"] for row in batch.rows()} == {"w0": DONE, "w1": DONE, "w2": DEAD, "w3": DONE}
    assert (seen.count("w0"), seen.count("w2")) == (2, 1)


def test_a_stack_whose_map_another_process_is_at_waits_for_it_and_spends_no_attempt(tmp_path: Path) -> None:
    seen: list[str] = []

    def play(task: WaferTask) -> dict[str, Any]:
        seen.append(task.name)
        busy = task.name == "w0" and seen.count("w0") <= 5
        return {"state": "busy", "reason": "another run is writing here"} if busy else done(task)

    batch, _ = ran(tmp_path, play, attempts=1)
    assert seen.count("w0") == 6
    assert {row["state"] for row in batch.rows()} == {DONE}


def test_a_stack_whose_map_another_process_never_leaves_is_given_up(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "_BUSY_S", 0.0)
    batch, _ = ran(tmp_path, lambda task: {"state": "busy", "reason": "another run is writing here"}, count=1)
    assert [(row["state"], row["reason"]) for row in batch.rows()] == [(DEAD, "another run is writing here")]


def test_a_stack_whose_worker_goes_away_before_it_begins_is_begun_later_and_once(tmp_path: Path) -> None:
    class Leaving(Scripted):
        refused = 0

        def submit(self, task: WaferTask) -> bool:
            if self.rounds or self.refused:
                return super().submit(task)
            self.refused += 1
            return False

    engine = Leaving(done)
    with closing(Ledger.open(tmp_path, RECIPE, resume=False, overwrite=False)) as ledger:
        batch = Batch(tmp_path, RECIPE, ledger, engine, BatchSettings(attempts=1, memory_mib=200.0))
        batch.run([Source(f"/in/{n}", f"w{n}") for n in range(3)], Heard())
    assert engine.refused == 1
    assert sorted(task.name for tasks in engine.rounds for task in tasks) == ["w0", "w1", "w2"]


def test_workers_that_join_later_share_the_memory(tmp_path: Path) -> None:
    class Growing(Scripted):
        def wait(self, seconds: float) -> list[Answer]:
            found = super().wait(seconds)
            self.slots = 4
            return found

    engine = Growing(done, slots=0)
    with closing(Ledger.open(tmp_path, RECIPE, resume=False, overwrite=False)) as ledger:
        batch = Batch(tmp_path, RECIPE, ledger, engine, BatchSettings(memory_mib=200.0))
        batch.run([Source(f"/in/{n}", f"w{n}") for n in range(4)], Heard())
    assert [[task.memory_mib for task in tasks] for tasks in engine.rounds] == [[], [50.0] * 4]


def test_workers_with_memory_of_their_own_share_none_and_a_stack_that_fits_no_worker_is_given_up(
    tmp_path: Path,
) -> None:
    class Jobs(Scripted):
        memory_mib = 100.0

    def play(task: WaferTask) -> dict[str, Any]:
        return {"state": "crowded", "reason": "", "memory_mib": 150.0} if task.name == "w3" else done(task)

    engine = Jobs(play, slots=4)
    with closing(Ledger.open(tmp_path, RECIPE, resume=False, overwrite=False)) as ledger:
        batch = Batch(tmp_path, RECIPE, ledger, engine, BatchSettings())
        batch.run([Source(f"/in/{n}", f"w{n}") for n in range(4)], Heard())
    assert [[task.memory_mib for task in tasks] for tasks in engine.rounds] == [[100.0] * 4]
    assert [row["state"] for row in batch.rows()] == [DONE] * 3 + [DEAD]
    assert "it needs 150 MiB and there are 100" in batch.rows()[3]["reason"]


def test_a_large_stack_waits_until_it_has_the_memory_and_one_that_never_fits_is_given_up(tmp_path: Path) -> None:
    needs = {"w0": 150.0, "w1": 500.0}

    def play(task: WaferTask) -> dict[str, Any]:
        need = needs.get(task.name, 80.0)
        if need > task.memory_mib:
            return {"state": "crowded", "reason": "", "memory_mib": need}
        return done(task, memory_mib=need)

    batch, engine = ran(tmp_path, play, count=5)
    states = {"w0": DONE, "w1": DEAD, "w2": DONE, "w3": DONE, "w4": DONE}
    assert {row["name"]: row["state"] for row in batch.rows()} == states
    assert "500 MiB and there are 200" in next(row["reason"] for row in batch.rows() if row["name"] == "w1")
    for tasks in engine.rounds:
        assert sum(task.memory_mib for task in tasks) <= 200.0 + 1e-6


def test_a_stack_that_hangs_is_stopped_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    class Hanging(Scripted):
        def wait(self, seconds: float) -> list[Answer]:
            stuck = [task for task in self.running if task.name == "w1"]
            answers = [Answer(task, done(task)) for task in self.running if task not in stuck]
            self.running = stuck
            return answers

    ledger = Ledger.open(tmp_path, RECIPE, resume=False, overwrite=False)
    batch = Batch(tmp_path, RECIPE, ledger, Hanging(done), BatchSettings(attempts=2, memory_mib=200.0, limit_s=0.01))
    batch.run([Source(f"/in/{n}", f"w{n}") for n in range(4)], Heard())
    ledger.close()
    found = {row["name"]: (row["state"], row["reason"]) for row in batch.rows()}
    assert found["w1"] == (DEAD, "it took more than 0.01 s")
    assert {found[name][0] for name in ("w0", "w2", "w3")} == {DONE}


def test_a_batch_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    class Stop(BaseException):
        pass

    def first(task: WaferTask) -> dict[str, Any]:
        if task.name == "w2":
            raise Stop
        return done(task)

    with pytest.raises(Stop):
        ran(tmp_path, first, slots=1)
    stamps: dict[str, str] = {}

    def second(task: WaferTask) -> dict[str, Any]:
        stamps[task.name] = task.stamp
        return {"state": "unchanged", "stamp": "s"} if task.stamp else done(task)

    batch, _ = ran(tmp_path, second, slots=1, resume=True)
    assert stamps == {"w0": "s", "w1": "s", "w2": "", "w3": ""}
    assert batch.unchanged == 2
    assert [row["state"] for row in batch.rows()] == [DONE] * 4


def test_a_folder_with_a_batch_is_not_written_over_and_other_settings_do_not_go_on(tmp_path: Path) -> None:
    ran(tmp_path, done)
    with pytest.raises(InputError, match="add --resume"):
        Ledger.open(tmp_path, RECIPE, resume=False, overwrite=False)
    with pytest.raises(ResumeError, match=r"reconstruct\.method"):
        Ledger.open(tmp_path, Recipe.from_table({"reconstruct": {"method": "pixel"}}), resume=True, overwrite=False)
    other = Recipe.from_table({"limits": {"a.b_nm": {"max": 0.5}}})  # judged anew, nothing done again
    ledger = Ledger.open(tmp_path, other, resume=True, overwrite=False)
    assert set(ledger.entries) == {"w0", "w1", "w2", "w3"}
    with pytest.raises(InputError, match="another run"):
        Ledger.open(tmp_path, RECIPE, resume=True, overwrite=False)
    ledger.close()


def test_a_full_disk_holds_tasks_back_and_ends_a_batch_that_has_no_room_for_one(tmp_path: Path, monkeypatch) -> None:
    free = {"bytes": 250}
    monkeypatch.setattr(module, "free_bytes", lambda path: free["bytes"])
    _, engine = ran(tmp_path / "a", lambda task: done(task, disk_bytes=100), count=6, slots=3)
    assert [len(tasks) for tasks in engine.rounds] == [3, 2, 1]  # nothing is known of the first ones

    def fill(task: WaferTask) -> dict[str, Any]:
        free["bytes"] = 50
        return done(task, disk_bytes=100)

    with pytest.raises(InputError, match="make room, then go on with --resume"):
        ran(tmp_path / "b", fill, slots=1)


def test_a_cancelled_batch_says_how_far_it_came(tmp_path: Path) -> None:
    class Enough(Heard):
        def cancelled(self) -> bool:
            return True

    ledger = Ledger.open(tmp_path, RECIPE, resume=False, overwrite=False)
    batch = Batch(tmp_path, RECIPE, ledger, Scripted(done), BatchSettings())
    with pytest.raises(Cancelled, match="2 of 4 wafers"):
        batch.run([Source(f"/in/{n}", f"w{n}") for n in range(4)], Enough())
    ledger.close()


@pytest.mark.parametrize("line", [{"name": "a"}, {"name": 1, "source": "b", "state": "done", "reason": ""}])
def test_a_ledger_that_no_batch_wrote_is_refused_in_one_line(tmp_path: Path, line: dict[str, Any]) -> None:
    with closing(Journal.start(tmp_path / NAME, RECIPE.plan())) as journal:
        journal.add(line)
    with pytest.raises(InputError, match=r"ledger\.jsonl holds a line that no batch wrote"):
        Ledger.open(tmp_path, RECIPE, resume=True, overwrite=False)
