"""What is found of a machine: each trap that is laid here is seen, and what is well is not blamed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cpikan.cli import main
from cpikan.doctor import examine as module
from cpikan.doctor import libraries, machine
from cpikan.doctor.finding import Finding, worst

AVX512 = frozenset({"avx2", "avx512f", "avx512dq", "avx512bw", "avx512vl"})


def info_of(*architectures):
    return lambda: [{"user_api": "blas", "architecture": name, "num_threads": 2} for name in architectures]


@pytest.mark.parametrize(
    ("kernels", "flags", "state"),
    [
        (["SkylakeX"], AVX512, "good"),
        (["Haswell"], AVX512, "warning"),
        (["SkylakeX", "Prescott"], AVX512, "warning"),  # SciPy has a BLAS of its own
        (["Haswell"], frozenset({"avx2"}), "good"),
        (["Sandybridge"], frozenset({"avx2"}), "warning"),
        (["neoversen1"], frozenset(), "good"),  # nothing is known of other processors
        ([], AVX512, "good"),
    ],
)
def test_a_kernel_older_than_the_processor_is_seen(kernels, flags, state, monkeypatch):
    monkeypatch.setattr("threadpoolctl.threadpool_info", info_of(*kernels))
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    found = libraries.blas(flags)
    assert found.state == state
    assert ("unset OPENBLAS_CORETYPE" in found.advice) == (state == "warning")
    assert found.figures["kernels"] == sorted(kernels)
    assert found.figures["gflops"] > 0


def test_openblas_does_use_the_kernel_that_is_asked_for():
    """The trap itself: another kernel in the environment, and the look names it."""
    code = "from cpikan.doctor.libraries import blas; print(','.join(blas(frozenset({'avx2'})).figures['kernels']))"
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OPENBLAS_CORETYPE": "Nehalem"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Nehalem" in told.stdout or told.stdout.strip() == ""  # no OpenBLAS: no kernel


@pytest.mark.parametrize(
    ("text", "state", "quota"),
    [
        ("50000 100000\n", "warning", 0.5),
        ("max 100000\n", "good", None),
        ("900000 100000", "good", 9.0),
        ("?", "good", None),
    ],
)
def test_a_container_that_gives_less_time_than_cores_is_seen(text, state, quota, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    (tmp_path / "cpu.max").write_text(text)
    found = machine.cores(tmp_path / "cpu.max")
    assert (found.state, found.figures["cores_quota"]) == (state, quota)
    assert machine.cores(tmp_path / "none").state == "good"


def test_the_disk_is_measured_and_left_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_PROBE_MIB", 2)
    monkeypatch.setattr(machine, "_SLOW_MIB_S", 0.0)
    found = machine.disk(tmp_path)
    assert found.state == "good"
    assert found.figures["disk_write_mib_s"] > 0
    assert found.figures["disk_read_mib_s"] > 0
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(machine, "_SLOW_MIB_S", 1e9)
    assert machine.disk(tmp_path).state == "warning"
    monkeypatch.setattr(machine, "_LEAST_FREE_MIB", 1e12)  # a full disk is not written to
    monkeypatch.setattr(machine, "_speeds", lambda descriptor: pytest.fail("written to a full disk"))
    assert machine.disk(tmp_path).figures["disk_write_mib_s"] is None
    assert machine.disk(tmp_path / "none").state == "fault"


def test_kernels_that_cannot_be_kept_are_seen(monkeypatch):
    monkeypatch.delenv("NUMBA_DISABLE_JIT", raising=False)
    monkeypatch.setattr("cpikan.compiled.cache_folder", lambda: None)
    assert "NUMBA_CACHE_DIR" in machine.kernel_cache().advice
    monkeypatch.undo()
    assert Path(machine.kernel_cache().figures["kernel_cache"]).is_dir()
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert "unset NUMBA_DISABLE_JIT" in machine.kernel_cache().advice


@pytest.mark.parametrize(
    ("versions", "code", "state"),
    [
        ({"torch": "2.13.0+cpu"}, 0, "good"),
        ({"torch": "2.13.0+cpu", "torchvision": "0.28.0+cpu"}, 0, "good"),
        ({"torch": "2.13.0+cpu", "torchvision": "0.28.0"}, 0, "warning"),
        ({"torch": "2.13.0+cpu", "torchvision": "0.28.0"}, 1, "fault"),
    ],
)
def test_a_torchvision_of_another_build_is_seen(versions, code, state, monkeypatch):
    monkeypatch.setattr(libraries, "_version", versions.get)
    monkeypatch.setattr(
        libraries.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, code, b"", b"")
    )
    assert libraries.torchvision().state == state


def test_a_library_that_is_missing_is_a_fault(monkeypatch):
    assert libraries.versions().state == "good"
    monkeypatch.setattr(libraries, "_version", {"numpy": "2"}.get)
    assert libraries.versions().state == "fault"


def test_temporary_files_that_cannot_be_written_are_a_fault(monkeypatch):
    assert machine.temporary_folder().state == "good"

    def refuses():
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(machine.tempfile, "gettempdir", refuses)
    assert machine.temporary_folder().state == "fault"


@pytest.fixture
def findings(monkeypatch):
    """Looks whose findings a test chooses."""

    def chosen(*states):
        for name, state in zip(("memory", "cores", "temporary_folder"), states, strict=True):
            one = Finding(name, state, "found", "do this" if state != "good" else "")
            monkeypatch.setattr(machine, name, lambda one=one: one)
        for name in ("blas", "device", "versions", "torchvision"):
            monkeypatch.setattr(libraries, name, lambda name=name: Finding(name, "good", "found"))
        for name in ("disk", "kernel_cache"):
            monkeypatch.setattr(machine, name, lambda *_, name=name: Finding(name, "good", "found"))

    return chosen


@pytest.mark.parametrize(
    ("states", "state", "code"),
    [
        (("good",) * 3, "good", 0),
        (("good", "warning", "good"), "warning", 0),
        (("warning", "good", "fault"), "fault", 1),
    ],
)
def test_what_is_worst_comes_first_and_a_fault_is_exit_code_1(states, state, code, findings, capsys):
    findings(*states)
    assert main(["doctor", "--json"]) == code
    told = json.loads(capsys.readouterr().out)
    assert told["state"] == state
    assert told["findings"][0]["state"] == state
    assert len(told["findings"]) == 9
    assert main(["doctor"]) == code
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24  # one screen
    assert sum("-> do this" in line for line in lines) == sum(one != "good" for one in states)


def test_a_look_that_fails_hides_no_other(findings, monkeypatch):
    findings("good", "good", "good")

    def breaks():
        raise ZeroDivisionError("of\nmine")

    monkeypatch.setattr(libraries, "device", breaks)
    found = module.examine(Path("."))
    assert [one.name for one in found if one.state == "fault"] == ["device"]
    assert "ZeroDivisionError: of mine" in found[0].found
    assert len(found) == 9
    assert worst([]) == "good"


def test_a_folder_that_is_not_there_is_refused(capsys):
    assert main(["doctor", "--folder", "none"]) == 2
    assert "--folder none is no folder" in capsys.readouterr().err
