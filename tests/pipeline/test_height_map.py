from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import zarr

from cpikan.errors import InputError
from cpikan.pipeline.maps.height_map import HeightMap, open_height_map
from cpikan.pipeline.maps.pyramid import build_pyramid
from cpikan.psi.model.flags import Flag
from cpikan.storage.atomic import write_json
from cpikan.storage.writers.layout import QUANTITIES, Quantity, document_path, open_writer, output_paths


@pytest.mark.parametrize("suffix", [".npy", ".tif", ".zarr"])
@pytest.mark.parametrize("names", [["height_nm"], list(QUANTITIES)])
def test_what_was_written_is_there_and_the_rest_is_none(tmp_path: Path, suffix: str, names: list[str]) -> None:
    rng = np.random.default_rng(0)
    data = {name: rng.integers(0, 9, (30, 40)).astype(QUANTITIES[name].dtype) for name in names}
    path = tmp_path / f"out{suffix}"
    _write(path, data)
    assert open_height_map(path).summary == {}
    write_json(document_path(path), {"summary": {"rms_nm": 2.0}, "settings": {}})
    result = open_height_map(str(path))
    assert result.path == path
    assert result.shape == (30, 40)
    assert result.summary == {"rms_nm": 2.0}
    assert "\n" not in repr(result)
    assert all(name in repr(result) for name in names)
    for name in QUANTITIES:
        array = getattr(result, name)
        if name in data:
            np.testing.assert_array_equal(array[5:7, ::3], data[name][5:7, ::3])
        else:
            assert array is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.path = tmp_path  # type: ignore[misc]


@pytest.mark.parametrize("suffix", [".npy", ".tif", ".zarr"])
def test_a_quantity_of_the_output_is_one_line(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps of before the line are still read; those with it give it by name, coarser levels and files included."""
    heights = np.arange(1200 * 40, dtype=np.float32).reshape(1200, 40)
    marks = np.zeros((1200, 40), np.uint16)
    marks[7, 9], marks[6, 8] = 4, 2
    _write(tmp_path / f"old{suffix}", {"height_nm": heights})
    new = Quantity("marks", np.dtype("<u2"), 0, "counts", "marks", "or")
    monkeypatch.setitem(QUANTITIES, new.name, new)
    old = open_height_map(tmp_path / f"old{suffix}")
    assert old.marks is None
    np.testing.assert_array_equal(old.height_nm[:], heights)
    _write(tmp_path / f"new{suffix}", {"height_nm": heights, "marks": marks})
    result = open_height_map(tmp_path / f"new{suffix}")
    assert result.marks is not None
    np.testing.assert_array_equal(result.marks[:], marks)
    assert all(path.exists() for path in output_paths(tmp_path / f"new{suffix}", ("height_nm", "marks")))
    if suffix == ".zarr":
        level = zarr.open_array(result.path / "marks" / "1", mode="r")
        assert (level.shape, int(np.asarray(level[3, 4]))) == ((600, 20), 6)
        assert zarr.open_group(result.path / "marks", mode="r").attrs["unit"] == "counts"


def test_a_name_that_is_no_quantity_is_no_attribute(tmp_path: Path) -> None:
    _write(tmp_path / "out.npy", {"height_nm": np.zeros((3, 4), np.float32)})
    result = open_height_map(tmp_path / "out.npy")
    with pytest.raises(AttributeError, match="its quantities are height_nm"):
        result.height  # noqa: B018
    assert copy.copy(result).shape == (3, 4)  # copies ask for names before there are arrays


def _write(path: Path, data: dict[str, np.ndarray]) -> None:
    types = {name: array.dtype for name, array in data.items()}
    writer = open_writer(path, data["height_nm"].shape, types, attributes={}, resume=False)
    writer.write_rows(0, data)
    build_pyramid(writer)
    writer.finish()


def test_a_missing_map_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_height_map(tmp_path / "out.zarr")


def test_flags_are_the_documented_bits_of_a_byte() -> None:
    assert [flag.value for flag in Flag] == [1, 2, 4, 8, 16, 32]
    assert np.uint8(Flag.INVALID | Flag.INPAINTED) == 33
    assert Flag(9) == Flag.INVALID | Flag.AMBIGUOUS


@pytest.mark.parametrize("said", [[None], ["a"], 633.0])
def test_a_document_without_numbers_is_told_in_one_line(said: object) -> None:
    document = {"acquisition": {"wavelengths_nm": said}}
    found = HeightMap(Path("m.npy"), {"height_nm": np.zeros((2, 2), np.float32)}, document)
    with pytest.raises(InputError, match="no numbers in wavelengths_nm"):
        _ = found.wavelengths_nm
