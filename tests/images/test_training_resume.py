"""Training killed and gone on with is bit for bit the uninterrupted run; two processes are one with the joint batch."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cpikan.errors import ResumeError
from cpikan.streaming.events import Cancelled
from cpikan.streaming.run_store import RunStore
from training_cases import ListFeed, config, one_thread, tiny, trainer  # noqa: F401 - a fixture

TESTS = Path(__file__).parent.parent


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- resume ----------------------------------------------------------------------------------------------------------

RUN = """
    import sys, time
    sys.path.insert(0, sys.argv[2])
    import torch
    from pathlib import Path
    from safetensors.torch import save_file
    from training_cases import *
    from cpikan.images.training.log import TrainLog
    from cpikan.streaming.run_store import RunStore
    torch.set_num_threads(1)

    class Slow(ListFeed):
        def batches(self, epoch, first):
            for batch in super().batches(epoch, first):
                time.sleep(float(sys.argv[3]))
                yield batch

    place = Path(sys.argv[1])
    told = config(training={"steps": 30, "ema": 0.9, "accumulate": 2, "checkpoint_steps": 2, "log_steps": 1})
    store = RunStore(place, {"config": told.table()}, resume=True, every_s=0)
    kept = 0 if store.saved is None else store.saved.state["position"]["log_bytes"]
    log = TrainLog(place / "log.jsonl", keep_bytes=kept)
    one = trainer(told, Slow(), store=store, log=log)
    if store.saved is not None:
        one.resume(store.saved.state)
    print("from", one.position.step, flush=True)
    trained = one.run()
    log.close()
    save_file({**trained.weights, **{"last." + n: v for n, v in one._parts.network.state_dict().items()}}, place / "end")
"""


def start(place: Path, pause: float) -> subprocess.Popen:
    arguments = [sys.executable, "-W", "error", "-c", textwrap.dedent(RUN), str(place), str(TESTS), str(pause)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def test_killed_and_resumed_is_bit_for_bit_the_uninterrupted_run(tmp_path, monkeypatch, capsys):
    broken = start(tmp_path / "broken", 0.05)
    state = tmp_path / "broken" / "checkpoint.json"
    deadline = time.monotonic() + 60
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.37)
    broken.send_signal(signal.SIGKILL)
    broken.communicate(timeout=60)
    assert broken.returncode == -signal.SIGKILL
    for name in ("broken", "whole"):  # what is not killed needs no process of its own
        monkeypatch.setattr(sys, "argv", ["-c", str(tmp_path / name), str(TESTS), "0"])
        exec(textwrap.dedent(RUN), {})
    started = [int(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
    assert started[0] > 0  # it did go on, not anew
    assert started[1] == 0
    assert same(load_file(tmp_path / "broken" / "end"), load_file(tmp_path / "whole" / "end"))
    plain = [
        [
            {key: value for key, value in line.items() if key != "seconds"}
            for line in lines(tmp_path / name / "log.jsonl")
        ]
        for name in ("broken", "whole")
    ]
    assert plain[0] == plain[1]  # no line twice, none missing


@pytest.mark.parametrize("stop", [1, 5, 7])
@pytest.mark.parametrize("name", ["adamw", "soap"])
def test_resume_from_any_state(stop, name, tmp_path):
    """Stopped by Ctrl-C while patches are read; a divergence before and one after the stop are part of it."""
    decay = {} if name == "adamw" else {"weight_decay": 0.0}
    told = config(training={"steps": 9, "ema": 0.5, "checkpoint_steps": 1}, optimizer={"name": name, **decay})

    class Stopping(ListFeed):
        def batches(self, epoch, first):
            for number, batch in enumerate(super().batches(epoch, first), start=first):
                if 3 * epoch + number == stop:
                    raise KeyboardInterrupt
                yield batch

    whole = trainer(told).run()
    with (
        RunStore(tmp_path, {"a": 1}, resume=False, every_s=1e9) as store,
        pytest.raises(KeyboardInterrupt),
    ):
        trainer(told, Stopping(), store=store).run()
    one = trainer(told)
    with RunStore(tmp_path, {"a": 1}, resume=True) as store:
        one.resume(store.saved.state)
    assert one.position.step == stop
    assert same(one.run().weights, whole.weights)


def test_cancelled_and_resumed_is_the_uninterrupted_run(tmp_path):
    class Cancelling:
        """Events that cancel once four steps are done."""

        def __init__(self):
            self.done = []

        def progress(self, stage, done, of, **figures):
            self.done.append((stage, done, of))

        def warning(self, text):
            raise AssertionError(text)

        def cancelled(self):
            return self.done[-1][1] >= 4

    told, events = config(training={"steps": 8, "checkpoint_steps": 1}), Cancelling()
    with (
        RunStore(tmp_path, {}, resume=False, every_s=1e9) as store,
        pytest.raises(Cancelled, match="cancelled at step 4"),
    ):
        trainer(told, store=store).run(progress=events)
    assert events.done == [("train", step, 8) for step in range(5)]
    one = trainer(told)
    one.resume(RunStore(tmp_path, {}, resume=True, reading=True).saved.state)
    assert one.position.step == 4
    assert same(one.run().weights, trainer(told).run().weights)


def test_state_of_another_network_is_refused(tmp_path):
    told = config(training={"steps": 2})
    with RunStore(tmp_path, {}, resume=False, every_s=0) as store:
        trainer(told, store=store).run()
    saved = RunStore(tmp_path, {}, resume=True, reading=True).saved
    other = tiny(1)
    other.unfold = torch.nn.Conv2d(4, 12, 5, padding=2)
    with pytest.raises(ResumeError, match="does not fit this run"):
        trainer(told, network=other).resume(saved.state)


# --- processes -------------------------------------------------------------------------------------------------------

RANKS = """
    import sys
    sys.path.insert(0, sys.argv[2])
    import torch
    from safetensors.torch import save_file
    from training_cases import *
    torch.set_num_threads(1)
    told = without_held_out(config(training={"steps": 20, "accumulate": 2}, optimizer={"clip": 0.5}))
    one = trainer(told, None if sys.argv[3] == "many" else ListFeed())
    assert one._engine.processes == (2 if sys.argv[3] == "many" else 1)
    trained = one.run()
    assert trained.position.samples == 100, trained.position
    if one._engine.main:
        save_file(trained.weights, sys.argv[1])
    one._engine.close()
"""


def test_two_processes_are_one_with_the_joint_batch(tmp_path, monkeypatch):
    """20 steps of AdamW on unequal shares (10 patches in groups of 4, 4, 2; 2 + 2, 2 + 2, 1 + 1, of unequal valid areas); the
    gradients agree to about 1e-7, and Adam's steps are of bounded slope in them where moments are not near zero."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = textwrap.dedent(RANKS)

    def run(kind: str, **more: str) -> subprocess.Popen:
        arguments = [sys.executable, "-W", "error", "-c", code, str(tmp_path / kind), str(TESTS), kind]
        return subprocess.Popen(
            arguments, env={**os.environ, "OMP_NUM_THREADS": "1", **more}, stderr=subprocess.PIPE, text=True
        )

    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    ranks = [run("many", **shared, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(2)]
    monkeypatch.setattr(sys, "argv", ["-c", str(tmp_path / "one"), str(TESTS), "one"])
    exec(code, {})
    for one in ranks:
        _, told = one.communicate(timeout=180)
        assert one.returncode == 0, told
    many, one = load_file(tmp_path / "many"), load_file(tmp_path / "one")
    start = tiny().state_dict()
    for name, value in one.items():
        assert torch.allclose(many[name], value, rtol=0, atol=1e-5), name
    assert max(float((one[name] - start[name]).abs().max()) for name in one) > 1e-2  # they did move
