"""Processes that torchrun starts: the solution of one, a rank that dies, and processes that do not find each other."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import torch
import torch.distributed as dist

from cpikan.errors import InputError
from cpikan.learning.methods.adam import Adam
from cpikan.learning.recipes import Recipe
from cpikan.learning.samplers.points import Points
from cpikan.learning.solver import SolveSettings, solve
from cpikan.learning.subdomains import Subdomains
from cpikan.streaming import process_group, rank_watch
from cpikan.streaming.ranks import ALONE, ranks_here

SERIES = {"seconds": 1e4, "subdomains": Subdomains(4, "cpinn", modes=6)}
TRAINED = {"seconds": 1e4, "subdomains": Subdomains(4, "xpinn"), "points": Points(60, 20)}
SMALL = Recipe("small", "small networks", (Adam(10**6, 1e-3),), hidden=(3,), degree=3)
WORKER = """
    import json, os, sys, torch
    from pathlib import Path
    from cpikan.learning.methods.adam import Adam
    from cpikan.learning.recipes import Recipe
    from cpikan.learning.samplers.points import Points
    from cpikan.learning.solver import SolveSettings, solve
    from cpikan.learning.subdomains import Subdomains
    from cpikan.streaming.ranks import ranks_here

    here = Path(sys.argv[1])
    with ranks_here() as ranks:
        tables = [torch.arange(6.0).reshape(2, 3).double() * ranks.rank, torch.zeros(0, 4, dtype=torch.int64)]
        tables += [torch.arange(6).reshape(3, 2).to(torch.uint8)]
        other = 1 - ranks.rank
        for table in tables:  # also an empty one
            if ranks.rank:
                ranks.send(table, other)
            else:
                got = ranks.receive(other)
                assert got.dtype == table.dtype and got.shape == table.shape
                assert torch.equal(got, torch.arange(got.numel()).reshape(got.shape).to(got.dtype))
        numbers = torch.tensor([0.1 + ranks.rank, 3.0]).double()
        assert torch.equal(ranks.total(numbers), torch.tensor([0.1, 3.0]).double() + torch.tensor([1.1, 3.0]).double())
        assert torch.equal(ranks.largest(numbers), torch.tensor([1.1, 3.0]).double())
        assert ranks.first(7.5 + ranks.rank) == 7.5
        whole = torch.tensor([3, 4], dtype=torch.int32)
        assert torch.equal(ranks.joined(whole * torch.tensor([ranks.rank == 0, ranks.rank == 1]).int()), whole)
        assert ranks.texts("né" * (ranks.rank + 1)) == ["né", "néné"]
        settings = {"seconds": 1e4, "ranks": ranks}
        series = solve("poisson-1d", settings=SolveSettings(subdomains=Subdomains(4, "cpinn", modes=6), **settings))
        x = torch.linspace(0, 1, 50).double()
        found = {"pid": os.getpid(), "series": series(x).tolist(), "metrics": series.metrics}
        (here / f"{ranks.rank}.part").write_text(json.dumps(found))
        (here / f"{ranks.rank}.part").rename(here / f"{ranks.rank}.json")
        small = Recipe("small", "small networks", (Adam(10**6, 1e-3),), hidden=(3,), degree=3)
        solve("poisson-1d", recipe=small, settings=SolveSettings(subdomains=Subdomains(4, "xpinn"),
            points=Points(60, 20), checkpoint=here / "state", checkpoint_s=0.2, **settings))
"""


def waited_for(path, process, seconds=240):
    until = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.1)


def test_torchrun_starts_two_that_find_what_one_finds_and_one_that_dies_ends_both(tmp_path):
    (tmp_path / "worker.py").write_text(textwrap.dedent(WORKER))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [*torchrun, str(tmp_path / "worker.py"), str(tmp_path)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        waited_for(tmp_path / "state" / "checkpoint.json", process)
        found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
        os.kill(found[1]["pid"], signal.SIGKILL)
        killed = time.monotonic()
        errors = process.communicate(timeout=60)[1]
        took = time.monotonic() - killed
    finally:
        process.kill()
    assert took < 30
    ours = [line for line in errors.splitlines() if line.startswith("cpikan:")]
    assert len(ours) == 1, errors
    assert (
        f"process 1 (number {found[1]['pid']} on {socket.gethostname()}) has ended, killed or out of memory" in ours[0]
    )
    alone = solve("poisson-1d", settings=SolveSettings(**SERIES))
    wanted = alone(torch.linspace(0, 1, 50).double())
    for one in found:
        assert float((torch.tensor(one["series"], dtype=torch.float64) - wanted).norm() / wanted.norm()) <= 1e-8
        assert one["metrics"]["sent_bytes"] > 0
        for name in ("relative_l2", "max_error", "heldout_residual", "boundary_violation"):  # judged together
            assert one["metrics"][name] == pytest.approx(alone.metrics[name], rel=1e-8, abs=1e-13), name
    # what they left goes on here, from the steps that both had done (test_shared_training: as if one had done them all)
    state = json.loads((tmp_path / "state" / "checkpoint.json").read_text())["state"]
    more = SolveSettings(checkpoint=tmp_path / "state", resume=True, steps=state["iterations"] + 1, **TRAINED)
    resumed = solve("poisson-1d", recipe=SMALL, settings=more)
    assert resumed.metrics["iterations"] == state["iterations"] + 1
    assert resumed.history.records[: len(state["records"])] == state["records"]


def test_a_connection_that_breaks_to_a_host_that_is_silent_names_its_process(monkeypatch, capsys):
    for name, seconds in (("_LOOK_S", 0.05), ("_TELL_S", 0.2), ("_BROKEN_S", 0.3)):
        monkeypatch.setattr(rank_watch, name, seconds)

    def ends(code):
        raise SystemExit(code)

    monkeypatch.setattr(rank_watch.os, "_exit", ends)
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for number in (1, 2):
        store.set(f"who/{number}", f"elsewhere {70 + number}")
    watch = rank_watch.RankWatch(0, 3, ("127.0.0.1", store.port))
    try:
        watch._over.set()  # no looks beside those of the test
        watch._thread.join()
        told = threading.Event()
        living = threading.Thread(target=lambda: [store.add("beat/1", 1) for _ in iter(lambda: told.wait(0.05), True)])
        living.start()
        with pytest.raises(SystemExit):
            watch.explain()
    finally:
        told.set()
        living.join()
        signal.signal(signal.SIGTERM, watch._before)
    said = capsys.readouterr().err
    assert "process 2 (number 72 on elsewhere) has ended" in said
    assert "number 71" not in said


def test_one_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert ranks_here() is ALONE
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert ranks_here() is ALONE


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("WORLD_SIZE", "two", "WORLD_SIZE is 'two': start processes by torchrun"),
        ("RANK", None, "RANK is None: start processes by torchrun"),
        ("MASTER_PORT", "", "MASTER_PORT is '': start processes by torchrun"),
    ],
)
def test_an_environment_that_no_launcher_made(name, value, words, monkeypatch):
    for key, given in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "1", name: value}.items():
        if given is None:
            monkeypatch.delenv(key, raising=False)
        else:
            monkeypatch.setenv(key, given)
    with pytest.raises(InputError, match=words):
        ranks_here()


def test_a_port_in_use_and_processes_that_do_not_come(monkeypatch):
    monkeypatch.setattr(process_group, "_FIND_S", 1.0)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    environment = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for key, value in {**environment, "MASTER_PORT": str(port)}.items():
            monkeypatch.setenv(key, value)
        with pytest.raises(InputError, match=f"port {port} is in use: give another MASTER_PORT"):
            ranks_here()
    with pytest.raises(
        InputError, match=f"process 1 of 2 did not come to 127.0.0.1:{port} within 1 s: start all of them"
    ):
        ranks_here()
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(InputError, match=f"process 1 of 2 did not find process 0 at 127.0.0.1:{port} within 1 s"):
        ranks_here()
