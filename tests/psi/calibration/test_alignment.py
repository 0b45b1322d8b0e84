"""Relative pistons and tilts between wavelengths, from phases alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from cpikan.psi.calibration.wavelengths import planning
from cpikan.psi.calibration.wavelengths.alignment import Alignment, Guess, Ranges, Samples, align, decode, off_the_data
from cpikan.psi.kernels.cpu import search_orders

TURN = 2 * np.pi
INFRARED = (5000.0, 5500.0, 6050.0, 6655.0)
VISIBLE = (488.0, 532.0, 640.0, 660.0)
SHAPE = (800, 1000)


@dataclass(frozen=True)
class Scene:
    samples: Samples
    height_nm: np.ndarray
    piston_turns: np.ndarray
    ranges: Ranges
    half_nm: float
    sigma_rad: float


def make_scene(
    seed: int,
    waves: tuple[float, ...],
    sigma_rad: float,
    *,
    extent: float,
    offset: float = 0.0,
    piston: float = 0.5,
    tilt: float = 0.0,
    pixels: int = 6000,
) -> Scene:
    """A smooth surface with steps; ``extent`` and ``offset`` in units of the range that noise allows.

    ``piston`` and ``tilt`` (across the image) in turns: uniform in plus minus that.
    """
    rng = np.random.default_rng(seed)
    half = min(waves) / 2
    sigmas = [sigma_rad] * len(waves)
    range_nm = min(planning.widest_range_nm(waves, sigmas), 12 * half)
    position = (rng.uniform(0, 1, (pixels, 2)) - 0.5) * SHAPE
    y, x = (position / np.array(SHAPE) * 2).T
    form = rng.uniform(0.3, 1) * (x * x + y * y) + rng.uniform(-1, 1) * x * y + 0.3 * (np.sin(3 * x) > 0)
    form = (form - form.min()) / np.ptp(form) - 0.5
    height = (extent * form + offset) * range_nm
    ratio = min(waves) / np.array(waves)
    pistons = rng.uniform(-piston, piston, len(waves))
    tilts = rng.uniform(-tilt, tilt, (len(waves), 2)) / SHAPE
    turns = ratio[:, None] * height / half + pistons[:, None] + tilts @ position.T
    turns += rng.normal(0, sigma_rad / TURN, turns.shape)
    samples = Samples(turns - np.rint(turns), np.full(turns.shape, (sigma_rad / TURN) ** 2), position, ratio)
    loose = [float(np.hypot(sigma_rad, 0.1))] * len(waves)
    robust = min(range_nm, planning.widest_range_nm(waves, loose, rate=1e-4))
    absolute = max(range_nm, planning.widest_range_nm(waves, [sigma_rad / 30] * len(waves)))
    ranges = Ranges(range_nm / half, robust / half, absolute / half, 131072.0 / half)
    return Scene(samples, height, pistons, ranges, half, sigma_rad)


def heights_nm(scene: Scene, found: Alignment) -> np.ndarray:
    """What the pixel pass would make of the samples with this alignment."""
    samples = scene.samples
    turns = samples.turns - found.piston_turns[:, None] - found.tilt_turns @ samples.position.T
    low = found.centre_turns - scene.ranges.full / 2
    order, correction, _, _ = search_orders(samples.ratio)(turns, samples.variance, low, scene.ranges.full)
    return (turns[0] + order + correction) * scene.half_nm


def check_heights(scene: Scene, *, tilted: bool) -> np.ndarray:
    """Heights are right but for a piston, and a plane where tilts between wavelengths were planted; returns the rest."""
    found = align(scene.samples, search_orders(scene.samples.ratio), scene.ranges)
    error = heights_nm(scene, found) - scene.height_nm
    position = scene.samples.position
    columns = np.column_stack([np.ones(len(position)), position if tilted else np.empty((len(position), 0))])
    # a wrong order is off by half a wavelength: count those first, by the distance from the median
    stray = error - columns @ np.linalg.lstsq(columns, error, rcond=None)[0]
    wrong = np.abs(stray - np.median(stray)) > 0.4 * scene.half_nm
    assert wrong.mean() <= 2e-3
    rest = error[~wrong]
    rest = rest - columns[~wrong] @ np.linalg.lstsq(columns[~wrong], rest, rcond=None)[0]
    sigma_nm = scene.half_nm * scene.sigma_rad / TURN / np.sqrt((scene.samples.ratio**2).sum())
    # pistons that are off tilt no height but move it with the order: 5 % more than noise alone is what 6000 pixels allow
    assert rest.std() < 1.05 * sigma_nm
    assert found.misfit == pytest.approx(1, abs=0.12)
    return error


@pytest.mark.parametrize("waves", [INFRARED, VISIBLE])
@pytest.mark.parametrize("sigma_rad", [0.02, 0.1])
@pytest.mark.parametrize("seed", range(6))
def test_planted_pistons_are_removed(seed: int, sigma_rad: float, waves: tuple[float, ...]) -> None:
    check_heights(make_scene(seed, waves, sigma_rad, extent=0.6), tilted=False)


@pytest.mark.parametrize("waves", [INFRARED, VISIBLE])
@pytest.mark.parametrize("seed", range(6))
def test_planted_pistons_and_tilts_are_removed(seed: int, waves: tuple[float, ...]) -> None:
    check_heights(make_scene(seed, waves, 0.03, extent=0.5, tilt=0.1), tilted=True)


@pytest.mark.parametrize("seed", range(3))
def test_high_noise(seed: int) -> None:
    check_heights(make_scene(seed, INFRARED, 0.15, extent=0.6), tilted=False)


@pytest.mark.parametrize("offset", [0.0, 0.4, -1.7])
def test_without_pistons_heights_are_absolute(offset: float) -> None:
    """Nothing planted: height zero is where all phases vanish, wherever the surface lies within ten ranges of it."""
    scene = make_scene(7, INFRARED, 0.05, extent=0.5, offset=offset, piston=0.0)
    found = align(scene.samples, search_orders(scene.samples.ratio), scene.ranges)
    assert found.absolute
    assert not found.piston_turns.any()
    error = check_heights(scene, tilted=False)
    assert abs(np.median(error)) < 1.0
    assert found.centre_turns * scene.half_nm == pytest.approx(
        (scene.height_nm.min() + scene.height_nm.max()) / 2, abs=0.02 * np.ptp(scene.height_nm)
    )


def test_pistons_make_heights_relative() -> None:
    """With pistons planted no height is special: zero lies in the middle of the data, and the result says so."""
    scene = make_scene(8, INFRARED, 0.05, extent=0.5, offset=3.0)
    found = align(scene.samples, search_orders(scene.samples.ratio), scene.ranges)
    assert not found.absolute
    assert found.centre_turns == pytest.approx(0, abs=1e-9)
    check_heights(scene, tilted=False)


def test_extent_is_that_of_the_heights() -> None:
    scene = make_scene(9, VISIBLE, 0.03, extent=0.7, piston=0.3)
    found = align(scene.samples, search_orders(scene.samples.ratio), scene.ranges)
    extent = (found.high_turns - found.low_turns) * scene.half_nm
    # all but 0.4 % of the heights, which near the corners of the form take a few per cent of the extent
    assert 0.85 * np.ptp(scene.height_nm) < extent < 1.02 * np.ptp(scene.height_nm)


def test_two_wavelengths_have_no_relative_piston_to_find() -> None:
    """One piston against one height: it can always be explained by the height of zero."""
    scene = make_scene(10, (600.0, 633.0), 0.02, extent=0.5, piston=0.4)
    check_heights(scene, tilted=False)


def put_across(height_nm: np.ndarray, sigma_rad: float, off: float) -> tuple[float, float]:
    """Lay a window of sixteen orders, off by so many turns, on heights; the extent in
    turns of 98 % of them before and after it was moved."""
    waves, half = (632.8, 594.1), 297.05
    rng = np.random.default_rng(5)
    ratio = np.array([1.0, waves[1] / waves[0]])
    turns = ratio[:, None] * height_nm / half + rng.normal(0, sigma_rad / TURN, (2, height_nm.size))
    variance = np.full(turns.shape, (sigma_rad / TURN) ** 2)
    samples = Samples(turns - np.rint(turns), variance, rng.uniform(-400, 400, (height_nm.size, 2)), ratio)
    search = search_orders(ratio)
    guess = Guess(np.zeros(2), np.zeros((2, 2)), off, 16.0)
    found = off_the_data(samples, search, guess)
    before, after = (decode(samples, search, one) for one in (guess, found))
    return tuple(float(np.ptp(np.quantile(one.heights[one.clear], [0.01, 0.99]))) for one in (before, after))


@pytest.mark.parametrize("off", [4.5, -5.0])
def test_a_window_across_the_data_is_moved_into_their_gap(off: float) -> None:
    height = np.random.default_rng(2).uniform(-1600, 1600, 4000)
    before, after = put_across(height, 0.05, off)
    assert before > 15
    assert after == pytest.approx(0.98 * 3200 / 297.05, abs=0.3)


def test_heights_at_both_ends_of_a_window_that_the_phases_tell_apart_stay_there() -> None:
    rng = np.random.default_rng(2)
    height = np.where(rng.uniform(size=4000) < 0.5, rng.uniform(-2300, -1700, 4000), rng.uniform(1700, 2300, 4000))
    before, after = put_across(height, 0.004, 0.0)
    assert before == after == pytest.approx(4600 / 297.05, abs=0.3)


def test_a_wavelength_that_says_nothing_leaves_misfits_of_zero() -> None:
    """Chi squared of one exact and one useless phase is rounding: never below zero, where thresholds that multiply fail."""
    rng = np.random.default_rng(7)
    height, ratio = rng.uniform(-0.2, 0.2, 2000), np.array([1.0, 10 / 11])
    turns = ratio[:, None] * height + rng.normal(0, [[7.5], [0.002]], (2, 2000))
    variance = np.array([[57.0], [5e-6]]) * np.ones((2, 2000))
    samples = Samples(turns - np.rint(turns), variance, rng.uniform(-40, 40, (2000, 2)), ratio)
    search = search_orders(ratio)
    assert decode(samples, search, Guess(np.zeros(2), np.zeros((2, 2)), 0.0, 11.0)).misfit.min() >= 0
    found = align(samples, search, Ranges(11.0, 11.0, 11.0, 52.0))
    assert np.isfinite(found.misfit)
