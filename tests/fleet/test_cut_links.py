"""Workers whose link is cut: they come back, and nothing that is finished is done twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cpikan.cli import main
from cpikan.errors import InputError
from cpikan.fleet.engines import dask as dask_engine
from cpikan.fleet.engines.dask import DaskEngine
from cpikan.fleet.run import BatchOptions, run_batch
from cut_link import CutLink
from heard_events import Heard
from independent_frames import Scene
from small_stacks import folder_of

pytestmark = pytest.mark.filterwarnings("ignore")  # what distributed says of sockets it leaves open
RECIPE = '[reconstruct]\nmethod = "pixel"\n[output]\nformat = "npy"\n'
_QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


@contextmanager
def scheduler(place: Path, *more: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A scheduler in a process of its own, and its address."""
    told = place / "scheduler.json"
    words = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(told), *(more or ("--port", "0"))]
    process = subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_scheduler", *words], **_QUIET)
    try:
        until = time.monotonic() + 60
        while not (told.exists() and told.read_text().strip().endswith("}")) and time.monotonic() < until:
            time.sleep(0.05)
        yield process, json.loads(told.read_text())["address"]
    finally:
        process.kill()
        process.wait(30)


@contextmanager
def worker(address: str, log: Path) -> Iterator[None]:
    """One worker, kept by ``cpikan worker``; it must end well when it is asked to."""
    with log.open("w") as file:
        words = [sys.executable, "-m", "cpikan", "worker", address, "--workers", "1", "--patience", "60"]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=file)
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(60)
    assert code == 0


class CutsOnce(Heard):
    """Cuts the link while the third stack is worked on; notes what was finished by then."""

    def __init__(self, link: CutLink, maps: Path) -> None:
        super().__init__()
        self.link, self.maps, self.before = link, maps, {}
        self.thread: threading.Thread | None = None

    def progress(self, stage: str, done: float, of: float, **figures: float) -> None:
        if done >= 2 and self.thread is None:
            self.thread = threading.Thread(target=self._cut)
            self.thread.start()

    def _cut(self) -> None:
        until = time.monotonic() + 60
        while not list(self.maps.glob("w2*")) and time.monotonic() < until:
            time.sleep(0.01)
        self.before = {path.name: path.stat().st_mtime_ns for path in self.maps.glob("w[01].npy")}
        self.link.cut(0.5)


def test_a_worker_behind_a_cut_link_comes_back_and_finished_stacks_are_not_done_again(
    wafer: Scene, tmp_path: Path
) -> None:
    for number, times in enumerate((1, 1, 10, 1)):
        folder_of(tmp_path / "in" / f"w{number}", np.tile(np.asarray(wafer.frames), (1, 1, times, times)))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    maps = tmp_path / "out" / "maps"
    with (
        scheduler(tmp_path) as (_, address),
        closing(CutLink(int(address.rpartition(":")[2]))) as link,
        worker(f"tcp://127.0.0.1:{link.port}", tmp_path / "worker.log"),
    ):
        events = CutsOnce(link, maps)
        options = BatchOptions(recipe=str(tmp_path / "recipe.toml"), scheduler=address)
        result = run_batch([str(tmp_path / "in")], tmp_path / "out", options, events)
    assert (result["done"], result["failed"]) == (4, 0)
    assert set(events.before) == {"w0.npy", "w1.npy"}
    assert {name: (maps / name).stat().st_mtime_ns for name in events.before} == events.before
    assert (tmp_path / "worker.log").read_text().count("has joined") == 2


class StrikesOnce(Heard):
    """Kills a process once a stack is done."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__()
        self.process = process

    def progress(self, stage: str, done: float, of: float, **figures: float) -> None:
        if done >= 1:
            self.process.kill()


def test_a_scheduler_that_was_killed_ends_the_batch_in_one_line_and_its_workers_serve_the_next(
    wafer: Scene, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(dask_engine, "_CONNECT_S", 3.0)
    for number in range(3):
        folder_of(tmp_path / "in" / f"w{number}", np.asarray(wafer.frames))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    with scheduler(tmp_path) as (process, address), worker(address, tmp_path / "worker.log"):
        options = BatchOptions(recipe=str(tmp_path / "recipe.toml"), scheduler=address)
        with pytest.raises(InputError, match="is gone: start it again, and the batch with --resume") as refused:
            run_batch([str(tmp_path / "in")], tmp_path / "out", options, StrikesOnce(process))
        assert "\n" not in str(refused.value)
        first = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "maps").glob("*.npy")}
        (tmp_path / "scheduler.json").unlink()
        with scheduler(tmp_path, "--port", address.rpartition(":")[2]):
            again = run_batch([str(tmp_path / "in")], tmp_path / "out", replace(options, resume=True), Heard())
    assert (again["done"], again["resumed"]) == (3, 1)
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert (tmp_path / "worker.log").read_text().count("has joined") == 2


def cut(dask_worker) -> None:
    """Cut a worker off its scheduler, once it has answered."""
    dask_worker.loop.call_later(0.1, dask_worker.batched_stream.comm.abort)


def test_a_worker_of_this_machine_that_dask_closed_is_started_again() -> None:
    import dask

    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "500ms"}),
        closing(DaskEngine.local(1, 1)) as engine,
    ):
        (first,) = engine._workers()
        engine._client.run(cut)
        until = time.monotonic() + 60
        while engine._workers() in ([], [first]) and time.monotonic() < until:
            time.sleep(0.1)
        assert engine.free() == 1
        assert engine._workers() != [first]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["tcp://127.0.0.1:9", "--patience", "0.5"], "no scheduler answers at tcp://127.0.0.1:9 for 0.5 s"),
        (["localhost"], "'localhost' is no address of a scheduler: give one such as tcp://host:8786"),
        (["tcp://127.0.0.1:9", "--workers", "0"], "--workers 0: give 1 to 1000"),
        (["tcp://127.0.0.1:9", "--patience", "-1"], "--patience -1: give seconds"),
    ],
)
def test_a_worker_that_cannot_work_says_so_in_one_line(words: list[str], told: str, capsys) -> None:
    assert main(["worker", *words]) == 2
    heard = capsys.readouterr().err
    assert told in heard
    assert heard.count("\n") == 1
