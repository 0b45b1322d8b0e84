"""Workers of this machine for real: tasks done, a worker killed, a scheduler that is not there."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest

from cpikan.errors import InputError
from cpikan.fleet.engines.dask import DaskEngine
from cpikan.fleet.engines.engine import Answer
from cpikan.fleet.wafer_task import WaferTask
from small_stacks import folder_of

pytestmark = pytest.mark.filterwarnings("ignore")  # what distributed says of sockets it leaves open


def answers(engine: DaskEngine, count: int, seconds: float = 120.0) -> dict[str, Answer]:
    found: dict[str, Answer] = {}
    until = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < until:
        found |= {answer.task.name: answer for answer in engine.wait(1.0)}
    return found


@pytest.fixture(scope="module")
def engine() -> Iterator[DaskEngine]:
    with closing(DaskEngine.local(2, 1)) as made:
        yield made


def test_tasks_run_on_workers_with_their_own_threads(engine: DaskEngine, wafer_folder: Path, tmp_path: Path) -> None:
    engine.check_versions()
    told = engine._client.run(lambda: {name: os.environ.get(name) for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS")})
    assert list(told.values()) == [{"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}] * 2
    engine.submit(WaferTask("good", str(wafer_folder), str(tmp_path / "good.npy"), {}))
    engine.submit(WaferTask("bad", str(tmp_path), str(tmp_path / "bad.npy"), {}))
    assert engine.free() == 0
    found = answers(engine, 2)
    assert found["good"].outcome is not None
    assert found["good"].outcome["state"] == "done"
    assert found["good"].outcome["facts"]["process"] != os.getpid()
    assert found["bad"].outcome is not None
    assert found["bad"].outcome["state"] == "refused"
    assert engine.free() == 2


def test_nothing_listens_beyond_this_machine(engine: DaskEngine) -> None:
    here = psutil.Process()
    every = [one.net_connections(kind="inet") for one in (here, *here.children(recursive=True))]
    listening = {link.laddr.ip for links in every for link in links if link.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}
    assert engine.free() == 2


def test_a_killed_worker_loses_its_own_task_and_comes_back(engine: DaskEngine, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    large = folder_of(tmp_path / "large", rng.integers(0, 255, (4, 4, 1500, 1500), dtype=np.uint8))
    engine.submit(WaferTask("killed", str(large), str(tmp_path / "killed.npy"), {"method": "hybrid"}))
    (worker,) = engine._tasks
    (pid,) = engine._client.run(os.getpid, workers=[worker]).values()
    engine.submit(WaferTask("other", str(tmp_path), str(tmp_path / "other.npy"), {}))
    os.kill(pid, signal.SIGKILL)
    found = answers(engine, 2)
    assert found["killed"].outcome is None
    assert found["killed"].reason
    assert found["other"].outcome is not None
    until = time.monotonic() + 60
    while engine.free() < 2 and time.monotonic() < until:
        time.sleep(0.1)
    assert engine.free() == 2


def test_a_worker_of_another_version_that_joins_later_gets_no_stacks(engine: DaskEngine, monkeypatch, capsys) -> None:
    """On the cluster of this machine, as one that a scheduler elsewhere has; what the second worker tells is changed."""
    from cpikan.fleet.engines import dask as module

    joined = DaskEngine(engine._client, None, "workers of elsewhere")
    joined._known = {}
    first, second = sorted(joined._workers())
    monkeypatch.setattr(joined, "_workers", lambda: [first])
    joined.check_versions()
    joined._known = {first: True}
    assert joined.free() == 1
    monkeypatch.setattr(joined, "_workers", lambda: [first, second])
    monkeypatch.setattr(module, "VERSION", "9.9")
    assert joined.free() == 1  # it was not heard yet
    assert until_free(joined, lambda: second in joined._known)
    assert joined.free() == 1
    told = capsys.readouterr().err
    assert f"warning: worker {second} has cpikan" in told
    assert "here it is 9.9: install the same everywhere; it gets no stacks" in told
    monkeypatch.setattr(joined, "_workers", lambda: [first])
    assert joined.free() == 1
    monkeypatch.undo()
    assert until_free(joined, lambda: joined.free() == 2)  # it joined again, with the version of here
    assert capsys.readouterr().err == ""


def until_free(engine: DaskEngine, ready, seconds: float = 60.0) -> bool:
    until = time.monotonic() + seconds
    while not ready() and time.monotonic() < until:
        engine.free()
        time.sleep(0.05)
    return bool(ready())


def test_a_scheduler_that_is_not_there_is_told_in_one_line(monkeypatch) -> None:
    from cpikan.fleet.engines import dask as module

    monkeypatch.setattr(module, "_CONNECT_S", 0.5)
    with pytest.raises(InputError, match=r"no scheduler answers at tcp://127\.0\.0\.1:9") as refused:
        DaskEngine.connected("tcp://127.0.0.1:9")
    assert "\n" not in str(refused.value)


def test_a_task_that_is_abandoned_frees_its_worker(engine: DaskEngine, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    large = folder_of(tmp_path / "large", rng.integers(0, 255, (4, 4, 1500, 1500), dtype=np.uint8))
    engine.submit(WaferTask("long", str(large), str(tmp_path / "long.npy"), {"method": "hybrid"}))
    assert engine.abandon("long")
    assert not engine.abandon("long")
    until = time.monotonic() + 60
    while engine.free() < 2 and time.monotonic() < until:
        time.sleep(0.1)
    assert engine.free() == 2
    engine.submit(WaferTask("next", str(tmp_path), str(tmp_path / "next.npy"), {}))
    assert set(answers(engine, 1)) == {"next"}
