"""Bytes of an unfinished output that change before it is resumed are found and made again, whatever file they are in."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cpikan
from cpikan.errors import ResumeError
from cpikan.pipeline.reconstruction import output as output_module
from cpikan.pipeline.reconstruction.output import RowSink
from cpikan.storage.atomic import Check
from cpikan.streaming.journal import Journal
from independent_frames import Scene
from small_stacks import contents, leftovers, stack_of

SUFFIXES = ("npy", "tif", "zarr")


class Stop(Exception):
    """Injected in place of a kill."""


def _stop(*_: Any, **__: Any) -> None:
    raise Stop


def _stopped(run: Callable[[Path], object], folder: Path, where: tuple[object, str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*where, _stop)
        with pytest.raises(Stop):
            run(folder)


def _flip(path: Path, share: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(share * (len(data) - 1))] ^= 0x10
    path.write_bytes(data)


@pytest.fixture(
    scope="module", params=[("several", s) for s in SUFFIXES] + [("one", "npy"), ("remove", "npy")], ids=str
)
def stopped(
    request: pytest.FixtureRequest, wafer: Scene, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Callable[..., object], Path, dict[str, bytes]]:
    """A run, the folder of one that was stopped before it finished, and the files of one that was not."""
    kind, suffix = request.param
    stack = stack_of(np.asarray(wafer.frames[:1] if kind == "one" else wafer.frames))
    remove = ("tilt",) if kind == "remove" else ()

    def run(folder: Path, **how: Any) -> object:
        options = {"all_quantities": True, "band_rows": 24, "method": "pixel", "remove": remove, "progress": False}
        return cpikan.reconstruct(stack, folder / f"o.{suffix}", **options, **how)

    whole, part = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("part")
    run(whole)
    _stopped(run, part, (output_module, "build_pyramid"))
    return run, part, contents(whole, "o")


def test_a_flipped_bit_anywhere_is_made_good(stopped: Any, tmp_path: Path) -> None:
    run, part, wanted = stopped
    files = [path.relative_to(part) for path in part.rglob("*") if path.is_file() and path.stat().st_size > 1000]
    files = [path for path in files if path.suffix != ".journal" and path.name != "zarr.json"]
    assert files
    for index, name in enumerate(files):
        folder = tmp_path / str(index)
        shutil.copytree(part, folder)
        _flip(folder / name, (0.3, 0.62, 0.98)[index % 3])
        run(folder, resume=True)
        assert contents(folder, "o") == wanted, name
        assert leftovers(folder) == []


def test_nothing_is_done_again_where_nothing_changed(stopped: Any, tmp_path: Path) -> None:
    run, part, wanted = stopped
    shutil.copytree(part, tmp_path / "d")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RowSink, "write", _stop)
        run(tmp_path / "d", resume=True)
    assert contents(tmp_path / "d", "o") == wanted


def test_metadata_that_a_power_cut_emptied_are_written_again(wafer: Scene, tmp_path: Path) -> None:
    stack = stack_of(np.asarray(np.tile(wafer.frames[:2, :, :, :64], (1, 1, 4, 1))))  # 640 rows: one coarser level

    def run(folder: Path, **how: Any) -> object:
        folder.mkdir(exist_ok=True)
        return cpikan.reconstruct(stack, folder / "o.zarr", method="pixel", progress=False, **how)

    run(tmp_path / "whole")
    from cpikan.storage.writers.zarr import ZarrWriter

    for index, name in enumerate(("zarr.json", "height_nm/1/zarr.json", "flags/0/zarr.json")):
        folder = tmp_path / str(index)
        _stopped(run, folder, (ZarrWriter, "finish"))
        (folder / "o.zarr.partial" / name).write_bytes(b"")
        run(folder, resume=True)
        assert contents(folder, "o") == contents(tmp_path / "whole", "o"), name


@pytest.mark.parametrize("name", ["t.npy", "t.zarr"])
def test_tiles_are_checked_too(tmp_path: Path, name: str) -> None:
    image = np.random.default_rng(4).normal(size=(130, 90)).astype(np.float32)
    settings = {"tile": 32, "overlap": 8, "progress": False}

    def run(folder: Path, **how: Any) -> object:
        folder.mkdir(exist_ok=True)
        return cpikan.infer_tiled(lambda a: 2 * a, image, folder / name, **settings, **how)

    run(tmp_path / "whole")
    from cpikan.streaming.tiling import sink

    _stopped(run, tmp_path / "part", (sink.FileOut, "finish"))
    files = [
        p for p in (tmp_path / "part").rglob("*") if p.is_file() and p.suffix != ".journal" and p.name != "zarr.json"
    ]
    for path in files:
        _flip(path, 0.4)
    run(tmp_path / "part", resume=True)
    assert contents(tmp_path / "part", "t") == contents(tmp_path / "whole", "t")


def test_checks_hold_wherever_the_folder_is_moved_and_under_the_final_name(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "x.npy.partial"
    rows = np.arange(40, dtype=np.float32)
    path.write_bytes(b"head" + rows.tobytes())
    check = Check.of_array(path, 4, rows).within(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    assert check.holds(tmp_path / "b")
    (tmp_path / "b" / "x.npy.partial").rename(tmp_path / "b" / "x.npy")
    assert check.holds(tmp_path / "b")
    _flip(tmp_path / "b" / "x.npy", 0.5)
    assert not check.holds(tmp_path / "b")
    (tmp_path / "b" / "x.npy").write_bytes(b"short")
    assert not check.holds(tmp_path / "b")


def test_the_journal_forgets_what_follows_a_damaged_step(tmp_path: Path) -> None:
    data, journal = tmp_path / "d", Journal.start(tmp_path / "j", {"a": 1})
    data.write_bytes(bytes(range(90)))
    for k in range(3):
        piece = np.frombuffer(data.read_bytes(), np.uint8)[30 * k : 30 * k + 30]
        journal.add({"stage": "s", "rows": k, "checks": [Check.of_array(data, 30 * k, piece).within(tmp_path)]})
    journal.close()
    _flip(data, 0.5)
    again = Journal.resume(tmp_path / "j", {"a": 1})
    assert again.drop_damaged() == 2
    again.close()
    again = Journal.resume(tmp_path / "j", {"a": 1})
    assert [step["rows"] for step in again.steps] == [0]
    assert again.drop_damaged() == 0
    again.close()
    with pytest.raises(ResumeError):
        Journal.resume(tmp_path / "j", {"a": 2})
