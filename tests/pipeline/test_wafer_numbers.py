"""Wafer numbers of maps against a plain evaluation over the same pixels, of one face and of two, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpikan.cli import main
from cpikan.errors import InputError
from cpikan.pipeline.maps.height_map import HeightMap
from cpikan.pipeline.maps.wafer.measure import wafer_numbers
from cpikan.pipeline.maps.wafer.settings import WaferSettings
from plain_wafer import Disc, noise_shares, plain_numbers
from test_output_page import _unexplained as unexplained

SITES = WaferSettings(diameter="100mm", sites="12x16mm")


def map_of(heights: np.ndarray, pixel_mm: float | None) -> HeightMap:
    size = {} if pixel_mm is None else {"pixel_um": pixel_mm * 1e3}
    return HeightMap(Path("made"), {"height_nm": heights}, {"acquisition": size})


def surface(name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    radius = np.hypot(x, y)
    return {
        "bowl": 20000 * (x * x + y * y) / 50**2 + 3 * x,
        "saddle": 9000 * (x * x - y * y) / 50**2,
        "ramps": 40 * ((x + 6) % 12) - 25 * ((y + 8) % 16),
        "roll-off": -30 * np.maximum(radius - 44, 0) ** 2 + 50 * np.sin(x / 7),
    }[name]


@pytest.mark.parametrize(
    ("name", "missing", "noise"), [("bowl", 0, 0), ("saddle", 0.03, 1), ("ramps", 0, 0), ("roll-off", 0.03, 0)]
)
def test_against_a_plain_evaluation(name, missing, noise):
    """Within 1e-9 of the range, far below the 1e-6 that is asked for: both are float64 over the same pixels."""
    disc = Disc(360, 50.0, missing=missing, noise_nm=noise)
    heights = disc.cut(surface(name, *disc.places()))
    found = wafer_numbers(map_of(heights, disc.pixel_mm), SITES).summary()
    close = {"abs": 1e-9 * np.nanmax(np.abs(heights)) / 1e3}
    expected = plain_numbers(heights, found)
    for key in ("gflr_um", "gfld_um", "gf3r_um", "gf3d_um", "sori_um", "bow_um"):
        assert found[key] == pytest.approx(expected[key], **close), key
    for site, plain in zip(found["sites"], expected["sites"], strict=True):
        assert {key: site[key] for key in plain} == pytest.approx(plain, **close)
    assert [one["esfqr_um"] for one in found["sectors"]] == pytest.approx(expected["esfqr_um"], **close)
    assert sum(site["pixels"] for site in found["sites"]) == found["pixels"]
    assert found["sfqr_max_um"] == max(site["sfqr_um"] for site in found["sites"] if site["full"])


def test_a_bowl_and_a_saddle_have_their_closed_forms():
    disc = Disc(360, 50.0)
    x, y = disc.places()
    bowl = wafer_numbers(map_of(disc.cut(surface("bowl", x, y)), disc.pixel_mm), SITES).summary()
    assert bowl["bow_um"] == pytest.approx(
        -20 * (46.825 / 50) ** 2, abs=20 / 50**2 * disc.pixel_mm**2
    )  # points are discs
    # the range of x^2 + y^2 up to the last pixels within 48 mm, a plane taken off: one pixel's share of the slope at the edge
    assert bowl["warp_um"] == pytest.approx(20 * (48 / 50) ** 2, abs=20 * 2 * 48 / 50**2 * disc.pixel_mm)
    assert bowl["surface"] == "front"
    assert bowl["ttv_um"] is None
    assert bowl["sites"][0]["sbir_um"] is None
    saddle = wafer_numbers(map_of(disc.cut(surface("saddle", x, y)), disc.pixel_mm), SITES).summary()
    assert saddle["gflr_um"] == pytest.approx(18 * (48 / 50) ** 2, abs=18 * 2 * 48 / 50**2 * disc.pixel_mm)


@pytest.mark.parametrize("name", ["bowl", "ramps"])
def test_noise_moves_numbers_as_far_as_the_page_says(name):
    """Four standard errors of bow and of the pixels at both ends of a range; growth below what no pixel's noise exceeds."""
    found = []
    for noise in (0.0, 1.0):
        disc = Disc(360, 50.0, missing=0.03, noise_nm=noise)
        heights = disc.cut(surface(name, *disc.places()))
        found.append(wafer_numbers(map_of(heights, disc.pixel_mm), SITES).summary())
    shares = noise_shares(found[1], found[0], 1.0)
    assert shares["bow_sigmas"] < 4
    assert shares["least_fall"] < 4
    assert 0.1 < shares["most_growth"] < 1


def test_bands_do_not_matter(monkeypatch):
    disc = Disc(360, 50.0, missing=0.03, noise_nm=5)
    given = map_of(disc.cut(surface("roll-off", *disc.places())), disc.pixel_mm)
    one = wafer_numbers(given, SITES).summary()
    monkeypatch.setattr("cpikan.pipeline.maps.wafer.faces._BLOCK_PIXELS", 2000)
    two = wafer_numbers(given, SITES).summary()
    for key, value in one.items():
        if isinstance(value, float):
            assert two[key] == pytest.approx(value, rel=1e-6), key


@pytest.fixture
def two_faces():
    """A front, the thickness, and the back in the axes of the front."""
    disc = Disc(361, 50.0)
    x, y = disc.places()
    thickness = 500 * np.sin(x / 13) + 4 * y
    front = surface("bowl", x, y) + thickness / 2
    return disc, disc.cut(front), disc.cut(thickness), disc.cut(front - thickness)


def test_the_thickness_of_a_back_is_that_of_its_map(two_faces):
    disc, front, thickness, back = two_faces
    whole = wafer_numbers(map_of(front, disc.pixel_mm), SITES, thickness=map_of(thickness, disc.pixel_mm)).summary()
    assert whole["ttv_um"] == whole["gbir_um"] == pytest.approx(np.ptp(thickness[_inside(disc, whole)]) / 1e3, rel=1e-9)
    assert (whole["surface"], whole["flatness_of"]) == ("median", "thickness")
    turned = map_of(np.ascontiguousarray(back[:, ::-1]), disc.pixel_mm)
    laid = wafer_numbers(map_of(front, disc.pixel_mm), SITES, back=turned).summary()
    outward = map_of(-turned.arrays["height_nm"], disc.pixel_mm)
    settings = WaferSettings(diameter="100mm", sites="12x16mm", back_axis="outward")
    other = wafer_numbers(map_of(front, disc.pixel_mm), settings, back=outward).summary()
    for key in ("ttv_um", "bow_um", "warp_um", "sfqr_max_um", "sbir_max_um", "sbid_max_um", "esfqr_max_um"):
        assert laid[key] == pytest.approx(whole[key], rel=1e-6), key
        assert other[key] == pytest.approx(whole[key], rel=1e-6), key
    assert not any("back axis" in one for one in (*laid["warnings"], *other["warnings"]))
    wrong = wafer_numbers(map_of(front, disc.pixel_mm), SITES, back=outward)
    assert any("back axis outward" in one for one in wrong.warnings)
    bowl = wafer_numbers(map_of(front - thickness / 2, disc.pixel_mm), SITES).summary()
    assert whole["bow_um"] == pytest.approx(bowl["bow_um"], rel=1e-9)
    assert whole["sori_um"] != pytest.approx(whole["warp_um"], rel=1e-3)


def test_a_back_is_turned_and_shifted_to_the_notch(two_faces):
    """Its own notch elsewhere: the angle of two notches is known to a pixel of arc, not better."""
    disc, front, thickness, _ = two_faces
    _x, _y = disc.places()
    turn = np.deg2rad(17.0)
    seen = Disc(361, 50.0, notch_deg=180 - 270 + 17.0)
    u, v = seen.places()
    u, v = (
        u * np.cos(turn) + v * np.sin(turn),
        v * np.cos(turn) - u * np.sin(turn),
    )  # where the pixel was before the turn
    u = -u  # and on the front
    back = seen.cut(surface("bowl", u, v) - (500 * np.sin(u / 13) + 4 * v) / 2)
    laid = wafer_numbers(map_of(front, disc.pixel_mm), SITES, back=map_of(back, disc.pixel_mm)).summary()
    whole = wafer_numbers(map_of(front, disc.pixel_mm), SITES, thickness=map_of(thickness, disc.pixel_mm)).summary()
    slope_um_per_mm = 0.8  # of the bow at the edge, which a turn does not see; a shift of 0.1 pixel does
    assert laid["ttv_um"] == pytest.approx(whole["ttv_um"], abs=2 * slope_um_per_mm * 0.15 * disc.pixel_mm)
    assert laid["warp_um"] == pytest.approx(whole["warp_um"], abs=2 * slope_um_per_mm * disc.pixel_mm)


def _inside(disc: Disc, found: dict[str, Any]) -> np.ndarray:
    x, _y = disc.places()
    column, row = found["center_px"]
    rows, columns = np.mgrid[: disc.pixels, : disc.pixels]
    return np.isfinite(disc.cut(x)) & (np.hypot(rows - row, columns - column) * disc.pixel_mm <= 48)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sites": "100x100mm"}, "does not fit"),
        ({"edge": "60mm"}, "leaves nothing"),
        ({"sites": "0.1x0.2mm"}, "larger sites"),
    ],
)
def test_settings_that_do_not_fit_the_wafer(change, words):
    disc = Disc(360, 50.0)
    given = map_of(disc.cut(np.zeros((360, 360))), disc.pixel_mm)
    with pytest.raises(InputError, match=words) as caught:
        wafer_numbers(given, WaferSettings(diameter="100mm", **change))
    assert "\n" not in str(caught.value)


def test_maps_that_say_too_little():
    disc = Disc(360, 50.0, notch_deg=None)
    heights = disc.cut(np.zeros((360, 360)))
    with pytest.raises(InputError, match="size of a pixel"):
        wafer_numbers(map_of(heights, None), SITES)
    found = wafer_numbers(map_of(heights, None), WaferSettings(pixel_size=f"{disc.pixel_mm} mm"))
    assert found.summary()["notch_deg"] is None
    assert found.summary()["diameter_mm"] == 100.0  # the usual one nearest to the outline
    assert "no notch is seen" in " ".join(found.warnings)
    with pytest.raises(InputError, match="say the diameter"):
        wafer_numbers(map_of(np.zeros((300, 300)), 1 / 3), WaferSettings())
    square = wafer_numbers(map_of(np.zeros((300, 300)), 1 / 3), SITES)
    assert square.summary()["center_px"] == [149.5, 149.5]
    assert "no wafer edge" in square.warnings[0]
    with pytest.raises(InputError, match="on the pixels of the front"):
        wafer_numbers(map_of(heights, disc.pixel_mm), SITES, thickness=map_of(heights[1:], disc.pixel_mm))


def test_sites_turn_with_the_notch():
    """A ramp along the notch's axis: turned sites see it along their height, whatever the map's axes."""
    disc = Disc(360, 50.0, notch_deg=300.0)
    x, y = disc.places()
    along = np.deg2rad(300.0)
    heights = disc.cut(1e3 * np.sin((x * np.cos(along) + y * np.sin(along)) / 10))
    upright = Disc(360, 50.0)
    _u, v = upright.places()
    same = wafer_numbers(map_of(upright.cut(1e3 * np.sin(-v / 10)), upright.pixel_mm), SITES).summary()
    settings = WaferSettings(diameter="100mm", sites="12x16mm", axes="notch")
    found = wafer_numbers(map_of(heights, disc.pixel_mm), settings).summary()
    plain = wafer_numbers(map_of(heights, disc.pixel_mm), SITES)
    assert found["site_axes_deg"] == pytest.approx(30.0, abs=0.1)
    assert found["sfqr_max_um"] == pytest.approx(same["sfqr_max_um"], abs=0.1 * disc.pixel_mm)  # the slope of a pixel
    assert abs(plain.summary()["sfqr_max_um"] - same["sfqr_max_um"]) > 0.2 * disc.pixel_mm
    assert "not at the bottom" in " ".join(plain.warnings)


def test_the_command_line(tmp_path, capsys):
    disc = Disc(360, 50.0)
    np.save(tmp_path / "front.npy", disc.cut(surface("roll-off", *disc.places())).astype(np.float32))
    arguments = ["wafer", str(tmp_path / "front.npy"), "--diameter", "100mm", "--edge", "2mm", "--sites", "13x8mm"]
    pixel = ["--pixel-size", f"{disc.pixel_mm} mm"]
    page = tmp_path / "page.html"
    assert main([*arguments, *pixel, "--json", "--report", str(page)]) == 0
    found = json.loads(capsys.readouterr().out)
    doors = "bow_um warp_um ttv_um gbir_um sfqr_max_um notch_deg center_px radius_px tha_2mm_nm tha_10mm_nm sites"
    assert set(doors.split()) <= set(found)
    assert {"x_mm", "y_mm", "sfqr_um"} <= set(found["sites"][0])
    assert unexplained(found) == set()
    assert found["ttv_um"] is None
    assert found["warnings"] == []
    assert main([*arguments, *pixel]) == 0
    assert "SFQR" in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") >= 4
    assert "SFQR" in text
    assert main(arguments) == 2
    assert "size of a pixel" in capsys.readouterr().err
