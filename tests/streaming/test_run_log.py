"""The log of a run: lines of JSON, whole, of what happened and what failed."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from cpikan.cli import main
from cpikan.errors import InputError
from cpikan.streaming.events import SILENT, note
from cpikan.streaming.run_log import RunLog, heard, logged, record
from heard_events import Heard


def lines(path: Path) -> list[dict]:
    return [json.loads(text) for text in path.read_text().splitlines()]


def test_stages_warnings_and_the_end_are_lines_and_still_heard(tmp_path: Path, capsys) -> None:
    path, listener = tmp_path / "log", Heard()
    with logged("solve", str(path), verbose=True), heard(listener) as events:
        for stage in ("read", "write"):
            for done in range(3):
                events.progress(stage, done, 2)
        events.warning("beware\nof this")
        note(events, "by the way")
        record(events, "wafer", name="ä")
    told = lines(path)
    assert [line["event"] for line in told] == ["begin", "stage", "warning", "note", "wafer", "stage", "end"]
    assert [line.get("stage") for line in told if line["event"] == "stage"] == ["read", "write"]
    assert all(line["verb"] == "solve" and line["time"].endswith("+00:00") for line in told)
    assert told[4]["name"] == "ä"
    assert told[-1]["seconds"] >= told[1]["seconds"] >= 0
    assert (listener.stages, listener.warnings) == (["read"] * 3 + ["write"] * 3, ["beware\nof this"])
    assert "cpikan: warning: text beware of this" in capsys.readouterr().err


def test_a_failure_is_the_last_line(tmp_path: Path) -> None:
    with pytest.raises(InputError), logged("solve", str(tmp_path / "log")):
        raise InputError("no such thing")
    assert lines(tmp_path / "log")[-1] | {"seconds": 0} == lines(tmp_path / "log")[-1] | {
        "event": "failed",
        "kind": "InputError",
        "text": "no such thing",
        "seconds": 0,
    }


def test_without_a_log_nothing_stands_between(capsys) -> None:
    with logged("solve", None), heard(SILENT) as events:
        assert events is SILENT
        record(events, "wafer", name="w")
    assert capsys.readouterr().err == ""


def test_several_writers_leave_whole_lines(tmp_path: Path) -> None:
    def write(number: int) -> None:
        log = RunLog("batch", str(tmp_path / "log"))
        for _ in range(200):
            log.write("wafer", name="x" * 300, number=number)
        log.close()

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(lines(tmp_path / "log")) == 800


def test_a_log_that_cannot_be_written_is_told_and_one_that_is_a_link_is_not_followed(tmp_path: Path, capsys) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in (".", "link", "none/log"):
        assert main(["solve", "beam", "--log-file", str(tmp_path / name)]) == 2
        assert "cannot be written" in capsys.readouterr().err
    assert not (tmp_path / "elsewhere").exists()


def test_every_verb_logs(wafer_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert main(["batch", str(wafer_folder), "-o", str(tmp_path / "b"), "--workers", "0", "--log-file", str(path)]) == 0
    assert (
        main(["reconstruct", str(wafer_folder), "-o", str(tmp_path / "m.npy"), "--anonymous", "--log-file", str(path)])
        == 0
    )
    told = lines(path)
    wafer = next(line for line in told if line["event"] == "wafer")
    assert (wafer["state"], wafer["reason"], len(wafer["frames_sha256"])) == ("done", "", 64)
    assert {line["verb"] for line in told} == {"batch", "reconstruct"}
    who = json.loads((tmp_path / "m.json").read_text())["provenance"]
    assert (who["user"], who["host"]) == (None, None)
    assert who["started"] < who["ended"]
    batch = json.loads(next((tmp_path / "b" / "maps").glob("*.json")).read_text())
    assert batch["provenance"]["host"]
    assert batch["summary"]["seconds_hash"] > 0
