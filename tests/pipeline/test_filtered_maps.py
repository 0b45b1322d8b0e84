"""Maps that are filtered when they are read, and the numbers that are asked of them by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cpikan.cli import main
from cpikan.errors import InputError
from cpikan.pipeline.maps.height_map import HeightMap, open_height_map
from cpikan.storage.atomic import write_json
from cpikan.surface.apertures.aperture import Circle
from cpikan.surface.areal.families import FAMILIES
from cpikan.surface.filters.gaussian import gaussian_filter
from cpikan.surface.spectra.psd import axis_spectrum, plane_spectrum
from cpikan.surface.sums.measure import MeasureSettings, surface_parameters

DISC = Circle(70, 60, 55)


@pytest.fixture
def stored(tmp_path: Path) -> HeightMap:
    rng = np.random.default_rng(2)
    heights = rng.normal(0, 4, (120, 140)) + 0.3 * np.arange(140) + 20 * np.cos(np.arange(120) / 15)[:, None]
    heights[rng.random(heights.shape) < 0.05] = np.nan
    np.save(tmp_path / "a.npy", heights.astype(np.float32))
    write_json(tmp_path / "a.json", {"acquisition": {"wavelengths_nm": [632.8], "pixel_um": [2.0, 4.0]}})
    return open_height_map(tmp_path / "a.npy")


def test_filters_come_after_the_form_whatever_the_order_of_calls(stored):
    first = stored.within(DISC).remove("piston,tilt").filtered(s_filter="20 um", l_filter="0.1 mm")
    second = stored.filtered("20 um").remove("piston,tilt").within(DISC).filtered(l_filter="100 um")
    levelled = np.asarray(stored.within(DISC).remove("piston,tilt").height_nm)
    smooth = gaussian_filter(levelled, (10.0, 5.0))
    expected = smooth - gaussian_filter(smooth, (50.0, 25.0))
    for view in (first, second):
        assert np.allclose(np.asarray(view.height_nm), expected, rtol=0, atol=1e-9, equal_nan=True)
        assert np.allclose(view.height_nm[31:40, 5:90:3], expected[31:40, 5:90:3], rtol=0, atol=1e-9, equal_nan=True)
    assert "S gaussian 20 um, L gaussian 100 um" in repr(first)
    whole = np.asarray(stored.height_nm, np.float64)
    pixels = np.asarray(stored.filtered("9 px", kind="gaussian2").height_nm)
    assert np.allclose(pixels, gaussian_filter(whole, 9.0, 2), rtol=0, atol=1e-9, equal_nan=True)


def test_figures_are_those_of_the_filtered_map(stored):
    view = stored.within(DISC).remove("piston,tilt").filtered(l_filter="100 um")
    found, heights = view.figures(), np.asarray(view.height_nm)
    expected = surface_parameters(heights, MeasureSettings((), pixel_um=(2.0, 4.0)))
    assert found["sq_nm"] == pytest.approx(expected.sq_nm, rel=1e-12)
    assert found["sdr_percent"] == pytest.approx(expected.sdr_percent, rel=1e-12)
    assert (found["removed"], found["filters"]) == (["piston", "tilt"], ["L gaussian 100 um"])
    assert found["ripple_mrad"] is None
    named = view.figures("functional, sal_um,sq_nm")
    assert set(named) == {*FAMILIES["functional"].labels, "sal_um", "sq_nm"}
    assert named["sk_nm"] == FAMILIES["functional"].measure(heights, None)["sk_nm"]
    assert named["sal_um"] == FAMILIES["spatial"].measure(heights, (2.0, 4.0))["sal_um"]
    assert named["sq_nm"] == found["sq_nm"]
    assert stored.figures(["features"]) == FAMILIES["features"].measure(np.asarray(stored.height_nm), (2.0, 4.0))


def test_saved_as_it_is_read(stored, tmp_path):
    view = stored.filtered(l_filter="50 um")
    saved = view.save(tmp_path / "b.npy")
    assert np.allclose(saved.height_nm, np.asarray(view.height_nm), rtol=1e-6, equal_nan=True)
    assert saved.document["filters"] == ["L gaussian 50 um"]
    with pytest.raises(InputError, match=r"would share a\.json"):
        view.save(tmp_path / "a.tif")


def test_from_the_command_line(stored, capsys):
    flags = ["--remove", "piston,tilt", "--s-filter", "20um", "--l-filter", "0.1mm", "--figures", "functional,std_deg"]
    assert main(["evaluate", str(stored.path), *flags, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    view = stored.remove("piston,tilt").filtered("20 um", "100 um")
    assert found["sq_nm"] == view.figures()["sq_nm"]
    assert {"sk_nm", "std_deg"} <= set(found)
    assert found["sk_nm"] == view.figures(["sk_nm"])["sk_nm"]
    assert found["filters"] == ["S gaussian 20 um", "L gaussian 100 um"]
    assert main(["evaluate", str(stored.path), *flags, "--filter", "spline", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["filters"] == ["S spline 20 um", "L spline 100 um"]
    assert main(["evaluate", str(stored.path), *flags]) == 0
    told = capsys.readouterr().out
    assert "Sk " in told
    assert "S gaussian 20 um" in told


def test_profiles_spectra_and_spikes_are_those_of_the_map(stored, tmp_path):
    view = stored.remove("piston,tilt")
    heights = np.asarray(view.height_nm)
    along = view.profile([(3, 40), (90, 40)], step_um=4.0)
    assert np.array_equal(along.height_nm, heights[40, 3:91], equal_nan=True)
    assert view.spectrum("x").density == pytest.approx(axis_spectrum(heights, (2.0, 4.0)).density)
    assert view.spectrum().density == pytest.approx(plane_spectrum(heights, (2.0, 4.0)).rings().density)
    spiked = np.asarray(stored.height_nm).copy()
    spiked[50:60:3, 20:90:9] += 400
    np.save(tmp_path / "c.npy", spiked)
    clear = open_height_map(tmp_path / "c.npy").without_spikes(8)
    gone = np.isnan(np.asarray(clear.height_nm)) & np.isfinite(spiked)
    assert np.array_equal(gone, np.isfinite(spiked) & (np.abs(spiked - np.asarray(stored.height_nm)) > 100))
    assert clear.remove("piston").figures()["pixels"] == np.isfinite(spiked).sum() - gone.sum()
    assert clear.save(tmp_path / "d.npy").document["spikes"] == {"sigmas": 8, "window_px": 5}
    with pytest.raises(InputError, match="3, 5, 7"):
        stored.without_spikes(6, 4)
    with pytest.raises(InputError, match="size of a pixel"):
        clear.spectrum("x")
    with pytest.raises(InputError, match="unknown spectrum 'z'"):
        view.spectrum("z")


def test_bad_input_is_told(stored, tmp_path, capsys):
    with pytest.raises(InputError, match="no nesting index"):
        stored.filtered()
    with pytest.raises(InputError, match="unknown filter 'box'"):
        stored.filtered("3 px", kind="box")
    with pytest.raises(InputError, match="has no unit"):
        stored.filtered("30")
    with pytest.raises(InputError, match="'-3 px' is not one"):
        stored.filtered("-3 px")
    with pytest.raises(InputError, match="unknown surface number"):
        stored.figures(["sx"])
    np.save(tmp_path / "bare.npy", np.zeros((5, 5), np.float32))
    with pytest.raises(InputError, match="pixel size is not known"):
        open_height_map(tmp_path / "bare.npy").filtered("3 um")
    assert main(["evaluate", str(stored.path), str(stored.path), "--figures", "sk_nm"]) == 2
    assert "leave the truth out" in capsys.readouterr().err
