"""The queue of the service: what was accepted is done once, over restarts; its bound holds."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from held_engine import Held, service

from cpikan.errors import InputError
from cpikan.fleet.engines.engine import Answer
from cpikan.fleet.service.jobs import QUEUE, QueueFull, Stopping
from cpikan.streaming.journal import Journal


def test_jobs_pass_through_their_states_in_order(tmp_path: Path) -> None:
    engine = Held()
    jobs, ledger = service(tmp_path, engine)
    with closing(ledger):
        first, second = jobs.submit("/in/w 1", {"lot": "L"}), jobs.submit("/in/bad", {})
        assert first.name.startswith("w_1-")
        jobs._step()
        assert (first.state, second.state) == ("running", "waiting")
        assert jobs.counts() == {"waiting": 1, "running": 1}
        engine.go = True
        jobs._step()
        jobs._step()
        assert (first.state, first.figures, first.warnings) == ("done", {"a": 1.0}, ["w"])
        assert (second.state, second.reason) == ("failed", "no frames")
        assert jobs.ended == {"done": 1, "failed": 1, "cancelled": 0}
        assert [job.id for job in jobs.listed(None, 1)] == [second.id]
        assert [job.id for job in jobs.listed("done", 9)] == [first.id]


def test_the_bound_of_the_queue_holds_and_frees(tmp_path: Path) -> None:
    engine = Held()
    jobs, ledger = service(tmp_path, engine, most=2)
    with closing(ledger):
        jobs.submit("/in/a", {})
        jobs.submit("/in/b", {})
        with pytest.raises(QueueFull, match="try again in") as full:
            jobs.submit("/in/c", {})
        assert full.value.retry_s >= 1
        engine.go = True
        jobs._step()
        jobs.submit("/in/c", {})


def test_jobs_that_had_not_ended_are_done_by_the_next_service_once(tmp_path: Path) -> None:
    engine = Held()
    jobs, ledger = service(tmp_path, engine)
    engine.go = True
    done = jobs.submit("/in/a", {})
    jobs._step()
    engine.go = False
    running, waiting, unwanted = (jobs.submit(f"/in/{name}", {}) for name in "bcd")
    jobs.cancel(unwanted.id)
    jobs._step()
    jobs.stop_taking()
    with pytest.raises(Stopping):
        jobs.submit("/in/e", {})
    jobs.stop(0.0)
    ledger.close()

    after = Held()
    after.go = True
    jobs, ledger = service(tmp_path, after)
    with closing(ledger):
        for _ in range(4):
            jobs._step()
        assert after.done == ["/in/b", "/in/c"]
        states = [jobs.get(job.id).state for job in (done, running, waiting, unwanted)]
        assert states == ["done", "done", "done", "cancelled"]


def test_a_job_is_given_up_whether_it_waits_or_runs(tmp_path: Path) -> None:
    engine = Held()
    jobs, ledger = service(tmp_path, engine)
    with closing(ledger):
        running, waiting, third = (jobs.submit(f"/in/{name}", {}) for name in "abc")
        jobs._step()
        assert jobs.cancel(running.id).state == "cancelled"
        jobs.cancel(waiting.id)
        assert jobs.cancel("none") is None
        engine.go = True
        jobs._step()
        jobs._step()
        assert engine.done == ["/in/c"]
        assert jobs.cancel(third.id).state == "done"  # too late
        assert jobs.ended == {"done": 1, "failed": 0, "cancelled": 2}
        assert jobs.counts() == {"waiting": 0, "running": 0}


@pytest.mark.parametrize("line", [{"id": "a"}, {"id": 1, "name": "a", "source": "b", "identity": {}, "submitted": "c"}])
def test_a_queue_that_no_service_wrote_is_refused_in_one_line(tmp_path: Path, line: dict[str, object]) -> None:
    with closing(Journal.start(tmp_path / QUEUE, {"queue": 1})) as journal:
        journal.add(line)
    with pytest.raises(InputError, match=r"queue\.jsonl holds a line that no service wrote"):
        service(tmp_path, Held())


def test_what_ends_the_batch_is_told_and_no_job_is_taken_after_it(tmp_path: Path) -> None:
    class Gone(Held):
        def wait(self, seconds: float) -> list[Answer]:
            raise ValueError("the scheduler\nis gone")

    jobs, ledger = service(tmp_path, Gone())
    with closing(ledger):
        jobs.submit("/in/a", {})
        jobs.run()
        assert jobs.failure == "ValueError: the scheduler is gone"
        with pytest.raises(Stopping, match="is gone"):
            jobs.submit("/in/b", {})
