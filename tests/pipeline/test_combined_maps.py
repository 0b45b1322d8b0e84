"""Work on stored maps: what NumPy does to whole arrays, what is kept of a map, what is refused, the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cpikan.cli import main
from cpikan.errors import InputError
from cpikan.pipeline.maps import combine
from cpikan.pipeline.maps.height_map import HeightMap, open_height_map
from cpikan.psi.model.flags import Flag
from cpikan.surface.apertures.polygon import Polygon
from test_output_page import _unexplained as unexplained


def map_of(heights: np.ndarray, pixel_um: float | None = 5.0, **arrays: np.ndarray) -> HeightMap:
    document = {"acquisition": {} if pixel_um is None else {"pixel_um": pixel_um}, "summary": {"pv_nm": 1.0}}
    return HeightMap(Path("made.npy"), {"height_nm": heights, **arrays}, document)


@pytest.fixture
def heights():
    found = np.random.default_rng(0).normal(size=(40, 50)) * 10
    found[5:8, 6:9] = np.nan
    return found


def test_differences_and_means(heights):
    other = heights + np.arange(50.0)
    other[0] = np.nan
    one, two = map_of(heights), map_of(other)
    np.testing.assert_array_equal(np.asarray(one.subtract(two).height_nm), heights - other)
    mean = np.asarray(one.average(two).height_nm)
    np.testing.assert_allclose(mean[1:], (heights + other)[1:] / 2)
    np.testing.assert_array_equal(mean[0], heights[0])
    assert np.isnan(np.asarray(one.average(two, fewest=2).height_nm)[0]).all()
    assert one.subtract(two).pixel_um == 5.0
    assert one.subtract(two).summary == {}  # figures of another surface


def test_a_window_takes_every_quantity_and_the_levelled_heights(heights):
    flags = np.arange(2000, dtype=np.uint8).reshape(40, 50)
    given = map_of(heights, flags=flags)
    part = given.crop(10, 3, 30, 20)
    np.testing.assert_array_equal(np.asarray(part.height_nm), heights[3:20, 10:30])
    np.testing.assert_array_equal(np.asarray(part.flags), flags[3:20, 10:30])
    flat = given.remove("piston,tilt")
    np.testing.assert_array_equal(
        np.asarray(flat.crop(10, 3, 30, 20).height_nm), np.asarray(flat.height_nm)[3:20, 10:30]
    )


def test_masks(heights):
    given = map_of(heights)
    kept = np.asarray(given.keep_between(-5, 12).height_nm)
    np.testing.assert_array_equal(np.isfinite(kept), (heights >= -5) & (heights <= 12))
    grown = np.asarray(given.grow(2).height_nm)
    expected = heights.copy()
    expected[3:10, 4:11] = np.nan
    np.testing.assert_array_equal(grown, expected)
    np.testing.assert_array_equal(np.asarray(given.grow(2).height_nm[4:12, 9:20]), expected[4:12, 9:20])
    inside = np.isfinite(np.asarray(given.within(Polygon.parse("10.5,10.5 30.5,10.5 10.5,30.5")).height_nm))
    y, x = np.mgrid[:40, :50]
    np.testing.assert_array_equal(inside, (x > 10.5) & (y > 10.5) & (x + y < 41))


def test_holes_are_filled_and_flagged_and_the_outside_is_not():
    y, x = np.mgrid[:80, :90].astype(float)
    heights = 3 + 0.2 * x
    outside = (x - 45) ** 2 + (y - 40) ** 2 > 35**2
    hole = (x - 50) ** 2 + (y - 45) ** 2 <= 3**2
    heights[outside | hole] = np.nan
    filled = map_of(heights).fill(16)
    found, flags = np.asarray(filled.height_nm), np.asarray(filled.flags)
    np.testing.assert_array_equal(np.isfinite(found), ~outside)
    np.testing.assert_array_equal(found[~outside & ~hole], heights[~outside & ~hole])
    assert (
        np.abs(found - 3 - 0.2 * x)[hole].max() < 0.2 * 3
    )  # a mean of what is around: within the slope of half the hole
    np.testing.assert_array_equal(flags, np.where(hole, Flag.INPAINTED | Flag.INVALID, 0))


def test_smaller_pixels():
    y, x = np.mgrid[:30, :40]
    given = map_of(np.sin(x / 5) * np.cos(y / 6))
    found = given.resample(2.0)
    assert found.pixel_um == 2.0
    assert found.shape == (int(29 * 2.5) + 1, int(39 * 2.5) + 1)
    y, x = np.mgrid[: found.shape[0], : found.shape[1]] * 0.4
    assert np.nanmax(np.abs(np.asarray(found.height_nm) - np.sin(x / 5) * np.cos(y / 6))) < 1 / 8 / 25 * 2
    with pytest.raises(InputError, match="larger"):
        given.resample(7.0)


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (lambda a: a.subtract(map_of(np.zeros((3, 3)))), "register or crop"),
        (lambda a: a.subtract(map_of(np.zeros((40, 50)), 6.0)), "another size"),
        (lambda a: a.crop(0, 0, 51, 10), "no part of"),
        (lambda a: a.keep_between(3, 2), "lower one first"),
        (lambda a: a.fill(1), "below two"),
        (lambda a: a.stitch(a), "grid"),
        (lambda a: a.stitch(a, grid=(1, 2), overlap=1.5), "share"),
        (lambda a: a.stitch(), "at least two"),
        (lambda a: a.average(a, fewest=3), "fewest"),
        (lambda a: combine.register(a, map_of(np.zeros((40, 50)), (5.0, 6.0))), "not square"),
        (lambda a: Polygon.parse("1,2 3"), "corners"),
    ],
)
def test_refusals_are_one_line(heights, work, words):
    with pytest.raises(InputError, match=words) as caught:
        work(map_of(heights))
    assert "\n" not in str(caught.value)


def test_the_command_line(tmp_path, capsys):
    random = np.random.default_rng(0)
    surface = np.cumsum(np.cumsum(random.normal(size=(120, 200)), 0), 1).astype(np.float32)
    left, right = str(tmp_path / "l.npy"), str(tmp_path / "r.npy")
    np.save(left, surface[:, :110])
    np.save(right, surface[:, 90:] + 1000)
    out = str(tmp_path / "out.npy")
    assert main(["map", "stitch", left, right, "-o", out, "--grid", "1x2", "--overlap", "0.2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert unexplained(found) == set()
    assert found["places_px"] == [[0.0, 0.0], [0.0, 90.0]]
    joined = np.asarray(open_height_map(out).height_nm)
    step = joined - surface
    assert np.ptp(step) < 1e-2  # float32 of 1e5 nm
    again = str(tmp_path / "again.tif")
    assert main(["map", "register", left, out, "-o", again, "--shift-only", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert unexplained(found) == set()
    assert (found["turn_deg"], found["scale"], found["shift_px"][0]) == (0.0, 1.0, 0.0)
    words = [
        "--above=-1 m",
        "--below",
        "1 m",
        "--grow",
        "1",
        "--polygon",
        "-1,-1 200,-1 200,50 -1,50",
        "--box",
        "0,0,20,60",
    ]
    assert main(["map", "crop", out, "-o", str(tmp_path / "c.npy"), *words]) == 0
    assert "60 x 20" in capsys.readouterr().out
    assert main(["map", "subtract", left, "-o", str(tmp_path / "d.npy")]) == 2
    assert "two maps" in capsys.readouterr().err
    assert main(["map", "split", left, "-o", str(tmp_path / "d.npy")]) == 2
    assert "allowed are subtract" in capsys.readouterr().err
