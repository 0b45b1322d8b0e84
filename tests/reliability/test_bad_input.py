"""Bad input: exit code 2, one clear line, nothing half-written; and what looks bad but works."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cpikan.cli import main
from denied import denied
from small_stacks import STEPS_DEG, WAVES_NM, contents, folder_of

WAVE = ["--wavelength", "632.8nm"]
STEPS = ["--phase-steps", "0,90,180,270"]


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run `reconstruct STACK -o out.npy` with arguments; check the manners of the refusal and return its line."""

    def run(stack: Path | str, *more: str, output: str = "out.npy", forbidden: Path | None = None) -> str:
        before = {name: data for name, data in contents(tmp_path, "").items() if len(data) < 10**7}
        arguments = ["reconstruct", str(stack), "-o", str(tmp_path / output), *more]
        with nullcontext() if forbidden is None else denied(forbidden):
            code = main(arguments)
        told = capsys.readouterr()
        assert code == 2, told.err
        assert told.out == ""
        said = [line for line in told.err.splitlines(keepends=True) if not line.startswith("cpikan: compiling")]
        assert len(said) == 1, told.err
        assert said[0].startswith("cpikan: error: ")
        assert "Traceback" not in told.err
        after = {name: data for name, data in contents(tmp_path, "").items() if len(data) < 10**7}
        assert after.keys() == before.keys(), sorted(after.keys() ^ before.keys())
        assert after == before
        return told.err

    return run


@pytest.fixture
def frames(wafer) -> np.ndarray:
    return np.array(wafer.frames[0])


# --- files -----------------------------------------------------------------------------------------------------------


def test_missing(refused, tmp_path):
    for name in ("nothing", "nothing.npy", "nothing.tif", "nothing.zarr", "nothing.h5::/x", ""):
        assert "does not exist" in refused(tmp_path / name if name else "", *WAVE, *STEPS)


def test_unreadable(refused, tmp_path, frames):
    for name in ("bad.npy", "bad.tif", "bad.h5"):
        (tmp_path / name).write_bytes(b"not what its name says, by far " * 20)
        assert name in refused(tmp_path / name, *WAVE, *STEPS)
    (tmp_path / "note.txt").write_text("hello")
    assert "none of the supported forms" in refused(tmp_path / "note.txt", *WAVE, *STEPS)
    (tmp_path / "void").mkdir()
    assert "void" in refused(tmp_path / "void", *WAVE, *STEPS)


def test_no_rights(refused, tmp_path, frames):
    secret = tmp_path / "secret.npy"
    np.save(secret, frames)
    assert "secret.npy" in refused(secret, *WAVE, *STEPS, forbidden=secret)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_npy(share, refused, tmp_path, frames):
    np.save(tmp_path / "cut.npy", frames)
    whole = (tmp_path / "cut.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[: int(share * len(whole))])
    assert "cut.npy" in refused(tmp_path / "cut.npy", *WAVE, *STEPS)


def test_truncated_images_are_named(refused, tmp_path, frames):
    folder = tmp_path / "images"
    folder.mkdir()
    for k, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"f{k}.png")
    whole = (folder / "f2.png").read_bytes()
    (folder / "f2.png").write_bytes(whole[: len(whole) // 2])
    assert "f2.png" in refused(folder, *WAVE, *STEPS)


def test_frames_of_different_size_or_type(refused, tmp_path, frames):
    folder = tmp_path / "images"
    folder.mkdir()
    for k, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"f{k}.png")
    Image.fromarray(frames[1, :-1]).save(folder / "f1.png")
    assert "f1.png" in refused(folder, *WAVE, *STEPS)
    Image.fromarray(frames[1].astype(np.uint16)).save(folder / "f1.png")
    assert "f1.png" in refused(folder, *WAVE, *STEPS)


def test_real_colour(refused, tmp_path, frames):
    folder = tmp_path / "images"
    folder.mkdir()
    for k, frame in enumerate(frames):
        Image.fromarray(np.stack([frame, frame, frame], axis=2)).save(folder / f"f{k}.png")
    red = np.stack([frames[3], frames[3] // 2, frames[3]], axis=2)
    Image.fromarray(red).save(folder / "f3.png")
    assert "f3.png" in refused(folder, *WAVE, *STEPS)


def test_object_arrays_and_other_types(refused, tmp_path, frames):
    np.save(tmp_path / "objects.npy", np.full((4, 5, 6), {}, object), allow_pickle=True)
    assert "Python objects" in refused(tmp_path / "objects.npy", *WAVE, *STEPS)
    for kind in (np.int64, np.float16, np.complex64, np.bool_, "U3"):
        np.save(tmp_path / "kind.npy", frames.astype(kind))
        assert "kind.npy" in refused(tmp_path / "kind.npy", *WAVE, *STEPS)
    np.save(tmp_path / "flat.npy", frames[0])
    assert "flat.npy" in refused(tmp_path / "flat.npy", *WAVE, *STEPS)
    np.save(tmp_path / "five.npy", frames[None, None])
    assert "five.npy" in refused(tmp_path / "five.npy", *WAVE, *STEPS)
    np.save(tmp_path / "empty.npy", frames[:, :0])
    assert "empty.npy" in refused(tmp_path / "empty.npy", *WAVE, *STEPS)


def test_a_header_that_claims_a_million_by_a_million(refused, tmp_path):
    with open(tmp_path / "bomb.npy", "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (4, 1_000_000, 1_000_000)}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(1000))
    refused(tmp_path / "bomb.npy", *WAVE, *STEPS)  # everything is imported now
    tracemalloc.start()
    assert "bomb.npy" in refused(tmp_path / "bomb.npy", *WAVE, *STEPS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 * 2**20
    seconds = []
    for _ in range(3):  # the best of three: the machine may be busy
        started = time.perf_counter()
        refused(tmp_path / "bomb.npy", *WAVE, *STEPS)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.1


# --- frames against steps --------------------------------------------------------------------------------------------


def test_frame_count_that_does_not_fit(refused, tmp_path, frames):
    np.save(tmp_path / "x.npy", frames)
    assert "4 frames" in refused(tmp_path / "x.npy", *WAVE, "--phase-steps", "0,72,144,216,288")
    assert "3 wavelengths" in refused(tmp_path / "x.npy", "--wavelength", "5um", "5.5um", "6um")
    assert "8" in refused(tmp_path / "x.npy", "--wavelength", "5um", "5.5um", *STEPS)


def test_fewer_than_three_frames(refused, tmp_path, frames):
    np.save(tmp_path / "x.npy", frames[:1])
    assert "2 or more" in refused(tmp_path / "x.npy", *WAVE)
    refused(tmp_path / "x.npy", *WAVE, "--phase-steps", "0")
    np.save(tmp_path / "x.npy", frames[:2, :20, :20])  # too small to tell background from fringes
    said = refused(tmp_path / "x.npy", *WAVE)
    assert "two frames need" in said
    assert "three or more" in refused(tmp_path / "x.npy", *WAVE, "--phase-steps", "0,90")


@pytest.mark.parametrize("steps", ["0,0,0,0", "0,360,720,1080", "0,180,0,180", "0,180,360,540", "10,10,190,190"])
def test_degenerate_steps(steps, refused, tmp_path, frames):
    np.save(tmp_path / "x.npy", frames)
    assert "step" in refused(tmp_path / "x.npy", *WAVE, "--phase-steps", steps)


@pytest.mark.parametrize(
    "steps", ["0,90,x,270", "0,90,nan,270", "0,90,inf,270", ",,,", "0;90;180;270", "0,90,180,270;0,90"]
)
def test_steps_that_are_no_numbers(steps, refused, tmp_path, frames):
    np.save(tmp_path / "x.npy", frames)
    assert "step" in refused(tmp_path / "x.npy", *WAVE, "--phase-steps", steps)


def test_words_about_steps(refused, tmp_path, frames):
    np.save(tmp_path / "x.npy", frames)
    assert "did you mean 'nominal'" in refused(tmp_path / "x.npy", *WAVE, *STEPS, "--steps", "nominl")
    assert "phase_steps" in refused(tmp_path / "x.npy", *WAVE, "--steps", "trusted")


@pytest.mark.parametrize("wave", ["632.8", "0nm", "-5nm", "nan nm", "632.8 furlongs", "nm", "", "inf um", "1e999 nm"])
def test_wavelengths(wave, refused, tmp_path, frames):
    np.save(tmp_path / "x.npy", frames)
    assert "wavelength" in refused(tmp_path / "x.npy", f"--wavelength={wave}", *STEPS)


def test_no_wavelength_and_the_same_twice(refused, tmp_path, frames):
    np.save(tmp_path / "x.npy", np.stack([frames, frames]))
    assert "wavelength" in refused(tmp_path / "x.npy", *STEPS)
    assert "repeat" in refused(tmp_path / "x.npy", "--wavelength", "5um", "5000nm", *STEPS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("wavelengths = [", "not valid TOML"),
        ('wavelengths = ["632.8 nm"]\nwavelengths = ["5 um"]', "not valid TOML"),
        ("wavelengths = [632.8]", "632.8"),
        ('wavelength = ["632.8 nm"]', "did you mean 'wavelengths'"),
        ('wavelengths = ["632.8 nm"]\nphase_steps = [0, 90, "x", 270]', "phase step"),
        ('wavelengths = ["632.8 nm"]\nphase_steps = [0, 90, 180, 270]\nsteps = "sure"', "sure"),
        ('wavelengths = ["632.8 nm"]\nphase_steps = [0, 90, 180, 270]\nbit_depth = "many"', "bit_depth"),
        ('wavelengths = ["632.8 nm"]\nphase_steps = [0, 90, 180, 270]\nbit_depth = 12', "bit_depth 12"),
        ('wavelengths = ["632.8 nm"]\nphase_steps = [0, 90, 180, 270]\npixel_size = 5', "pixel_size"),
        ("[[[", "not valid TOML"),
        ("\x00", "not valid TOML"),
    ],
)
def test_malformed_toml(text, words, refused, tmp_path, frames):
    np.save(tmp_path / "x.npy", frames)
    (tmp_path / "x.toml").write_text(text)
    said = refused(tmp_path / "x.npy")
    assert words in said
    assert "x.toml" in said or "x.npy" in said


def test_toml_that_is_no_text(refused, tmp_path, frames):
    np.save(tmp_path / "x.npy", frames)
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00w")
    assert "x.toml" in refused(tmp_path / "x.npy")


# --- frames without fringes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("waves", [1, 2])
def test_constant_frames_are_named(waves, refused, tmp_path, wafer):
    frames = np.array(wafer.frames[:waves])
    frames[-1, 2] = 17
    folder = folder_of(tmp_path / "stack", frames)
    said = refused(folder)
    assert f"frames.npy[{waves - 1},2] is constant (17" in said


def test_frames_of_nothing_but_nan_are_named(refused, tmp_path, wafer):
    frames = np.array(wafer.frames[:1], np.float32)
    frames[0, 1] = np.nan
    assert "not a number" in refused(folder_of(tmp_path / "stack", frames))


@pytest.mark.parametrize("waves", [1, 2])
def test_duplicated_frames_are_named(waves, refused, tmp_path, wafer):
    frames = np.array(wafer.frames[:waves])
    frames[-1, 3] = frames[-1, 1]
    said = refused(folder_of(tmp_path / "stack", frames))
    assert f"frames.npy[{waves - 1},1] and frames.npy[{waves - 1},3] are identical" in said
    said = refused(folder_of(tmp_path / "stack", frames, steps_deg=None))  # with unknown steps too
    assert "identical" in said


def test_a_wavelength_stored_twice_is_named(refused, tmp_path, wafer):
    frames = np.array(wafer.frames[:2])
    frames[1] = frames[0]
    assert "identical" in refused(folder_of(tmp_path / "stack", frames))


@pytest.fixture
def bowl() -> Callable[..., np.ndarray]:
    """Frames (K, 72, 96) of a bowl with a number of fringes, at steps in degrees, with noise of 1 DN."""

    def make(fringes: float, steps: list[float], modulation: float = 60.0) -> np.ndarray:
        y, x = np.meshgrid(np.linspace(-1, 1, 72), np.linspace(-1, 1, 96), indexing="ij")
        angle = np.pi * fringes * (x + 0.4 * (x * x + y * y)) + np.radians(steps)[:, None, None]
        noise = np.random.default_rng(1).normal(0, 1, angle.shape)
        return np.rint(120 + modulation * np.cos(angle) + noise).astype(np.uint8)

    return make


@pytest.mark.parametrize("steps", [[0, 80, 165], [0, 80, 165, 240, 330]])
def test_unknown_steps_that_cannot_be_known(steps, refused, tmp_path, bowl):
    path = tmp_path / "x.npy"
    np.save(path, bowl(0.4, steps))
    assert "tilt the part; or give --phase-steps" in refused(path, *WAVE)
    np.save(path, bowl(8, steps, modulation=0.0))
    assert "fringes" in refused(path, *WAVE)
    np.save(path, bowl(8, [30.0] * len(steps)))
    told = refused(path, *WAVE)
    assert "no fringes found" in told or "do not determine their phase steps" in told
    np.save(path, bowl(8, steps))
    assert "check the mask" in refused(path, *WAVE, "--circle", "48,36,5")


def test_fit_of_what_is_not_there(refused, tmp_path, bowl):
    path = tmp_path / "x.npy"
    np.save(path, bowl(8, [0, 80, 165, 240]))
    assert "did you mean 'tilt'" in refused(path, *WAVE, "--fit", "tilts")
    assert "6 or more frames" in refused(path, *WAVE, "--fit", "response")
    assert "--steps nominal" in refused(path, *WAVE, "--phase-steps", "0,90,180,270", "--fit", "tilt")


def test_noise_without_fringes_and_saturation_everywhere(refused, tmp_path):
    rng = np.random.default_rng(1)
    noise = rng.normal(100, 2, (1, 4, 80, 90)).round().astype(np.uint8)
    assert "no fringes" in refused(folder_of(tmp_path / "noise", noise, (632.8,)))
    bright = np.full((1, 4, 80, 90), 255, np.uint8)
    bright[:, :, 0, 0] = rng.integers(0, 255, 4)
    bright[:, :, 0, 1] = rng.integers(0, 255, 4)
    refused(folder_of(tmp_path / "bright", bright, (632.8,)))


# --- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--overlap", "257"], "half a tile"),
        (["--tile", "64", "--overlap", "33"], "half a tile"),
        (["--tile", "2"], "tile 2"),
        (["--tile", "-5"], "tile -5"),
        (["--method", "pixl"], "did you mean 'pixel'"),
        (["--scheme", "care"], "did you mean 'carre'"),
        (["--combine", "best"], "weighted, finest"),
        (["--remove", "piston,tlt"], "did you mean 'tilt'"),
        (["--device", "gpu"], "allowed are auto, cpu"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--range", "27"], "has no unit"),
        (["--range", "-27 um"], "height range"),
        (["--threads", "0"], "threads 0"),
        (["--band-rows", "-1"], "band rows -1"),
        (["--circle", "1,2"], "X,Y,R"),
        (["--circle", "1000,1000,3"], "outside the image"),
        (["--mask", "nothing.npy"], "nothing.npy"),
        (["--report", "no/such/folder/page.html"], "folder of the report"),
        (["--resume", "--overwrite"], "exclude each other"),
        (["--scheme", "schwider-hariharan"], "schwider-hariharan"),
        (["--bit-depth", "0"], "bit_depth 0"),
        (["--bit-depth", "40"], "bit_depth 40"),
        (["--pixel-size", "5"], "pixel_size"),
    ],
)
def test_options(options, words, refused, wafer_folder):
    assert words in refused(wafer_folder, *options)


def test_range_and_overlap_of_one_wavelength(refused, tmp_path, mirror):
    folder = folder_of(tmp_path / "stack", np.asarray(mirror.frames), (632.8,), (0, 90, 180, 270, 360))
    assert "two or more wavelengths" in refused(folder, "--range", "27 um")
    assert "overlap" in refused(folder, "--overlap", "0")


def test_masks_that_do_not_fit(refused, tmp_path, wafer_folder):
    np.save(tmp_path / "mask.npy", np.ones((160, 201)))
    assert "must agree" in refused(wafer_folder, "--mask", str(tmp_path / "mask.npy"))
    np.save(tmp_path / "mask.npy", np.zeros((160, 200)))
    assert "lets no pixel in" in refused(wafer_folder, "--mask", str(tmp_path / "mask.npy"))
    (tmp_path / "mask.npy").write_bytes(b"")
    assert "mask.npy" in refused(wafer_folder, "--mask", str(tmp_path / "mask.npy"))


def test_outputs(refused, tmp_path, wafer_folder):
    for name in ("out", "out.abc"):
        assert "no known suffix" in refused(wafer_folder, output=name)
    assert "heights alone: write one of" in refused(wafer_folder, output="out.png")
    for name in ("out.bmp", "out.h5"):  # known, but only to read
        said = refused(wafer_folder, output=name)
        assert "only read: allowed are .npy, .tif, .tiff, .zarr" in said
    assert "does not exist" in refused(wafer_folder, output="no/such/folder/out.npy")


@pytest.mark.parametrize("name", ["out.npy", "out.tif", "out.zarr"])
def test_output_exists(name, refused, tmp_path, wafer_folder, capsys):
    assert main(["reconstruct", str(wafer_folder), "-o", str(tmp_path / name)]) == 0
    capsys.readouterr()
    assert "--overwrite" in refused(wafer_folder, output=name)
    said = refused(wafer_folder, "--resume", "--combine", "finest", output=name)
    assert "settings.combine" in said
    assert main(["reconstruct", str(wafer_folder), "-o", str(tmp_path / name), "--overwrite"]) == 0


def test_what_is_no_output_of_ours_is_never_replaced(refused, tmp_path, wafer_folder):
    (tmp_path / "out.zarr").mkdir()
    (tmp_path / "out.zarr" / "thesis.txt").write_text("the only copy")
    (tmp_path / "out.npy").mkdir()
    (tmp_path / "out.npy" / "thesis.txt").write_text("the only copy")
    (tmp_path / "file.zarr").write_text("a file")
    for name in ("out.zarr", "out.npy", "file.zarr"):
        for how in ("--overwrite", "--resume"):
            assert "is not an output of this program" in refused(wafer_folder, how, output=name)


def test_what_is_refused_after_the_claim_leaves_the_old_output(refused, tmp_path, wafer, wafer_folder, capsys):
    """Constant frames show only in the pixels, when the output is claimed already."""
    assert main(["reconstruct", str(wafer_folder), "-o", str(tmp_path / "out.npy"), "--all"]) == 0
    capsys.readouterr()
    frames = np.array(wafer.frames)
    frames[1, 1] = 3
    folder = folder_of(tmp_path / "stack", frames)
    assert "constant" in refused(folder, "--overwrite", "--all")
    for how in ([], ["--resume"]):  # nothing there: both begin, and leave nothing
        assert "constant" in refused(folder, *how, output="other.zarr")
    assert main(["reconstruct", str(wafer_folder), "-o", str(tmp_path / "out.npy"), "--all", "--resume"]) == 0
    assert "already finished" in capsys.readouterr().err


def test_too_little_disk_is_refused_before_the_start(refused, tmp_path, wafer_folder, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100_000))
    for name in ("out.npy", "out.tif", "out.zarr"):
        said = refused(wafer_folder, output=name)
        assert "not enough disk space" in said
        assert "MiB" in said


def test_a_folder_that_may_not_be_written(refused, tmp_path, wafer_folder):
    place = tmp_path / "locked"
    place.mkdir()
    assert "locked" in refused(wafer_folder, output="locked/out.npy", forbidden=place)


# --- the other verbs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["simulate", "S", "--shape", "100"], "HxW"),
        (["simulate", "S", "--shape", "0x100"], "shape"),
        (["simulate", "S", "--shape=-1x5"], "HxW"),
        (["simulate", "S", "--wavelength", "632.8"], "has no unit"),
        (["simulate", "S", "--frames", "2"], "frames"),
        (["simulate", "S", "--surface", "waffle"], "did you mean 'wafer'"),
        (["simulate", "S", "--bit-depth", "17"], "bit"),
        (["simulate", "S", "--read-noise", "-1"], "read"),
        (["simulate", "S", "--phase-steps", "0,180,360"], "step"),
        (["simulate", "S", "--pixel-size", "5"], "has no unit"),
        (["evaluate", "no.npy", "no.npy"], "no.npy does not exist"),
        (["evaluate", "no.txt", "no.npy"], "allowed are"),
        (["info", "nothing"], "does not exist"),
        (["demo", "--smal"], "did you mean --small"),
    ],
)
def test_other_verbs(arguments, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert told.err.startswith("cpikan: error: ")
    assert words in told.err
    assert list(tmp_path.rglob("*.npy*")) == []


def test_evaluate_with_what_does_not_fit(tmp_path, wafer_folder, capsys):
    output = tmp_path / "out.npy"
    assert main(["reconstruct", str(wafer_folder), "-o", str(output)]) == 0
    capsys.readouterr()
    np.save(tmp_path / "truth.npy", np.zeros((160, 201)))
    (tmp_path / "text.npy").write_text("nothing")
    np.save(tmp_path / "objects.npy", np.array([[None]]), allow_pickle=True)
    np.save(tmp_path / "void.npy", np.full((160, 200), np.nan))
    for name in ("truth.npy", "text.npy", "objects.npy", "void.npy", "absent.npy"):
        assert main(["evaluate", str(output), str(tmp_path / name)]) == 2
        told = capsys.readouterr()
        assert (told.out, told.err.count("\n")) == ("", 1)
    (tmp_path / "out.json").write_text("{")
    assert main(["evaluate", str(output), str(tmp_path / "truth.npy")]) == 2
    assert "out.json" in capsys.readouterr().err


def test_in_a_process_of_its_own(tmp_path):
    """Nothing but the line reaches the terminal, warnings of libraries included."""
    np.save(tmp_path / "x.npy", np.full((4, 20, 20), 7, np.uint8))
    done = subprocess.run(
        [sys.executable, "-m", "cpikan", "reconstruct", tmp_path / "x.npy", "-o", tmp_path / "o.npy", *WAVE, *STEPS],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("cpikan: error: frame x.npy[0] is constant (7 in every sampled pixel)")
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


# --- what looks bad and works ----------------------------------------------------------------------------------------


def test_saturated_and_dead_pixels_are_masked_and_counted(tmp_path, wafer, capsys):
    import json

    frames = np.array(wafer.frames)
    frames[0, 0, 70:80, 100:110] = 255
    folder = folder_of(tmp_path / "stack", frames)
    assert main(["reconstruct", str(folder), "-o", str(tmp_path / "out.npy"), "--all", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    flags = np.load(tmp_path / "out.flags.npy")
    assert (flags[70:80, 100:110] & 3 == 3).all()
    assert np.isnan(np.load(tmp_path / "out.npy")[70:80, 100:110]).all()
    assert summary["saturated_fraction"] == (flags & 2 > 0).mean() >= 100 / flags.size


def test_names_with_blanks_and_letters_of_any_script(tmp_path, wafer, capsys):
    folder = folder_of(tmp_path / "meine Aufnahmen \u00fc \ud30c\uc77c", np.asarray(wafer.frames))
    output = tmp_path / "H\u00f6he 1.zarr"
    assert main(["reconstruct", str(folder), "-o", str(output)]) == 0
    assert str(output) in capsys.readouterr().out
    assert WAVES_NM[0] > STEPS_DEG[1]


# --- nothing is done for frames that cannot be measured --------------------------------------------------------------


def test_frames_are_looked_at_before_anything_is_compiled_or_claimed(refused, tmp_path, frames, monkeypatch):
    from cpikan.pipeline.reconstruction import reconstruct

    def never(*_: object, **__: object) -> None:
        raise AssertionError("compiled or claimed")

    monkeypatch.setattr(reconstruct, "warm_up", never)
    monkeypatch.setattr(reconstruct.Workspace, "open", never)
    for name, spoilt in (("flat", np.full_like(frames, 7)), ("nan", np.full(frames.shape, np.nan, np.float32))):
        np.save(tmp_path / f"{name}.npy", spoilt)
        assert "constant" in refused(tmp_path / f"{name}.npy", *WAVE, *STEPS)


@pytest.mark.parametrize("scale", [1e-22, 3e31])
def test_numbers_that_cannot_be_computed_with(refused, wafer, tmp_path, scale):
    frames = np.array(wafer.frames[:2]).astype(np.float32) * np.float32(scale)
    assert "they can be computed with" in refused(folder_of(tmp_path / "s", frames))


@pytest.mark.parametrize("waves", [1, 2])
@pytest.mark.parametrize("suffix", ["npy", "tif", "zarr"])
def test_nothing_valid_is_no_output(refused, wafer, tmp_path, monkeypatch, waves, suffix):
    """Every pixel is read, none has a height, and nothing is left."""
    from cpikan.psi.kernels.statistics import MapStatistics

    monkeypatch.setattr(MapStatistics, "add", lambda self, table, width: None)
    source = folder_of(tmp_path / "s", np.array(wafer.frames[:waves, :, 60:100, 70:120]))
    told = refused(source, "--method", "pixel", output=f"out.{suffix}")
    assert "nothing could be measured" in told


# --- numbers at the edges --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("circle", ["10,10,1e300", "1e200,3,1e200", "5,5,1e10", "5,nan,3", "5,5,4,1e-400x"])
def test_circles_beyond_all_bounds(refused, tmp_path, frames, circle):
    np.save(tmp_path / "f.npy", frames)
    assert "circle" in refused(tmp_path / "f.npy", *WAVE, *STEPS, "--circle", circle)


def test_a_range_of_more_orders_than_are_searched(refused, wafer, tmp_path):
    source = folder_of(tmp_path / "s", np.array(wafer.frames[:2]))
    for length in ("1m", "999m", "170 mm"):
        assert "fringe orders of 5 um" in refused(source, "--range", length)


@pytest.mark.parametrize("wave", ["1e-300 m", "1e-9 pm", "1e12 m"])
def test_wavelengths_of_nothing(refused, tmp_path, frames, wave):
    np.save(tmp_path / "f.npy", frames)
    assert "no length that is measured" in refused(tmp_path / "f.npy", "--wavelength", wave, *STEPS)


def test_steps_of_any_size(refused, tmp_path, frames):
    np.save(tmp_path / "f.npy", frames)
    assert "1e+06" in refused(tmp_path / "f.npy", *WAVE, "--phase-steps", "0,90,180,1e17")


def test_the_default_range_of_short_wavelengths_is_bounded():
    from cpikan.psi.calibration.wavelengths import planning

    for waves in ((0.8, 0.9), (13.5, 13.9, 15.0)):
        most = planning.MOST_ORDERS * min(waves) / 2
        assert planning.default_range_nm(waves, (1e-3,) * len(waves)) <= most
    assert planning.longest_searched_nm((405.0, 632.8)) == 1e7
