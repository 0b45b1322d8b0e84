"""Two height maps compared, whatever they are stored in, and the verb that prints it."""

from __future__ import annotations

import argparse
import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from cpikan.cli.compare import VERB
from cpikan.errors import InputError
from cpikan.pipeline.maps.height_map import open_height_map
from cpikan.pipeline.maps.surface import compare_maps
from cpikan.storage.atomic import plain, write_json
from cpikan.storage.writers.layout import QUANTITIES, document_path, open_writer
from cpikan.surface.apertures.aperture import Circle
from cpikan.surface.forms.form import fit_form

DATA = Path(os.environ.get("CPIKAN_DATA", Path(__file__).parents[3] / "shared" / "data"))
SHAPE = (70, 90)


def surface(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(SHAPE)
    heights = 300 * np.cos(rows / 9 + seed) * np.sin(columns / 7) + 4.0 * rows - 2.0 * columns + rng.normal(0, 3, SHAPE)
    heights[rng.random(SHAPE) < 0.1] = np.nan
    return heights.astype(np.float32)


def stored(path: Path, heights: np.ndarray, **document: object) -> Path:
    writer = open_writer(path, heights.shape, {"height_nm": QUANTITIES["height_nm"].dtype}, attributes={}, resume=False)
    writer.write_rows(0, {"height_nm": heights})
    writer.finish()
    write_json(document_path(path), document)
    return path


def zygo(path: Path, heights: np.ndarray, pixel_um: float = 5.0) -> Path:
    """The heights in a MetroPro file, to half a code of 632.8 / 2 / 131072 nm."""
    header = bytearray(834)
    height, width = heights.shape
    for offset, kind, value in (
        (0, ">I", 0x881B036F),
        (4, ">H", 1),
        (6, ">I", 834),
        (68, ">H", width),
        (70, ">H", height),
        (72, ">I", 4 * heights.size),
        (164, ">f", 0.5),
        (168, ">f", 632.8e-9),
        (176, ">f", 1.0),
        (184, ">f", pixel_um * 1e-6),
        (218, ">h", 2),
    ):
        struct.pack_into(kind, header, offset, value)
    codes = np.where(
        np.isfinite(heights), np.round(np.nan_to_num(heights.astype(float)) / (632.8 / 2 / 131072)), 2**31 - 1
    )
    path.write_bytes(bytes(header) + codes.astype(">i4").tobytes())
    return path


@pytest.mark.parametrize("suffix", [".npy", ".tif", ".zarr", ".dat"])
def test_each_kind_of_file_gives_the_same_numbers(suffix: str, tmp_path: Path) -> None:
    first, second = surface(1), surface(2)
    np.save(tmp_path / "b.npy", second)
    a = zygo(tmp_path / "a.dat", first) if suffix == ".dat" else stored(tmp_path / f"a{suffix}", first)
    found = compare_maps(a, tmp_path / "b.npy", remove="piston,tilt,power")
    common = np.isfinite(first) & np.isfinite(second)
    for name, heights in (("a", first), ("b", second), ("difference", first.astype(float) - second)):
        heights = np.where(common, heights, np.nan)
        form = fit_form(heights, None, "piston,tilt,power")
        rest = form.remove(heights)
        numbers = found.summary()[name]
        # half a phase code is 1.2 pm
        close = {"abs": 3e-3} if suffix == ".dat" else {"rel": 1e-9}
        assert numbers["pv_nm"] == pytest.approx(np.nanmax(rest) - np.nanmin(rest), **close)
        assert numbers["rms_nm"] == numbers["sq_nm"] == pytest.approx(np.nanstd(rest), **close)
        assert numbers["sa_nm"] == pytest.approx(np.nanmean(np.abs(rest)), **close)
        assert list(numbers["removed_nm"]) == ["Z(0,0)", "Z(1,-1)", "Z(1,1)", "Z(2,0)"]
        assert numbers["removed_nm"]["Z(2,0)"] == pytest.approx(form.coefficient_nm((2, 0)), abs=3e-3)
    result = found.summary()
    assert result["pixels"] == np.count_nonzero(common)
    assert result["valid_fraction"] == [np.isfinite(first).mean(), np.isfinite(second).mean()]
    assert result["removed"] == ["piston", "tilt", "power"]
    assert result["pixel_um"] == (pytest.approx(5.0) if suffix == ".dat" else None)


def known(numbers: dict) -> dict:
    return {name: value for name, value in numbers.items() if value is not None}


def test_many_bands_are_one_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = stored(tmp_path / "a.zarr", surface(1)), stored(tmp_path / "b.tif", surface(2))
    whole = compare_maps(a, b, remove="zernike:9").summary()
    monkeypatch.setattr("cpikan.pipeline.maps.surface._BLOCK_PIXELS", 8 * SHAPE[1])
    parts = compare_maps(a, b, remove="zernike:9").summary()
    for name in ("a", "b", "difference"):
        assert parts[name].pop("removed_nm") == pytest.approx(whole[name].pop("removed_nm"), abs=1e-9)
        assert parts[name].pop("mean_nm") == pytest.approx(whole[name].pop("mean_nm"), abs=1e-9)
        # no pixel size: the numbers that need one are None in both
        assert known(parts[name]) == pytest.approx(known(whole[name]), rel=1e-9)
        assert parts[name].keys() == whole[name].keys()


def test_a_map_with_itself_and_a_known_difference(tmp_path: Path) -> None:
    heights = surface(3).astype(np.float64)
    rows, columns = np.indices(SHAPE)
    np.save(tmp_path / "a.npy", heights)
    np.save(tmp_path / "b.npy", heights + 1000.0 + 5.0 * rows - 10.0 * columns)
    same = compare_maps(tmp_path / "a.npy", tmp_path / "a.npy").summary()["difference"]
    assert (same["pv_nm"], same["rms_nm"], same["pvr_nm"]) == (0.0, 0.0, 0.0)
    tilted = compare_maps(tmp_path / "a.npy", tmp_path / "b.npy", remove="piston,tilt").summary()["difference"]
    # cancellation of heights up to 2000 nm
    assert tilted["pv_nm"] < 1e-9
    # nothing removed: the offset is the mean that remains
    plain = compare_maps(tmp_path / "a.npy", tmp_path / "b.npy", remove="").summary()["difference"]
    used = np.isfinite(heights)
    assert plain["mean_nm"] == pytest.approx(-1000 - (5 * rows - 10 * columns)[used].mean())
    assert plain["removed_nm"] == {}


def test_a_circle_limits_everything(tmp_path: Path) -> None:
    first, second = surface(4), surface(5)
    np.save(tmp_path / "a.npy", first)
    np.save(tmp_path / "b.npy", second)
    result = compare_maps(tmp_path / "a.npy", tmp_path / "b.npy", aperture=Circle(40, 30, 20, 5)).summary()
    rows, columns = np.indices(SHAPE)
    square = (rows - 30) ** 2 + (columns - 40) ** 2
    used = np.isfinite(first) & np.isfinite(second) & (square <= 400) & (square >= 25)
    assert result["pixels"] == np.count_nonzero(used)
    assert result["a"]["sq_nm"] == pytest.approx(first[used].astype(float).std(), rel=1e-9)
    assert result["circle_pixels"] == [40, 30, 20, 5]


def test_pieces_without_a_common_height_are_told(tmp_path: Path) -> None:
    a = stored(
        tmp_path / "a.npy",
        surface(1),
        acquisition={"wavelengths_nm": [632.8], "pixel_um": 5.0},
        summary={"components": 3},
    )
    b = stored(
        tmp_path / "b.npy", surface(2), acquisition={"wavelengths_nm": [632.8, 611.9]}, summary={"components": 3}
    )
    result = compare_maps(a, b).summary()
    assert result["pixel_um"] == 5.0
    assert len(result["warnings"]) == 1
    assert "3 components" in result["warnings"][0]
    assert result["a"]["slope_rms_x_mrad"] == pytest.approx(result["a"]["slope_rms_x_nm_per_pixel"] / 5)


def test_maps_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    heights = surface(1)
    np.save(tmp_path / "a.npy", heights)
    np.save(tmp_path / "small.npy", heights[:-1])
    np.save(tmp_path / "empty.npy", np.full(SHAPE, np.nan))
    np.save(tmp_path / "cube.npy", np.zeros((2, 3, 4)))
    (tmp_path / "a.txt").write_text("1 2 3")
    (tmp_path / "bad.dat").write_bytes(b"PK\x03\x04" * 400)
    coarse = zygo(tmp_path / "coarse.dat", heights, 10.0)
    fine = zygo(tmp_path / "fine.dat", heights, 5.0)
    a = tmp_path / "a.npy"
    for first, second, words in (
        (a, tmp_path / "small.npy", "compare maps of one shape"),
        (a, tmp_path / "empty.npy", "no pixel is valid"),
        (a, tmp_path / "cube.npy", "two-dimensional"),
        (a, tmp_path / "a.txt", "no known suffix"),
        (a, tmp_path / "bad.dat", "not a MetroPro"),
        (a, tmp_path / "none.npy", "does not exist"),
        (coarse, fine, "one scale"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            compare_maps(first, second)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="did you mean 'tilt'"):
        compare_maps(a, a, remove="tlt")
    with pytest.raises(InputError, match="too few"):
        compare_maps(a, a, remove="zernike:100", aperture=Circle(40, 40, 3))


def run(*arguments: str) -> tuple[dict, str]:
    parser = argparse.ArgumentParser()
    VERB.fill(parser)
    result = VERB(parser.parse_args(arguments))
    return result, VERB.tell(result)


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = zygo(tmp_path / "a.dat", surface(1)), tmp_path / "b.npy"
    np.save(b, surface(2))
    result, told = run(str(a), str(b), "--remove", "piston,tilt", "--circle", "45,35,30")
    assert capsys.readouterr().out == ""
    assert json.loads(json.dumps(plain(result), allow_nan=False))["removed"] == ["piston", "tilt"]
    assert f"{result['a']['pv_nm']:.6g}" in told
    assert "mrad" in told
    assert "removed: piston, tilt" in told
    _, told = run(str(b), str(b), "--remove", "")
    assert "nm/pixel" in told
    assert "removed: nothing" in told


@pytest.mark.skipif(not (DATA / "zygo").is_dir(), reason="measured data absent: set CPIKAN_DATA")
def test_the_instrument_files() -> None:
    """Published numbers by the command line; the 40 mm circle of the first is 339.2 pixels, more than its field."""
    fizeau, microscope = (str(DATA / "zygo" / name) for name in ("valid_zygo_dat_file.dat", "metropro-1.dat"))
    result, _ = run(fizeau, fizeau, "--remove", "piston,tilt", "--circle", "212,216,339.2")
    assert result["a"]["pv_nm"] == pytest.approx(330.70, abs=0.005)
    assert result["b"]["rms_nm"] == pytest.approx(44.591, abs=0.0005)
    assert result["a"]["sa_nm"] == pytest.approx(29.552, abs=0.0005)
    assert result["difference"]["pv_nm"] == 0
    result, _ = run(microscope, microscope, "--remove", "order:2")
    assert result["a"]["sq_nm"] == pytest.approx(3.911386124282179, rel=1e-10)
    assert run(microscope, microscope)[0]["b"]["sq_nm"] == pytest.approx(75.28822204734589, rel=1e-12)
    with pytest.raises(InputError, match="432 x 425"):
        run(fizeau, microscope)
    assert open_height_map(microscope).pixel_um == pytest.approx(1.0982520)
