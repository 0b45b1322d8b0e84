"""Profiles, their numbers, steps, optical numbers and spikes against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cpikan.errors import InputError
from cpikan.surface.apertures.aperture import Circle
from cpikan.surface.filters.spikes import find_spikes, without_spikes
from cpikan.surface.forms.form import fit_form
from cpikan.surface.forms.optics import best_sphere, irregularity, seidel
from cpikan.surface.profiles.path import Profile, circle_profile, line_profile
from cpikan.surface.profiles.roughness import ROUGHNESS, filtered_profile, profile_numbers
from cpikan.surface.profiles.steps import groove_depth, step_between

Y, X = np.mgrid[:60.0, :80.0]
PLANE = 2 * X - 3 * Y + 5


def profile_of(heights: np.ndarray, step: float = 1.0) -> Profile:
    return Profile(step, heights, np.arange(heights.size, dtype=float), np.zeros(heights.size))


def test_a_line_over_a_plane_is_straight():
    found = line_profile(PLANE, [(10, 20), (70, 50)], (2.0, 1.0))
    assert found.step_um == 1.0
    assert found.distance_um[-1] <= math.hypot(60, 60) < found.distance_um[-1] + 1
    assert np.allclose(found.height_nm, 2 * found.x_px - 3 * found.y_px + 5, rtol=0, atol=1e-9)
    assert np.allclose(np.hypot(np.diff(found.x_px), 2 * np.diff(found.y_px)), 1.0, rtol=0, atol=1e-9)
    along = line_profile(PLANE, [(3, 7), (9, 7)])
    assert np.array_equal(along.height_nm, PLANE[7, 3:10])
    bent = line_profile(PLANE, [(0, 0), (10, 0), (10, 5)])
    assert np.array_equal(bent.height_nm, [*PLANE[0, :10], *PLANE[:6, 10]])


def test_a_circle_goes_round_counter_clockwise_as_seen():
    found = circle_profile(PLANE, (40, 30), 20.0, (2.0, 1.0))
    turn = 2 * np.pi * np.arange(found.height_nm.size) / found.height_nm.size
    assert found.step_um * found.height_nm.size == pytest.approx(2 * np.pi * 20)
    assert np.allclose(
        found.height_nm, 2 * (40 + 20 * np.cos(turn)) - 3 * (30 - 10 * np.sin(turn)) + 5, rtol=0, atol=1e-9
    )


def test_missing_heights_and_the_outside_are_missing():
    heights = PLANE.copy()
    heights[10, 10] = np.nan
    found = line_profile(heights, [(5, 10), (15, 10)]).height_nm
    assert np.isnan(found).tolist() == [k == 5 for k in range(11)]
    assert np.isnan(line_profile(heights, [(5, 10.5), (15, 10.5)]).height_nm).sum() == 1
    assert np.isnan(line_profile(heights, [(70, 5), (90, 5)]).height_nm).tolist() == [k > 9 for k in range(21)]
    assert np.isnan(line_profile(heights, [(-9, -9), (-3, -9)]).height_nm).all()


def test_numbers_of_a_sine_in_closed_form():
    heights = 10 * np.sin(2 * np.pi * (np.arange(4000) + 0.5) / 100)
    found = profile_numbers(profile_of(heights, 2.0))
    assert set(found) == set(ROUGHNESS)
    assert found["ra_nm"] == pytest.approx(20 / math.pi, rel=1e-3)
    assert found["rq_nm"] == pytest.approx(10 / math.sqrt(2), rel=1e-9)
    assert (found["rz_nm"], found["rzx_nm"]) == (pytest.approx(20 * math.cos(np.pi / 100), rel=1e-9),) * 2
    assert found["rt_nm"] == pytest.approx(found["rp_nm"] + found["rv_nm"], rel=1e-12)
    assert (found["rsk"], found["rku"]) == (pytest.approx(0, abs=1e-9), pytest.approx(1.5, rel=1e-9))
    # differences of a sine: 2 sin(half a step) instead of the step
    assert found["rdq"] == pytest.approx(10 / math.sqrt(2) * 2 * math.sin(np.pi / 100) / 2 / 1000, rel=1e-3)


def test_sections_are_averaged_and_the_largest_is_kept():
    heights = np.zeros(50)
    heights[[5, 15, 25, 35, 45]] = [1.0, 2.0, 3.0, 4.0, 10.0]
    heights[[7, 17, 27, 37, 47]] = [-1.0, -1.0, -1.0, -1.0, -6.0]
    found = profile_numbers(profile_of(heights))
    assert found["rz_nm"] == pytest.approx((2 + 3 + 4 + 5 + 16) / 5)
    assert (found["rzx_nm"], found["rt_nm"]) == (pytest.approx(16), pytest.approx(16))
    heights[30:40] = np.nan
    assert profile_numbers(profile_of(heights))["rz_nm"] is None
    assert profile_numbers(profile_of(heights))["ra_nm"] is not None
    assert set(profile_numbers(profile_of(np.full(9, np.nan))).values()) == {None}
    flat = profile_numbers(profile_of(np.full(50, 3.0)))
    assert (flat["ra_nm"], flat["rz_nm"], flat["rsk"]) == (0, 0, None)


def test_elements_are_as_wide_as_their_period():
    """Ripple below a tenth of Rz makes no elements, a gap joins none, and widths of 60 and 140 average to 100."""
    place = np.arange(2000) + 0.25
    wave, ripple = 10 * np.sin(2 * np.pi * place / 100), 0.9 * np.sin(2 * np.pi * place / 7)
    assert profile_numbers(profile_of(wave, 0.5))["rsm_um"] == pytest.approx(50, rel=1e-4)
    # a ripple moves a crossing by up to its height over the slope, 1.5 steps: the ends of 38 ways in all, half of them shared
    assert profile_numbers(profile_of(wave + ripple, 0.5))["rsm_um"] == pytest.approx(50, abs=0.5 * 2 * 1.5 / 18)
    broken = wave.copy()
    broken[950:1010] = np.nan
    assert profile_numbers(profile_of(broken, 0.5))["rsm_um"] == pytest.approx(50, rel=1e-3)
    uneven = np.concatenate([np.sin(2 * np.pi * (np.arange(n) + 0.5) / n) for n in (60, 140) * 10])
    assert profile_numbers(profile_of(uneven))["rsm_um"] == pytest.approx(100, rel=0.03)  # ends: one width of 38
    assert profile_numbers(profile_of(np.arange(50.0)))["rsm_um"] is None


def test_the_core_of_a_profile_is_that_of_its_curve():
    """A curve of three straight parts: 10 % peaks, 70 % core, 20 % pits, in any order of the heights."""
    ratio = (np.arange(20000) + 0.5) / 20000
    heights = np.interp(ratio, [0, 0.1, 0.8, 1], [300, 100, -40, -440])
    found = profile_numbers(profile_of(np.random.default_rng(0).permutation(heights)))
    assert found["rk_nm"] == pytest.approx(140 / 0.7, rel=1e-3)
    level = 100 + 0.1 * 200, -40 - 0.2 * 200  # where the line of the core ends
    above, below = (300 - level[0]) ** 2 / 4000, (level[1] + 440) ** 2 / 4000  # areas of triangles: slopes of 2000 nm
    assert found["rmrk1_percent"] == pytest.approx(100 * (300 - level[0]) / 2000, rel=1e-2)
    assert found["rmrk2_percent"] == pytest.approx(100 - 100 * (level[1] + 440) / 2000, rel=1e-2)
    assert found["rpk_nm"] == pytest.approx(2 * above / ((300 - level[0]) / 2000), rel=1e-2)
    assert found["rvk_nm"] == pytest.approx(2 * below / ((level[1] + 440) / 2000), rel=1e-2)


def test_a_filtered_profile_keeps_the_band_between():
    x = np.arange(2000)
    low, middle, high = (np.cos(2 * np.pi * x / period) for period in (2000, 80, 4))
    found = filtered_profile(profile_of(low + middle + high, 0.5), s_filter_um=8.0, l_filter_um=200.0)
    kept = 2.0 ** -((16 / 80) ** 2) * (1 - 2.0 ** -((400 / 80) ** 2))
    assert np.abs(found.height_nm - kept * middle)[400:1600].max() < 0.03  # what is left of the long wave: 1 - 2^-0.04


@pytest.mark.parametrize(("depth", "slope"), [(-25.0, 0.0), (40.0, 0.3), (-300.0, -0.2)])
def test_a_groove_on_a_slope_in_closed_form(depth, slope):
    way = np.arange(400) * 0.5
    heights = 7 + slope * way + depth * np.clip(np.minimum(way - 80, 120 - way) / 4 + 0.5, 0, 1)
    heights[[3, 200]] = np.nan
    found = groove_depth(profile_of(heights, 0.5))
    assert found.height_nm == pytest.approx(depth, rel=1e-9)
    assert found.edges_um == pytest.approx((80, 120), abs=0.2)
    assert found.rest_nm < 1e-9
    assert groove_depth(profile_of(heights, 0.5), (80.0, 120.0)).height_nm == pytest.approx(depth, rel=1e-9)


def test_the_edges_of_a_groove_do_not_count():
    way = np.arange(400.0)
    heights = np.where((way > 150) & (way < 250), -50.0, 0.0)
    heights[140:163] += 33.0  # burrs and rounding up to a sixth of the width
    heights[240:260] -= 12.0
    assert groove_depth(profile_of(heights), (150.0, 250.0)).height_nm == pytest.approx(-50, rel=1e-12)
    with pytest.raises(InputError, match="beyond both edges"):
        groove_depth(profile_of(heights[140:260]), (10.0, 110.0))
    with pytest.raises(InputError, match="0 times, not twice"):
        groove_depth(profile_of(np.zeros(50)))


def test_a_step_between_regions_of_a_tilted_map():
    upper, lower = X > 50, X < 40
    heights = PLANE + 12.5 * upper
    heights[5:9, 60:70] = np.nan
    heights[:, 40:51] = 1e6
    found = step_between(heights, upper, lower)
    assert found.height_nm == pytest.approx(12.5, rel=1e-9)
    assert step_between(heights, lower, upper).height_nm == pytest.approx(-12.5, rel=1e-9)
    with pytest.raises(InputError, match="no valid pixel"):
        step_between(heights, upper, np.zeros(upper.shape, bool))


def test_seidel_terms_are_found_as_they_were_put_in():
    y, x = np.mgrid[-50:51, -50:51] / 50.0
    radius2, angle = x * x + y * y, np.arctan2(y, x)
    heights = (
        8 * np.sqrt(radius2) * np.cos(angle - 0.4)
        + 3 * radius2
        + 20 * radius2 * np.cos(angle - 0.7) ** 2
        + 11 * radius2**1.5 * np.cos(angle + 1.1)
        - 6 * radius2**2
    )
    found = seidel(fit_form(heights, None, "zernike:9", Circle(50, 50, 50)))
    assert found.tilt_nm == pytest.approx(8, rel=1e-8)
    assert found.tilt_deg == pytest.approx(math.degrees(0.4), rel=1e-8)
    assert (found.focus_nm, found.astigmatism_nm) == (pytest.approx(3, rel=1e-8), pytest.approx(20, rel=1e-8))
    assert found.astigmatism_deg == pytest.approx(math.degrees(0.7), rel=1e-8)
    assert (found.coma_nm, found.spherical_nm) == (pytest.approx(11, rel=1e-8), pytest.approx(-6, rel=1e-8))
    assert found.coma_deg == pytest.approx(-math.degrees(1.1), rel=1e-8)
    with pytest.raises(InputError, match="zernike:9"):
        seidel(fit_form(heights, None, "zernike:8"))


@pytest.mark.parametrize("radius_mm", [0.2, -5.0, 1e4])
@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_spheres_are_found_exactly(radius_mm, tilt):
    """A cap off the middle and tilted, with a hole; radii from 1.4 times the map's half diagonal to far away."""
    y, x = (Y - 28) * 3.0, (X - 41) * 2.0  # um
    sphere = radius_mm * 1000
    square = (x - tilt * 40) ** 2 + (y + tilt * 50) ** 2
    heights = 1000 * (square / sphere / (1 + np.sqrt(1 - square / sphere**2))) + 77
    heights[5:9, 60:70] = np.nan
    found = best_sphere(heights, (3.0, 2.0))
    assert found.radius_mm == pytest.approx(radius_mm, rel=1e-7)
    assert found.rest_nm < 1e-6


def test_flat_maps_have_no_radius():
    assert abs(best_sphere(np.full((5, 6), 3.0), 1.0).radius_mm) > 1e9
    with pytest.raises(InputError, match="no sphere"):
        best_sphere(np.full((5, 6), np.nan), 1.0)


def test_irregularity_is_what_power_leaves():
    y, x = np.mgrid[-40:41, -40:41] / 40.0
    radius2 = x * x + y * y
    wave = np.sqrt(6.0) * (x * x - y * y)  # astigmatism of unit RMS
    found = irregularity(5 + 3 * x + 10 * radius2 + 2 * wave, Circle(40, 40, 40))
    assert found.power_nm == pytest.approx(10, rel=1e-9)
    assert found.pv_nm == pytest.approx(4 * math.sqrt(6), rel=1e-9)
    assert found.rms_nm == pytest.approx(2, rel=0.02)  # pixels at the rim


def test_spikes_become_missing_and_nothing_else():
    rng = np.random.default_rng(0)
    heights = PLANE + rng.normal(0, 0.2, PLANE.shape)
    heights[30:40, 20:30] = np.nan
    put = rng.choice(np.flatnonzero(np.isfinite(heights)), 12, replace=False)
    heights.ravel()[put] += rng.choice([-1.0, 1.0], 12) * 60
    found = find_spikes(heights, sigmas=8)
    assert np.flatnonzero(found).tolist() == sorted(put.tolist())
    cleared = without_spikes(heights, sigmas=8)
    assert np.array_equal(np.isnan(cleared), np.isnan(heights) | found)
    assert not find_spikes(np.full((6, 7), 3.0)).any()
    assert not find_spikes(np.full((6, 7), np.nan)).any()
    with pytest.raises(InputError, match="3, 5, 7"):
        find_spikes(heights, window=4)


@pytest.mark.parametrize(
    ("points", "told"),
    [([(1, 1)], "two or more"), ([(1, 1), (1, 1)], "points apart"), ([(0, 0), (1e9, 0)], "too long")],
)
def test_bad_paths_are_told(points, told):
    with pytest.raises(InputError, match=told):
        line_profile(PLANE, points)
