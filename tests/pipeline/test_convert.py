"""The verb convert: from and to what a run wrote, what it says, and measured files of instruments."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cpikan
from cpikan.cli import main
from cpikan.pipeline.maps.height_map import open_height_map
from exchange_maps import in_memory, marked

DATA = Path(os.environ.get("CPIKAN_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_data = pytest.mark.skipif(not (DATA / "surfaces").is_dir(), reason="measured data absent: set CPIKAN_DATA")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    told = capsys.readouterr()
    return code, told.out, told.err


def saved(folder: Path) -> Path:
    """A map of ours with a sigma, as reconstruct leaves it."""
    heights = marked()
    path = folder / "a.zarr"
    source = in_memory(heights)
    replace(source, arrays={**source.arrays, "sigma_nm": np.abs(heights)}).save(path)
    return path


def test_what_is_lost_is_one_line_and_in_the_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = saved(tmp_path)
    code, out, err = run(capsys, "convert", source, tmp_path / "b.sdf", "--json")
    result = json.loads(out)
    assert code == 0
    assert err.splitlines() == ["cpikan: warning: b.sdf has no room for sigma_nm, wavelengths_nm: they are left out"]
    assert result["lost"] == ["sigma_nm", "wavelengths_nm"]
    assert result["format"] == "ISO 25178-71 file"
    code, out, err = run(capsys, "convert", source, tmp_path / "b.sdf")
    assert (code, out) == (2, "")
    assert "exists: say overwrite" in err
    assert run(capsys, "convert", source, tmp_path / "b.sdf", "--overwrite")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.zarr", "b.sdf"]


def test_a_chain_of_exact_formats_changes_no_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = saved(tmp_path)
    for number, suffix in enumerate((".datx", ".sdf", ".csv", ".gwy", ".x3p", ".tif", ".npy", ".zarr")):
        target = tmp_path / f"{number}{suffix}"
        assert run(capsys, "convert", last, target)[0] == 0
        last = target
    np.testing.assert_array_equal(open_height_map(last).height_nm[:], marked())
    assert open_height_map(last).pixel_um == (2.5, 1.25)


def test_bad_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = saved(tmp_path)
    for output, words in (
        (tmp_path / "b.nms", "is a NanoFocus file, which is only read: allowed are .npy, .tif"),
        (tmp_path / "b.abc", "has no known suffix: allowed are .npy"),
        (tmp_path / "none" / "b.sdf", "does not exist: create it first"),
        (source, "is the map itself"),
    ):
        code, out, err = run(capsys, "convert", source, output)
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert words in err
    assert run(capsys, "reconstruct", source, "-o", tmp_path / "b.sdf")[0] == 2


def test_python_says_what_is_lost_and_gives_a_write_only_format_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = open_height_map(saved(tmp_path))
    part = source.within(cpikan.Rectangle(3, 2, 9, 8))
    written = part.save(tmp_path / "b.gsf")
    assert "has no room for sigma_nm" in capsys.readouterr().err
    inside = np.asarray(written.height_nm)
    assert np.isfinite(inside).sum() == np.isfinite(np.asarray(part.height_nm)).sum() > 0
    assert part.save(tmp_path / "b.stl") is part
    assert "rows 2 to" in capsys.readouterr().err


@needs_data
@pytest.mark.parametrize(
    ("name", "shape", "pixel_um", "missing", "sq_nm"),
    [  # Sq of SurfaceTopography without mean; nms by hand, for it counts 65534 steps
        ("opd-1.opd", (480, 640), 0.19673303, 116, 8.35645116),
        ("sur-2.sur", (484, 563), 3.48400022, 117, 17.5178812),
    ],
)
def test_measured_files(
    name: str, shape: tuple[int, int], pixel_um: float, missing: int, sq_nm: float, tmp_path: Path
) -> None:
    opened = open_height_map(DATA / "surfaces" / name)
    heights = np.asarray(opened.height_nm)
    assert heights.shape == shape
    assert opened.pixel_um == pytest.approx(pixel_um, rel=1e-8)
    assert np.isnan(heights).sum() == missing
    assert np.nanstd(heights) == pytest.approx(sq_nm, rel=1e-8)


@needs_data
def test_the_measured_x3p() -> None:
    """SurfaceTopography: Sq 77.19 nm without piston and tilt; the pixel is not square."""
    opened = open_height_map(DATA / "surfaces" / "x3p-2.x3p")
    assert opened.pixel_um == pytest.approx((0.314582113527746, 0.127656509837346), rel=1e-12)
    heights = np.asarray(opened.height_nm)
    y, x = np.mgrid[:650, :650] / 650
    plane = np.stack([np.ones(heights.size), y.ravel(), x.ravel()], axis=1)
    rest = heights.ravel() - plane @ np.linalg.lstsq(plane, heights.ravel(), rcond=None)[0]
    assert rest.std() == pytest.approx(77.19, abs=0.005)


@needs_data
def test_the_measured_nms() -> None:
    """Its header says the range, which the least and the greatest code reach."""
    opened = open_height_map(DATA / "surfaces" / "nms-1.nms")
    heights = np.asarray(opened.height_nm)
    assert (heights.min(), heights.max()) == pytest.approx((2689.124584197998, 6007.402420043945), rel=1e-12)
    assert opened.pixel_um == pytest.approx(0.3125, rel=1e-6)


@needs_data
def test_a_measured_zygo_map_through_other_formats_keeps_its_figures(tmp_path: Path) -> None:
    """PV 330.70, RMS 44.591, Sa 29.552 nm in the circle of 40 mm (prysm), by way of two exact formats."""
    opened = open_height_map(DATA / "zygo" / "valid_zygo_dat_file.dat")
    again = opened.save(tmp_path / "a.datx").save(tmp_path / "b.sdf")
    np.testing.assert_array_equal(again.height_nm[:], opened.height_nm[:])
    back = again.save(tmp_path / "c.dat")
    codes = 632.8 / 2 / 131072 / 2 * 1.001
    np.testing.assert_allclose(back.height_nm[:], opened.height_nm[:], atol=codes)
