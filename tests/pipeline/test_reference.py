"""A reference surface is taken off the heights, with its sigma, its holes and before the form; what does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cpikan.cli import main
from cpikan.errors import InputError, NothingMeasured, ResumeError
from cpikan.pipeline.maps.height_map import HeightMap, open_height_map
from cpikan.pipeline.reconstruction.plan import estimate_run
from cpikan.pipeline.reconstruction.reconstruct import reconstruct
from cpikan.pipeline.stacks.stack import open_stack

WAVES_NM = (632.8, 543.5)
STEPS = (0.0, 90.0, 180.0, 270.0)
SHAPE = (60, 90)
Y, X = np.mgrid[: SHAPE[0], : SHAPE[1]] / 100
PART_NM = 50 * X * X + 20 * np.sin(9 * Y)
FLAT_NM = 25 * np.cos(5 * X + 4 * Y) + 30 * X


def stored(folder: Path, heights: np.ndarray, waves: int, seed: int, noise: float = 0.5) -> Path:
    """Frames of a surface in a folder with its acquisition.toml."""
    lengths = np.array(WAVES_NM[:waves])[:, None, None, None]
    angle = 4 * np.pi * heights / lengths + np.radians(STEPS)[:, None, None]
    random = np.random.default_rng(seed)
    frames = np.rint(110 + 80 * np.cos(angle) + random.normal(0, noise, angle.shape)).astype(np.uint8)
    folder.mkdir()
    np.save(folder / "frames.npy", frames)
    told = ", ".join(f'"{nm} nm"' for nm in WAVES_NM[:waves])
    (folder / "acquisition.toml").write_text(
        f'wavelengths = [{told}]\nphase_steps = {list(STEPS)}\npixel_size = "5 um"\n'
    )
    return folder


def as_map(path: Path, heights: np.ndarray, sigma_nm: float | None = 2.0, pixel_um: float = 5.0) -> Path:
    arrays = {"height_nm": heights.astype(np.float32)}
    if sigma_nm is not None:
        arrays["sigma_nm"] = np.full(heights.shape, sigma_nm, np.float32)
    HeightMap(path.with_stem("made"), arrays, {"acquisition": {"pixel_um": pixel_um}}).save(path)
    return path


@pytest.mark.parametrize(
    ("waves", "how"),
    [
        (2, {}),
        (1, {}),
        (2, {"remove": "piston,tilt"}),
        (1, {"remove": "piston,tilt", "inpaint": True}),
        (2, {"method": "field"}),
    ],
    ids=["two waves", "one wave", "levelled", "filled", "field"],
)
def test_heights_are_those_of_the_part_alone(tmp_path: Path, waves: int, how: dict) -> None:
    flat = FLAT_NM.copy()
    flat[10:12, 20:25] = np.nan
    as_map(tmp_path / "flat.zarr", flat)
    place = stored(tmp_path / "part", PART_NM + FLAT_NM, waves, 1)
    plain = reconstruct(open_stack(place), tmp_path / "plain.zarr", progress=False, **how)
    with open(place / "acquisition.toml", "a", encoding="utf-8") as file:
        file.write('reference = "../flat.zarr"\n')
    found = reconstruct(open_stack(place), tmp_path / "map.zarr", progress=False, **how)
    heights, flags = np.asarray(found.height_nm), np.asarray(found.flags)
    lost = np.isnan(flat)
    if "inpaint" not in how:
        assert np.isnan(heights[lost]).all()
    assert (flags[lost] & 1).all()
    assert not (flags[~lost] & 1).any()
    truth = PART_NM.copy()
    if "remove" in how:
        design = np.stack([np.ones(SHAPE), X, Y], 2)[~lost]
        truth -= np.stack([np.ones(SHAPE), X, Y], 2) @ np.linalg.lstsq(design, truth[~lost], rcond=None)[0]
    off = (heights - truth)[~lost]
    assert np.abs(off - np.median(off)).max() < 2  # noise of 0.2 nm; without the reference it is 25
    sigma, before = np.asarray(found.sigma_nm)[~lost], np.asarray(plain.sigma_nm)[~lost]
    np.testing.assert_allclose(sigma, np.hypot(before, 2.0), rtol=1e-5)
    assert found.summary["reference"] == {"map": str(place / "../flat.zarr"), "sigma_known": True, "pixels_lost": 10}
    assert plain.summary["reference"] is None
    assert found.summary["warning_names"] == plain.summary["warning_names"]
    assert found.document["provenance"]["prepared"] == [f"heights less those of {place / '../flat.zarr'}"]
    assert "slope_x_nm_per_px" not in found.arrays
    assert "reference" in estimate_run(open_stack(place))["stages"]


def test_without_a_sigma_a_name_says_so(tmp_path: Path) -> None:
    place = stored(tmp_path / "part", PART_NM + FLAT_NM, 2, 1)
    reference = as_map(tmp_path / "flat.gsf", FLAT_NM, None)
    plain = reconstruct(open_stack(place), tmp_path / "plain.zarr", progress=False)
    found = reconstruct(open_stack(place, reference=str(reference)), tmp_path / "map.zarr", progress=False)
    assert found.summary["warning_names"] == ["reference-without-sigma"]
    assert str(reference) in found.summary["warnings"][0]
    np.testing.assert_array_equal(np.asarray(found.sigma_nm), np.asarray(plain.sigma_nm))


def test_a_run_that_goes_on_needs_the_same_reference(tmp_path: Path) -> None:
    place = stored(tmp_path / "part", PART_NM, 2, 1)
    one, other = (as_map(tmp_path / f"{k}.zarr", FLAT_NM + k) for k in (0, 1))
    reconstruct(open_stack(place, reference=str(one)), tmp_path / "map.npy", progress=False)
    with pytest.raises(ResumeError):
        reconstruct(open_stack(place, reference=str(other)), tmp_path / "map.npy", progress=False, resume=True)
    same = reconstruct(open_stack(place, reference=str(one)), tmp_path / "map.npy", progress=False, resume=True)
    assert same.summary["already_finished"]


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (lambda at: as_map(at, FLAT_NM.T), "lies on its side: measure it with the same rotate and flip"),
        (lambda at: as_map(at, FLAT_NM[1:]), "has 59 x 90 pixels, the map 60 x 90 (rows x columns)"),
        (lambda at: as_map(at, FLAT_NM, pixel_um=5.2), "has pixels of 5.2 x 5.2 um, the stack of 5 x 5 um"),
        (lambda at: at, "does not exist"),
    ],
    ids=["turned", "smaller", "other pixels", "missing"],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path: Path, made, word: str) -> None:
    place = stored(tmp_path / "part", PART_NM, 1, 1)
    with pytest.raises(InputError, match="reference") as told:
        open_stack(place, reference=str(made(tmp_path / "flat.zarr")))
    assert word in str(told.value)
    assert "\n" not in str(told.value)


def test_a_list_is_no_reference_and_an_empty_map_measures_nothing(tmp_path: Path) -> None:
    place = stored(tmp_path / "part", PART_NM, 1, 1)
    with pytest.raises(InputError, match="is no path: write reference"):
        open_stack(place, reference=["a.npy"])  # type: ignore[arg-type]
    empty = as_map(tmp_path / "flat.zarr", np.full(SHAPE, np.nan))
    with pytest.raises(NothingMeasured, match="no height at any pixel"):
        reconstruct(open_stack(place, reference=str(empty)), tmp_path / "map.npy", progress=False)
    assert not (tmp_path / "map.npy").exists()


def test_it_lies_as_the_result_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part, flat = (
        stored(tmp_path / name, heights, 1, 3) for name, heights in (("part", PART_NM + FLAT_NM), ("flat", FLAT_NM))
    )
    reconstruct(open_stack(flat, rotate=90), tmp_path / "turned.zarr", progress=False)
    reconstruct(open_stack(flat, flip="vertical"), tmp_path / "flipped.zarr", progress=False)
    out = tmp_path / "map.npy"
    argv = ["reconstruct", str(part), "-o", str(out), "--reference", str(tmp_path / "turned.zarr"), "--json"]
    assert main([*argv, "--rotate", "90"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["reference"]["sigma_known"]
    off = np.asarray(open_height_map(out).height_nm) - np.rot90(PART_NM)
    assert np.abs(off - np.median(off)).max() < 3
    with pytest.raises(
        InputError, match=r"was measured from frames turned \(upside down\), this stack from frames as stored"
    ):
        open_stack(part, reference=str(tmp_path / "flipped.zarr"))
