"""Frames to heights, end to end, against the truth of a generator that shares nothing with the package."""

from __future__ import annotations

import itertools
import json
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import cpikan
from cpikan.pipeline.maps.height_map import HeightMap
from cpikan.pipeline.reconstruction.settings import ReconstructSettings
from cpikan.psi.model.acquisition import Acquisition
from cpikan.surface.apertures.aperture import Circle, Mask
from cpikan.surface.forms.form import fit_form
from cpikan.surface.forms.zernike import ZernikeBasis
from independent_frames import Faults, Scene, make_scene, make_stack
from small_stacks import (
    AMBIGUOUS,
    FIVE_DEG,
    INVALID,
    SATURATED,
    STEPS_DEG,
    WAVES_NM,
    contents,
    folder_of,
    leftovers,
    slopes,
    stack_of,
    without_plane,
)

SUMMARY = {  # design, section 6
    *("seconds", "seconds_start", "seconds_read", "seconds_calibrate", "seconds_demodulate", "seconds_orders"),
    *("seconds_refine", "seconds_write", "megapixels_per_second", "peak_anonymous_mib", "peak_device_mib", "method"),
    *("methods_used", "device", "phase_steps_deg", "steps", "valid_fraction", "ambiguous_fraction", "components"),
    *("sigma_nm_median", "pv_nm", "rms_nm", "output"),
}
READ_NOISE = Faults(read_noise=0.004, fringes=6.0)
# pistons and tilts between wavelengths are taken off by position: bands that do not know where they are show
TILTED = replace(READ_NOISE, aperture=0.8, holes=2, piston_rad=0.5, wavelength_tilt_rad=0.5)
SIX_DEG = (0.0, 60.0, 120.0, 180.0, 240.0, 300.0)
Maps = namedtuple("Maps", "height sigma flags")


def _maps(result: HeightMap) -> Maps:
    assert result.sigma_nm is not None
    assert result.flags is not None
    return Maps(*(np.asarray(lazy[:, :]) for lazy in (result.height_nm, result.sigma_nm, result.flags)))


def _run(stack: cpikan.FrameStack, output: Path, **options: Any) -> HeightMap:
    return cpikan.reconstruct(stack, output, all_quantities=True, progress=False, **options)


def _against_truth(scene: Scene, maps: Maps, limit_nm: float, coverage: tuple[float, float] = (0.93, 0.97)) -> None:
    """Every measured pixel has its right order, and the errors are as large as sigma says.

    ``limit_nm`` is half an order. Among n pixels the covered share scatters by sqrt(0.05 * 0.95 / n), 0.0013 for the
    28000 of these scenes, and sigma itself is known to a few percent (the noise line is fitted to 12000 samples): one
    percent of sigma moves the coverage by 0.0023. Hence 93 to 97 %.
    """
    valid = np.isfinite(maps.height)
    sure = valid & (maps.flags == 0) & scene.mask
    assert (valid == (maps.flags & INVALID == 0)).all()
    assert (np.isfinite(maps.sigma) == valid).all()
    assert (maps.sigma[valid] > 0).all()
    assert sure[scene.mask].mean() > 0.999
    error = without_plane(maps.height - scene.height_nm, sure)
    assert np.abs(error[sure]).max() < limit_nm
    covered = (np.abs(error) < 1.96 * maps.sigma)[sure].mean()
    assert coverage[0] < covered < coverage[1]


def _dark_is_dark(scene: Scene, maps: Maps, share: float = 0.15) -> None:
    """Pixels without fringes: some pass the threshold by chance (it is set from a few hundred of them), fewer unflagged."""
    valid = np.isfinite(maps.height)
    assert valid[~scene.mask].mean() < share
    assert (maps.flags == 0)[~scene.mask].mean() < 0.02


# --- forms of output -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npy", ".tif", ".zarr"])
@pytest.mark.parametrize("name", ["wafer", "mirror"])
def test_heights_against_the_truth(name, suffix, tmp_path, request):
    scene: Scene = request.getfixturevalue(name)
    steps = STEPS_DEG if name == "wafer" else FIVE_DEG
    output = tmp_path / f"out{suffix}"
    result = _run(stack_of(scene.frames, scene.wavelengths_nm, steps), output)
    maps = _maps(result)
    _against_truth(scene, maps, min(scene.wavelengths_nm) / 4)
    _dark_is_dark(scene, maps)
    assert leftovers(tmp_path) == []
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["summary"].keys() >= SUMMARY
    assert document.keys() >= {"acquisition", "settings", "summary", "calibration", "provenance"}
    summary = result.summary
    assert summary["output"] == str(output)
    assert summary["phase_steps_deg"] == [list(steps)] * len(scene.frames)
    assert summary["methods_used"] == (["pixel"] if name == "wafer" else ["unwrap"])
    valid = np.isfinite(maps.height)
    assert summary["valid_fraction"] == valid.mean()
    assert summary["ambiguous_fraction"] == (maps.flags & AMBIGUOUS > 0).sum() / valid.sum()
    # float32 sums within blocks of 512 pixels: 512 * 2^-24 at worst, far less in practice
    assert summary["rms_nm"] == pytest.approx(np.nanstd(maps.height.astype(float)), rel=1e-4)
    assert summary["pv_nm"] == pytest.approx(np.nanmax(maps.height) - np.nanmin(maps.height), rel=1e-6)
    assert summary["sigma_nm_median"] == pytest.approx(np.median(maps.sigma[valid]), rel=0.1)
    assert summary["peak_anonymous_mib"] > 10
    assert 0 < summary["seconds_calibrate"] < summary["seconds"]
    if name == "mirror":
        assert result.component is not None or suffix == ".tif"
        assert summary["components"] >= 1


def test_every_form_holds_the_same_arrays(wafer, tmp_path):
    stack = stack_of(wafer.frames)
    found = [_run(stack, tmp_path / name) for name in ("a.npy", "b.tif", "c.zarr")]
    for one, other in itertools.pairwise(found):
        for a, b in zip(_maps(one), _maps(other), strict=True):
            np.testing.assert_array_equal(a, b)
    assert found[0].modulation is None
    assert found[1].modulation is not None
    np.testing.assert_array_equal(found[1].modulation[:, :], found[2].modulation[:, :])
    sure = np.asarray(found[0].flags[:, :]) == 0
    mean_fringe = 255 * wafer.amplitude.mean(axis=0)[sure]
    shown = np.asarray(found[1].modulation[:, :])[sure]
    # B of a pixel errs by sqrt(2 / K) * 1.04 DN, its mean over four wavelengths by 0.37 DN of about 76
    assert np.median(np.abs(shown / mean_fringe - 1)) < 0.05
    group = zarr.open_group(tmp_path / "c.zarr", mode="r")
    assert set(group.group_keys()) == {"height_nm", "sigma_nm", "modulation", "flags", "OME"}


def test_npy_without_all_is_one_file_and_its_document(wafer, tmp_path):
    result = cpikan.reconstruct(stack_of(wafer.frames), tmp_path / "out.npy", progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.npy"]
    assert result.sigma_nm is None
    assert np.load(tmp_path / "out.npy").dtype == np.float32


def test_maps_of_an_older_run_do_not_stay_beside_a_newer_height(wafer, mirror, tmp_path):
    """A sigma that belongs to other heights would be taken for theirs."""
    cpikan.reconstruct(
        stack_of(mirror.frames, mirror.wavelengths_nm, FIVE_DEG),
        tmp_path / "out.npy",
        all_quantities=True,
        progress=False,
    )
    assert (tmp_path / "out.component.npy").exists()
    result = cpikan.reconstruct(stack_of(wafer.frames), tmp_path / "out.npy", overwrite=True, progress=False)
    assert (result.sigma_nm, result.flags, result.component) == (None, None, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.npy"]


def test_other_files_beside_the_output_are_left_alone(wafer, tmp_path):
    for name in ("other.npy", "out.toml", "out.height.npy", "outer.sigma.npy"):
        (tmp_path / name).write_text("kept")
    cpikan.reconstruct(stack_of(wafer.frames), tmp_path / "out.npy", progress=False)
    for name in ("other.npy", "out.toml", "out.height.npy", "outer.sigma.npy"):
        assert (tmp_path / name).read_text() == "kept"


# --- instruments with faults -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [11, 12])
def test_pistons_and_tilts_between_wavelengths(seed, tmp_path):
    faults = replace(READ_NOISE, piston_rad=0.8, wavelength_tilt_rad=0.4, holes=4, aperture=0.85)
    scene = make_scene(seed, (150, 170), WAVES_NM, STEPS_DEG, faults)
    result = _run(stack_of(scene.frames), tmp_path / "out.npy")
    # the tilts leave a plane, which is taken off here, and nothing else; sigma allows for it, for nothing tells its size
    _against_truth(scene, _maps(result), WAVES_NM[0] / 4, coverage=(0.93, 1.001))


def test_two_wavelengths(wafer, tmp_path):
    result = _run(stack_of(wafer.frames[:2]), tmp_path / "out.npy")
    _against_truth(wafer, _maps(result), WAVES_NM[0] / 4)


def test_wavelengths_in_any_order_give_the_same_surface(wafer, tmp_path):
    order = [2, 0, 3, 1]
    waves = [WAVES_NM[i] for i in order]
    result = _run(stack_of(wafer.frames[order], waves), tmp_path / "out.npy")
    _against_truth(wafer, _maps(result), WAVES_NM[0] / 4)


@pytest.mark.parametrize(("waves", "steps"), [(WAVES_NM, STEPS_DEG), ((632.8,), FIVE_DEG)], ids=["four", "one"])
def test_two_fringes_only(waves, steps, tmp_path):
    scene = make_scene(21, (150, 170), waves, steps, replace(READ_NOISE, fringes=2.0, aperture=0.9))
    maps = _maps(_run(stack_of(scene.frames, waves, steps), tmp_path / "out.npy"))
    _against_truth(scene, maps, min(waves) / 4)
    assert np.ptp(scene.height_nm[scene.mask]) < 2.01 * waves[0] / 2


def test_defocus_of_frames_is_seen_in_sigma(tmp_path):
    """A defocus per frame is not modelled: its residuals count as noise, so sigma must not shrink below the errors.

    At 0.05 rad at the corner the phase errs by up to 0.05 rad = 2.5 nm; coverage over such errors is not 95 % any more,
    yet sigma keeps it above 85 %, and no order is lost.
    """
    scene = make_scene(22, (150, 170), (632.8,), FIVE_DEG, replace(READ_NOISE, defocus_rad=0.05, aperture=0.9))
    maps = _maps(_run(stack_of(scene.frames, (632.8,), FIVE_DEG), tmp_path / "out.npy"))
    _against_truth(scene, maps, 632.8 / 4, coverage=(0.85, 1.01))


def test_constant_background_outside_the_disc_is_invalid(tmp_path):
    frames, truth, mask = make_stack(23, (120, 140), WAVES_NM, STEPS_DEG, replace(READ_NOISE, aperture=0.7))
    frames[:, :, ~mask] = 40  # as a stop that the camera sees, without a count of noise
    maps = _maps(_run(stack_of(frames), tmp_path / "out.npy"))
    assert np.isnan(maps.height[~mask]).all()
    assert (maps.flags[~mask] & INVALID).all()
    assert np.isfinite(maps.height[mask]).mean() > 0.999
    error = without_plane(maps.height - truth, mask & np.isfinite(maps.height))
    assert np.nanmax(np.abs(error)) < WAVES_NM[0] / 4


@pytest.mark.parametrize("waves", [1, 4])
def test_float_frames_with_nan(waves, tmp_path):
    names, steps = (WAVES_NM, STEPS_DEG) if waves == 4 else ((632.8,), FIVE_DEG)
    scene = make_scene(24, (120, 140), names, steps, replace(READ_NOISE, bits=None, read_noise=0.01))
    frames = scene.frames.copy()
    dead = np.zeros(scene.mask.shape, bool)
    dead[np.random.default_rng(1).random(dead.shape) < 0.01] = True
    frames[0, 2, dead] = np.nan  # one frame is enough
    maps = _maps(_run(stack_of(frames, names, steps), tmp_path / "out.npy"))
    assert np.isnan(maps.height[dead]).all()
    assert (maps.flags[dead] & INVALID).all()
    alive = replace(scene, mask=~dead)
    _against_truth(alive, maps, min(names) / 4)


@pytest.mark.parametrize("bits", [10, 12])
def test_sixteen_bit_files_of_ten_and_twelve_bits(bits, tmp_path):
    scene = make_scene(25, (120, 140), (632.8,), FIVE_DEG, replace(READ_NOISE, bits=bits))
    frames = scene.frames.copy()
    assert frames.dtype == np.uint16
    hot = np.zeros(scene.mask.shape, bool)
    hot[30:40, 50:60] = True
    frames[0, 1, hot] = 2**bits - 1
    result = _run(stack_of(frames, (632.8,), FIVE_DEG, bit_depth=bits), tmp_path / "out.npy")
    maps = _maps(result)
    assert (maps.flags[hot] & (INVALID | SATURATED) == INVALID | SATURATED).all()
    assert result.summary["saturated_fraction"] == (maps.flags & SATURATED > 0).mean() == hot.mean()
    _against_truth(replace(scene, mask=~hot), maps, 632.8 / 4)


def test_without_its_bit_depth_the_same_file_shows_its_ceiling(tmp_path):
    scene = make_scene(25, (60, 70), (632.8,), FIVE_DEG, replace(READ_NOISE, bits=10))
    frames = scene.frames.copy()
    frames[0, 1, 10:20, 10:20] = 1023
    result = _run(stack_of(frames, (632.8,), FIVE_DEG), tmp_path / "out.npy")
    assert result.summary["saturated_fraction"] == pytest.approx(100 / (60 * 70))  # the samples pile up at 1023


# --- steps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", ["nominal", "unknown"])
def test_steps_with_errors_are_estimated(steps, tmp_path):
    """Steps off by some 6 degrees leave ripples of a nanometre when trusted; estimated, only the noise of 0.45 nm is left."""
    scene = make_scene(34, (150, 170), (632.8,), SIX_DEG, replace(READ_NOISE, step_error_deg=6.0, fringes=9.0))
    trusted = _maps(_run(stack_of(scene.frames, (632.8,), SIX_DEG), tmp_path / "trusted.npy"))
    stack = stack_of(scene.frames, (632.8,), SIX_DEG if steps == "nominal" else None, steps)
    result = _run(stack, tmp_path / "out.npy")
    maps = _maps(result)
    found = np.array(result.summary["phase_steps_deg"])
    off = (found - scene.steps_deg + 180) % 360 - 180
    assert np.abs(off).max() < 0.5
    assert result.summary["steps"] == steps
    assert result.summary["sign"] == ("assumed" if steps == "unknown" else "from the steps")
    plain, better = (
        np.nanstd(without_plane(m.height - scene.height_nm, np.isfinite(m.height))) for m in (trusted, maps)
    )
    assert better < 0.5 < plain
    assert 0 < found[0, 1] < 180


def test_unknown_steps_of_several_wavelengths(tmp_path):
    scene = make_scene(34, (150, 170), WAVES_NM[:2], STEPS_DEG, replace(READ_NOISE, step_error_deg=3.0, fringes=6.0))
    result = _run(stack_of(scene.frames, steps_deg=None, steps="unknown"), tmp_path / "out.npy")
    found = np.array(result.summary["phase_steps_deg"])
    assert np.abs((found - scene.steps_deg + 180) % 360 - 180).max() < 1.0
    # a step error of 1 degree leaves up to 9 mrad = 3.5 nm of ripple beside 2 nm of noise
    _against_truth(scene, _maps(result), WAVES_NM[0] / 4, coverage=(0.80, 1.0))


# --- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["carre", "schwider-hariharan", "least-squares"])
def test_schemes(scheme, tmp_path):
    steps = STEPS_DEG if scheme == "carre" else FIVE_DEG
    scene = make_scene(41, (120, 140), (632.8,), steps, READ_NOISE)
    result = _run(stack_of(scene.frames, (632.8,), steps), tmp_path / "out.npy", scheme=scheme)
    # Carre divides: its sigma is linearised at the mean step, a few percent off at low modulation
    _against_truth(scene, _maps(result), 632.8 / 4, coverage=(0.92, 0.98))


def test_a_scheme_for_other_steps_is_refused(mirror, tmp_path):
    stack = stack_of(mirror.frames, mirror.wavelengths_nm, FIVE_DEG)
    with pytest.raises(cpikan.InputError, match="carre"):
        _run(stack, tmp_path / "out.npy", scheme="carre")
    assert list(tmp_path.iterdir()) == []


def test_finest_takes_the_shortest_wavelength_only(wafer, tmp_path):
    weighted = _maps(_run(stack_of(wafer.frames), tmp_path / "a.npy"))
    finest = _maps(_run(stack_of(wafer.frames), tmp_path / "b.npy", combine="finest"))
    _against_truth(wafer, finest, WAVES_NM[0] / 4)
    sure = (weighted.flags | finest.flags) == 0
    # four wavelengths of 5 to 6.655 um: sigma falls by sqrt(sum (5 / lambda)^2) = 1.73 where all see the same fringes
    ratio = np.median(finest.sigma[sure] / weighted.sigma[sure])
    assert 1.6 < ratio < 1.95


def test_the_range_may_be_given(wafer, tmp_path):
    short = _run(stack_of(wafer.frames), tmp_path / "a.npy", range_nm=40e3)
    assert 40e3 <= short.summary["range_nm"] < 40e3 + WAVES_NM[0] / 2  # what was asked, or up to an order more
    _against_truth(wafer, _maps(short), WAVES_NM[0] / 4)
    low = float(wafer.height_nm.min()) - 1000
    exact = _run(stack_of(wafer.frames), tmp_path / "b.npy", range_nm=(low, low + 40e3))
    maps = _maps(exact)
    _against_truth(wafer, maps, WAVES_NM[0] / 4)
    sure = maps.flags == 0
    assert abs(np.median((maps.height - wafer.height_nm)[sure])) < 1.0  # exact limits: heights count from zero


@pytest.mark.parametrize("waves", [1, 4])
@pytest.mark.parametrize("remove", [("piston",), ("tilt",), ("piston", "tilt")])
def test_remove(waves, remove, tmp_path):
    names, steps = (WAVES_NM, STEPS_DEG) if waves == 4 else ((632.8,), FIVE_DEG)
    scene = make_scene(51, (90, 130), names, steps, READ_NOISE)  # no holes: one component
    plain = _maps(_run(stack_of(scene.frames, names, steps), tmp_path / "a.npy"))
    maps = _maps(_run(stack_of(scene.frames, names, steps), tmp_path / "b.npy", remove=remove))
    np.testing.assert_array_equal(maps.flags, plain.flags)
    mean, slope_y, slope_x = slopes(maps.height)
    before = slopes(plain.height)
    # float32 heights of up to 2e4 nm are rounded to 1e-3 nm; means of 11700 of them to far less
    if "piston" in remove:
        assert abs(mean) < 1e-3
    if "tilt" in remove:
        assert abs(slope_y) < 1e-5
        assert abs(slope_x) < 1e-5
        assert np.abs(before[1:]).max() > 0.1
    else:
        np.testing.assert_allclose([slope_y, slope_x], before[1:], atol=1e-4)
    rest = without_plane(maps.height, np.isfinite(maps.height)) - without_plane(plain.height, np.isfinite(plain.height))
    assert np.nanmax(np.abs(rest)) < 5e-3


def test_remove_levels_each_component_of_one_wavelength(tmp_path):
    scene = make_scene(52, (90, 130), (632.8,), FIVE_DEG, READ_NOISE)
    mask = np.ones(scene.mask.shape, np.uint8)
    mask[:, 60:64] = 0
    result = _run(
        stack_of(scene.frames, (632.8,), FIVE_DEG), tmp_path / "out.zarr", remove="piston,tilt", mask=Mask(mask)
    )
    height, component = np.asarray(result.height_nm[:, :]), np.asarray(result.component[:, :])
    assert result.summary["components"] == 2
    assert set(np.unique(component)) == {0, 1, 2}
    assert (component[mask == 0] == 0).all()
    for number in (1, 2):
        assert abs(height[component == number].mean(dtype=float)) < 1e-3
    y, x = np.nonzero(component > 0)
    design = np.column_stack([component[y, x] == 1, component[y, x] == 2, y, x]).astype(float)
    found = np.linalg.lstsq(design, height[y, x].astype(float), rcond=None)[0]
    np.testing.assert_allclose(found[2:], 0, atol=1e-5)


@pytest.mark.parametrize("waves", [1, 4])
@pytest.mark.parametrize("circle", [None, Circle(64.0, 45.0, 43.0), Circle(64.0, 45.0, 43.0, 15.0)])
def test_remove_a_form(waves, circle, tmp_path):
    """What is taken off, and reported, is the least-squares form of the map inside the circle or annulus."""
    names, steps = (WAVES_NM, STEPS_DEG) if waves == 4 else ((632.8,), FIVE_DEG)
    scene = make_scene(53, (90, 130), names, steps, READ_NOISE)
    stack, terms = stack_of(scene.frames, names, steps), "sphere,tilt,piston,noll:11"
    plain = _maps(_run(stack, tmp_path / "a.npy", mask=circle)).height.astype(float)
    result = _run(stack, tmp_path / "b.npy", mask=circle, remove=terms)
    found, form = _maps(result).height, result.summary["form"]
    expected = fit_form(plain, None, terms, None if circle is None else circle.pupil)
    # float32 heights of up to 2e4 nm are rounded to 1e-3 nm, in the map that the expected form is fitted to
    assert np.nanmax(np.abs(found - expected.remove(plain))) < 5e-3
    pupil = expected.pupil
    assert form["circle_pixels"] == [pupil.x, pupil.y, pupil.radius, pupil.inner]
    assert form["removed"] == ["piston", "tilt", "power", "noll:11"]
    told = form["coefficients_nm"] | {"Z(0,0)": form["pistons_nm"][0]}
    assert told == pytest.approx(expected.summary(), abs=1e-2)
    assert form["noll"]["Z(4,0)"] == 11
    surface = result.summary["surface"]
    assert surface["pv_nm"] == result.summary["pv_nm"]
    assert surface["rms_nm"] == pytest.approx(np.nanstd(found.astype(float)), rel=1e-9)
    assert surface["sa_nm"] == pytest.approx(np.nanmean(np.abs(found.astype(float) - np.nanmean(found))), rel=1e-6)
    assert surface["pvr_nm"] > 0


def test_a_form_spares_the_pistons_of_components(tmp_path):
    scene = make_scene(52, (90, 130), (632.8,), FIVE_DEG, READ_NOISE)
    mask = np.ones(scene.mask.shape, np.uint8)
    mask[:, 60:64] = 0
    stack = stack_of(scene.frames, (632.8,), FIVE_DEG)
    plain = _run(stack, tmp_path / "a.zarr", mask=Mask(mask))
    bare = _run(stack, tmp_path / "b.zarr", mask=Mask(mask), remove="power,tilt")
    height, before = (np.asarray(one.height_nm[:, :], float) for one in (bare, plain))
    component = np.asarray(bare.component[:, :])
    y, x = np.nonzero(component > 0)
    form = bare.summary["form"]
    pupil = Circle(*form["circle_pixels"])
    values = ZernikeBasis(((1, 1), (1, -1), (2, 0))).values(*pupil.coordinates(y, x))
    design = np.column_stack([component[y, x] == 1, component[y, x] == 2, *values]).astype(float)
    found = np.linalg.lstsq(design, before[y, x], rcond=None)[0]
    assert form["coefficients_nm"] == pytest.approx(
        dict(zip(("Z(1,1)", "Z(1,-1)", "Z(2,0)"), found[2:], strict=True)), abs=1e-2
    )
    np.testing.assert_allclose(height[y, x], before[y, x] - design[:, 2:] @ found[2:], atol=5e-3)
    assert form["pistons_nm"] == [0.0, 0.0]


def test_too_few_pixels_for_a_form(tmp_path):
    scene = make_scene(54, (60, 60), WAVES_NM, STEPS_DEG, READ_NOISE)
    mask = np.zeros((60, 60), np.uint8)
    mask[20:26, 20:26] = 1
    with pytest.raises(cpikan.InputError, match=r"3\d valid pixels are too few to remove zernike:64 \(64 numbers\)"):
        _run(stack_of(scene.frames), tmp_path / "a.npy", mask=Mask(mask), remove="zernike:64")


def test_mask_and_circle(wafer, tmp_path):
    circle = Circle(95.0, 80.0, 50.0)
    y, x = np.indices(wafer.mask.shape)
    inside = (x - 95.0) ** 2 + (y - 80.0) ** 2 <= 50.0**2
    by_circle = _run(stack_of(wafer.frames), tmp_path / "a.npy", mask=circle)
    by_array = _run(stack_of(wafer.frames), tmp_path / "b.npy", mask=Mask(inside))
    for one, other in zip(_maps(by_circle), _maps(by_array), strict=True):
        np.testing.assert_array_equal(one, other)
    maps = _maps(by_circle)
    assert np.isnan(maps.height[~inside]).all()
    assert (maps.flags[~inside] & INVALID).all()
    _against_truth(replace(wafer, mask=wafer.mask & inside), maps, WAVES_NM[0] / 4)


@pytest.mark.parametrize("waves", [1, 4])
def test_a_mask_with_holes(waves, wafer, mirror, tmp_path):
    scene, steps = (wafer, STEPS_DEG) if waves == 4 else (mirror, FIVE_DEG)
    holes = np.ones(scene.mask.shape, bool)
    holes[20:60, 90:100] = holes[100:103, :] = False
    result = _run(stack_of(scene.frames, scene.wavelengths_nm, steps), tmp_path / "out.npy", mask=Mask(holes))
    maps = _maps(result)
    assert (maps.flags[~holes] & INVALID).all()
    open_part = replace(scene, mask=scene.mask & holes)
    if waves == 1:  # the band cuts the field in two parts of unknown height: look at the larger
        component = np.asarray(result.component[:, :])
        open_part = replace(open_part, mask=open_part.mask & (component == 1))
        maps = Maps(*(np.where(component == 1, m, f) for m, f in zip(maps, (np.nan, np.nan, INVALID), strict=True)))
    _against_truth(open_part, maps, min(scene.wavelengths_nm) / 4)


# --- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("waves", [1, 2, 4])
@pytest.mark.parametrize("shape", [(1, 400), (400, 1), (2, 300), (3, 3)])
def test_thin_images(shape, waves, tmp_path):
    names, steps = (WAVES_NM[:waves], STEPS_DEG) if waves > 1 else ((632.8,), FIVE_DEG)
    fringes = 2.0 if waves > 1 or min(shape) == 1 else 0.4  # unwrapping needs under half a fringe between pixels
    scene = make_scene(61, shape, names, steps, replace(READ_NOISE, fringes=fringes))
    for name in ("a.npy", "b.tif", "c.zarr"):
        result = _run(stack_of(scene.frames, names, steps), tmp_path / name, overwrite=True)
        maps = _maps(result)
        assert maps.height.shape == shape
        assert np.isfinite(maps.height).all()
        error = maps.height - scene.height_nm
        if min(shape) > 3:
            error = without_plane(error, np.isfinite(error))
        assert np.abs(error - np.median(error)).max() < min(names) / 4
    assert leftovers(tmp_path) == []


def test_a_tile_larger_than_the_image(mirror, tmp_path):
    stack = stack_of(mirror.frames, mirror.wavelengths_nm, FIVE_DEG)
    small = _run(stack, tmp_path / "a.npy", tile=4096, overlap=2048)
    _against_truth(mirror, _maps(small), mirror.wavelengths_nm[0] / 4)


# --- the same bits, however the work is cut --------------------------------------------------------------------------


def test_heights_do_not_depend_on_tile_bands_and_threads(tmp_path):
    frames, _, _ = make_stack(72, (160, 200), WAVES_NM, STEPS_DEG, TILTED)
    stack = stack_of(frames)
    expected = None
    cases = [{"tile": t, "overlap": 64} for t in (256, 512, 1024)]
    cases += [{"band_rows": b} for b in (1, 7, 64, 160, 1000)] + [{"threads": n} for n in (1, 2, 3, 8)]
    cases += [{"band_rows": 13, "threads": 3, "tile": 256}]
    for case in cases:
        _run(stack, tmp_path / "out.npy", overwrite=True, **case)
        found = contents(tmp_path, "out")
        assert set(found) == {"out.npy", "out.sigma.npy", "out.flags.npy"}
        expected = expected or found
        assert found == expected, case


@settings(max_examples=15, deadline=None)
@given(band_rows=st.integers(1, 70), threads=st.integers(1, 4), remove=st.booleans())
def test_any_bands_and_threads_give_the_same_bits(band_rows, threads, remove, tmp_path_factory):
    place, stack = _tiny(tmp_path_factory)
    terms = ("piston", "tilt", "zernike:16") if remove else ()
    expected = place / f"expected{remove}.npy"
    if not expected.exists():
        _run(stack, expected, remove=terms)
    _run(stack, place / f"found{remove}.npy", remove=terms, overwrite=True, band_rows=band_rows, threads=threads)
    was, now = (contents(place, f"{stem}{remove}") for stem in ("expected", "found"))
    assert list(was.values()) == list(now.values())


_TINY: list[tuple[Path, cpikan.FrameStack]] = []


def _tiny(factory: pytest.TempPathFactory) -> tuple[Path, cpikan.FrameStack]:
    if not _TINY:
        frames, _, _ = make_stack(71, (61, 37), WAVES_NM, STEPS_DEG, TILTED)
        _TINY.append((factory.mktemp("tiny"), stack_of(frames)))
    return _TINY[0]


def test_orders_of_one_wavelength_do_not_depend_on_bands_and_threads(mirror, tmp_path):
    stack = stack_of(mirror.frames, mirror.wavelengths_nm, FIVE_DEG)
    expected = None
    for case in ({}, {"threads": 1}, {"threads": 3}, {"band_rows": 1}, {"band_rows": 7, "threads": 2}):
        _run(stack, tmp_path / "out.npy", overwrite=True, tile=64, overlap=16, **case)
        found = contents(tmp_path, "out")
        assert set(found) == {"out.npy", "out.sigma.npy", "out.flags.npy", "out.component.npy"}
        expected = expected or found
        assert found == expected, case


def test_tiles_of_one_wavelength_agree_on_clean_phases(mirror, tmp_path):
    stack = stack_of(mirror.frames, mirror.wavelengths_nm, FIVE_DEG)
    found = [
        _maps(_run(stack, tmp_path / f"{tile}.npy", tile=tile, overlap=tile // 4, mask=Mask(mirror.mask)))
        for tile in (32, 64, 512)
    ]
    for maps in found[1:]:
        np.testing.assert_array_equal(maps.height, found[0].height)


# --- the door --------------------------------------------------------------------------------------------------------


def test_from_files_as_from_memory(wafer, wafer_folder, tmp_path):
    with cpikan.open_stack(wafer_folder) as stack:
        _run(stack, tmp_path / "a.npy")
    _run(stack_of(wafer.frames), tmp_path / "b.npy")
    assert list(contents(tmp_path, "a").values()) == list(contents(tmp_path, "b").values())


def test_settings_and_options_exclude_each_other(wafer, tmp_path):
    with pytest.raises(cpikan.InputError, match="not both"):
        cpikan.reconstruct(stack_of(wafer.frames), tmp_path / "out.npy", ReconstructSettings(), tile=256)
    with pytest.raises(cpikan.InputError, match="did you mean 'overlap'"):
        cpikan.reconstruct(stack_of(wafer.frames), tmp_path / "out.npy", overlapp=3)


def test_output_over_its_own_frames_is_refused(wafer, tmp_path):
    folder = folder_of(tmp_path / "frames", np.asarray(wafer.frames))
    before = contents(tmp_path, "")
    for source, output in ((folder, folder / "frames.npy"), (folder / "frames.npy", folder / "frames.npy")):
        with (
            cpikan.open_stack(source) as stack,
            pytest.raises(cpikan.InputError, match="holds the frames themselves"),
        ):
            cpikan.reconstruct(stack, output, overwrite=True, progress=False)
    assert contents(tmp_path, "") == before


def test_expected_wrong_orders_are_warned_of(tmp_path):
    """Two close wavelengths in loud noise cannot tell orders over 100 um: the run works and says so."""
    waves = (5000.0, 5050.0)
    scene = make_scene(81, (60, 70), waves, STEPS_DEG, Faults(read_noise=0.03, fringes=3.0))
    result = _run(stack_of(scene.frames, waves), tmp_path / "out.npy", range_nm=100e3)
    assert result.summary["expected_wrong_order_rate"] > 1e-4
    assert "wrong-orders" in result.summary["warning_names"]


def test_steps_of_each_wavelength_may_differ(tmp_path):
    steps = (STEPS_DEG, (0.0, 80.0, 170.0, 260.0))
    waves = WAVES_NM[:2]
    frames, truth, mask = make_stack(82, (80, 90), waves, steps, READ_NOISE)
    stack = cpikan.FrameStack.from_array(frames, Acquisition(waves, steps, "trusted"))
    maps = _maps(_run(stack, tmp_path / "out.npy"))
    error = without_plane(maps.height - truth, mask & np.isfinite(maps.height))
    assert np.nanmax(np.abs(error)) < waves[0] / 4
