"""One stack of a batch: what comes of it, and that nothing it does gets out."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from cpikan.errors import Busy, InputError
from cpikan.fleet import wafer_task
from cpikan.fleet.progress import ProgressFile, progress_path, read_progress
from cpikan.fleet.wafer_task import WaferTask, do_wafer
from independent_frames import Scene
from small_stacks import folder_of


def task(source: Path, output: Path, **more) -> dict:
    return asdict(WaferTask("w", str(source), str(output), more.pop("reconstruct", {}), **more))


def test_a_stack_becomes_a_map_and_figures_that_travel_as_json(
    wafer_folder: Path, wafer: Scene, tmp_path: Path
) -> None:
    page = tmp_path / "w.html"
    asked = task(wafer_folder, tmp_path / "w.npy", evaluate={"remove": "piston,tilt"}, report=str(page))
    found = do_wafer(json.loads(json.dumps(asked)))
    assert json.loads(json.dumps(found)) == found
    assert (found["state"], found["reason"]) == ("done", "")
    height = np.load(tmp_path / "w.npy").astype(float)
    assert found["figures"]["reconstruct.rms_nm"] == pytest.approx(np.nanstd(height), rel=1e-5)
    assert found["figures"]["evaluate.pixels"] == np.isfinite(height).sum()
    assert page.exists()
    again = do_wafer(asked | {"stamp": found["stamp"]})
    assert again["state"] == "unchanged"
    assert not {"reconstruct.seconds", "reconstruct.peak_anonymous_mib"} & set(found["figures"])


def test_how_far_a_stack_is_stands_beside_its_map_until_it_ends(
    wafer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []

    def kept(file: ProgressFile) -> None:
        write(file)
        told.append(read_progress(progress_path(tmp_path / "w.zarr")))

    write = ProgressFile._write
    monkeypatch.setattr(ProgressFile, "_write", kept)
    monkeypatch.setattr("cpikan.fleet.progress._EVERY_S", 0.0)
    found = do_wafer(task(wafer_folder, tmp_path / "w.zarr", evaluate={}, tells=True))
    assert found["state"] == "done"
    shares = [one.share for one in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert {"demodulate", "pyramid", "evaluate"} <= {one.stage for one in told}
    assert not progress_path(tmp_path / "w.zarr").exists()


def test_frames_that_changed_are_measured_again(wafer: Scene, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "frames", np.asarray(wafer.frames))
    first = do_wafer(task(folder, tmp_path / "w.npy", reconstruct={"hash_frames": True}))
    frames = np.array(wafer.frames)
    frames[0, 0, 0, 0] += 1
    np.save(folder / "frames.npy", frames)
    second = do_wafer(task(folder, tmp_path / "w.npy", reconstruct={"hash_frames": True}, stamp=first["stamp"]))
    assert second["state"] == "done"
    assert second["facts"]["frames_sha256"] != first["facts"]["frames_sha256"]


def test_a_task_that_needs_more_memory_than_it_was_given_does_not_begin(wafer_folder: Path, tmp_path: Path) -> None:
    found = do_wafer(task(wafer_folder, tmp_path / "w.npy", memory_mib=1.0))
    assert found["state"] == "crowded"
    assert found["memory_mib"] > 1
    assert found["disk_bytes"] > wafer_folder.stat().st_size
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("failure", "state", "reason"),
    [
        (SystemExit(3), "failed", "SystemExit: 3"),
        (KeyboardInterrupt(), "failed", "KeyboardInterrupt"),
        (MemoryError("so\nmuch"), "failed", "MemoryError: so much"),
        (Busy("another run is writing here"), "busy", "another run"),
        (InputError("no frames"), "refused", "no frames"),
    ],
)
def test_whatever_a_library_raises_is_an_outcome(failure, state, reason, wafer_folder, tmp_path, monkeypatch) -> None:
    def raises(job, report, events):
        raise failure

    monkeypatch.setattr(wafer_task, "_BUSY_S", 0.0)
    monkeypatch.setattr(wafer_task, "_reconstructed", raises)
    found = do_wafer(task(wafer_folder, tmp_path / "w.npy"))
    assert (found["state"], found["reason"][: len(reason)]) == (state, reason)


def test_a_bad_stack_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "frames.npy").write_bytes(b"\x93NUMPY")
    found = do_wafer(task(tmp_path, tmp_path / "w.npy"))
    assert found["state"] == "refused"
    assert found["reason"]
    assert "\n" not in found["reason"]
    assert sys.exc_info() == (None, None, None)
