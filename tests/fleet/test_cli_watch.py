"""``cpikan watch``: stacks measured as they arrive, over a kill; a broken one blocks none."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cpikan.cli import main
from independent_frames import Scene
from small_stacks import folder_of


def drop(place: Path, name: str, frames: np.ndarray) -> None:
    """Put a stack where a tool would: under a hidden name, then renamed."""
    folder_of(place / f".{name}", frames).rename(place / name)


def asked(place: Path, *more: str) -> list[str]:
    return ["watch", str(place / "in"), "-o", str(place / "out"), "--workers", "0", "--settle", "0.1", *more]


def until(what, seconds: float = 120.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.05)
    return False


def wafers(place: Path) -> list[tuple[str, str]]:
    if not (place / "out" / "results.sqlite").exists():
        return []
    with sqlite3.connect(place / "out" / "results.sqlite") as database:
        try:
            return database.execute("SELECT name, state FROM wafers ORDER BY name").fetchall()
        except sqlite3.OperationalError:  # it is being made
            return []


def test_stacks_that_arrive_are_measured_over_a_kill_and_broken_ones_block_none(wafer: Scene, tmp_path: Path) -> None:
    frames = np.asarray(wafer.frames)
    (tmp_path / "in").mkdir()
    command = [sys.executable, "-m", "cpikan", *asked(tmp_path)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        drop(tmp_path / "in", "w1", frames)
        assert until(lambda: ("w1", "done") in wafers(tmp_path))
        running.send_signal(signal.SIGKILL)
        running.wait()
        first = (tmp_path / "out" / "maps" / "w1.zarr").stat().st_mtime_ns
        broken = folder_of(tmp_path / "in" / "w0", frames)
        (broken / "frames.npy").write_bytes(b"no frames")
        drop(tmp_path / "in", "w2", frames)
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert until(lambda: wafers(tmp_path) == [("w0", "dead"), ("w1", "done"), ("w2", "done")])
        np.save(broken / "frames.npy", frames)  # repaired: taken up again
        assert until(lambda: ("w0", "done") in wafers(tmp_path))
        running.send_signal(signal.SIGTERM)
        told, _ = running.communicate(timeout=60)
        assert running.returncode == 1
        assert b"2 done, 1 given up" in told
    finally:
        running.kill()
        running.wait()
    assert (tmp_path / "out" / "maps" / "w1.zarr").stat().st_mtime_ns == first
    metrics = (tmp_path / "out" / "metrics.prom").read_text()
    assert 'cpikan_wafers_total{state="done"} 2' in metrics
    assert 'cpikan_wafers_waiting{where="queue"} 0' in metrics


def test_once_ends_when_all_is_done_and_again_does_nothing(wafer: Scene, tmp_path: Path, capsys) -> None:
    drop_in = tmp_path / "in"
    drop_in.mkdir()
    drop(drop_in, "w1", np.asarray(wafer.frames))
    assert main(asked(tmp_path, "--once", "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["wafers"], told["done"], told["failed"], told["errors"]) == (1, 1, 0, [])
    assert told["latency_s"] > 0
    assert main(asked(tmp_path, "--once", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["wafers"] == 0


@pytest.mark.parametrize(
    ("more", "said"),
    [(["--settle", "-1"], "--settle -1"), (["-o", "in/out"], "lies in"), (["--recipe", "none.toml"], "cannot be read")],
)
def test_bad_options_of_a_watch_are_one_line(tmp_path: Path, more: list[str], said: str, capsys, monkeypatch) -> None:
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main([*asked(tmp_path), *more]) == 2
    told = capsys.readouterr().err.strip()
    assert said in told
    assert "\n" not in told


def test_a_folder_that_is_not_there_is_told(tmp_path: Path, capsys) -> None:
    assert main(asked(tmp_path, "--once")) == 2
    assert "is no folder" in capsys.readouterr().err
