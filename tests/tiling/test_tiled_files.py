"""infer_tiled from and to files: every form, interruption and resume byte for byte, memory, other settings."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import psutil
import pytest
import zarr
from tiled_models import IDENTITY, PAIR, PISTON, SLOW

import cpikan
from cpikan.errors import InputError, ResumeError
from cpikan.storage.maps import open_map
from cpikan.storage.readers.array import NpyReader
from cpikan.streaming.tiling.model import TileFunction

TILES = {"tile": 48, "overlap": 12}
FORMS = [("out.npy", None), ("out.zarr", None), ("out.tif", ("height_nm",)), ("out.zarr", ("height_nm",))]


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def content(path: Path) -> dict[str, str]:
    """SHA-256 of every file of an output."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {str(file.relative_to(path.parent)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.parametrize(("name", "quantities"), FORMS)
@pytest.mark.parametrize("shape", [(1100, 40), (37, 530)])
def test_the_identity_comes_back_from_every_form(tmp_path, name, quantities, shape):
    image = noise(shape)
    result = cpikan.infer_tiled(IDENTITY, image, tmp_path / name, window="hann", quantities=quantities, **TILES)
    values = result.values if quantities is None else result.values["height_nm"]
    assert np.array_equal(np.asarray(values[:]), image)
    assert json.loads((tmp_path / "out.json").read_text())["tiling"] == result.report
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "out.json"])
    again = cpikan.infer_tiled(IDENTITY, tmp_path / name, **TILES) if quantities or name.endswith("npy") else None
    assert again is None or np.array_equal(again.values.reshape(shape), image)


def test_channels_go_to_arrays_and_to_named_maps(tmp_path):
    frames = np.random.default_rng(2).integers(0, 1023, (3, 90, 70)).astype(np.uint16)
    np.save(tmp_path / "frames.npy", frames)
    expected = np.stack([2 * frames[0].astype(np.float32), frames.sum(axis=0, dtype=np.float32)])
    for source in (tmp_path / "frames.npy", tmp_path, NpyReader(tmp_path / "frames.npy"), frames[:, ::-1][:, ::-1]):
        assert np.array_equal(cpikan.infer_tiled(PAIR, source, **TILES).values, expected)
    for name in ("pair.npy", "other.zarr"):
        assert np.array_equal(cpikan.infer_tiled(PAIR, frames, tmp_path / name, **TILES).values[:], expected)
    named = ("height_nm", "sigma_nm")
    cpikan.infer_tiled(PAIR, frames, tmp_path / "maps.tif", quantities=named, **TILES)
    maps = open_map(tmp_path / "maps.tif").arrays
    assert np.array_equal(np.stack([maps[name][:] for name in named]), expected)


def test_array_likes_are_read_by_slices(tmp_path):
    image = noise((90, 70))
    stored = zarr.create_array(tmp_path / "image.zarr", shape=image.shape, chunks=(32, 32), dtype=np.float32)
    stored[:] = image
    assert np.array_equal(cpikan.infer_tiled(IDENTITY, stored, **TILES).values, image)


class Stops(Exception):
    """The model fails on purpose."""


def failing_after(tiles_allowed):
    left = [tiles_allowed]

    def model(tiles):
        left[0] -= len(tiles)
        if left[0] < 0:
            raise Stops
        return PISTON(tiles)

    return TileFunction(model, batch=1, name="piston")


@pytest.mark.parametrize(("name", "quantities"), FORMS)
def test_a_run_that_failed_anywhere_goes_on_byte_for_byte(tmp_path, name, quantities):
    image = noise((1100, 40))
    options = {"quantities": quantities, **TILES}
    whole, part = tmp_path / "whole", tmp_path / "part"
    whole.mkdir()
    part.mkdir()
    tiles = cpikan.infer_tiled(failing_after(10**6), image, whole / name, **options).report["tiles"]
    resumed_at = set()
    for allowed in range(1, tiles, 4):
        with pytest.raises(Stops):
            cpikan.infer_tiled(failing_after(allowed), image, part / name, **options)
        assert not (part / name).exists()
        result = cpikan.infer_tiled(failing_after(10**6), image, part / name, resume=True, **options)
        resumed_at.add(result.report["resumed_from_row"])
        assert content(part / name) == content(whole / name)
        for path in part.iterdir():
            path.rename(tmp_path / f"{allowed}{path.name}")
    with pytest.raises(Stops):  # before the first row: nothing is left
        cpikan.infer_tiled(failing_after(0), image, part / name, **options)
    assert list(part.iterdir()) == []
    assert len(resumed_at) >= 2
    assert max(resumed_at) >= 512


CHILD = """
import faulthandler
import sys
import numpy as np
import cpikan
from tiled_models import SLOW
if __name__ == "__main__":
    faulthandler.dump_traceback_later(30)  # where it stands, should it ever
    quantities = tuple(sys.argv[4:]) or None
    options = {"quantities": quantities, "overwrite": True, "processes": int(sys.argv[3])}
    cpikan.infer_tiled(SLOW, sys.argv[1], sys.argv[2], tile=48, overlap=12, **options)
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("name", "processes"), [("out.npy", 1), ("out.zarr", 1), ("out.npy", 2)])
def test_a_killed_run_goes_on_byte_for_byte(tmp_path, name, processes):
    np.save(tmp_path / "image.npy", noise((1100, 90)))
    whole, part = tmp_path / "whole", tmp_path / "part"
    whole.mkdir()
    part.mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    (tmp_path / "child.py").write_text(CHILD)
    command = [sys.executable, tmp_path / "child.py", tmp_path / "image.npy", part / name, processes]
    child = subprocess.Popen(list(map(str, command)), env=environment)
    journal = part / (name + ".journal")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and child.poll() is None:
        if journal.exists() and journal.read_bytes().count(b'"rows"') > (3 if name == "out.npy" else 0):
            break
        time.sleep(0.005)
    assert child.poll() is None, "the run ended before it could be killed"
    crew = psutil.Process(child.pid).children(recursive=True)
    assert len(crew) >= processes - 1
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not psutil.wait_procs(crew, timeout=20)[1], "processes were left behind"
    assert not (part / name).exists()
    report = cpikan.infer_tiled(SLOW, tmp_path / "image.npy", part / name, resume=True, **TILES).report
    assert 0 < report["resumed_from_row"] < 1100
    assert report["tiles_run"] < report["tiles"]
    cpikan.infer_tiled(SLOW, tmp_path / "image.npy", whole / name, **TILES)
    assert content(part / name) == content(whole / name)


def test_states_of_an_output(tmp_path):
    image, out = noise((90, 70)), tmp_path / "out.npy"
    first = cpikan.infer_tiled(PISTON, image, out, resume=True, **TILES)  # nothing there: it starts
    with pytest.raises(InputError, match=r"out\.npy exists: set overwrite"):
        cpikan.infer_tiled(PISTON, image, out, **TILES)
    before = out.stat().st_mtime_ns
    done = cpikan.infer_tiled(PISTON, image, out, resume=True, **TILES)
    assert done.report["state"] == "finished before"
    assert done.report["overlap_l2"] == first.report["overlap_l2"]
    assert out.stat().st_mtime_ns == before
    with pytest.raises(ResumeError, match="tile was"):
        cpikan.infer_tiled(PISTON, image, out, resume=True, tile=32, overlap=12)
    with pytest.raises(ResumeError, match="source was"):
        cpikan.infer_tiled(PISTON, image + 1, out, resume=True, **TILES)
    with pytest.raises(ResumeError, match="model was"):
        cpikan.infer_tiled(TileFunction(lambda tiles: tiles, name="other"), image, out, resume=True, **TILES)
    cpikan.infer_tiled(PISTON, image + 1, out, overwrite=True, **TILES)
    assert cpikan.infer_tiled(PISTON, image + 1, out, resume=True, **TILES).report["state"] == "finished before"


def test_an_output_killed_before_its_document_is_only_described(tmp_path):
    image, out = noise((90, 70)), tmp_path / "out.npy"
    cpikan.infer_tiled(PISTON, image, out, **TILES)
    plan = json.loads((tmp_path / "out.json").read_text())["plan"]
    (tmp_path / "out.json").unlink()
    from cpikan.streaming.journal import Journal

    journal = Journal.start(tmp_path / "out.npy.journal", plan)
    journal.add({"stage": "tiles", "rows": 90}, synced=True)
    journal.close()
    before = content(out)
    report = cpikan.infer_tiled(PISTON, image, out, resume=True, **TILES).report
    assert report["tiles_run"] == 0
    assert content(out) == before
    assert not (tmp_path / "out.npy.journal").exists()


def test_other_things_are_not_overwritten(tmp_path):
    (tmp_path / "out.zarr").mkdir()
    (tmp_path / "out.zarr" / "letters.txt").write_text("dear")
    with pytest.raises(InputError, match="a folder with other things in it"):
        cpikan.infer_tiled(PISTON, noise((9, 9)), tmp_path / "out.zarr", overwrite=True)
    for name, message in [
        ("out.tif", "give quantities"),
        ("out.bmp", "a single image, which is only read"),
        ("no/out.npy", "create it first"),
    ]:
        with pytest.raises(InputError, match=message):
            cpikan.infer_tiled(PISTON, noise((9, 9)), tmp_path / name)
    with pytest.raises(InputError, match="quantities height_nm name 1 of 2 channels"):
        cpikan.infer_tiled(PAIR, noise((3, 9, 9)), tmp_path / "out.tif", quantities=("height_nm",))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.zarr"]


def peak_bytes(tmp_path, height):
    """Peak of what a run from file to file allocates."""
    np.lib.format.open_memmap(tmp_path / "in.npy", mode="w+", dtype=np.float32, shape=(height, 200))
    tracemalloc.start()
    cpikan.infer_tiled(PISTON, tmp_path / "in.npy", tmp_path / "out.npy", tile=64, overlap=8, overwrite=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_height(tmp_path):
    low, high = peak_bytes(tmp_path, 1000), peak_bytes(tmp_path, 5000)
    row = 200 * 4
    # three rows of tiles read ahead and three bands on their way out, a batch with a few temporaries, the interpreter
    assert high <= (3 + 3) * 64 * row + 6 * 4 * 64 * 64 * 8 + 300_000
    # per row of tiles an entry of the journal, a band, the times of its tiles, its place: below 2 kB
    assert high <= low + 2_000 * (5000 - 1000) / 56
    assert high < 5000 * row / 3


def test_from_memory_to_memory_only_a_batch_and_a_ramp_are_held():
    image = np.zeros((3000, 2000), np.float32)
    target = np.zeros_like(image)
    tracemalloc.start()
    cpikan.infer_tiled(IDENTITY, image, target, tile=128, overlap=16, window="hann", batch=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # two tiles, the ramp rows of the whole width and their differences (float32, one square in float64), a little
    # interpreter: a hundredth of the image
    assert peak <= 2 * 128 * 128 * 4 + 5 * 16 * 2000 * 4 + 200_000
