"""Surface numbers against NumPy, SciPy, closed forms and published values."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cpikan.errors import InputError
from cpikan.pipeline.maps.surface import compare_maps
from cpikan.pipeline.reconstruction.reconstruct import reconstruct
from cpikan.report.html import write_report
from cpikan.storage.instruments.zygo import open_zygo
from cpikan.surface.apertures.aperture import Circle
from cpikan.surface.forms.form import fit_form
from cpikan.surface.forms.zernike import ZernikeBasis, noll_mode
from cpikan.surface.sums.measure import MeasureSettings, measure, surface_parameters
from cpikan.surface.sums.registry import PARAMETERS, Parameter, Sums, SurfaceParameters
from cpikan.surface.sums.tallies import PVR_MODES, HeightTally, SlopeTally
from independent_frames import make_scene
from small_stacks import STEPS_DEG, WAVES_NM, stack_of

DATA = Path(os.environ.get("CPIKAN_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_data = pytest.mark.skipif(not (DATA / "zygo").is_dir(), reason="measured data absent: set CPIKAN_DATA")


def numbers(sums: HeightTally | SlopeTally, pixel_um: float | None = None) -> dict[str, float]:
    """The parameters that follow from one kind of sums."""
    given = Sums(heights=sums) if isinstance(sums, HeightTally) else Sums(slopes=sums, pixel_um=pixel_um)
    found = SurfaceParameters.of(given).summary()
    return {name: value for name, value in found.items() if value is not None and name != "pixels"}


def holes(seed: int, shape: tuple[int, int] = (23, 31), around: float = 1e5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    heights = rng.gamma(2.0, 30.0, shape) + around  # skewed, far from zero
    heights[rng.random(shape) < 0.3] = np.nan
    return heights


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 23))
def test_moments_in_bands_equal_numpy_and_scipy(seed: int, band: int) -> None:
    heights = holes(seed)
    values = heights[np.isfinite(heights)]
    tally = HeightTally(float(values.mean()))
    for start in range(0, 23, band):
        tally.add(heights[start : start + band])
    found = numbers(tally)
    assert tally.pixels == values.size
    # float64 sums of 500 values at 1e5 about their mean: 1e5 / 30 roundings of 1e-16
    assert found == pytest.approx(
        {
            "mean_nm": values.mean(),
            "pv_nm": np.ptp(values),
            "rms_nm": values.std(),
            "sa_nm": np.abs(values - values.mean()).mean(),
            "sq_nm": values.std(),
            "sp_nm": values.max() - values.mean(),
            "sv_nm": values.mean() - values.min(),
            "sz_nm": np.ptp(values),
            "ssk": stats.skew(values),
            "sku": stats.kurtosis(values, fisher=False),
        },
        rel=1e-9,
    )
    # about another origin all but Sa is the same
    other = HeightTally(float(values.mean()) + 100.0)
    other.add(heights)
    assert {k: v for k, v in numbers(other).items() if k != "sa_nm"} == pytest.approx(
        {k: v for k, v in found.items() if k != "sa_nm"}, rel=1e-9
    )


@given(st.integers(0, 2**32 - 1), st.integers(1, 13))
def test_without_an_origin_the_first_block_gives_one(seed: int, band: int) -> None:
    rng = np.random.default_rng(seed)
    heights = rng.normal(1e8, 3.0, (23, 31))  # a large mean must not eat the RMS
    heights[rng.random(heights.shape) < 0.3] = np.nan
    heights[:2] = np.nan
    tally = HeightTally()
    for start in range(0, 23, band):
        tally.add(heights[start : start + band])
    assert tally.pv_nm == np.nanmax(heights) - np.nanmin(heights)
    assert tally.rms_nm == pytest.approx(np.nanstd(heights), rel=1e-6)  # heights of 1e8 nm are stored to 1.5e-8 nm
    assert tally.mean_nm == pytest.approx(np.nanmean(heights), rel=1e-12)
    empty = HeightTally()
    empty.add(np.full((2, 3), np.nan))
    assert (empty.pv_nm, empty.rms_nm, empty.mean_nm, empty.skewness) == (None,) * 4


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 23))
def test_slopes_in_bands_equal_numpy(seed: int, band: int) -> None:
    heights = holes(seed)
    tally = SlopeTally()
    for start in range(0, 23, band):
        tally.add(start, heights[start : start + band])
    found = numbers(tally, 2.5)
    for axis, name in ((1, "x"), (0, "y")):
        slope = np.diff(heights, axis=axis)
        slope = slope[np.isfinite(slope)]
        rms = math.sqrt((slope**2).mean())
        assert found[f"slope_rms_{name}_nm_per_pixel"] == pytest.approx(rms, rel=1e-12)
        assert found[f"slope_rms_{name}_mrad"] == pytest.approx(rms / 2.5, rel=1e-12)
        assert found[f"slope_pv_{name}_nm_per_pixel"] == np.ptp(slope)
    assert found["sdq"] == pytest.approx(math.hypot(found["slope_rms_x_mrad"], found["slope_rms_y_mrad"]) / 1e3)
    assert "sdq" not in numbers(tally)


def test_slopes_of_a_plane() -> None:
    plane = np.add.outer(2.0 * np.arange(20), -3.0 * np.arange(30))
    found = surface_parameters(plane, MeasureSettings(("piston",), pixel_um=4.0))
    # rounding of heights up to 90 nm
    assert found.slope_rms_x_nm_per_pixel == pytest.approx(3.0, abs=1e-12)
    assert found.slope_rms_y_mrad == pytest.approx(0.5, abs=1e-12)
    assert found.slope_pv_x_mrad == pytest.approx(0.0, abs=1e-12)
    # a slope of 3 nm in 4 um is 0.75 mrad, of 2 nm 0.5 mrad
    assert found.sdq == pytest.approx(math.hypot(0.75, 0.5) * 1e-3, rel=1e-12)


def test_cosine_in_closed_form() -> None:
    """Whole periods of A cos: Sq = A / sqrt 2, Sa = 2 A / pi, Ssk = 0, Sku = 3 / 2."""
    found = surface_parameters(np.tile(10 * np.cos(2 * np.pi * (np.arange(4000) + 0.5) / 1000), (3, 1)))
    assert found.sq_nm == pytest.approx(10 / math.sqrt(2), rel=1e-12)
    assert found.sa_nm == pytest.approx(20 / math.pi, rel=2e-6)  # midpoint rule at the kink: (pi / 1000)^2 / 24 x 4
    assert found.ssk == pytest.approx(0, abs=1e-12)
    assert found.sku == pytest.approx(1.5, rel=1e-12)
    assert found.rms_nm == found.sq_nm
    assert found.pv_nm == found.sz_nm == pytest.approx(found.sp_nm + found.sv_nm)


def test_pvr_in_closed_form() -> None:
    """A form of the 36 terms is its own PV; a checkerboard on top adds three times its height and nothing else."""
    pupil = Circle(60, 60, 60)
    rows, columns = np.indices((121, 121))
    coefficients = np.random.default_rng(3).normal(0, 20, len(PVR_MODES))
    form = np.tensordot(coefficients, ZernikeBasis(PVR_MODES).values(*pupil.coordinates(rows, columns)), 1)
    form[~pupil.inside(0, 121, 121)] = np.nan
    settings_ = MeasureSettings((), pupil)
    alone = surface_parameters(form, settings_)
    assert alone.pvr_nm == pytest.approx(np.nanmax(form) - np.nanmin(form), rel=1e-10)
    bumpy = surface_parameters(form + 5.0 * (-1.0) ** (rows + columns), settings_)
    # the fit takes up 36 of 11 000 degrees of freedom at most: 0.2 % of 15 nm, and as much of the PV's own change
    assert bumpy.pvr_nm == pytest.approx(alone.pvr_nm + 15.0, abs=0.1)
    # a spike in the middle moves PV by its height and PVr by 3 x 2000 / sqrt(11289) = 56 through the residual, and
    # 2000 x 36 / 11289 = 6 through the fit (the leverage of the centre)
    form[60, 60] += 2000.0
    spiked = surface_parameters(form, settings_)
    assert spiked.pv_nm == pytest.approx(form[60, 60] - np.nanmin(form))
    assert spiked.pv_nm > alone.pv_nm + 1000
    assert abs(spiked.pvr_nm - alone.pvr_nm) < 65


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_bands_do_not_matter_and_combinations_are_surfaces(seed: int, band: int) -> None:
    first, second = holes(seed, (30, 40)), holes(seed + 1, (30, 40), -2e3)
    both = np.stack([first, second])
    pair = MeasureSettings(("piston", "power"), combinations=((1, 0), (0, 1), (1, -1)), pixel_um=3.0)
    found = measure(lambda: ((k, both[:, k : k + band]) for k in range(0, 30, band)), pair)
    common = np.isfinite(both).all(0)
    single = MeasureSettings(("piston", "power"), found.pupil, pixel_um=3.0)
    for surface, heights in zip(found.surfaces, (first, second, first - second), strict=True):
        expected = surface_parameters(np.where(common, heights, np.nan), single)
        assert surface.pixels == np.count_nonzero(common)
        # means are rounding of 1e5
        assert {**surface.summary(), "mean_nm": 0} == pytest.approx({**expected.summary(), "mean_nm": 0}, rel=1e-8)
    difference = [a - b for a, b in zip(found.forms[0].coefficients_nm, found.forms[1].coefficients_nm, strict=True)]
    np.testing.assert_allclose(found.forms[2].coefficients_nm, difference, atol=1e-8)


def test_numbers_are_those_of_the_levelled_map() -> None:
    heights = holes(9, (50, 60))
    pupil = Circle(28, 25, 22, 6)
    levelled = fit_form(heights, None, "piston,tilt,coma", pupil).remove(heights)
    levelled[~pupil.inside(0, 50, 60)] = np.nan
    found = surface_parameters(heights, MeasureSettings(("piston", "tilt", "coma"), pupil))
    assert found.pixels == np.isfinite(levelled).sum()
    assert found.rms_nm == pytest.approx(np.nanstd(levelled), rel=1e-9)
    assert found.pv_nm == pytest.approx(np.nanmax(levelled) - np.nanmin(levelled), rel=1e-9)
    assert found.sa_nm == pytest.approx(np.nanmean(np.abs(levelled - np.nanmean(levelled))), rel=1e-9)
    # nothing removed: Sa is about the mean all the same
    plain = surface_parameters(heights, MeasureSettings(()))
    assert plain.mean_nm == pytest.approx(np.nanmean(heights), rel=1e-12)
    assert plain.sa_nm == pytest.approx(np.nanmean(np.abs(heights - np.nanmean(heights))), rel=1e-9)


def test_little_and_nothing() -> None:
    with pytest.raises(InputError, match="no pixel is valid"):
        surface_parameters(np.full((4, 4), np.nan))
    with pytest.raises(InputError, match="two dimensions"):
        surface_parameters(np.zeros(4))
    few = np.full((8, 8), np.nan)
    few[2, 2:4] = [1.0, 4.0]
    with pytest.raises(InputError, match="2 valid pixels are too few for a form of 6 terms"):
        surface_parameters(few, MeasureSettings(("order:2",)))
    with pytest.raises(InputError, match="0 valid pixels"):
        surface_parameters(few, MeasureSettings(pupil=Circle(6, 6, 1)))
    found = surface_parameters(few)
    assert (found.pixels, found.pv_nm, found.slope_rms_x_nm_per_pixel) == (2, pytest.approx(3.0), pytest.approx(3.0))
    assert found.pvr_nm is None
    assert found.slope_rms_y_nm_per_pixel is None
    assert numbers(HeightTally()) == {}
    flat = surface_parameters(np.full((5, 5), 7.0), MeasureSettings(()))
    assert (flat.sq_nm, flat.ssk, flat.sku) == (0.0, None, None)
    assert set(SurfaceParameters.of(Sums()).summary()) >= {"pv_nm", "pvr_nm", "sa_nm", "sdq"}


def test_published_values_of_surfalize() -> None:
    """Its test surface and values (tests/test_parameters.py, 1e-6 there), which follow MountainsMap; lengths in um."""
    np.random.seed(0)  # noqa: NPY002 - the published surface is made so
    x, y = np.meshgrid(np.arange(1000), np.arange(700))
    z = np.sin(x / 200 * 2 * np.pi) + 10
    z += 0.5 * (np.sin((x - 100) / 200 * 2 * np.pi) + 1) * 0.3 * np.sin((np.sin(y / 10) + x) / 10 * 2 * np.pi)
    z += np.random.normal(size=z.shape) / 5  # noqa: NPY002
    tally, slopes = HeightTally(float(z.mean())), SlopeTally()
    tally.add(z)
    slopes.add(0, z)
    found = numbers(tally)
    published = {
        "sa_nm": 0.653132,
        "sq_nm": 0.745961,
        "sp_nm": 1.854956,
        "sv_nm": 1.998661,
        "sz_nm": 3.853617,
        "ssk": -0.08144,
        "sku": 1.818014,
    }
    assert {name: found[name] for name in published} == pytest.approx(published, abs=1e-6)
    slope = numbers(slopes, 0.1)
    # its Sdq divides both sums of differences by the number of pixels, ours each by its own count
    square = slope["slope_rms_x_mrad"] ** 2 * 999 / 1000 + slope["slope_rms_y_mrad"] ** 2 * 699 / 700
    assert math.sqrt(square) == pytest.approx(4.079605, abs=1e-6)


@needs_data
def test_published_values_of_a_fizeau_map() -> None:
    """prysm's test of its sample file: piston and tilt removed inside a 40 mm circle, which holds the whole field."""
    file = open_zygo(DATA / "zygo" / "valid_zygo_dat_file.dat")
    pixel_um = file.header.pixel_um
    assert pixel_um is not None
    pupil = Circle(212, 216, 40_000 / pixel_um)
    found = surface_parameters(file.height_nm, MeasureSettings(("piston", "tilt"), pupil, pixel_um=pixel_um))
    # half of the last digit published
    assert found.pv_nm == pytest.approx(330.70, abs=0.005)
    assert found.rms_nm == pytest.approx(44.591, abs=0.0005)
    assert found.sa_nm == pytest.approx(29.552, abs=0.0005)
    assert 1 - found.pixels / (432 * 425) == pytest.approx(0.2573, abs=5e-5)


@needs_data
def test_published_values_of_a_microscope_map() -> None:
    """SurfaceTopography's test of its sample file: as stored, and after its 'curvature' (full second order) detrend."""
    height = open_zygo(DATA / "zygo" / "metropro-1.dat").height_nm
    raw = surface_parameters(height)
    assert raw.sq_nm == pytest.approx(75.28822204734589, rel=1e-12)
    for terms in ("order:2", "piston,tilt,power,astigmatism"):
        bent = surface_parameters(height, MeasureSettings(tuple(terms.split(","))))
        assert bent.sq_nm == pytest.approx(3.911386124282179, rel=1e-10)


def test_zernike_fit_and_numbers_of_prysm() -> None:
    """Values of prysm 0.21.1: lstsq of zernike_nm_sequence(Noll 1 to 36, norm=True) and PV, RMS, Sa of what is left."""
    y, x = np.mgrid[0:101, 0:121]
    noise = np.random.default_rng(11).normal(0, 5, (101, 121))
    heights = 300 * np.cos(x / 9 + 0.3) * np.sin(y / 7) + 4.0 * y - 2.5 * x + 0.02 * (x - 60) ** 2 + noise
    heights[(x - 20) ** 2 + (y - 15) ** 2 < 81] = np.nan
    pupil = Circle(60.5, 49.0, 44.0)
    form = fit_form(heights, None, "noll:36", pupil)
    of_prysm = {
        1: 62.84998564059296,
        2: -49.438475456339276,
        3: 79.68983040137428,
        4: 23.81829933220268,
        5: 26.165371188803615,
        6: 1.4818908202266952,
        7: 8.889144851965638,
        11: 15.744038320252965,
        22: -31.08370786559586,
        29: -29.371383216292656,
        35: -3.0089731630011727,
        36: 29.529285631215245,
    }
    found = {index: form.coefficient_nm(noll_mode(index)) for index in of_prysm}
    assert found == pytest.approx(of_prysm, rel=1e-9)
    numbers = surface_parameters(heights, MeasureSettings(("noll:36",), pupil))
    assert numbers.pv_nm == pytest.approx(521.9362224556179, rel=1e-12)
    assert numbers.rms_nm == pytest.approx(48.64088262320397, rel=1e-12)
    assert numbers.sa_nm == pytest.approx(40.091075867321926, rel=1e-12)
    raw = surface_parameters(heights, MeasureSettings((), pupil))
    assert (raw.pv_nm, raw.sa_nm) == pytest.approx((1025.5497338832831, 143.75903844587438), rel=1e-12)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_infinite_heights_are_no_heights(seed: int) -> None:
    """Sums are reordered by the compiler, and still NaN and infinities stay out of all of them."""
    rng = np.random.default_rng(seed)
    heights = rng.normal(0, 3, (9, 17))
    heights[rng.random(heights.shape) < 0.3] = rng.choice([np.nan, np.inf, -np.inf])
    heights[0, 0] = 1.0
    plain = np.where(np.isfinite(heights), heights, np.nan)
    for wrong, right in ((heights, plain), (heights.astype(np.float32), plain.astype(np.float32))):
        tallies = [HeightTally(0.5), HeightTally(0.5)]
        slopes = [SlopeTally(), SlopeTally()]
        for tally, slope, values in zip(tallies, slopes, (wrong, right), strict=True):
            tally.add(values)
            slope.add(0, values)
        assert numbers(tallies[0]) == numbers(tallies[1])
        assert numbers(slopes[0]) == numbers(slopes[1])
        assert all(math.isfinite(value) for value in numbers(tallies[0]).values())


def test_a_parameter_added_here_is_in_every_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One entry of the table: `compare`, the JSON of `reconstruct --remove`, and the report's table have it."""
    spread = Parameter(
        "crest", "crest factor", "", "", ("heights",), lambda h: h.pv_nm / h.rms_nm if h.rms_nm else None
    )
    width = Parameter("pv_mrad_um", "PV over a pixel", "nm", "", ("heights", "pixel_um"), lambda h, um: h.pv_nm / um)
    for parameter in (spread, width):
        monkeypatch.setitem(PARAMETERS, parameter.name, parameter)
    np.save(tmp_path / "a.npy", holes(3))
    compared = compare_maps(tmp_path / "a.npy", tmp_path / "a.npy").summary()["a"]
    assert compared["crest"] == pytest.approx(compared["pv_nm"] / compared["rms_nm"])
    assert compared["pv_mrad_um"] is None  # nothing says the size of a pixel
    scene = make_scene(6, (60, 70), WAVES_NM, STEPS_DEG)
    made = reconstruct(stack_of(scene.frames), tmp_path / "out.npy", progress=False, remove="piston")
    surface = json.loads((tmp_path / "out.json").read_text())["summary"]["surface"]
    assert surface["crest"] == pytest.approx(surface["pv_nm"] / surface["rms_nm"])
    write_report(tmp_path / "page.html", made, progress=False)
    page = (tmp_path / "page.html").read_text()
    assert "crest factor" in page
    assert f"{surface['crest']:.6g}" in page
    assert "PV over a pixel" not in page
    with pytest.raises(AttributeError, match="no surface parameter 'svk'"):
        surface_parameters(np.eye(9)).svk  # noqa: B018


def test_a_scatter_whose_square_vanishes_has_no_skewness_and_no_kurtosis() -> None:
    tally = HeightTally(0.0)
    tally.add(np.array([[1e-120, -1e-120, 1e-120, 0.0]]))
    assert tally.rms_nm > 0
    assert tally.kurtosis is None
    assert tally.skewness is None
