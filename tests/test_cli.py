"""The command line: one JSON object, help, suggestions, and the whole way from simulation to evaluation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cpikan
from cpikan.cli import main
from independent_frames import Scene
from small_stacks import FIVE_DEG, STEPS_DEG, WAVES_NM, folder_of, leftovers

VERBS = ("demo", "simulate", "info", "reconstruct", "evaluate")
WAVES = ["--wavelength", "5um", "5500nm", "6.05um", "6655 nm"]


def _json(capsys: pytest.CaptureFixture[str]) -> dict:
    """The one object that was printed; nothing else may be there."""
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    found = json.loads(told)
    assert isinstance(found, dict)
    return found


# --- the whole way ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["npy", "tif", "zarr"])
def test_simulate_reconstruct_evaluate(suffix, tmp_path, capsys):
    frames, output = tmp_path / "frames", tmp_path / f"out.{suffix}"
    assert main(["simulate", str(frames), "--shape", "180x220", *WAVES, "--seed", "3", "--json"]) == 0
    simulated = _json(capsys)
    assert simulated["shape"] == [4, 4, 180, 220]
    assert {path.name for path in frames.iterdir()} >= {"frames.npy", "acquisition.toml", "truth.npy"}
    assert main(["reconstruct", str(frames), "-o", str(output), "--all", "--json"]) == 0
    summary = _json(capsys)
    assert summary["output"] == str(output)
    assert summary["already_finished"] is False
    assert main(["evaluate", str(output), str(frames / "truth.npy"), "--json"]) == 0
    figures = _json(capsys)
    assert figures.keys() >= {*("rms_nm", "relative_l2", "max_abs_nm", "wrong_order_fraction", "coverage_95", "pixels")}
    # heights err as sigma says: within a tenth, and the noise of edges and dust beside it
    assert figures["rms_nm"] < 2 * summary["sigma_nm_median"]
    assert figures["wrong_order_fraction"] < 1e-3
    assert 0.93 < figures["coverage_95"] < 0.97
    assert figures["pixels"] <= summary["valid_fraction"] * 180 * 220
    assert leftovers(tmp_path) == []


def test_the_same_for_people(tmp_path, capsys):
    frames, output = tmp_path / "frames", tmp_path / "out.npy"
    assert main(["simulate", str(frames), "--shape", "100x120", "--wavelength", "632.8nm", "--frames", "5"]) == 0
    assert "frames 1 x 5 x 100 x 120" in capsys.readouterr().out
    assert main(["info", str(frames)]) == 0
    told = capsys.readouterr().out
    for words in ("632.8 nm", "5 steps", "100 rows x 120 columns", "unwrap by tiles", "disk", "memory", "MiB"):
        assert words in told
    assert main(["reconstruct", str(frames), "-o", str(output)]) == 0
    told = capsys.readouterr().out
    for words in (str(output), "PV", "RMS", "sigma", "valid", "MPix/s"):
        assert words in told
    assert "\nsteps " not in told  # they were trusted
    assert main(["evaluate", str(output), str(frames / "truth.npy"), "--remove", "piston,tilt"]) == 0
    told = capsys.readouterr().out
    assert "nm RMS" in told
    assert "not available without sigma" in told


def test_fitted_steps_are_told_and_shown(tmp_path, capsys):
    frames, output, page = tmp_path / "frames", tmp_path / "out.npy", tmp_path / "page.html"
    asked = ["--shape", "100x120", "--wavelength", "5um", "--frames", "5", "--step-error", "3", "--json"]
    assert main(["simulate", str(frames), *asked]) == 0
    capsys.readouterr()
    assert main(["reconstruct", str(frames), "--steps", "nominal", "-o", str(output), "--report", str(page)]) == 0
    told = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("steps "))
    fit = json.loads(output.with_suffix(".json").read_text())["summary"]["frames_fit"][0]
    assert f"{fit['phase_steps_deg'][-1]:.1f} deg (+- {max(fit['step_error_deg']):.2g})" in told
    assert told.endswith(f"{fit['fringes']:.1f} fringes, sign from the steps")
    assert len(told) <= 110
    assert "<h2>Frames</h2>" in page.read_text()


def test_one_json_object_also_from_a_process_of_its_own(wafer_folder, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "cpikan", "reconstruct", wafer_folder, "-o", tmp_path / "out.npy", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0
    summary = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
    # interpreter and imports count apart from the run
    assert 0 < summary["seconds_start"] < 60
    assert summary["seconds"] < 20


def test_info_says_what_would_be_done(wafer_folder, capsys):
    assert main(["info", str(wafer_folder), "--json"]) == 0
    found = _json(capsys)
    assert found["shape"] == [4, 4, 160, 200]
    assert found["wavelengths_nm"] == list(WAVES_NM)
    assert found["phase_steps_deg"] == [list(STEPS_DEG)] * 4
    assert found["steps"] == "trusted"
    assert found["method"] == "joint orders per pixel"
    assert found["calibrates_steps"] is False
    assert found["disk_bytes"]["npy"] >= 4 * 160 * 200
    assert found["disk_bytes"]["npy_all"] >= 9 * 160 * 200
    assert 50 < found["memory_mib"] < 2000
    assert found["scratch_bytes"] == found["scratch_bytes_field"] == 0
    assert found["disk_bytes_field"]["npy"] == found["disk_bytes"]["npy"]
    for kind in ("npy_all", "tif", "zarr"):  # two slopes, curvature and two sigmas more
        assert found["disk_bytes_field"][kind] >= found["disk_bytes"][kind] + 5 * 4 * 160 * 200
    assert main(["info", str(wafer_folder), "--json", "--phase-steps", "unknown"]) == 0
    found = _json(capsys)
    assert found["phase_steps_deg"] is None
    assert found["calibrates_steps"] is True


def test_estimated_disk_is_enough(wafer_folder, mirror, tmp_path, capsys):
    """What info promises bounds what the outputs take."""
    one = folder_of(tmp_path / "one", np.asarray(mirror.frames), mirror.wavelengths_nm, FIVE_DEG)
    for source in (wafer_folder, one):
        assert main(["info", str(source), "--json"]) == 0
        found = _json(capsys)
        field = [(kind, [*options, "--method", "field"]) for kind, options in (("npy_all", ["--all"]), ("zarr", []))]
        for kind, options in (("npy", []), ("npy_all", ["--all"]), ("tif", []), ("zarr", []), *field):
            promised = found["disk_bytes_field" if "field" in options else "disk_bytes"]
            folder = tmp_path / f"{len(options)}-{kind}-{source.name}"
            folder.mkdir()
            output = folder / f"out.{kind.removesuffix('_all')}"
            assert main(["reconstruct", str(source), "-o", str(output), *options, "--json"]) == 0
            capsys.readouterr()
            taken = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != "out.json")
            component = 4 * 160 * 200 + 2**17 if source is one else 0
            assert taken <= promised[kind] + component


def test_flags_alone_suffice(wafer, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.asarray(wafer.frames))
    arguments = ["reconstruct", str(tmp_path / "x.npy"), "-o", str(tmp_path / "out.npy"), "--json"]
    assert main([*arguments, *WAVES, "--phase-steps", "0,90,180,270"]) == 0
    assert _json(capsys)["phase_steps_deg"] == [list(STEPS_DEG)] * 4


def test_flags_override_the_file(wafer_folder, tmp_path, capsys):
    arguments = ["reconstruct", str(wafer_folder), "-o", str(tmp_path / "out.npy"), "--json"]
    assert main([*arguments, "--phase-steps", "0,-90,-180,-270", "--bit-depth", "8", "--pixel-size", "5 um"]) == 0
    assert _json(capsys)["phase_steps_deg"] == [[0, -90, -180, -270]] * 4
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["acquisition"]["pixel_um"] == 5.0


def test_options_reach_the_run(wafer_folder, tmp_path, capsys):
    np.save(tmp_path / "mask.npy", np.eye(160, 200) < 1)
    output = tmp_path / "out.npy"
    options = ["--method", "pixel", "--scheme", "carre", "--combine", "finest", "--range", "60 um", "--mask"]
    options += [str(tmp_path / "mask.npy"), "--remove", "piston,tilt", "--tile", "256", "--overlap", "32"]
    options += ["--device", "cpu", "--threads", "2", "--band-rows", "9", "--all", "--json"]
    assert main(["reconstruct", str(wafer_folder), "-o", str(output), *options]) == 0
    summary = _json(capsys)
    assert (summary["method"], summary["device"]) == ("pixel", "cpu")
    settings = json.loads((tmp_path / "out.json").read_text())["settings"]
    assert settings["scheme"] == "carre"
    assert settings["combine"] == "finest"
    assert settings["range_nm"] == 60e3
    assert settings["remove"] == ["piston", "tilt"]
    assert (settings["tile"], settings["overlap"]) == (256, 32)
    assert settings["mask"].startswith("mask.npy")
    assert (tmp_path / "out.sigma.npy").exists()
    assert np.isnan(np.diagonal(np.load(output))).all()


def test_a_circle(wafer_folder, tmp_path, capsys):
    output = tmp_path / "out.npy"
    assert main(["reconstruct", str(wafer_folder), "-o", str(output), "--circle", "100,80,30", "--json"]) == 0
    height = np.load(output)
    y, x = np.indices(height.shape)
    assert np.isnan(height[(x - 100) ** 2 + (y - 80) ** 2 > 900]).all()
    assert _json(capsys)["valid_fraction"] == np.isfinite(height).mean()


def test_a_report_beside_the_run(wafer_folder, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["reconstruct", str(wafer_folder), "-o", str(tmp_path / "out.npy"), "--report", str(page)]) == 0
    text = page.read_text()
    assert text.lstrip().lower().startswith("<!doctype html>")
    assert len(text) < 3_000_000
    assert "http://" not in text.replace("http://www.w3.org/", "")
    assert "https://" not in text.replace("https://www.w3.org/", "")
    capsys.readouterr()


def test_resume_of_a_finished_run_says_so(wafer_folder, tmp_path, capsys):
    arguments = ["reconstruct", str(wafer_folder), "-o", str(tmp_path / "out.zarr"), "--resume", "--json"]
    assert main(arguments) == 0
    first = _json(capsys)
    assert main(arguments) == 0
    told = capsys.readouterr()
    second = json.loads(told.out)
    assert "already finished" in told.err
    assert second.pop("already_finished") is True
    assert first.pop("already_finished") is False
    assert second == first


def test_a_warning_goes_to_stderr(tmp_path, capsys):
    frames = tmp_path / "frames"
    main(["simulate", str(frames), "--shape", "60x80", "--wavelength", "5um", "5.05um", "--read-noise", "6"])
    capsys.readouterr()
    output = tmp_path / "out.npy"
    assert main(["reconstruct", str(frames), "-o", str(output), "--range", "120 um", "--json"]) == 0
    told = capsys.readouterr()
    assert told.out.count("\n") == 1
    lines = [line for line in told.err.splitlines() if not line.startswith("cpikan: compiling")]
    assert lines
    assert all(line.startswith("cpikan: warning: ") for line in lines)
    assert any("orders undecided" in line for line in lines)


def test_interrupted_is_130_and_one_line(wafer_folder, tmp_path, capsys, monkeypatch):
    from cpikan.pipeline.reconstruction.stages import demodulate as module

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "frame_pass", interrupt)
    assert main(["reconstruct", str(wafer_folder), "-o", str(tmp_path / "out.npy")]) == 130
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1


# --- help and suggestions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help(verb, capsys):
    with pytest.raises(SystemExit) as left:
        main([verb, "--help"] if verb else ["--help"])
    assert left.value.code == 0
    told = capsys.readouterr().out
    assert "usage: cpikan" in told
    if not verb:
        assert all(name in told for name in VERBS)


def test_version(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"cpikan {cpikan.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no command given"),
        (["reconstuct"], "did you mean 'reconstruct'"),
        (["simualte", "x"], "did you mean 'simulate'"),
        (["reconstruct", "x", "-o", "y.npy", "--overwrit"], "did you mean --overwrite"),
        (["reconstruct", "x", "-o", "y.npy", "--ranges", "3 um"], "did you mean --range"),
        (["info", "x", "y"], "unknown argument 'y'"),
        (["reconstruct", "x"], "-o/--output"),
        (["reconstruct", "-o", "y.npy"], "STACK"),
        (["reconstruct", "x", "-o", "y.npy", "--tile", "large"], "'large' is not a whole number"),
        (["simulate", "x", "--tilt", "much"], "'much' is not a number"),
        (["reconstruct", "x", "-o", "y.npy", "--mask", "m", "--circle", "1,2,3"], "not allowed with"),
        (["--json"], "--json"),
    ],
)
def test_wrong_words_are_answered_in_one_line(arguments, words, capsys):
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    last = told.err.splitlines()[-1]
    assert last.startswith("cpikan: error:")
    assert words in last
    if arguments:
        assert told.err.count("\n") == 1


# --- the demonstration -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_demo_small(tmp_path, capsys):
    folder = tmp_path / "demo"
    assert main(["demo", "-o", str(folder), "--small", "--json"]) == 0
    found = _json(capsys)
    assert found["simulate"]["shape"] == [4, 4, 875, 1168]
    assert found["evaluate"]["wrong_order_fraction"] < 1e-4
    assert 0.94 < found["evaluate"]["coverage_95"] < 0.96
    assert Path(found["report"]).stat().st_size < 3_000_000
    assert {path.name for path in folder.iterdir()} == {"frames", "height.zarr", "height.json", "report.html"}
    assert main(["demo", "-o", str(folder), "--small"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert leftovers(folder) == []


def test_scene_is_shared_not_changed(wafer: Scene):
    """The session's frames are read-only: a test that wrote to them would break the others."""
    with pytest.raises(ValueError, match="read-only"):
        wafer.frames[0, 0, 0, 0] = 0
