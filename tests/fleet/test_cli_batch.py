"""``cpikan batch``: a folder of stacks to maps, rows and verdicts; killed, and gone on with."""

from __future__ import annotations

import json
import os
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
from small_stacks import contents, folder_of

RECIPE = (
    '[evaluate]\nremove = "piston,tilt"\n[output]\nformat = "npy"\n[identity]\npattern = "{lot}/{wafer}"\n[limits]\n'
)


@pytest.fixture
def lot(wafer: Scene, tmp_path: Path) -> Path:
    """Three stacks that differ, and one that is cut off."""
    frames = np.array(wafer.frames)
    for number in range(3):
        frames[..., number, number] //= 2
        folder_of(tmp_path / "in" / "A" / f"w{number}", frames)
    bad = folder_of(tmp_path / "in" / "A" / "w9", frames) / "frames.npy"
    bad.write_bytes(bad.read_bytes()[:5000])
    (tmp_path / "recipe.toml").write_text(RECIPE + '"evaluate.rms_nm" = { max = 1e9 }\n')
    (tmp_path / "strict.toml").write_text('"evaluate.rms_nm" = { max = 0.001 }\n')
    return tmp_path


def batch(place: Path, *more: str) -> list[str]:
    return [
        "batch",
        str(place / "in"),
        "-o",
        str(place / "out"),
        "--recipe",
        str(place / "recipe.toml"),
        "--json",
        *more,
    ]


def test_a_folder_of_stacks_and_its_resume(lot: Path, capsys) -> None:
    assert main(batch(lot, "--workers", "0")) == 1
    told = json.loads(capsys.readouterr().out)
    assert {key: told[key] for key in ("wafers", "done", "failed", "resumed", "missed_limits")} == {
        "wafers": 4,
        "done": 3,
        "failed": 1,
        "resumed": 0,
        "missed_limits": 0,
    }
    assert told["errors"] == json.loads((lot / "out" / "failed.json").read_text())["errors"]
    assert told["errors"][0]["source"].endswith("A/w9")
    with sqlite3.connect(lot / "out" / "results.sqlite") as database:
        rows = database.execute(
            "SELECT lot, wafer, state, verdict, frames_sha256 FROM wafers ORDER BY wafer"
        ).fetchall()
        assert [row[:4] for row in rows[:3]] == [("A", f"w{n}", "done", "pass") for n in range(3)]
        assert len({row[4] for row in rows[:3]}) == 3
        assert rows[3][2:] == ("dead", None, None)
        asked = "SELECT count(*) FROM figures WHERE name = 'evaluate.rms_nm' AND unit = 'nm' AND verdict = 'pass'"
        assert database.execute(asked).fetchone() == (3,)
    before = {path: path.stat().st_mtime_ns for path in (lot / "out" / "maps").rglob("*")}
    assert main(batch(lot, "--workers", "0", "--resume", "--limits", str(lot / "strict.toml"))) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["done"], told["resumed"], told["missed_limits"]) == (3, 3, 3)
    assert {path: path.stat().st_mtime_ns for path in (lot / "out" / "maps").rglob("*")} == before
    assert main(batch(lot)) == 2
    assert "add --resume" in capsys.readouterr().err
    assert main(batch(lot, "--workers", "0", "--overwrite")) == 1
    maps = [path for path in before if path.suffix == ".npy"]
    assert len(maps) == 3
    assert all(path.stat().st_mtime_ns > before[path] for path in maps)


def test_a_killed_batch_goes_on_and_gives_the_same_maps(lot: Path, capsys) -> None:
    assert main([*batch(lot, "--workers", "0"), "-o", str(lot / "whole")]) == 1
    command = [sys.executable, "-m", "cpikan", *batch(lot, "--workers", "2")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    ledger, until = lot / "out" / "ledger.jsonl", time.monotonic() + 120
    while time.monotonic() < until and not (ledger.exists() and ledger.read_text().count("\n") > 1):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)  # the workers with it
    process.wait()
    finished = ledger.read_text().count('"state":"done"')
    capsys.readouterr()
    assert main(batch(lot, "--workers", "2", "--resume")) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["done"], told["failed"]) == (3, 1)
    assert told["resumed"] >= finished
    for number in range(3):
        name = f"w{number}"
        assert contents(lot / "out" / "maps" / "A", name) == contents(lot / "whole" / "maps" / "A", name)


def test_a_database_that_does_not_serve_keeps_no_batch_from_its_maps(lot: Path, capsys) -> None:
    (lot / "file").write_text("in the way")
    assert main(batch(lot, "--workers", "0", "--database", str(lot / "file" / "r.sqlite"))) == 1
    captured = capsys.readouterr()
    assert "the ledger keeps the rows" in captured.err
    assert json.loads(captured.out)["done"] == 3
    assert main(batch(lot, "--workers", "0", "--resume")) == 1
    with sqlite3.connect(lot / "out" / "results.sqlite") as database:
        assert database.execute("SELECT count(*) FROM wafers").fetchone() == (4,)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--workers", "-1"], "--workers -1: give 0 to 1000"),
        (["--memory", "0"], "--memory 0"),
        (["--resume", "--overwrite"], "exclude each other"),
        (["--workers", "2", "--scheduler", "tcp://127.0.0.1:9"], "exclude each other"),
        (["--limits", "none.toml"], "cannot be read"),
    ],
)
def test_bad_options_are_one_line(lot: Path, more: list[str], said: str, capsys) -> None:
    assert main(batch(lot, *more)) == 2
    told = capsys.readouterr().err.strip()
    assert said in told
    assert told.count("\n") == 0
    assert not (lot / "out").exists()
