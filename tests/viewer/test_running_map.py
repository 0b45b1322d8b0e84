"""A map that is still being written: the rows that are there, no others, also across its renaming."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from running_output import RunningOutput, running
from viewed_map import heights_of

from cpikan.cli import main, view
from cpikan.errors import InputError
from cpikan.streaming.journal import Journal, JournalReader
from cpikan.viewer.exhibit import Exhibit
from cpikan.viewer.levels import CHUNK, Levels
from cpikan.viewer.running import RunningMap, is_running

SHAPE = (1200, 700)


@pytest.fixture(scope="module")
def heights() -> np.ndarray:
    return heights_of(SHAPE)


def finest(exhibit: Exhibit) -> np.ndarray:
    tiles = [[exhibit.tile("height_nm", 0, row, column) for column in (0, 1)] for row in (0, 1, 2)]
    return np.block(tiles)[: SHAPE[0], : SHAPE[1]]


@pytest.mark.parametrize("suffix", [".npy", ".tif", ".zarr"])
def test_rows_are_seen_when_they_are_written_and_kept_when_the_run_ends(
    tmp_path: Path, heights: np.ndarray, suffix: str
) -> None:
    path = tmp_path / f"out{suffix}"
    with running(path, heights) as run:
        assert is_running(path)
        exhibit = Exhibit.open(path)
        assert exhibit.look() == {"rows": 0, "done": False, "lost": None}
        assert exhibit.describe()["pixel_um"] == [5.0, 5.0]
        assert np.isnan(finest(exhibit)).all()
        for rows in (512, 1024):
            run.write(rows)
            assert exhibit.look()["rows"] == rows
            np.testing.assert_array_equal(finest(exhibit)[:rows], heights[:rows])
            assert np.isnan(finest(exhibit)[rows:]).all()
            assert np.isfinite(exhibit.tile("height_nm", 2, 0, 0)[20 : rows // 4 - 1, 20:175]).all()
        run.write(SHAPE[0])
        run.finish()
        np.testing.assert_array_equal(finest(exhibit)[:1024], heights[:1024])  # not looked yet: files have other names
        assert exhibit.look() == {"rows": SHAPE[0], "done": True, "lost": None}
    np.testing.assert_array_equal(finest(exhibit), heights)
    whole = Exhibit.open(path)
    assert whole.running is None
    for level in (1, 2):
        np.testing.assert_array_equal(exhibit.tile("height_nm", level, 0, 0), whole.tile("height_nm", level, 0, 0))
    told = exhibit.describe()
    assert told["done"]
    assert told["warnings"] == ["said at the end"]
    assert told["summary"] == {"method": "hybrid"}


def test_a_zarr_without_a_journal_is_followed_by_its_shards(tmp_path: Path, heights: np.ndarray) -> None:
    with running(tmp_path / "out.zarr", heights, journal=False) as run:
        found = RunningMap(run.path)
        assert found.rows == 0
        run.write(512)
        run.write(1024)
        assert found.look()
        assert (found.rows, found.done) == (1024, False)
        assert not found.look()


def test_what_a_killed_run_has_left_can_be_seen(tmp_path: Path, heights: np.ndarray) -> None:
    with running(tmp_path / "out.npy", heights) as run:
        run.write(700)
    exhibit = Exhibit.open(run.path)
    assert exhibit.look() == {"rows": 700, "done": False, "lost": None}
    np.testing.assert_array_equal(finest(exhibit)[:700], heights[:700])


def test_a_run_that_is_gone_leaves_parts_that_are_missing(tmp_path: Path, heights: np.ndarray) -> None:
    with running(tmp_path / "out.zarr", heights) as run:
        run.write(512)
        exhibit = Exhibit.open(run.path)
        shutil.rmtree(tmp_path / "out.zarr.partial")
        with pytest.raises(InputError, match="missing"):
            exhibit.tile("height_nm", 0, 0, 0)


def test_rows_that_are_lost_leave_the_others_of_coarser_levels(tmp_path: Path, heights: np.ndarray) -> None:
    with running(tmp_path / "out.zarr", heights, journal=False) as run:
        run.write(SHAPE[0])
        run.finish()
    (tmp_path / "out.zarr" / "height_nm" / "0" / "c" / "1" / "0").unlink()
    exhibit = Exhibit.open(run.path)
    assert "1/0 is missing" in exhibit.look()["lost"]
    whole = Levels("height_nm", heights)
    whole.fill_all()
    for level in (1, 2):
        for row in range(3 - level):
            expected, found = whole.tile(level, row, 0), exhibit.tile("height_nm", level, row, 0)
            for y in range(CHUNK):
                finest = (row * CHUNK + y) << level
                if 512 <= finest < 1024:
                    assert np.isnan(found[y]).all()
                elif finest < 508 or finest >= 1028:  # beside the lost ones no pixel stands out
                    np.testing.assert_array_equal(found[y], expected[y])
    with pytest.raises(InputError, match="missing"):
        exhibit.tile("height_nm", 0, 1, 0)


def test_unfinished_outputs_that_cannot_be_followed_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out.x3p.partial").write_bytes(b"PK")
    assert main(["view", str(tmp_path / "out.x3p"), "--no-browser"]) == 2
    assert "still being written" in capsys.readouterr().err


def test_the_verb_waits_for_the_first_rows(
    tmp_path: Path, heights: np.ndarray, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.zarr"
    log = Journal.start(tmp_path / "out.zarr.journal", {"shape": [2, 4, *SHAPE]})
    steps = iter(["folder", "files", "rows"])

    def next_step(seconds: float) -> None:
        step = next(steps)
        if step == "folder":
            (tmp_path / "out.zarr.partial").mkdir()
        elif step == "files":
            made.append(RunningOutput(path, heights, log))
        else:
            made[0].write(512)

    made: list[RunningOutput] = []
    monkeypatch.setattr(view.time, "sleep", next_step)
    exhibit = view._opened(str(path))
    assert exhibit.running is not None
    assert exhibit.running.rows == 512
    assert exhibit.quantities == ("height_nm", "sigma_nm")
    assert capsys.readouterr().err.count("waiting for the first rows") == 1
    made[0].close()


def test_a_map_that_is_being_written_is_not_exported(
    tmp_path: Path, heights: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path / "out.npy", heights) as run:
        run.write(512)
        assert main(["view", str(tmp_path / "out.npy"), "--export", str(tmp_path / "page")]) == 2
    assert "export it when the run has ended" in capsys.readouterr().err


def test_maps_of_different_sizes_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, shape in (("a", (30, 40)), ("b", (30, 41))):
        np.save(tmp_path / f"{name}.npy", np.zeros(shape, np.float32))
    assert main(["view", str(tmp_path / "a.npy"), str(tmp_path / "b.npy"), "--no-browser"]) == 2
    assert "same shape" in capsys.readouterr().err


@pytest.mark.parametrize("steps", [(1200,), (512, 1200), (1, 2, 3, 700, 701, 1199, 1200)])
def test_levels_grow_to_what_they_are_of_the_whole_map(heights: np.ndarray, steps: tuple[int, ...]) -> None:
    whole, growing = Levels("height_nm", heights), Levels("height_nm", heights)
    whole.fill_all()
    for rows in steps:
        growing.advance(rows)
    for level in (2, *range(2, len(whole.shapes))):
        np.testing.assert_array_equal(growing.tile(level, 0, 0), whole.tile(level, 0, 0))


@pytest.mark.parametrize("name", ["height_nm", "flags"])
def test_a_kept_level_1_is_that_made_by_tiles(name: str) -> None:
    rng = np.random.default_rng(0)
    array = (
        rng.normal(0, 1, (2100, 1101)).astype(np.float32) if name == "height_nm" else rng.integers(0, 9, (2100, 1101))
    )
    array = array.astype(np.float32 if name == "height_nm" else np.uint8)
    by_tiles, kept = Levels(name, array), Levels(name, array)
    kept.halve_all()
    rows, columns = (-(-size // CHUNK) for size in kept.shapes[1])
    for row in range(rows):
        for column in range(columns):
            np.testing.assert_array_equal(kept.tile(1, row, column), by_tiles.tile(1, row, column))


def test_a_journal_is_followed_over_torn_lines_and_rewinds(tmp_path: Path) -> None:
    path = tmp_path / "out.journal"
    journal = Journal.start(path, {"shape": [1]})
    reader = JournalReader(path)
    assert [entry["plan"] for entry in reader.read_new()] == [{"shape": [1]}]
    assert reader.read_new() == []
    journal.add({"rows": 1})
    line = path.read_bytes().splitlines(keepends=True)[-1]
    with path.open("ab") as file:
        file.write(line[:9])
    assert reader.read_new() == [{"rows": 1}]
    with path.open("ab") as file:
        file.write(line[9:])
    assert reader.read_new() == [{"rows": 1}]
    journal.close()
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    assert len(reader.read_new()) == 1
    path.unlink()
    with pytest.raises(FileNotFoundError):
        reader.read_new()
