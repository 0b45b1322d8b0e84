"""Simulations on disk: the same bytes as in memory, whatever the bands; stopped, resumed, refused."""

from __future__ import annotations

import json
import tomllib
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpikan.errors import InputError, ResumeError
from cpikan.pipeline.simulation import simulate as module
from cpikan.pipeline.simulation import simulate as simulation_files
from cpikan.pipeline.simulation.simulate import SimulationFiles, simulate
from cpikan.pipeline.stacks.acquisition_file import build_acquisition
from cpikan.psi.simulate import Instrument, SimulationSettings, simulate_stack
from cpikan.streaming.journal import Journal
from cpikan.streaming.memory import PeakMemory, anonymous_mib

INFRARED = (5000.0, 5500.0, 6050.0, 6655.0)
CHOICE = SimulationSettings((90, 120), INFRARED, 3, seed=11, instrument=Instrument(tilt_rad=0.2, dead_fraction=0.01))
OUTPUT = {"frames.npy", "truth.npy", "acquisition.toml", "simulation.json"}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def small_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bands of 8 rows (120 columns of 12 frames, height and kind), journalled one by one."""
    monkeypatch.setattr(module, "_BAND_BYTES", 8 * 120 * (12 + 5))
    monkeypatch.setattr(simulation_files, "_DURABLE_BYTES", 0)


def stop_after(monkeypatch: pytest.MonkeyPatch, bands: int, failure: BaseException) -> None:
    """Make the writer fail after so many bands."""
    real, written = SimulationFiles.write, []

    def write(self: SimulationFiles, *given: Any) -> None:
        if len(written) == bands:
            raise failure
        written.append(given)
        real(self, *given)

    monkeypatch.setattr(SimulationFiles, "write", write)


@pytest.mark.parametrize("depth", [8, 12])
def test_files_hold_what_memory_holds(tmp_path: Path, small_bands: None, depth: int) -> None:
    choice = replace(CHOICE, bit_depth=depth)
    report = simulate(tmp_path / "new" / "wafer", choice, progress=False)
    frames, truth = simulate_stack(choice)
    folder = tmp_path / "new" / "wafer"
    assert {path.name for path in folder.iterdir()} == OUTPUT
    stored = np.load(folder / "frames.npy", mmap_mode="r", allow_pickle=False)
    assert stored.flags.c_contiguous
    np.testing.assert_array_equal(stored, frames)
    assert stored.dtype == frames.dtype
    np.testing.assert_array_equal(np.load(folder / "truth.npy", allow_pickle=False), truth)
    seen = truth[np.isfinite(truth)].astype(np.float64)
    assert report["rms_nm"] == pytest.approx(seen.std(), rel=1e-9)
    assert report["pv_nm"] == pytest.approx(np.ptp(seen), rel=1e-12)
    assert report["valid_fraction"] == pytest.approx(len(seen) / truth.size)
    assert report["shape"] == [4, 3, 90, 120]
    assert report["peak_anonymous_mib"] > 0
    json.dumps(report)


def test_bands_do_not_change_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(tmp_path / "a", CHOICE, progress=False)
    monkeypatch.setattr(module, "_BAND_BYTES", 1)  # one row at a time, so one of the threads has nothing to do
    monkeypatch.setattr(module, "_THREADS", 3)
    simulate(tmp_path / "b", CHOICE, progress=False)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_acquisition_is_read_back(tmp_path: Path) -> None:
    for number, choice in enumerate(
        (
            CHOICE,
            replace(CHOICE, wavelengths_nm=(632.8123456, 532.0), instrument=Instrument(), bit_depth=10),
            replace(
                CHOICE, wavelengths_nm=(600.0, 500.0), frames=None, phase_steps_deg=((0, 90, 180), (0, 120, 240.5))
            ),
        )
    ):
        simulate(tmp_path / str(number), choice, progress=False)
        text = (tmp_path / str(number) / "acquisition.toml").read_text(encoding="utf-8")
        read = build_acquisition(tomllib.loads(text))
        assert read.wavelengths_nm == pytest.approx(choice.acquisition.wavelengths_nm, rel=1e-15)
        assert read.pixel_um == pytest.approx(choice.sampling_um, rel=1e-15)
        assert (read.phase_steps_deg, read.steps, read.bit_depth) == (
            choice.steps_deg,
            choice.acquisition.steps,
            choice.bit_depth,
        )


def test_record_tells_the_faults(tmp_path: Path) -> None:
    choice = replace(CHOICE, instrument=Instrument(step_error_deg=3.0, tilt_rad=0.2))
    simulate(tmp_path, choice, progress=False)
    record = json.loads((tmp_path / "simulation.json").read_text(encoding="utf-8"))
    assert np.shape(record["true_steps_deg"]) == (4, 3)
    assert np.shape(record["true_tilt_rad"]) == (4, 3, 2)
    assert record["settings"]["seed"] == 11
    assert record["settings"]["surface"]["diameter_mm"] == 300.0
    assert not any("seconds" in key for key in record)


def test_existing_output_is_kept_unless_told(tmp_path: Path) -> None:
    simulate(tmp_path, CHOICE, progress=False)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"already holds frames\.npy"):
        simulate(tmp_path, CHOICE, progress=False)
    assert contents(tmp_path) == before
    simulate(tmp_path, replace(CHOICE, seed=12), overwrite=True, progress=False)
    assert contents(tmp_path).keys() == before.keys()
    assert contents(tmp_path)["frames.npy"] != before["frames.npy"]


def test_frames_of_somebody_else_are_kept(tmp_path: Path) -> None:
    (tmp_path / "acquisition.toml").write_text('wavelengths = ["632.8 nm"]\n', encoding="utf-8")
    for resume in (False, True):
        with pytest.raises(InputError):
            simulate(tmp_path, CHOICE, resume=resume, progress=False)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="is a file"):
        simulate(tmp_path / "file", CHOICE, progress=False)


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError("the disk went away")])
@pytest.mark.parametrize("bands", [0, 1, 5])
def test_a_stopped_run_resumes_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_bands: None, bands: int, failure: BaseException
) -> None:
    simulate(tmp_path / "whole", CHOICE, progress=False)
    with monkeypatch.context() as patch:
        stop_after(patch, bands, failure)
        with pytest.raises(type(failure)):
            simulate(tmp_path / "part", CHOICE, progress=False)
    assert not OUTPUT & {path.name for path in (tmp_path / "part").iterdir()}
    log = Journal.resume(tmp_path / "part" / "simulation.journal", simulation_files.describe(CHOICE))
    log.close()
    done = log.last("rows")["rows"]
    assert done == 8 * bands
    starts = []
    real = module.Simulator.fill_surface

    def fill_surface(self: Any, start: int, *rest: Any) -> None:
        starts.append(start)
        real(self, start, *rest)

    monkeypatch.setattr(module.Simulator, "fill_surface", fill_surface)
    report = simulate(tmp_path / "part", CHOICE, resume=True, progress=False)
    assert min(starts) == done  # nothing is done again
    assert not report["already_finished"]
    assert contents(tmp_path / "part") == contents(tmp_path / "whole")


def test_a_run_stopped_while_putting_in_place_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_bands: None
) -> None:
    simulate(tmp_path / "whole", CHOICE, progress=False)
    for name in ("write_text", "write_json"):
        with monkeypatch.context() as patch:

            def stop(path: Path, what: Any) -> None:
                raise KeyboardInterrupt

            patch.setattr(simulation_files, name, stop)
            with pytest.raises(KeyboardInterrupt):
                simulate(tmp_path / name, CHOICE, progress=False)
        assert not (tmp_path / name / "frames.npy").exists()
        assert (tmp_path / name / "truth.npy").exists()
        simulate(tmp_path / name, CHOICE, resume=True, progress=False)
        assert contents(tmp_path / name) == contents(tmp_path / "whole")


def test_resume_starts_finishes_and_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_bands: None) -> None:
    assert not simulate(tmp_path, CHOICE, resume=True, progress=False)["already_finished"]
    before = contents(tmp_path)
    again = simulate(tmp_path, CHOICE, resume=True, progress=False)
    assert again["already_finished"]
    assert again["shape"] == [4, 3, 90, 120]
    assert contents(tmp_path) == before
    other = replace(CHOICE, seed=12)
    with pytest.raises(ResumeError, match="other settings"):
        simulate(tmp_path, other, resume=True, progress=False)
    with pytest.raises(InputError, match="contradict"):
        simulate(tmp_path, CHOICE, resume=True, overwrite=True, progress=False)
    with monkeypatch.context() as patch:
        stop_after(patch, 3, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            simulate(tmp_path, other, overwrite=True, progress=False)
    with pytest.raises(ResumeError, match="seed was 12, now 11"):
        simulate(tmp_path, CHOICE, resume=True, progress=False)
    # an overwrite that was stopped has not touched the old output, and can be finished
    assert {name: before[name] for name in OUTPUT} == {name: contents(tmp_path)[name] for name in OUTPUT}
    simulate(tmp_path, other, resume=True, progress=False)
    np.testing.assert_array_equal(np.load(tmp_path / "frames.npy", allow_pickle=False), simulate_stack(other)[0])


def test_a_second_simulation_in_the_folder_is_refused(tmp_path: Path) -> None:
    first = SimulationFiles(tmp_path, CHOICE, resume=False)
    for choice in ({"overwrite": True}, {"resume": True}):
        with pytest.raises(InputError, match="another run is writing here"):
            simulate(tmp_path, CHOICE, progress=False, **choice)
    first.close()
    simulate(tmp_path, CHOICE, resume=True, progress=False)


def test_a_full_disk_is_told_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**9, 10**9, 100_000))
    with pytest.raises(InputError, match="disk space"):
        simulate(tmp_path / "out", CHOICE, progress=False)
    assert not (tmp_path / "out").exists()


def test_memory_is_that_of_bands(tmp_path: Path) -> None:
    choice = SimulationSettings((512, 4096), frames=3)
    simulate(tmp_path / "warm", choice, progress=False)
    before = anonymous_mib()
    with PeakMemory() as memory:
        simulate(tmp_path / "large", replace(choice, shape=(8192, 4096)), progress=False)
    # frames and truth of the large one are 224 MiB; five bands of 12 MiB are 60 and the tables, made in float64 from
    # 8192 rows x 96 waves x 8 B = 6 MiB, a few times that
    assert memory.mib - before < 100
