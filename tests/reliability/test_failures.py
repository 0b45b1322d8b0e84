"""Whatever fails under the command line: one line on stderr, an exit code, never a traceback."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

from cpikan import cli
from cpikan.cli import main
from cpikan.cli.failures import exit_code_of
from cpikan.errors import InputError
from cpikan.messages import one_line, printable, say
from small_stacks import folder_of


class _NotEvenAnException(BaseException):
    pass


def _failing(monkeypatch: pytest.MonkeyPatch, failure: BaseException) -> None:
    """Let every verb fail with ``failure``, whatever it is asked."""

    def run(*_: object) -> object:
        raise failure

    monkeypatch.setattr(cli, "_parse", run)


@pytest.mark.parametrize(
    "failure",
    [
        ZeroDivisionError("a\nb\x1b[2J"),
        RecursionError("deep"),
        AssertionError(),
        _NotEvenAnException("x"),
        KeyError("plan"),
    ],
)
def test_what_nobody_foresaw(monkeypatch, capsys, tmp_path, failure):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    _failing(monkeypatch, failure)
    assert main(["info", "here.npy"]) == 70
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert "\x1b" not in told.err
    assert "Traceback" not in told.err
    assert type(failure).__name__ in told.err
    (details,) = tmp_path.glob("cpikan-fault-*.txt")
    assert str(details) in told.err
    text = details.read_text(encoding="utf-8")
    assert "Traceback" in text
    assert "here.npy" in text
    assert details.stat().st_mode & 0o077 == 0


def test_details_that_cannot_be_kept(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    _failing(monkeypatch, IndexError("7"))
    assert main(["info", "x"]) == 70
    assert capsys.readouterr().err.count("\n") == 1


def test_stopped_by_the_user(monkeypatch, capsys):
    _failing(monkeypatch, KeyboardInterrupt())
    assert main(["info", "x"]) == 130
    assert "--resume" in capsys.readouterr().err


def test_no_threads_to_be_had(monkeypatch, capsys, tmp_path):
    def start(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    frames = np.random.default_rng(4).integers(20, 200, (1, 4, 24, 40)).astype(np.uint8)
    source = folder_of(tmp_path / "s", frames, (633.0,), (0, 90, 180, 270))
    monkeypatch.setattr(threading.Thread, "start", start)
    assert main(["reconstruct", str(source), "-o", str(tmp_path / "o.npy")]) == 2
    told = capsys.readouterr().err
    assert "no more threads" in told
    assert told.count("\n") == 1
    monkeypatch.undo()
    assert {path.name for path in tmp_path.iterdir()} == {"s"}


def test_no_memory_and_files_of_the_system(capsys):
    assert exit_code_of(MemoryError(), []) == 2
    assert exit_code_of(PermissionError(13, "Permission denied", b"/a/\xff\x07"), []) == 2
    assert exit_code_of(OSError("short"), []) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 3
    assert all(line.isprintable() for line in told)
    assert "memory" in told[0]


@pytest.mark.parametrize("name", ["a\x1b]0;title\x07.npy", "b\r\n.npy", "c\x9b2J.npy", "d\udcff.npy", "e\u202e.npy"])
def test_names_of_files_do_not_act_on_the_terminal(capsys, name):
    assert main(["info", name, "--wavelength", "633nm"]) == 2
    told = capsys.readouterr().err
    assert told.endswith("\n")
    assert told[:-1].isprintable()


def test_printable_leaves_lines_of_text():
    assert printable("a\nb µm") == "a\nb µm"
    assert one_line("a\n  b\t\x00") == "a b \\x00"


def test_libraries_keep_quiet(monkeypatch, capsys):
    def run(*_: object) -> object:
        logging.getLogger("tifffile").warning("a page looks odd")
        logging.getLogger("PIL.TiffImagePlugin").error("no more bytes")
        warnings._showwarnmsg(warnings.WarningMessage("divide", RuntimeWarning, "x.py", 1))
        raise InputError("told")

    monkeypatch.setattr(cli, "_parse", run)
    before = list(logging.getLogger().handlers)
    assert main(["info", "x"]) == 2
    assert capsys.readouterr().err == "cpikan: error: told\n"
    assert logging.getLogger().handlers == before


def test_a_message_that_cannot_be_written_is_no_failure(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    say("nobody hears this")
    with open(os.devnull) as unwritable:
        monkeypatch.setattr(sys, "stderr", unwritable)
        say("nor this")


@pytest.mark.parametrize("closed", ["2>&-", "0<&- 1>&- 2>&-", "2>/dev/full"])
def test_streams_that_are_closed_or_full(tmp_path, closed):
    np.save(tmp_path / "h.npy", np.arange(12, dtype=np.float32).reshape(3, 4))
    missing, there = (
        subprocess.run(_shell(f"evaluate {name} {closed}"), cwd=tmp_path, check=False) for name in ("no.npy", "h.npy")
    )
    assert (missing.returncode, there.returncode) == (2, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["h.npy"]


def test_a_reader_that_has_gone_and_a_full_disk(tmp_path):
    np.save(tmp_path / "h.npy", np.arange(12, dtype=np.float32).reshape(3, 4))
    gone = subprocess.run(
        _shell("evaluate h.npy | true; exit ${PIPESTATUS[0]}"), cwd=tmp_path, capture_output=True, check=False
    )
    assert (gone.returncode, gone.stderr) == (0, b"")
    full = subprocess.run(_shell("evaluate h.npy > /dev/full"), cwd=tmp_path, capture_output=True, check=False)
    assert full.returncode == 2
    assert full.stderr.count(b"\n") == 1


def _shell(arguments: str) -> list[str]:
    return ["bash", "-c", f"{sys.executable} -m cpikan {arguments}"]


def test_the_temporary_file_is_no_link(tmp_path, capsys):
    target = tmp_path / "target"
    target.write_text("keep")
    for name in ("o.npy.partial", "o.npy.scratch", "o.npy.journal"):
        work = tmp_path / name.replace(".", "-")
        work.mkdir()
        frames = np.random.default_rng(4).integers(20, 200, (1, 4, 24, 40)).astype(np.uint8)
        source = folder_of(work / "s", frames, (633.0,), (0, 90, 180, 270))
        Path(work, name).symlink_to(target)
        assert main(["reconstruct", str(source), "-o", str(work / "o.npy")]) == 2
        assert f"{name} is a symbolic link" in capsys.readouterr().err
        assert target.read_text() == "keep"


@pytest.mark.parametrize("value", [None, "a", [], {}])
def test_figures_of_a_finished_run_that_are_none(value):
    """Its JSON still reads, and its plan is that of the run, but a figure is gone or no number."""
    from cpikan.cli.reconstruct import tell

    result = {"output": "o.npy", "sigma_nm_median": 1.0, "pv_nm": value, "already_finished": True}
    with pytest.raises(InputError, match=r"beside o\.npy does not hold the figures"):
        tell(result)
    with pytest.raises((KeyError, TypeError, ValueError)):  # of a run of now it is a fault of ours
        tell({**result, "already_finished": False})


def test_a_damaged_record_of_a_finished_run_is_refused_in_one_line(tmp_path, capsys):
    phase = 0.2 * np.arange(48) + 0.1 * np.arange(40)[:, None] + np.radians([0, 90, 180, 270])[:, None, None]
    frames = np.rint(120 + 80 * np.cos(phase) + np.random.default_rng(4).normal(0, 1, phase.shape)).astype(np.uint8)[
        None
    ]
    run = [
        "reconstruct",
        str(folder_of(tmp_path / "s", frames, (633.0,), (0, 90, 180, 270))),
        "-o",
        str(tmp_path / "o.npy"),
    ]
    assert main(run) == 0
    record = tmp_path / "o.json"
    record.write_text(record.read_text().replace('"valid_fraction"', '"valid_fractiom"'))
    capsys.readouterr()
    assert main([*run, "--resume"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert "does not hold the figures" in told[0]
