"""Runs that are stopped anywhere and go on: the arrays are those of an uninterrupted run, byte for byte."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cpikan
from cpikan.errors import InputError, ResumeError
from cpikan.pipeline.reconstruction.settings import ReconstructSettings
from cpikan.psi.unwrap.merger import TileMerger
from cpikan.storage.scratch import ScratchArrays
from cpikan.storage.writers.npy import NpyWriter
from cpikan.storage.writers.tiff import TiffWriter
from cpikan.storage.writers.zarr import ZarrWriter
from cpikan.streaming import journal as journal_module
from independent_frames import Faults, Scene, make_stack
from small_stacks import FIVE_DEG, STEPS_DEG, WAVES_NM, contents, folder_of, leftovers, stack_of

WRITERS: dict[str, type] = {"npy": NpyWriter, "tif": TiffWriter, "zarr": ZarrWriter}
KINDS = ("several", "one", "remove")


class Stop(Exception):
    """Injected in place of a kill."""


@dataclass(frozen=True)
class Case:
    """A run with its expected files; ``again`` repeats it under another folder."""

    stack: cpikan.FrameStack
    settings: ReconstructSettings
    suffix: str

    def run(self, folder: Path, **how: Any) -> cpikan.HeightMap:
        return cpikan.reconstruct(self.stack, folder / f"out.{self.suffix}", self.settings, progress=False, **how)


def _case(tower: Scene, kind: str, suffix: str) -> Case:
    options = {"all_quantities": True, "band_rows": 96, "tile": 128, "overlap": 16}
    if kind == "one":
        return Case(stack_of(tower.frames[:1]), ReconstructSettings(**options), suffix)
    terms = ("piston", "tilt") if kind == "remove" else ()
    return Case(stack_of(tower.frames), ReconstructSettings(remove=terms, **options), suffix)


@pytest.fixture(scope="module")
def expected(tower: Scene, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict]:
    """Files of uninterrupted runs, by kind and suffix, and their summaries."""
    made = {}
    for kind in KINDS:
        for suffix in WRITERS:
            folder = tmp_path_factory.mktemp(f"{kind}-{suffix}")
            summary = _case(tower, kind, suffix).run(folder).summary
            made[kind, suffix] = {"files": contents(folder, "out"), "summary": summary}
    return made


def _check(folder: Path, result: cpikan.HeightMap, wanted: dict[str, Any]) -> None:
    found = contents(folder, "out")
    assert found.keys() == wanted["files"].keys()
    assert [name for name in found if found[name] != wanted["files"][name]] == []
    assert leftovers(folder) == []
    for key in ("valid_fraction", "ambiguous_fraction", "pv_nm", "rms_nm", "components", "unwrapping", "ripple_mrad"):
        assert result.summary[key] == wanted["summary"][key], key


def _stop_at(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, call: int, *, after: bool) -> None:
    """Raise at the call-th use of a method, before or after its work."""
    original, count = getattr(owner, name), [0]

    def stopping(self: Any, *args: Any, **named: Any) -> Any:
        count[0] += 1
        if count[0] == call and not after:
            raise Stop
        result = original(self, *args, **named)
        if count[0] == call:
            raise Stop
        return result

    monkeypatch.setattr(owner, name, stopping)


# --- an exception at every band --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("kind", KINDS)
def test_stopped_at_any_band(kind, suffix, tower, expected, tmp_path):
    """Stop while writing band after band, before its rows are written or when they are but the journal does not know."""
    case, wanted = _case(tower, kind, suffix), expected[kind, suffix]
    places: list[tuple[type, str]] = [(WRITERS[suffix], "write_rows")]
    if kind != "several" and suffix == "npy":  # scratch arrays are the same whatever the output
        places.append((ScratchArrays, "write_rows"))
    for owner, name in places:
        calls = 12 if suffix == "npy" or owner is ScratchArrays else 3
        for call in range(1, calls + 1, 1 if calls == 3 else 4):
            folder = tmp_path / f"{owner.__name__}{call}"
            folder.mkdir()
            with pytest.MonkeyPatch.context() as patch:
                _stop_at(patch, owner, name, call, after=call % 2 == 0)
                with pytest.raises(Stop):
                    case.run(folder)
            assert not (folder / f"out.{suffix}").exists()
            _check(folder, case.run(folder, resume=True), wanted)


@pytest.mark.parametrize("suffix", WRITERS)
def test_stopped_again_and_again(suffix, tower, expected, tmp_path):
    """Every attempt writes two bands and dies; each goes on where the last one stopped."""
    case = _case(tower, "several", suffix)
    attempts = 0
    while attempts < 20:
        attempts += 1
        with pytest.MonkeyPatch.context() as patch:
            _stop_at(patch, WRITERS[suffix], "write_rows", 3, after=False)
            try:
                result = case.run(tmp_path, resume=True)
            except Stop:
                continue
        break
    assert attempts == {"npy": 6, "tif": 2, "zarr": 2}[suffix]  # ceil(12 bands / 2); three ranges of 512 rows
    _check(tmp_path, result, expected["several", suffix])


def test_other_bands_and_threads_may_go_on(tower, expected, tmp_path):
    for kind in KINDS:
        folder = tmp_path / kind
        folder.mkdir()
        case = _case(tower, kind, "npy")
        with pytest.MonkeyPatch.context() as patch:
            _stop_at(patch, NpyWriter, "write_rows", 5, after=False)
            with pytest.raises(Stop):
                case.run(folder)
        other = replace(case, settings=replace(case.settings, band_rows=37, threads=1))
        _check(folder, other.run(folder, resume=True), expected[kind, "npy"])


# chunked outputs alone have a pyramid to stop in, and one array a file has more than one rename
FINISHING = [
    *((place, suffix) for place in ("before the rename", "after the rename", "document done") for suffix in WRITERS),
    *(("before the pyramid", suffix) for suffix in WRITERS),
    ("in the pyramid", "zarr"),
    ("in the rename", "npy"),
]


@pytest.mark.parametrize(("place", "suffix"), FINISHING)
@pytest.mark.parametrize("kind", ["several", "one"])
def test_stopped_while_finishing(kind, suffix, place, tower, expected, tmp_path, monkeypatch):
    case = _case(tower, kind, suffix)
    from cpikan.pipeline.reconstruction import output as module
    from cpikan.pipeline.reconstruction import workspace
    from cpikan.pipeline.reconstruction.workspace import Workspace

    with monkeypatch.context() as patch:
        if place == "before the pyramid":

            def stop(*_: Any, **__: Any) -> None:
                raise Stop

            patch.setattr(module, "build_pyramid", stop)
        elif place == "in the pyramid":
            from cpikan.pipeline.maps import pyramid

            halve, count = pyramid.halve, [0]

            def halving(*args: Any) -> Any:
                count[0] += 1
                if count[0] == 5:
                    raise Stop
                return halve(*args)

            patch.setattr(pyramid, "halve", halving)
        elif place == "before the rename":
            _stop_at(patch, WRITERS[suffix], "finish", 1, after=False)
        elif place == "in the rename":
            replacing, count = os.replace, [0]

            def renaming(source: Any, target: Any) -> None:
                if str(target).endswith(".npy"):
                    count[0] += 1
                    if count[0] == 2:
                        raise Stop
                replacing(source, target)

            patch.setattr(os, "replace", renaming)
        elif place == "after the rename":
            _stop_at(patch, WRITERS[suffix], "finish", 1, after=True)
        else:

            def keep(self: Workspace) -> None:
                shutil.rmtree(self.scratch, ignore_errors=True)
                raise Stop

            patch.setattr(workspace.Workspace, "_forget", keep)
        with pytest.raises(Stop):
            case.run(tmp_path)
    assert (tmp_path / f"out.{suffix}.journal").exists()
    result = case.run(tmp_path, resume=True)
    assert result.summary["already_finished"] == (place == "document done")
    _check(tmp_path, result, expected[kind, suffix])


def test_stopped_while_unwrapping(tower, expected, tmp_path, monkeypatch):
    """The orders of a part of the tiles are on disk; they are made again."""
    case, add = _case(tower, "one", "npy"), TileMerger.add

    def half(merger: TileMerger, box: Any, tile: Any) -> None:
        if box.index == 4:  # kernels are warmed with fewer tiles
            raise Stop
        add(merger, box, tile)

    with monkeypatch.context() as patch:
        patch.setattr(TileMerger, "add", half)
        with pytest.raises(Stop):
            case.run(tmp_path)
    assert any(name.endswith(".scratch") for name in leftovers(tmp_path))
    _check(tmp_path, case.run(tmp_path, resume=True), expected["one", "npy"])


def test_an_unwrapping_that_is_done_is_not_done_again(tower, expected, tmp_path, monkeypatch):
    case = _case(tower, "one", "npy")
    with monkeypatch.context() as patch:
        _stop_at(patch, NpyWriter, "write_rows", 2, after=False)
        with pytest.raises(Stop):
            case.run(tmp_path)
    from cpikan.psi.unwrap import unwrap as module

    unwrap = module.unwrap

    def only_to_warm_up(phase_rad: np.ndarray, *args: Any, **named: Any) -> Any:
        assert phase_rad.size < 1000
        return unwrap(phase_rad, *args, **named)

    monkeypatch.setattr(module, "unwrap", only_to_warm_up)
    monkeypatch.setattr(ScratchArrays, "write_rows", None)
    _check(tmp_path, case.run(tmp_path, resume=True), expected["one", "npy"])


# --- what a resume refuses, and what it starts -----------------------------------------------------------------------


def test_nothing_there_starts_and_finished_says_so(tower, expected, tmp_path):
    for kind, suffix in (("several", "npy"), ("one", "zarr"), ("remove", "tif")):
        folder = tmp_path / kind
        folder.mkdir()
        case = _case(tower, kind, suffix)
        first = case.run(folder, resume=True)
        assert first.summary["already_finished"] is False
        _check(folder, first, expected[kind, suffix])
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        second = case.run(folder, resume=True)
        assert second.summary["already_finished"] is True
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"tile": 64}, r"settings\.tile was 128, now 64"),
        ({"combine": "finest"}, r"settings\.combine"),
        ({"range_nm": 50e3}, r"settings\.range_nm"),
        ({"all_quantities": False}, r"quantities"),
    ],
)
def test_other_settings_are_refused_by_name(change, named, finished, tower, expected, tmp_path, monkeypatch):
    case = _case(tower, "several", "npy")
    if finished:
        case.run(tmp_path)
    else:
        with monkeypatch.context() as patch:
            _stop_at(patch, NpyWriter, "write_rows", 4, after=False)
            with pytest.raises(Stop):
                case.run(tmp_path)
    before = contents(tmp_path, "out")
    other = replace(case, settings=replace(case.settings, **change))
    with pytest.raises(ResumeError, match=named) as caught:
        other.run(tmp_path, resume=True)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path, "out") == before
    _check(tmp_path, case.run(tmp_path, resume=True), expected["several", "npy"])


def test_other_frames_and_other_steps_are_refused(tower_folder, tmp_path, monkeypatch):
    frames = tmp_path / "frames"
    shutil.copytree(tower_folder, frames)
    output = tmp_path / "out.npy"
    with monkeypatch.context() as patch, cpikan.open_stack(frames) as stack:
        _stop_at(patch, NpyWriter, "write_rows", 2, after=False)
        with pytest.raises(Stop):
            cpikan.reconstruct(stack, output, band_rows=64, progress=False)
    with (
        cpikan.open_stack(frames, phase_steps="0,91,180,270") as stack,
        pytest.raises(ResumeError, match=r"acquisition\.phase_steps_deg"),
    ):
        cpikan.reconstruct(stack, output, resume=True, progress=False)
    other = np.load(frames / "frames.npy")
    other[1, 2, 0, 7] ^= 1
    np.save(frames / "frames.npy", other)
    with cpikan.open_stack(frames) as stack, pytest.raises(ResumeError, match="input was"):
        cpikan.reconstruct(stack, output, resume=True, progress=False)


def test_resume_with_overwrite_is_refused(tower, tmp_path):
    with pytest.raises(InputError, match="exclude each other"):
        _case(tower, "several", "npy").run(tmp_path, resume=True, overwrite=True)
    assert list(tmp_path.iterdir()) == []


def test_an_output_of_unknown_origin_is_not_resumed(tower, expected, tmp_path):
    case = _case(tower, "several", "npy")
    np.save(tmp_path / "out.npy", np.zeros((3, 3)))
    with pytest.raises(ResumeError, match="says not how it was made"):
        case.run(tmp_path, resume=True)
    (tmp_path / "out.json").write_text("[]")
    with pytest.raises(ResumeError, match="says not how it was made"):
        case.run(tmp_path, resume=True)
    _check(tmp_path, case.run(tmp_path, overwrite=True), expected["several", "npy"])
    (tmp_path / "out.flags.npy").unlink()
    with pytest.raises(ResumeError, match=r"out\.flags\.npy"):
        case.run(tmp_path, resume=True)


def test_overwriting_replaces_only_when_all_is_done(tower, expected, tmp_path, monkeypatch):
    for suffix in WRITERS:
        folder = tmp_path / suffix
        folder.mkdir()
        case = _case(tower, "several", suffix)
        _case(tower, "one", suffix).run(folder)
        old = contents(folder, "out")
        with monkeypatch.context() as patch:
            _stop_at(patch, WRITERS[suffix], "write_rows", 2, after=False)
            with pytest.raises(Stop):
                case.run(folder, overwrite=True)
        assert {name: data for name, data in contents(folder, "out").items() if name in old} == old
        _check(folder, case.run(folder, resume=True), expected["several", suffix])


def test_a_fresh_run_forgets_an_unfinished_one(tower, expected, tmp_path, monkeypatch):
    """Also its scratch files and the partial files of quantities that are not wanted any more."""
    with monkeypatch.context() as patch:
        _stop_at(patch, NpyWriter, "write_rows", 2, after=False)
        with pytest.raises(Stop):
            _case(tower, "remove", "npy").run(tmp_path)
    assert len(leftovers(tmp_path)) == 5  # three partial files, scratch, journal
    case = _case(tower, "several", "npy")
    plain = replace(case, settings=replace(case.settings, all_quantities=False))
    plain.run(tmp_path)
    assert leftovers(tmp_path) == []
    assert contents(tmp_path, "out") == {"out.npy": expected["several", "npy"]["files"]["out.npy"]}


@pytest.mark.parametrize("kind", KINDS)
def test_lost_files_of_an_unfinished_run_are_noticed(kind, tower, tmp_path, monkeypatch):
    """A journal without its data must not give heights of nothing."""
    case = _case(tower, kind, "npy")
    with monkeypatch.context() as patch:
        _stop_at(patch, NpyWriter, "write_rows", 5, after=False)
        with pytest.raises(Stop):
            case.run(tmp_path)
    for name in leftovers(tmp_path):
        if not name.endswith(".journal"):
            path = tmp_path / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ResumeError, match="missing"):
        case.run(tmp_path, resume=True)
    assert not (tmp_path / "out.npy").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_power_cut_rows_that_were_not_flushed_are_made_again(kind, tower, expected, tmp_path, monkeypatch):
    """Zero what is on disk: after another boot nothing of it may be trusted, for no step said it was flushed."""
    case = _case(tower, kind, "npy")
    with monkeypatch.context() as patch:
        _stop_at(patch, NpyWriter, "write_rows", 8, after=False)
        with pytest.raises(Stop):
            case.run(tmp_path)
    for path in [*tmp_path.glob("*.partial"), *tmp_path.glob("*.scratch/*")]:
        path.write_bytes(bytes(path.stat().st_size))
    monkeypatch.setattr(journal_module, "_boot", lambda: "after the power cut")
    _check(tmp_path, case.run(tmp_path, resume=True), expected[kind, "npy"])


def test_after_a_power_cut_flushed_rows_are_kept(tower, expected, tmp_path, monkeypatch):
    from cpikan.pipeline.reconstruction import output as row_sink

    case = _case(tower, "several", "npy")
    with monkeypatch.context() as patch:
        patch.setattr(row_sink, "_SYNC_S", 0.0)  # flush every band
        _stop_at(patch, NpyWriter, "write_rows", 8, after=False)
        with pytest.raises(Stop):
            case.run(tmp_path)
    monkeypatch.setattr(journal_module, "_boot", lambda: "after the power cut")
    written: list[int] = []
    original = NpyWriter.write_rows
    monkeypatch.setattr(
        NpyWriter, "write_rows", lambda self, start, rows: written.append(start) or original(self, start, rows)
    )
    _check(tmp_path, case.run(tmp_path, resume=True), expected["several", "npy"])
    assert written[0] == 7 * 96


def test_disk_space_is_asked_for_once(tower, expected, tmp_path, monkeypatch):
    """The space that the unfinished files hold already is not asked for again."""
    case = _case(tower, "several", "npy")
    with monkeypatch.context() as patch:
        _stop_at(patch, NpyWriter, "write_rows", 5, after=False)
        with pytest.raises(Stop):
            case.run(tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=20_000))
    with pytest.raises(InputError, match="not enough disk space"):
        case.run(tmp_path / ".." / tmp_path.name, overwrite=True)
    assert leftovers(tmp_path) == []  # a fresh run gave up the old one, and left nothing of its own
    monkeypatch.undo()
    with monkeypatch.context() as patch:
        _stop_at(patch, NpyWriter, "write_rows", 5, after=False)
        with pytest.raises(Stop):
            case.run(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=20_000))
    _check(tmp_path, case.run(tmp_path, resume=True), expected["several", "npy"])
    assert case.run(tmp_path, resume=True).summary["already_finished"]


# --- real processes --------------------------------------------------------------------------------------------------

# A server that has everything imported and compiled, and forks one child per run: real processes to kill, quickly.
_SERVER = """
    import json, os, resource, sys
    import numpy as np
    from cpikan.cli import main
    from cpikan.psi.warm import warm_up
    import cpikan.pipeline.reconstruction.reconstruct, cpikan.psi.unwrap.unwrap, tifffile
    warm_up(4, 4, np.dtype("u1"), "least-squares", "cpu")
    warm_up(1, 5, np.dtype("u1"), "least-squares", "cpu")
    print("ready", flush=True)
    for line in iter(sys.stdin.readline, ""):
        child = os.fork()
        if child == 0:
            arguments, told, largest = json.loads(line)
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
            code = 99
            try:
                code = main(arguments)
            finally:
                sys.stderr.flush()
                os._exit(code)
        print(child, flush=True)
        sys.stdin.readline()  # until then a child that ended keeps its number: nobody else can be killed for it
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Server:
    """Runs command lines in processes of their own that need not start an interpreter."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(_SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        self._out, self._in = self._process.stdout, self._process.stdin
        assert self._out.readline() == "ready\n"

    def begin(self, *arguments: str, told: str = os.devnull, largest: int = -1) -> int:
        """Start a child with its stderr in the file ``told``, and no file of more than ``largest`` bytes (-1: any)."""
        print(json.dumps([arguments, told, largest]), file=self._in, flush=True)
        child = int(self._out.readline())
        assert child > 1
        return child

    def end(self) -> int:
        """The exit code of the child, or minus the signal that killed it."""
        print(file=self._in, flush=True)
        return int(self._out.readline())

    def run(self, *arguments: str, **how: Any) -> int:
        self.begin(*arguments, **how)
        return self.end()

    def close(self) -> None:
        self._in.close()
        self._process.wait(20)
        self._out.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Stacks whose runs take long enough to be hit: four wavelengths, and one of them."""
    place = tmp_path_factory.mktemp("large")
    faults = Faults(read_noise=0.004, fringes=6.0, holes=2)
    frames, _, _ = make_stack(5, (900, 240), WAVES_NM, STEPS_DEG, faults)
    one, _, _ = make_stack(6, (900, 240), (632.8,), FIVE_DEG, faults)
    return {
        "several": folder_of(place / "several", frames),
        "one": folder_of(place / "one", one, (632.8,), FIVE_DEG),
    }


@pytest.mark.parametrize(
    ("kind", "suffix", "seed"),
    [
        ("several", "npy", 1),
        ("one", "zarr", 8),
    ],
)
def test_killed_at_a_random_moment(kind, suffix, seed, server, large, tmp_path):
    """SIGKILL, as often as it takes to land in three different places, then a resume to the end."""
    base = ["reconstruct", str(large[kind]), "--band-rows", "8", "--threads", "2", "--tile", "128", "--overlap", "16"]
    if suffix == "npy":
        base.append("--all")
    whole = tmp_path / "whole"
    whole.mkdir()
    started = time.perf_counter()
    assert server.run(*base, "-o", str(whole / f"out.{suffix}")) == 0
    took = time.perf_counter() - started
    folder = tmp_path / "killed"
    folder.mkdir()
    draw, killed = random.Random(seed), 0
    for attempt in range(3):
        output = folder / f"out.{suffix}"
        child = server.begin(*base, "-o", str(output), "--resume")
        if attempt == 1:  # in the midst of the rows
            _when_rows_are_done(output, draw.randint(1, 105))
        else:
            time.sleep(draw.uniform(0.0, took))
        os.kill(child, signal.SIGKILL)
        killed += server.end() == -signal.SIGKILL
    assert killed > 0
    assert server.run(*base, "-o", str(folder / f"out.{suffix}"), "--resume") == 0
    wanted, found = contents(whole, "out"), contents(folder, "out")
    assert wanted.keys() == found.keys()
    assert [name for name in wanted if wanted[name] != found[name]] == []
    assert leftovers(folder) == []


def _command(*arguments: object, **named: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cpikan", *(str(argument) for argument in arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **named,
    )


def _heeds_interrupts() -> None:
    """Shells start what runs in the background with interrupts ignored, and processes inherit it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _when_rows_are_done(output: Path, steps: int = 3) -> None:
    log = output.with_name(output.name + ".journal")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError):
            if log.read_bytes().count(b"\n") > steps:
                return
        if output.exists() and not log.exists():
            return
        time.sleep(0.002)
    raise AssertionError("the run did not come far enough to be stopped")


def test_ctrl_c_leaves_a_run_that_goes_on(server, large, tmp_path):
    output = tmp_path / "out.npy"
    # rows of one band each: a run of seconds
    base = ("reconstruct", large["several"], "-o", output, "--band-rows", "1", "--threads", "1")
    for _ in range(5):  # a machine that holds this test up may let the run come to its end
        process = _command(*base, "--overwrite", preexec_fn=_heeds_interrupts)
        _when_rows_are_done(output)
        process.send_signal(signal.SIGINT)
        told, error = process.communicate(timeout=30)
        if process.returncode != 0:
            break
    assert process.returncode == 130
    assert told == ""
    assert error.count("\n") == 1
    assert error.startswith("cpikan: stopped")
    assert "Traceback" not in error
    assert server.run(*map(str, base), "--resume") == 0
    assert server.run(*map(str, base[:3]), str(tmp_path / "whole.npy")) == 0
    assert output.read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_two_processes_do_not_write_the_same_output(server, large, tmp_path):
    output = tmp_path / "out.npy"
    first = server.begin("reconstruct", str(large["several"]), "-o", str(output), "--band-rows", "1")
    _when_rows_are_done(output, steps=1)
    os.kill(first, signal.SIGSTOP)
    try:
        with cpikan.open_stack(large["several"]) as stack:
            for how in ({}, {"resume": True}, {"overwrite": True}):
                with pytest.raises(InputError, match="another run is writing here"):
                    cpikan.reconstruct(stack, output, band_rows=1, progress=False, **how)
    finally:
        os.kill(first, signal.SIGCONT)
    assert server.end() == 0
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(("suffix", "limit"), [("npy", 600_000), ("zarr", 200_000)])
def test_a_full_disk_is_told_and_the_run_goes_on_later(suffix, limit, server, large, tmp_path):
    """The limit on the size of a file stands for the disk: both end a write in the middle."""
    output = tmp_path / f"out.{suffix}"
    base = ["reconstruct", str(large["several"]), "-o", str(output)]
    told = tmp_path / "told"
    assert server.run(*base, told=str(told), largest=limit) == 2
    error = told.read_text()
    assert error.count("\n") == 1
    assert error.startswith("cpikan: error: disk full while writing")
    assert not output.exists()
    assert server.run(*base, "--resume") == 0
    assert server.run(*base[:2], "-o", str(tmp_path / f"whole.{suffix}")) == 0
    wanted, found = contents(tmp_path, "whole"), contents(tmp_path, "out")
    assert list(wanted.values()) == list(found.values())


def test_a_disk_that_fills_up_half_way(tower, expected, tmp_path, monkeypatch):
    """The space was there at the start; then something else took it."""
    import errno

    from cpikan.storage.atomic import StorageFull
    from cpikan.storage.writers.preallocated import PreallocatedFile

    original, count = PreallocatedFile.write, [0]

    def filling(self: PreallocatedFile, offset: int, array: np.ndarray) -> None:
        count[0] += 1
        if count[0] > 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(self, offset, array)

    for kind in KINDS:
        folder = tmp_path / kind
        folder.mkdir()
        case = _case(tower, kind, "npy")
        count[0] = 0
        with monkeypatch.context() as patch:
            patch.setattr(PreallocatedFile, "write", filling)
            with pytest.raises(StorageFull, match="--resume"):
                case.run(folder)
        _check(folder, case.run(folder, resume=True), expected[kind, "npy"])
