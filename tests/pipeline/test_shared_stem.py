"""One document per map: a second output of the same stem never takes over the record of the first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cpikan
from cpikan.errors import InputError
from independent_frames import Scene
from small_stacks import stack_of


@pytest.fixture
def made(wafer: Scene, tmp_path: Path) -> Iterator[tuple[Any, Path]]:
    """A function that reconstructs into a name, and the folder, in which m.npy is finished."""
    stack = stack_of(np.asarray(wafer.frames[:2, :, :64, :80]))

    def run(name: str, **how: Any) -> cpikan.HeightMap:
        return cpikan.reconstruct(stack, tmp_path / name, method="pixel", progress=False, **how)

    run("m.npy")
    return run, tmp_path


@pytest.mark.parametrize("name", ["m.zarr", "m.tif"])
@pytest.mark.parametrize("how", [{}, {"overwrite": True}, {"resume": True}])
def test_a_second_format_is_refused_and_nothing_changes(made: Any, name: str, how: dict[str, bool]) -> None:
    run, folder = made
    before = (folder / "m.json").read_bytes()
    with pytest.raises(InputError, match=r"m\.json describes m\.npy.*choose another stem for m\."):
        run(name, **how)
    assert (folder / "m.json").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["m.json", "m.npy"]


def test_the_same_output_another_stem_and_an_orphan_are_free(made: Any) -> None:
    run, folder = made
    run("m.npy", overwrite=True)
    run("n.zarr")
    (folder / "m.npy").unlink()
    run("m.tif")  # the record of a map that is gone
    assert json.loads((folder / "m.json").read_text())["summary"]["output"].endswith("m.tif")


def test_a_renamed_map_may_be_replaced(made: Any) -> None:
    run, folder = made
    (folder / "m.npy").rename(folder / "k.npy")
    (folder / "m.json").rename(folder / "k.json")
    run("m.npy")
    run("k.npy", overwrite=True)


def test_a_json_of_something_else_is_kept(made: Any) -> None:
    run, folder = made
    (folder / "other.json").write_text('{"my": "notes"}')
    with pytest.raises(InputError, match="no record of a map"):
        run("other.zarr")
    assert (folder / "other.json").read_text() == '{"my": "notes"}'


def test_an_unfinished_run_has_its_document_reserved(made: Any) -> None:
    run, folder = made
    (folder / "u.npy.journal").write_text("")
    with pytest.raises(InputError, match=r"unfinished run will write u\.json for u\.npy"):
        run("u.tif")


def test_frames_of_the_same_stem_are_no_output(wafer: Scene, tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.asarray(wafer.frames[:2, :, :64, :80]))
    words = {"wavelengths": ["5 um", "5.5 um"], "phase_steps": [0, 90, 180, 270]}
    for how in ({}, {"overwrite": True}):
        with cpikan.open_stack(tmp_path / "f.npy", **words) as stack:
            cpikan.reconstruct(stack, tmp_path / "f.tif", method="pixel", progress=False, **how)


def test_a_map_saved_beside_itself_shares_what_is_true_of_both(made: Any) -> None:
    _run, folder = made
    before = (folder / "m.json").read_bytes()
    one = cpikan.open_height_map(folder / "m.npy")
    two = one.save(folder / "m.tif")
    assert (folder / "m.json").read_bytes() == before
    assert two.wavelengths_nm == one.wavelengths_nm
    with pytest.raises(InputError, match="neither cut nor levelled"):
        one.remove("tilt").save(folder / "m.zarr")
    one.remove("tilt").save(folder / "levelled.zarr")
