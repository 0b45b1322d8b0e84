"""acquisition.toml: found, read, overridden by flags, and refused in one line when it is wrong."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpikan.errors import InputError
from cpikan.pipeline.stacks.acquisition_file import (
    AcquisitionFlags,
    build_acquisition,
    find_acquisition_file,
    load_acquisition,
    read_acquisition_file,
)

FULL = """
wavelengths = ["632.8 nm", "0.532 um"]
phase_steps = [0, 90, 180.0, 270]
steps = "nominal"
pixel_size = "5 um"
bit_depth = 12
"""
NONE = AcquisitionFlags()


def write(folder: Path, text: str, name: str = "acquisition.toml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_every_key(tmp_path: Path) -> None:
    acquisition = load_acquisition(write(tmp_path, FULL), NONE)
    assert acquisition.wavelengths_nm == (632.8, 532.0)
    assert acquisition.phase_steps_deg == ((0.0, 90.0, 180.0, 270.0),) * 2  # one list serves all wavelengths
    assert acquisition.steps == "nominal"
    assert acquisition.pixel_um == 5.0
    assert acquisition.bit_depth == 12


def test_defaults() -> None:
    assert build_acquisition({"wavelengths": ["632.8 nm"]}).steps == "unknown"
    trusted = build_acquisition({"wavelengths": ["632.8 nm"], "phase_steps": [0, 90, 180]})
    assert trusted.steps == "trusted"
    assert trusted.pixel_um is None
    assert trusted.bit_depth is None


def test_a_list_of_steps_per_wavelength() -> None:
    rows = [[0, 90, 180], [0, 80, 160]]
    acquisition = build_acquisition({"wavelengths": ["1 um", "2 um"], "phase_steps": rows})
    assert acquisition.phase_steps_deg == ((0, 90, 180), (0, 80, 160))


@pytest.mark.parametrize(
    "values",
    [
        {"phase_steps": "unknown"},
        {"phase_steps": "Unknown", "steps": "unknown"},
        {"phase_steps": [0, 90, 180], "steps": "unknown"},
    ],
)
def test_two_ways_to_say_unknown(values: dict[str, Any]) -> None:
    acquisition = build_acquisition({"wavelengths": ["1 um"], **values})
    assert acquisition.steps == "unknown"
    assert acquisition.phase_steps_deg is None


def test_text_as_flags_give_it() -> None:
    acquisition = build_acquisition(
        {"wavelengths": "632.8nm, 532nm", "phase_steps": "0,90,180; 0,80,-160", "bit_depth": "10", "pixel_size": "5um"}
    )
    assert acquisition.wavelengths_nm == (632.8, 532.0)
    assert acquisition.phase_steps_deg == ((0, 90, 180), (0, 80, -160))
    assert acquisition.bit_depth == 10


class TestFlags:
    """Flags override the file key by key, and suffice alone."""

    def test_alone(self, tmp_path: Path) -> None:
        flags = AcquisitionFlags(wavelengths=["632.8 nm"], phase_steps=[0, 90, 180, 270])
        assert load_acquisition(tmp_path, flags).steps == "trusted"

    def test_each_overrides_its_key(self, tmp_path: Path) -> None:
        write(tmp_path, FULL)
        assert load_acquisition(tmp_path, AcquisitionFlags(wavelengths=["1 um"])).wavelengths_nm == (1000.0,)
        assert load_acquisition(tmp_path, AcquisitionFlags(pixel_size="7 um")).pixel_um == 7.0
        assert load_acquisition(tmp_path, AcquisitionFlags(bit_depth=8)).bit_depth == 8
        assert load_acquisition(tmp_path, AcquisitionFlags(steps="trusted")).steps == "trusted"
        other = load_acquisition(tmp_path, AcquisitionFlags(phase_steps=[0, 60, 120, 180]))
        assert other.phase_steps_deg == ((0, 60, 120, 180),) * 2
        assert other.steps == "nominal"

    def test_steps_called_unknown_drop_the_files_steps(self, tmp_path: Path) -> None:
        write(tmp_path, FULL)
        for flags in (AcquisitionFlags(steps="unknown"), AcquisitionFlags(phase_steps="unknown")):
            acquisition = load_acquisition(tmp_path, flags)
            assert (acquisition.steps, acquisition.phase_steps_deg) == ("unknown", None)

    def test_given_steps_are_trusted_where_the_file_knew_none(self, tmp_path: Path) -> None:
        write(tmp_path, 'wavelengths = ["1 um"]\nsteps = "unknown"')
        assert load_acquisition(tmp_path, AcquisitionFlags(phase_steps=[0, 90, 180])).steps == "trusted"

    def test_a_wrong_flag_does_not_blame_the_file(self, tmp_path: Path) -> None:
        write(tmp_path, FULL)
        with pytest.raises(InputError) as caught:
            load_acquisition(tmp_path, AcquisitionFlags(pixel_size="5"))
        assert "acquisition.toml" not in str(caught.value)

    def test_a_flag_repairs_a_wrong_key(self, tmp_path: Path) -> None:
        write(tmp_path, 'wavelengths = ["632.8"]')
        assert load_acquisition(tmp_path, AcquisitionFlags(wavelengths="632.8 nm")).wavelengths_nm == (632.8,)


class TestPlace:
    """Where the file is looked for."""

    def test_in_the_folder_only(self, tmp_path: Path) -> None:
        folder = tmp_path / "run.1"
        folder.mkdir()
        write(tmp_path, FULL)
        write(tmp_path, FULL, "run.toml")
        assert find_acquisition_file(folder) is None
        write(folder, FULL)
        assert find_acquisition_file(folder) == folder / "acquisition.toml"

    @pytest.mark.parametrize("name", ["x.npy", "x.tif", "x.h5", "x.zarr"])
    def test_beside_a_file(self, tmp_path: Path, name: str) -> None:
        if name == "x.zarr":
            (tmp_path / name).mkdir()
            (tmp_path / name / "zarr.json").write_text("{}")
        assert find_acquisition_file(tmp_path / name) is None
        write(tmp_path, FULL)
        assert find_acquisition_file(tmp_path / name) == tmp_path / "acquisition.toml"
        write(tmp_path, FULL, "x.toml")
        assert find_acquisition_file(tmp_path / name) == tmp_path / "x.toml"

    def test_nowhere_says_where_it_was_looked_for(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"no acquisition\.toml in .*--wavelength"):
            load_acquisition(tmp_path, NONE)
        with pytest.raises(InputError, match=r"no x\.toml or acquisition\.toml beside .*x\.npy"):
            load_acquisition(tmp_path / "x.npy", NONE)


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "acquisition.toml").write_text('wavelengths = ["1 um"]', encoding="utf-8-sig")
    assert load_acquisition(tmp_path, NONE).wavelengths_nm == (1000.0,)


def test_malformed_toml_says_the_line(tmp_path: Path) -> None:
    write(tmp_path, 'wavelengths = ["1 um"]\nsteps = trusted\n')
    with pytest.raises(InputError, match=r"acquisition\.toml is not valid TOML: .*line 2"):
        load_acquisition(tmp_path, NONE)


def test_unknown_keys_are_refused_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, 'wavelength = ["1 um"]')
    with pytest.raises(InputError, match=r"unknown key in .*'wavelength'.*did you mean 'wavelengths'"):
        load_acquisition(tmp_path, NONE)


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "acquisition.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_acquisition_file(tmp_path / "acquisition.toml")
    (tmp_path / "acquisition.toml").write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(InputError, match="few lines"):
        read_acquisition_file(tmp_path / "acquisition.toml")
    (tmp_path / "acquisition.toml").write_text("x = " + "[" * 20_000)
    with pytest.raises(InputError, match="acquisition.toml"):  # noqa: RUF043
        read_acquisition_file(tmp_path / "acquisition.toml")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"wavelengths": ["632.8"]}, "no unit"),
        ({"wavelengths": [632.8]}, "no unit"),
        ({"wavelengths": 632.8}, "is not a list"),
        ({"wavelengths": []}, "no wavelength"),
        ({"wavelengths": ["1 um", "1 um"]}, "repeat"),
        ({"phase_steps": []}, "no list of steps"),
        ({"phase_steps": 90}, "no list of steps"),
        ({"phase_steps": {"a": 1}}, "no list of steps"),
        ({"phase_steps": "nominal"}, "not a number of degrees"),
        ({"phase_steps": [0, "x", 180]}, "not a number of degrees"),
        ({"phase_steps": [0, True, 180]}, "not a number of degrees"),
        ({"phase_steps": [0, float("nan"), 180]}, "not a number of degrees"),
        ({"phase_steps": [[0, 90, 180], 90]}, "mixes"),
        ({"phase_steps": [[0, 90, 180]] * 2}, "2 lists of phase steps for 1 wavelengths"),
        ({"wavelengths": ["1 um", "2 um"], "phase_steps": [[0, 90, 180], [0, 90, 180, 270]]}, "3, 4 steps"),
        ({"phase_steps": [0, 180, 360]}, "2 distinct positions"),
        ({"phase_steps": [0, 90]}, "three or more"),
        ({"phase_steps": [0, 90, 180], "steps": "nominel"}, "did you mean 'nominal'"),
        ({"steps": "trusted"}, "no phase_steps"),
        ({"steps": 3}, "state of the steps"),
        ({"pixel_size": 5}, "pixel_size 5 has no unit"),
        ({"bit_depth": 12.0}, "bit_depth"),
        ({"bit_depth": True}, "bit_depth"),
        ({"bit_depth": 0}, "bit_depth"),
        ({"bit_depth": "x"}, "bit_depth"),
    ],
)
def test_wrong_values(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build_acquisition({"wavelengths": ["632.8 nm"], **values})
    assert "\n" not in str(caught.value)


def test_wrong_values_in_a_file_name_the_file(tmp_path: Path) -> None:
    write(tmp_path, 'wavelengths = ["632.8"]')
    with pytest.raises(InputError, match=r"no unit.*acquisition\.toml"):
        load_acquisition(tmp_path, NONE)


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(string.printable, max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(("phase_steps", "steps", "pixel_size", "bit_depth"), JSON_LIKE))
)
def test_any_value_is_taken_or_refused_cleanly(values: dict[str, Any]) -> None:
    try:
        acquisition = build_acquisition({"wavelengths": ["632.8 nm"], **values})
    except InputError:
        return
    assert acquisition.wavelengths_nm == (632.8,)
